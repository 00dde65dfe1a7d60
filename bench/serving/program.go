package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// echo is a replica that costs next to nothing: it reads a request and gives a fixed
// answer.
func echo() error {
	answer := []byte(`{"predictions":[0.5]}`)
	s := &http.Server{
		Addr: "127.0.0.1:" + os.Getenv("AIP_HTTP_PORT"), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer) // the caller may have gone
		}),
	}
	return s.ListenAndServe()
}

// splice passes connections on, byte for byte, through the kernel's splice(2).
func splice(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: splice LISTEN TARGET")
	}
	ctx := context.Background()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = in.Close() }()
			out, err := (&net.Dialer{}).DialContext(ctx, "tcp", args[1])
			if err != nil {
				return
			}
			var both sync.WaitGroup
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from) // *net.TCPConn splices
				_ = to.Close()
			}
			both.Go(func() { pass(out, in) })
			both.Go(func() { pass(in, out) })
			both.Wait()
		}()
	}
}
