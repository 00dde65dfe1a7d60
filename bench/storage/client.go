package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

const buffer = 1 << 20

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, DisableCompression: true, WriteBufferSize: buffer, ReadBufferSize: buffer,
	}}
}

// discard sends a request and reads its answer to the end.
func (s *server) discard(req *http.Request) error {
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL.Path, resp.Status, text)
	}
	return err
}

// upload sends body as one object.
func (s *server) upload(ctx context.Context, bucket, name string, body io.Reader, size int64) error {
	u := s.base + "/upload/storage/v1/b/" + bucket + "/o?uploadType=media&name=" + url.QueryEscape(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	return s.discard(req)
}

func (s *server) uploadFile(ctx context.Context, bucket, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return s.upload(ctx, bucket, name, f, info.Size())
}

// download reads one object to its end, into w.
func (s *server) download(ctx context.Context, bucket, name string, w io.Writer, size int64) error {
	u := s.base + "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(name) + "?alt=media"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{resp.Body}, make([]byte, buffer))
	if err == nil && n != size {
		err = fmt.Errorf("download of %s/%s from %s: %s, %d bytes", bucket, name, s.name, resp.Status, n)
	}
	return err
}

func (s *server) remove(ctx context.Context, bucket, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.base+"/storage/v1/b/"+bucket+"/o/"+url.PathEscape(name), nil)
	if err != nil {
		return err
	}
	return s.discard(req)
}

// list reads one page.
func (s *server) list(ctx context.Context, query string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/storage/v1/b/listed/o?"+query, nil)
	if err != nil {
		return err
	}
	return s.discard(req)
}

// many uploads count objects of 1 KB, some at once, and gives how long it took.
func (s *server) many(ctx context.Context, bucket string, connections, count int, name func(int) string) (time.Duration, error) {
	var next atomic.Int64
	data := bytes.Repeat([]byte("0123456789abcdef"), 64)
	errs := make(chan error, connections)
	began := time.Now()
	for range connections {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count {
					errs <- nil
					return
				}
				if err := s.upload(ctx, bucket, name(i), bytes.NewReader(data), int64(len(data))); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var err error
	for range connections {
		err = errors.Join(err, <-errs)
	}
	return time.Since(began), err
}
