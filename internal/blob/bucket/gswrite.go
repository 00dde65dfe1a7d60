package bucket

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"gocloud.dev/blob/driver"
)

// gsQuantum is what parts of an upload are multiples of, but the last.
const gsQuantum = 256 << 10

// gsWriter uploads an object: one that fits the buffer with one request, a longer one
// in parts, https://docs.cloud.google.com/storage/docs/resumable-uploads.
type gsWriter struct {
	ctx     context.Context //nolint:containedctx // an io.Writer of one call
	b       *gsBucket
	object  gsObject
	query   url.Values
	session string // where the parts go; "" before the first
	buf     []byte // bytes from start, not known to be kept
	start   int64
	kept    int64 // what the service has
	crc     uint32
	done    bool
}

// NewTypedWriter implements driver.Bucket.
func (b *gsBucket) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if opts.BeforeWrite != nil {
		if err := opts.BeforeWrite(b.As); err != nil {
			return nil, err
		}
	}
	size := opts.BufferSize
	if size <= 0 {
		size = partSize
	}
	w := &gsWriter{ctx: ctx, b: b, query: url.Values{"fields": {"crc32c"}}, buf: make([]byte, 0, (size+gsQuantum-1)/gsQuantum*gsQuantum)}
	w.object = gsObject{
		Name: key, ContentType: contentType, CacheControl: opts.CacheControl, ContentDisposition: opts.ContentDisposition,
		ContentEncoding: opts.ContentEncoding, ContentLanguage: opts.ContentLanguage, Metadata: opts.Metadata,
		MD5: base64.StdEncoding.EncodeToString(opts.ContentMD5),
	}
	if opts.IfNotExist {
		w.query.Set("ifGenerationMatch", "0")
	}
	return w, nil
}

// Write implements io.Writer. A full buffer is sent when more comes, so that the last
// part is never empty.
func (w *gsWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.part(false); err != nil {
				return n, err
			}
		}
		take := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:take]...)
		w.crc = crc32.Update(w.crc, crc32.MakeTable(crc32.Castagnoli), p[:take])
		n, p = n+take, p[take:]
	}
	return n, w.ctx.Err()
}

// Close implements io.Closer. The object is there when it returns nil; after the end
// of the context nothing is.
func (w *gsWriter) Close() error {
	if err := w.ctx.Err(); err != nil {
		w.abandon()
		return err
	}
	if w.session == "" {
		return w.whole()
	}
	return w.part(true)
}

// abandon tells the service that no more parts come. That it may not hear of it does
// not matter: it forgets uploads that end nowhere.
func (w *gsWriter) abandon() {
	if w.session == "" || w.done {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), grace/6)
	defer cancel()
	response, err := w.b.once(ctx, gsRequest{method: http.MethodDelete, url: w.session, accept: 499})
	if err == nil {
		_ = response.Body.Close()
	}
}

func (w *gsWriter) upload(kind string) string {
	w.query.Set("uploadType", kind)
	return w.b.endpoint + "/upload/storage/v1" + w.b.bucket + "?" + w.query.Encode()
}

// whole sends attributes and bytes as the two parts of one body.
func (w *gsWriter) whole() error {
	meta, err := json.Marshal(w.object)
	if err != nil {
		return err
	}
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	part, err := form.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json; charset=UTF-8"}})
	if err == nil {
		_, err = part.Write(meta)
	}
	if err == nil {
		_, err = form.CreatePart(textproto.MIMEHeader{"Content-Type": {w.object.ContentType}}) // the bytes follow
	}
	if err != nil {
		return err
	}
	tail := "\r\n--" + form.Boundary() + "--\r\n"
	var answer gsObject
	err = w.b.call(w.ctx, gsRequest{
		method: http.MethodPost, url: w.upload("multipart"), header: map[string]string{"Content-Type": "multipart/related; boundary=" + form.Boundary()},
		size: int64(head.Len() + len(w.buf) + len(tail)),
		body: func() io.Reader {
			return io.MultiReader(bytes.NewReader(head.Bytes()), bytes.NewReader(w.buf), strings.NewReader(tail))
		},
	}, &answer)
	if err != nil {
		return err
	}
	return w.check(answer)
}

// begin opens an upload in parts.
func (w *gsWriter) begin() error {
	meta, err := json.Marshal(w.object)
	if err != nil {
		return err
	}
	response, err := w.b.do(w.ctx, gsRequest{
		method: http.MethodPost, url: w.upload("resumable"), size: int64(len(meta)), body: func() io.Reader { return bytes.NewReader(meta) },
		header: map[string]string{"Content-Type": "application/json; charset=UTF-8", "X-Upload-Content-Type": w.object.ContentType},
	})
	if err != nil {
		return err
	}
	if w.session = response.Header.Get("Location"); w.session == "" {
		err = errors.New("the service did not say where the upload goes")
	}
	return errors.Join(err, response.Body.Close())
}

// part sends the buffer. After a failure the service is asked what it kept.
func (w *gsWriter) part(last bool) error {
	if w.session == "" {
		if err := w.begin(); err != nil {
			return err
		}
	}
	ask := false
	for attempt := 1; ; {
		before := w.kept
		err := w.send(ask, last)
		switch {
		case w.done:
			return err
		case err == nil && !last && w.kept == w.start+int64(len(w.buf)):
			w.start, w.buf = w.kept, w.buf[:0]
			return nil
		case err == nil && (ask || w.kept > before):
			ask = false // to send what it did not keep
			continue
		case err == nil:
			err = errors.New("the service keeps nothing of what it is sent")
		case httpStatus(err) == http.StatusNotFound || httpStatus(err) == http.StatusGone:
			return fmt.Errorf("the service has forgotten the upload: %v", err) //nolint:errorlint // must not look like a missing bucket
		case !temporary(w.ctx, err):
			return err
		}
		if attempt++; attempt > attempts {
			return err
		}
		if stopped := w.b.wait(w.ctx, attempt-1); stopped != nil {
			return errors.Join(stopped, err)
		}
		ask = true
	}
}

// send makes one request: with what the service has not kept, or, to ask, with nothing.
func (w *gsWriter) send(ask, last bool) error {
	end := w.start + int64(len(w.buf))
	total, span := "*", "*"
	if last {
		total = strconv.FormatInt(end, 10)
	}
	r := gsRequest{method: http.MethodPut, url: w.session, accept: http.StatusPermanentRedirect}
	if rest := w.buf[w.kept-w.start:]; !ask && len(rest) > 0 {
		span = fmt.Sprintf("%d-%d", w.kept, end-1)
		r.size, r.body = int64(len(rest)), func() io.Reader { return bytes.NewReader(rest) }
	}
	r.header = map[string]string{"Content-Range": "bytes " + span + "/" + total}
	response, err := w.b.once(w.ctx, r)
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusPermanentRedirect {
		return errors.Join(w.keep(response.Header.Get("Range"), end), response.Body.Close())
	}
	w.done = true
	var answer gsObject
	err = json.NewDecoder(response.Body).Decode(&answer)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if !last {
		return errors.New("the service ended an upload that was not complete")
	}
	return w.check(answer)
}

// keep learns how far the service is from the Range of its answer; without one it has nothing.
func (w *gsWriter) keep(kept string, end int64) error {
	has := int64(0)
	if _, last, ok := strings.Cut(kept, "-"); ok {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return fmt.Errorf("the service says that it keeps %q", kept)
		}
		has = n + 1
	}
	if has < w.kept || has > end {
		w.done = true
		return fmt.Errorf("the service says that it keeps %d bytes, of %d to %d", has, w.kept, end)
	}
	w.kept = has
	return nil
}

// check compares the sums, where the service gives one.
func (w *gsWriter) check(o gsObject) error {
	w.done = true
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, w.crc))
	if o.CRC32C == "" || o.CRC32C == sum {
		return nil
	}
	err := fmt.Errorf("the service stored other bytes: CRC32C %s, sent %s", o.CRC32C, sum)
	return errors.Join(err, w.b.Delete(context.WithoutCancel(w.ctx), w.object.Name, &driver.DeleteOptions{}))
}
