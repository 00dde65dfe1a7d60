package gcs

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// partReader reads the parts of a body, and tells one that came to its end from
// one that was cut off: a library that stops at either must not decide what is
// stored.
type partReader struct {
	multi *multipart.Reader
	end   *endWatch
}

// relatedParts reads a body by the boundary of its Content-Type.
func relatedParts(contentType string, r io.Reader) (*partReader, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || !strings.HasPrefix(kind, "multipart/") || params["boundary"] == "" {
		return nil, resource.Invalid("Content-Type", "%q is not multipart with a boundary", contentType)
	}
	w := &endWatch{r: r, end: []byte("\n--" + params["boundary"] + "--"), tail: []byte("\n")}
	return &partReader{multi: multipart.NewReader(w, params["boundary"]), end: w}, nil
}

// next gives the next part; io.EOF only when the closing boundary was there.
func (p *partReader) next() (*multipart.Part, error) {
	part, err := p.multi.NextRawPart()
	if errors.Is(err, io.EOF) && !p.end.seen {
		return nil, &clientError{err: io.ErrUnexpectedEOF}
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return part, err
}

// must gives a part that has to be there.
func (p *partReader) must() (*multipart.Part, error) {
	part, err := p.next()
	if err == nil {
		return part, nil
	}
	if _, ok := errors.AsType[*clientError](err); ok {
		return nil, err
	}
	return nil, resource.Invalid("body", "the body does not have the parts that its Content-Type promises: %w", err)
}

// endWatch looks for the closing boundary in what is read through it.
type endWatch struct {
	r    io.Reader
	end  []byte // with the line break before it
	tail []byte // the last bytes read, which the boundary may have begun in
	seen bool
}

func (w *endWatch) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.seen || n == 0 {
		return n, err
	}
	got, keep := p[:n], len(w.end)-1
	edge := slices.Concat(w.tail, got[:min(n, keep)])
	w.seen = bytes.Contains(edge, w.end) || bytes.Contains(got, w.end)
	if n >= keep {
		w.tail = append(w.tail[:0], got[n-keep:]...)
	} else {
		w.tail = append(w.tail[:0], edge[max(len(edge)-keep, 0):]...)
	}
	return n, err
}
