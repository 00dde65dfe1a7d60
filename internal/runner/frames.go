package runner

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"

	"tategu/internal/oip"
	"tategu/internal/replica/frame"
)

// framing lets the server that started us ask over one connection instead of many. Such
// connections end with ctx, after what was asked on them.
func (s *Server) framing(ctx context.Context, open *sync.WaitGroup, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !frame.Asked(r) {
			next.ServeHTTP(w, r)
			return
		}
		conn, in, err := frame.Accept(w)
		if err == nil {
			open.Add(1)
			defer open.Done()
			err = frame.Serve(ctx, conn, in, framed{s})
		}
		if err != nil {
			s.cfg.Log.InfoContext(ctx, "a connection of the server ended", slog.Any("error", err))
		}
	})
}

// drained waits for connections to end, or for ctx.
func drained(ctx context.Context, open *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		open.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// framed answers what is asked over frames as the route of the container contract does.
type framed struct{ *Server }

// Body gives memory for a question.
func (f framed) Body(n int) *[]byte {
	b := f.memory()
	*b = slices.Grow((*b)[:0], n)
	return b
}

// Answer predicts.
func (f framed) Answer(ctx context.Context, body *[]byte) (status int, answer []byte) {
	l := f.loaded.Load()
	if l == nil {
		return statusOf(errLoading), oip.ErrorBody(errLoading.Error())
	}
	f.stats.requests.Add(1)
	defer func() { // as the server of HTTP does for each request
		if r := recover(); r != nil {
			f.cfg.Log.ErrorContext(ctx, "a prediction has a defect", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
			f.stats.failed.Add(1)
			status, answer = http.StatusInternalServerError, oip.ErrorBody("the runner has a defect: its log says more")
		}
	}()
	var out []byte
	var err error
	if int64(len(*body)) > f.cfg.Body {
		err = fmt.Errorf("read the request: %w", &http.MaxBytesError{Limit: f.cfg.Body})
	} else {
		out, err = f.predictions(ctx, body, l)
	}
	if err != nil {
		f.stats.failed.Add(1)
		return statusOf(err), oip.ErrorBody(err.Error())
	}
	return http.StatusOK, out
}
