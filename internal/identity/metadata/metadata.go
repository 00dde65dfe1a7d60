// Package metadata gives each task its credentials the way the cloud gives them
// to a machine: through a metadata server, which unmodified Python, Go and Node
// clients ask when GCE_METADATA_HOST names it. Every task has an own loopback
// port and an unguessable path on it; both end with the task, and with them its
// tokens. Who the task is and what it may do is the parent package's business.
package metadata

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// closeTimeout bounds the store write that ends a task's credentials.
const closeTimeout = 10 * time.Second

// Server owns the metadata servers of all running tasks.
type Server struct {
	authority *identity.Authority
	log       *slog.Logger
	now       func() time.Time

	mu     sync.Mutex
	tasks  map[string]*task
	closed bool
	wg     sync.WaitGroup
}

// New starts nothing; Open does, one listener a task. The caller must Close it.
func New(authority *identity.Authority, log *slog.Logger, now func() time.Time) *Server {
	return &Server{authority: authority, log: log, now: now, tasks: map[string]*task{}}
}

// task is one metadata server; address is empty while it is not open.
type task struct {
	mu sync.Mutex // held while the task opens or closes
	identity.Task
	address string // HOST:PORT it listens on
	http    *http.Server
}

// Open gives the workload id an identity and the environment that leads clients
// to it. The same id gets the same port and path again after a restart. end
// revokes the identity, unless ctx is done by then: ctx lives as long as the
// server, and a workload that outlives the server keeps its identity.
func (s *Server) Open(ctx context.Context, id, project, serviceAccount string) (env map[string]string, end func(), err error) {
	t, err := s.entry(id)
	if err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	spec := identity.TaskSpec{ID: id, Project: project, ServiceAccount: serviceAccount, Port: t.Port}
	if t.address != "" {
		_, err = s.authority.OpenTask(ctx, spec) // the same account as before?
	} else {
		err = s.start(ctx, t, spec)
	}
	if err != nil {
		return nil, nil, err
	}
	return t.env(), func() {
		if ctx.Err() == nil {
			s.end(id)
		}
	}, nil
}

func (s *Server) entry(id string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, resource.Errorf(codes.Unavailable, "the metadata server is shutting down")
	}
	t, ok := s.tasks[id]
	if !ok {
		t = &task{}
		s.tasks[id] = t
	}
	return t, nil
}

// env is what clients read. Python's first probe asks GCE_METADATA_IP, all else
// GCE_METADATA_HOST; Node probes for seconds unless told that we are there.
func (t *task) env() map[string]string {
	host := t.address + "/t/" + t.Path
	return map[string]string{
		"GCE_METADATA_HOST":         host,
		"GCE_METADATA_IP":           host,
		"METADATA_SERVER_DETECTION": "assume-present",
		"GOOGLE_CLOUD_PROJECT":      t.Project,
	}
}

// start listens before it writes the identity, so that one write holds the port
// too; an identity from before a restart brings its own port.
func (s *Server) start(ctx context.Context, t *task, spec identity.TaskSpec) error {
	ln, err := listenAnywhere(ctx)
	if err != nil {
		return fmt.Errorf("metadata server of %s: %w", spec.ID, err)
	}
	spec.Port = port(ln)
	cred, err := s.authority.OpenTask(ctx, spec)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if cred.Port != spec.Port {
		if err := ln.Close(); err != nil {
			return fmt.Errorf("metadata server of %s: %w", spec.ID, err)
		}
		ln, err = listen(ctx, cred.Port)
		if errors.Is(err, syscall.EADDRINUSE) {
			return resource.Errorf(codes.FailedPrecondition, "port %d, where workload %s asks for its credentials, is taken by another program", cred.Port, cred.ID).
				WithHint("stop that program, or cancel the job and run it again").WithCause(resource.CauseResource)
		}
		if err != nil {
			return fmt.Errorf("metadata server of %s: %w", spec.ID, err)
		}
	}
	return s.serve(t, cred, ln)
}

// Ports below those that systems hand out by themselves (Linux from 32768, macOS
// from 49152): while the server is down, no outgoing connection takes a task's.
const (
	firstPort = 18000
	ports     = 14000
	tries     = 64
)

func listenAnywhere(ctx context.Context) (net.Listener, error) {
	for range tries {
		n, _ := rand.Int(rand.Reader, big.NewInt(ports)) // its reader never fails since Go 1.24
		ln, err := listen(ctx, firstPort+int(n.Int64()))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
	}
	return listen(ctx, 0)
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

func port(ln net.Listener) int {
	addr, _ := ln.Addr().(*net.TCPAddr) // a tcp4 listener has no other
	return addr.Port
}

func (s *Server) serve(t *task, cred identity.Task, ln net.Listener) error {
	s.mu.Lock() // against Close, which stops every server it finds
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(resource.Errorf(codes.Unavailable, "the metadata server is shutting down"), ln.Close())
	}
	t.Task, t.address = cred, ln.Addr().String()
	server := &http.Server{
		Handler:           s.handler(t),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	t.http = server
	s.wg.Go(func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("metadata server ended", slog.String("workload", cred.ID), slog.Any("error", err))
		}
	})
	return nil
}

// end closes the task's server and revokes its tokens. It is called from the
// runtime's clean-up, which has no context and nobody to tell.
func (s *Server) end(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.close(ctx, id); err != nil {
		s.log.ErrorContext(ctx, "the credentials of a task were not revoked", slog.String("workload", id), slog.Any("error", err))
	}
}

func (s *Server) close(ctx context.Context, id string) error {
	s.mu.Lock()
	t, ok := s.tasks[id]
	delete(s.tasks, id)
	s.mu.Unlock()
	var err error
	if ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.http != nil {
			err = t.http.Close()
		}
	}
	return errors.Join(s.authority.CloseTask(ctx, id), err)
}

// Retain ends the identities of all workloads but these. A server calls it once
// at start with what the runtime still knows: a task may have ended and been
// forgotten while nobody was there to end its credentials.
func (s *Server) Retain(ctx context.Context, ids []string) error {
	keep := make(map[string]bool, len(ids))
	for _, id := range ids {
		keep[id] = true
	}
	tasks, err := s.authority.Tasks(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tasks {
		if !keep[t.ID] {
			errs = append(errs, s.close(ctx, t.ID))
		}
	}
	return errors.Join(errs...)
}

// Close stops all listeners and waits for them. The identities stay: their tasks
// outlive this process.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for _, t := range s.tasks {
		if t.http != nil {
			errs = append(errs, t.http.Close())
		}
	}
	clear(s.tasks)
	s.mu.Unlock()
	s.wg.Wait()
	return errors.Join(errs...)
}

// Run waits for the end of ctx. The listeners go on until Close, which comes
// after the runtime's: workloads start and end while the server shuts down, and
// none of them must fail for lack of credentials.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
