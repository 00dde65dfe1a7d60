package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tategu/internal/replica/http1"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// machine is a runtime and a network without either: programs are handlers,
// addresses are workload ids. It runs inside synctest bubbles.
type machine struct {
	mu       sync.Mutex
	all      []*program
	started  int
	released []string
	// forgotten are the addresses to which idle connections were closed.
	forgotten []string
	refuse    error
	// boot prepares the nth program that is started (from 1).
	boot func(n int, p *program)
}

type program struct {
	m       *machine
	id      string
	handler http.HandlerFunc // nil = nobody listens
	shut    atomic.Bool      // the port is closed for now
	reads   chan struct{}    // bodies are read once it is closed; nil = at once
	early   bool             // answers before it reads
	ended   chan struct{}
	phase   func() runtime.Phase // until it ends; nil = Running
	exit    runtime.Exit
	once    sync.Once
}

func (m *machine) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	m.started++
	p := &program{m: m, id: w.ID, ended: make(chan struct{}), handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}}
	if m.boot != nil {
		m.boot(m.started, p)
	}
	m.all = append(m.all, p)
	return p, nil
}

func (m *machine) Find(_ context.Context, id string) (runtime.Instance, error) {
	return nil, resource.NotFound(id)
}

func (m *machine) List(context.Context) ([]runtime.Instance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []runtime.Instance
	for _, p := range m.all {
		all = append(all, p)
	}
	return all, nil
}

func (m *machine) count() (started int, live []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.all {
		live = append(live, p.id)
	}
	slices.Sort(live)
	return m.started, live
}

// Do is the network.
func (m *machine) Do(ctx context.Context, address string, r *http1.Request) (*http1.Response, error) {
	m.mu.Lock()
	var p *program
	for _, q := range m.all {
		if q.id == address {
			p = q
		}
	}
	m.mu.Unlock()
	if p == nil || p.handler == nil || p.shut.Load() || p.Status().Phase == runtime.Ended {
		return nil, &http1.Error{Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}}
	}
	rec := httptest.NewRecorder()
	done := make(chan error, 1)
	go func() {
		body := r.Body
		if r.Upload != nil && !p.early { // a handler is called when all is there
			var err error
			if p.reads != nil {
				<-p.reads
			}
			if body, err = r.Upload.Whole(); err != nil {
				done <- err
				return
			}
		}
		req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+address+r.Path, bytes.NewReader(body))
		if err == nil {
			p.handler(rec, req)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return &http1.Response{Status: rec.Code, Header: rec.Header(), Body: io.NopCloser(rec.Body)}, nil
	case <-ctx.Done():
		return nil, &http1.Error{Sent: true, Err: ctx.Err()}
	case <-p.ended:
		return nil, &http1.Error{Sent: true, Err: errors.New("connection reset")}
	}
}

func (m *machine) CloseIdle(address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten = append(m.forgotten, address)
}

func (p *program) end(exit runtime.Exit) {
	p.once.Do(func() {
		p.exit = exit
		close(p.ended)
	})
}

func (p *program) ID() string      { return p.id }
func (p *program) Owner() string   { return "" }
func (p *program) Address() string { return p.id }

func (p *program) Status() runtime.Status {
	select {
	case <-p.ended:
		return runtime.Status{Phase: runtime.Ended, Exit: &p.exit}
	default:
		if p.phase != nil {
			return runtime.Status{Phase: p.phase(), Message: "what it is about"}
		}
		return runtime.Status{Phase: runtime.Running}
	}
}

func (p *program) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (p *program) Stop(context.Context, time.Duration) error {
	p.end(runtime.Exit{Code: 143, Signal: "SIGTERM"})
	return nil
}

func (p *program) Log(context.Context, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("loading\nstill loading\n")), nil
}

func (p *program) Release(context.Context) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.all = slices.DeleteFunc(p.m.all, func(q *program) bool { return q == p })
	p.m.released = append(p.m.released, p.id)
	return nil
}
