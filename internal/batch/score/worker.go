package score

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
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

// Headers of a section's request.
const (
	// LeaveHeader says how many cores this worker leaves to others from now on.
	LeaveHeader = "Tategu-Leave-Cores"
	// SecretHeader has the word without which a worker reads no file: any program of the
	// machine can send it a section.
	SecretHeader = "Tategu-Worker-Secret" //nolint:gosec // a name
)

// SecretVariable has that word in a worker's environment.
const SecretVariable = "TATEGU_WORKER_SECRET" //nolint:gosec // a name

// StatusUnreadable answers a section whose files this worker cannot read.
const StatusUnreadable = http.StatusFailedDependency

// Host is what a worker has of its process.
type Host struct {
	// Leave keeps the process from so many of its cores; nil = it takes what it gets.
	Leave  func(cores int)
	Secret string // "" = it reads no files
}

// MaxSection bounds the body of a request.
const MaxSection = 256 << 20

// Serve answers requests on a listener until ctx ends: each holds a section and gets
// its results.
func Serve(ctx context.Context, l net.Listener, model *modelformat.Native, host Host) error {
	w := &worker{model: model, host: host}
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
	host   Host
	files  Files
	bodies sync.Pool // of *[]byte: what was sent
	loaded sync.Pool // and sections of files
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
	w.leave(r.Header.Get(LeaveHeader))
	var sums []int64
	if spec.reads() {
		if given := r.Header.Get(SecretHeader); w.host.Secret == "" || subtle.ConstantTimeCompare([]byte(given), []byte(w.host.Secret)) != 1 {
			http.Error(rw, "files are read for the server alone", http.StatusForbidden)
			return
		}
		read, ok := w.loaded.Get().(*[]byte)
		if !ok {
			read = new([]byte)
		}
		defer w.loaded.Put(read)
		if spec, *read, sums, err = w.files.Load(spec, section, (*read)[:0]); err != nil {
			http.Error(rw, err.Error(), StatusUnreadable)
			return
		}
		section = *read
	}
	out := bufio.NewWriterSize(rw, flushBytes)
	to := frames{out}
	stats, err := Native(r.Context(), w.model, spec, section, framed{to, frameResults}, framed{to, frameErrors})
	stats.Sums = sums
	if r.Context().Err() != nil {
		return // nobody reads it any more
	}
	if errors.Join(finish(to, stats, err), out.Flush()) != nil {
		panic(http.ErrAbortHandler) // the connection broke: so does the answer
	}
}

// leave does what the server says of cores; a word that is none changes nothing.
func (w *worker) leave(cores string) {
	if n, err := strconv.Atoi(cores); err == nil && n >= 0 && w.host.Leave != nil {
		w.host.Leave(n)
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
