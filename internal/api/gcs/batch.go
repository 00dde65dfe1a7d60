package gcs

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"tategu/internal/resource"
)

// Bounds of a batch (cloud.google.com/storage/docs/batch).
const (
	maxBatchCalls = 100
	maxBatchBytes = 10 << 20
)

// batch runs several JSON calls one after the other. Each has its own outcome;
// the batch itself fails only when it cannot be read.
func (h *Handler) batch(c *call) error {
	requests, err := readBatch(c)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	parts := multipart.NewWriter(&out)
	for _, b := range requests {
		answer := &recorder{header: http.Header{}, status: http.StatusOK}
		h.serve(answer, b.r.WithContext(c.ctx()), true)
		header := textproto.MIMEHeader{"Content-Type": {"application/http"}}
		if b.id != "" {
			header.Set("Content-ID", "<response-"+strings.Trim(b.id, "<>")+">")
		}
		w, err := parts.CreatePart(header)
		if err != nil {
			return err
		}
		if err := answer.write(w); err != nil {
			return err
		}
	}
	if err := parts.Close(); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", `multipart/mixed; boundary="`+parts.Boundary()+`"`)
	c.w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(out.Bytes()) // the client may be gone
	return nil
}

type batched struct {
	id string
	r  *http.Request
}

func readBatch(c *call) ([]batched, error) {
	parts, err := relatedParts(c.r.Header.Get("Content-Type"), io.LimitReader(body{c.r.Body}, maxBatchBytes))
	if err != nil {
		return nil, err
	}
	var out []batched
	for {
		p, err := parts.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, resource.Invalid("body", "the batch cannot be read: %w", err)
		}
		if len(out) == maxBatchCalls {
			return nil, resource.Invalid("body", "a batch holds at most %d calls", maxBatchCalls)
		}
		b := batched{id: p.Header.Get("Content-ID")}
		if b.r, err = readInner(c.r, p); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		return nil, resource.Invalid("body", "the batch is empty")
	}
	return out, nil
}

// readInner reads one call: a request line, headers, and a body up to the end of
// the part, whatever length it says.
func readInner(outer *http.Request, p io.Reader) (*http.Request, error) {
	buf := bufio.NewReader(p)
	r, err := http.ReadRequest(buf)
	if err != nil {
		return nil, resource.Invalid("body", "a call of the batch cannot be read: %w", err)
	}
	text, err := io.ReadAll(io.MultiReader(r.Body, buf))
	if err != nil {
		return nil, resource.Invalid("body", "a call of the batch cannot be read: %w", err)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	r.Host, r.TLS = outer.Host, outer.TLS
	return r, nil
}

// recorder keeps one answer of a batch.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) write(w io.Writer) error {
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 " + strconv.Itoa(r.status) + " " + statusText(r.status) + "\r\n")
	r.header.Set("Content-Length", strconv.Itoa(r.body.Len()))
	if err := r.header.Write(&head); err != nil {
		return err
	}
	head.WriteString("\r\n")
	if _, err := w.Write(head.Bytes()); err != nil {
		return err
	}
	_, err := w.Write(r.body.Bytes())
	return err
}

func statusText(status int) string {
	if s := http.StatusText(status); s != "" {
		return s
	}
	return "Unknown"
}
