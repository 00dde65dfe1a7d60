package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

const (
	// singleUpload is the most bytes that go in one request; it is held in memory
	// and may be sent again.
	singleUpload = 4 << 20
	// streamChunk is what is held of a stream that cannot be read again.
	streamChunk = 8 << 20
	// statusResume is the answer that says how much has come.
	statusResume = http.StatusPermanentRedirect
)

// target is the object to make.
type target struct {
	url         URL
	contentType string
	noClobber   bool
}

func (t target) query(kind string) url.Values {
	q := url.Values{"uploadType": {kind}, "name": {t.url.Name}}
	if t.noClobber {
		q.Set("ifGenerationMatch", "0")
	}
	return q
}

func (t target) path() string { return "/upload/storage/v1/b/" + url.PathEscape(t.url.Bucket) + "/o" }

// exists makes a refused precondition of --no-clobber what it means.
func (t target) exists(err error) error {
	if t.noClobber && resource.CodeOf(err) == codes.FailedPrecondition {
		return errExists
	}
	return err
}

// uploadFile sends a file. The server is told its CRC32C ahead and stores nothing
// else; so a file that changes meanwhile, or bytes that do, are refused.
func (c *Client) uploadFile(ctx context.Context, f *os.File, size int64, t target, count func(int64)) error {
	if size <= singleUpload {
		data, err := io.ReadAll(io.LimitReader(f, singleUpload+1))
		if err != nil {
			return err
		}
		if int64(len(data)) != size {
			return changed(f.Name())
		}
		if err := c.uploadBytes(ctx, data, t); err != nil {
			return t.exists(err)
		}
		count(size)
		return nil
	}
	crc, n, err := checksum(f)
	if err != nil {
		return err
	}
	if n != size {
		return changed(f.Name())
	}
	session, err := c.startUpload(ctx, t, map[string]any{"crc32c": crcText(crc)}, size)
	if err != nil {
		return t.exists(err)
	}
	err = t.exists(c.send(ctx, session, f, size, count))
	if err != nil {
		c.abandon(ctx, session)
	}
	return err
}

func changed(name string) error {
	return resource.Errorf(codes.Aborted, "%s changed while it was read", name).WithHint("copy it when nothing writes to it")
}

func (c *Client) uploadBytes(ctx context.Context, data []byte, t target) error {
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	header := http.Header{"X-Goog-Hash": {"crc32c=" + crcText(crc)}, "Content-Type": {t.contentType}}
	return c.call(ctx, request{
		method: http.MethodPost, path: t.path(), query: t.query("media"), header: header,
		body: func() (io.Reader, int64, error) { return bytes.NewReader(data), int64(len(data)), nil },
	}, nil)
}

// startUpload opens a resumable upload; total is -1 when it is not known.
func (c *Client) startUpload(ctx context.Context, t target, metadata map[string]any, total int64) (session string, err error) {
	if t.contentType != "" {
		metadata["contentType"] = t.contentType
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if total >= 0 {
		header.Set("X-Upload-Content-Length", strconv.FormatInt(total, 10))
	}
	resp, err := c.retry(ctx, request{method: http.MethodPost, path: t.path(), query: t.query("resumable"), header: header, body: jsonBody(metadata)})
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close() // empty
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || location.Path == "" {
		return "", fmt.Errorf("upload %s: the server opened no session", t.url)
	}
	return location.RequestURI(), nil // on this server, by the way we reach it
}

// send sends the file from where the server is, as often as it takes: each try
// asks what has come, also after the server was restarted.
func (c *Client) send(ctx context.Context, session string, f *os.File, size int64, count func(int64)) error {
	at := int64(0)
	var counted atomic.Int64 // an HTTP client may read on for a moment after it has failed
	return c.patiently(ctx, func() error {
		for {
			done, err := c.sendRest(ctx, session, f, at, size, count, &counted)
			if done || err != nil && !transient(err) {
				return err
			}
			got, finished, qerr := c.received(ctx, session, size)
			if qerr != nil {
				return errors.Join(qerr, err)
			}
			count(got - counted.Swap(got)) // what was sent and did not arrive is sent again
			if finished {
				return nil
			}
			if got <= at && err != nil {
				return err // patience is for a server that takes nothing
			}
			at = got
		}
	})
}

func (c *Client) sendRest(ctx context.Context, session string, f *os.File, at, size int64, count func(int64), counted *atomic.Int64) (done bool, err error) {
	r := request{
		method: http.MethodPut, path: session,
		header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", at, size-1, size)}},
		accept: func(status int) bool { return status == statusResume },
		body: func() (io.Reader, int64, error) {
			return &counting{r: io.NewSectionReader(f, at, size-at), count: func(n int64) { counted.Add(n); count(n) }}, size - at, nil
		},
	}
	resp, err := c.once(ctx, r)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }() // read below
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode != statusResume && err == nil, err
}

// received asks how much of an upload has come.
func (c *Client) received(ctx context.Context, session string, size int64) (n int64, finished bool, err error) {
	total := "*"
	if size >= 0 {
		total = strconv.FormatInt(size, 10)
	}
	resp, err := c.once(ctx, request{
		method: http.MethodPut, path: session, header: http.Header{"Content-Range": {"bytes */" + total}},
		accept: func(status int) bool { return status == statusResume },
	})
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = resp.Body.Close() }() // nothing in it is needed
	if resp.StatusCode != statusResume {
		return max(size, 0), true, nil
	}
	text := resp.Header.Get("Range")
	if text == "" {
		return 0, false, nil
	}
	last, err := strconv.ParseInt(strings.TrimPrefix(text, "bytes=0-"), 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("the server has received %q, which cannot be read", text)
	}
	return last + 1, false, nil
}

// abandon tells the server to forget a session; if it cannot be told, the session
// expires.
func (c *Client) abandon(ctx context.Context, session string) {
	resp, err := c.once(context.WithoutCancel(ctx), request{method: http.MethodDelete, path: session, accept: func(status int) bool { return status == 499 }})
	if err == nil {
		_ = resp.Body.Close() // empty
	}
}

// uploadStream sends what cannot be read twice, piece by piece; each piece is kept
// until the server has it.
func (c *Client) uploadStream(ctx context.Context, r io.Reader, t target, count func(int64)) error {
	first, err := io.ReadAll(io.LimitReader(r, singleUpload+1))
	if err != nil {
		return err
	}
	if len(first) <= singleUpload {
		if err := c.uploadBytes(ctx, first, t); err != nil {
			return t.exists(err)
		}
		count(int64(len(first)))
		return nil
	}
	session, err := c.startUpload(ctx, t, map[string]any{}, -1)
	if err != nil {
		return t.exists(err)
	}
	err = t.exists(c.sendStream(ctx, session, io.MultiReader(bytes.NewReader(first), r), count))
	if err != nil {
		c.abandon(ctx, session)
	}
	return err
}

func (c *Client) sendStream(ctx context.Context, session string, r io.Reader, count func(int64)) error {
	p := piece{client: c, session: session, table: crc32.MakeTable(crc32.Castagnoli)}
	buf := make([]byte, streamChunk)
	for {
		n, err := io.ReadFull(r, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if err := p.send(ctx, buf[:n], last); err != nil {
			return err
		}
		if count(int64(n)); last {
			return nil
		}
	}
}

// piece is one chunk of a stream on its way.
type piece struct {
	client  *Client
	session string
	at      int64 // where the chunk begins
	crc     uint32
	table   *crc32.Table
}

func (p *piece) send(ctx context.Context, data []byte, last bool) error {
	p.crc = crc32.Update(p.crc, p.table, data)
	end := p.at + int64(len(data))
	sent := p.at // what the server has
	err := p.client.patiently(ctx, func() error {
		done, err := p.put(ctx, data[sent-p.at:], sent, last)
		if done || err != nil && !transient(err) {
			return err
		}
		got, finished, qerr := p.client.received(ctx, p.session, -1)
		switch {
		case qerr != nil:
			return errors.Join(qerr, err)
		case finished || got == end && !last:
			return nil
		case got < sent || got > end:
			return fmt.Errorf("the server has %d bytes, and %d to %d were sent", got, sent, end)
		}
		sent = got
		return resource.Errorf(codes.Unavailable, "the server took %d of %d bytes", got, end)
	})
	p.at = end
	return err
}

// put sends data at an offset; the last chunk names the total and the checksum.
func (p *piece) put(ctx context.Context, data []byte, at int64, last bool) (done bool, err error) {
	end := at + int64(len(data))
	span, total := fmt.Sprintf("%d-%d", at, end-1), "*"
	if len(data) == 0 {
		span = "*"
	}
	header := http.Header{}
	if last {
		total = strconv.FormatInt(end, 10)
		header.Set("X-Goog-Hash", "crc32c="+crcText(p.crc))
	}
	header.Set("Content-Range", "bytes "+span+"/"+total)
	resp, err := p.client.once(ctx, request{
		method: http.MethodPut, path: p.session, header: header,
		accept: func(status int) bool { return status == statusResume },
		body:   func() (io.Reader, int64, error) { return bytes.NewReader(data), int64(len(data)), nil },
	})
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }() // read below
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return false, err
	}
	if last {
		return resp.StatusCode != statusResume, nil
	}
	return resp.Header.Get("Range") == "bytes=0-"+strconv.FormatInt(end-1, 10), nil
}

// counting tells what was read.
type counting struct {
	r     io.Reader
	count func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count(int64(n))
	return n, err
}
