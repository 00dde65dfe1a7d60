package score

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
)

// Routes of a worker.
const (
	HealthRoute = "/health"
	ScoreRoute  = "/score"
)

// MaxSection bounds the body of a request.
const MaxSection = 256 << 20

// Serve answers requests on a listener until ctx ends: each holds a section and gets
// its results.
func Serve(ctx context.Context, l net.Listener, model *modelformat.Native) error {
	w := &worker{model: model}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+HealthRoute, func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST "+ScoreRoute, w.score)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve sections: %w", err)
	case <-ctx.Done():
		err := srv.Close()
		if ended := <-ended; err == nil && !errors.Is(ended, http.ErrServerClosed) {
			err = ended
		}
		return err
	}
}

type worker struct {
	model  *modelformat.Native
	bodies sync.Pool // of *[]byte
}

// score reads the whole section before it answers: what a server can hold, a worker
// can too, and rows are views of it.
func (w *worker) score(rw http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 || r.ContentLength > MaxSection {
		http.Error(rw, fmt.Sprintf("a section of %d bytes: want a length up to %d", r.ContentLength, MaxSection), http.StatusRequestEntityTooLarge)
		return
	}
	body, ok := w.bodies.Get().(*[]byte)
	if !ok {
		body = new([]byte)
	}
	defer w.bodies.Put(body)
	if int64(cap(*body)) < r.ContentLength {
		*body = make([]byte, r.ContentLength)
	}
	*body = (*body)[:r.ContentLength]
	if err := ReadStretches(r.Body, *body); err != nil {
		http.Error(rw, "the section broke off: "+err.Error(), http.StatusBadRequest)
		return
	}
	spec, section, err := cutSpec(*body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	out := bufio.NewWriterSize(rw, flushBytes)
	to := frames{out}
	stats, err := Native(r.Context(), w.model, spec, section, framed{to, frameResults}, framed{to, frameErrors})
	if r.Context().Err() != nil {
		return // nobody reads it any more
	}
	if errors.Join(finish(to, stats, err), out.Flush()) != nil {
		panic(http.ErrAbortHandler) // the connection broke: so does the answer
	}
}

func finish(to frames, stats Stats, err error) error {
	kind, said := byte(frameStats), any(stats)
	if err != nil {
		e := resource.Outcome(err)
		kind, said = frameFault, Fault{Code: e.Code, Message: message(err), Cause: e.Cause}
	}
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	return to.send(kind, text)
}
