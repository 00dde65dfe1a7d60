package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"time"
)

// index is a package index with one package, tiny 1.0.
type index struct {
	url    string
	server *http.Server
}

func newIndex() (*index, error) {
	wheel, err := tiny()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it lives as long as the run
	if err != nil {
		return nil, err
	}
	const file = "tiny-1.0-py3-none-any.whl"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/tiny/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><a href="/%s">%s</a>`, file, file)
	})
	mux.HandleFunc("GET /"+file, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(wheel) })
	i := &index{url: "http://" + l.Addr().String() + "/simple", server: &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}}
	go func() { _ = i.server.Serve(l) }() // ends with Close
	return i, nil
}

func (i *index) Close() error { return i.server.Close() }

// tiny is a wheel (packaging.python.org, binary distribution format).
func tiny() ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range [][2]string{
		{"tiny.py", "size = 1\n"},
		{"tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"},
		{"tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n"},
	} {
		w, err := z.Create(f[0])
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), z.Close()
}
