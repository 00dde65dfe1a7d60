package torchserve

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"

	engine "tategu/internal/torchserve"
)

// maxParts bounds the fields of a form: each costs memory beside its bytes.
const maxParts = 10_000

// readRequest reads what a handler is given: the body as the part "body", or the fields
// of a form; before them, where withQuery is set, the parameters of the URL.
func (a *API) readRequest(r *http.Request, withQuery bool) (engine.Request, error) {
	id, _ := r.Context().Value(idKey{}).(string)
	in := engine.Request{ID: id, Headers: headers(r)}
	if withQuery {
		parts, err := pairs(r.URL.RawQuery, "&;")
		if err != nil {
			return in, err
		}
		in.Parts = parts
	}
	if r.Body == nil || r.Body == http.NoBody {
		in.Parts = append(in.Parts, engine.Part{Name: "body", ContentType: mimeType(r)})
		return in, nil
	}
	parts, err := readBody(r.Header.Get("Content-Type"), http.MaxBytesReader(nil, r.Body, a.cfg.MaxRequest), r.ContentLength)
	if err != nil {
		return in, err
	}
	in.Parts = append(in.Parts, parts...)
	return in, nil
}

// readBody gives the parts of a body; size is a hint, -1 = unknown.
func readBody(contentType string, body io.Reader, size int64) ([]engine.Part, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind, _, _ = strings.Cut(contentType, ";")
		kind = strings.TrimSpace(kind)
	}
	switch {
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] != "":
		return readForm(multipart.NewReader(io.MultiReader(body, strings.NewReader("\r\n"), cutOff{}), params["boundary"]))
	case kind == "application/x-www-form-urlencoded":
		text, err := readAll(body, size)
		if err != nil {
			return nil, err
		}
		return pairs(string(text), "&")
	default:
		text, err := readAll(body, size)
		if err != nil {
			return nil, err
		}
		return []engine.Part{{Name: "body", ContentType: kind, Value: text}}, nil
	}
}

func readAll(body io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	if size > 0 && size < 1<<20 {
		b.Grow(int(size) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(body); err != nil {
		return nil, unread(err)
	}
	return b.Bytes(), nil
}

// unread is a body that could not be read: too large, or cut off.
func unread(err error) error {
	if e := told(err); e.Code == http.StatusRequestEntityTooLarge {
		return e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failure(http.StatusRequestTimeout, engine.RequestTimeout, "The body of the request stopped coming.")
	}
	return badRequest("The body of the request cannot be read: %v", err)
}

// cutOff is what comes behind a form: nothing of it is read where the form is whole.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func readForm(form *multipart.Reader) ([]engine.Part, error) {
	var parts []engine.Part
	for {
		p, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err != nil {
			return nil, unread(err)
		}
		if len(parts) == maxParts {
			return nil, badRequest("The form has more than %d fields.", maxParts)
		}
		value, err := readAll(p, -1)
		if err != nil {
			return nil, err
		}
		part := engine.Part{Name: p.FormName(), Value: value}
		if p.FileName() != "" {
			if part.ContentType, _, err = mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil {
				part.ContentType = "application/octet-stream"
			}
		}
		parts = append(parts, part)
	}
}

// pairs reads NAME=VALUE fields, in their order.
func pairs(text, separators string) ([]engine.Part, error) {
	var parts []engine.Part
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if len(parts) == maxParts {
			return nil, badRequest("The request has more than %d parameters.", maxParts)
		}
		name, value, _ := strings.Cut(field, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, badRequest("A parameter's name is not encoded as URLs are: %v", err)
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return nil, badRequest("Parameter %s is not encoded as URLs are: %v", name, err)
		}
		parts = append(parts, engine.Part{Name: name, Value: []byte(value)})
	}
	return parts, nil
}

func mimeType(r *http.Request) string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(kind)
}

// headers are those of a request as handlers see them. The server does not know how a
// client spelled a name, and handlers look names up as they are, so that one that is not
// of every client is there in small letters as well.
func headers(r *http.Request) []engine.Pair {
	hs := make([]engine.Pair, 0, 2*len(r.Header)+1)
	hs = append(hs, engine.Pair{Name: "Host", Value: r.Host})
	for name, values := range r.Header {
		for _, v := range values {
			hs = append(hs, engine.Pair{Name: name, Value: v})
			switch name {
			case "Accept", "Accept-Encoding", "Connection", "Content-Length", "User-Agent":
			default:
				hs = append(hs, engine.Pair{Name: strings.ToLower(name), Value: v})
			}
		}
	}
	return hs
}

// param is a parameter of the URL, its first; def where there is none.
func param(q url.Values, name, def string) string {
	if v, ok := q[name]; ok && len(v) > 0 {
		return v[0]
	}
	return def
}
