// Package torchserve is the engine of a TorchServe server: it registers model
// archives, keeps their worker processes (the stock Python workers of the torchserve
// package) running, gathers requests into batches, and runs workflows. It speaks no
// HTTP and no gRPC: its callers do.
package torchserve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"tategu/internal/mar"
)

// Server keeps models and their workers. Its methods may be called concurrently,
// while Run runs.
type Server struct {
	cfg     Config
	deps    Deps
	store   mar.Store
	deny    *regexp.Regexp // names of variables that workers do not see
	host    string
	gpus    int
	sockets string // folder of them, short as socket names must be
	claim   *claim
	py      pythons
	jobs    chan func(context.Context) // what Run is to run
	started chan struct{}
	stopped chan struct{} // closed when Run ends

	mu        sync.Mutex
	models    map[string]*family
	workflows map[string]*workflow
	pending   map[string]bool // names of workflows that are being registered
	startErr  error           // why models of the start are not there, or have no worker
	workers   int             // ids handed out
	gpu       int             // the last GPU handed out

	roused  chan struct{} // of one place: a model has requests after a while without
	shareMu sync.Mutex    // one division of the cores at a time

	lost          map[string]map[string]savedModel // that Converge could not register
	lostWorkflows map[string]savedWorkflow         // likewise

	snapMu     sync.Mutex // one snapshot at a time
	convergeMu sync.Mutex // one Converge at a time
}

// family is the versions of a model.
type family struct {
	versions map[string]*version
	byDef    string // the default version
}

// Deps are what a server works with.
type Deps struct {
	Log     *slog.Logger
	Metrics Metrics     // nil = what is measured is dropped
	Objects mar.Objects // gs:// and s3://; nil = such URLs are refused by name
	HTTP    *http.Client
}

// firstWorker is the id of the first worker, as TorchServe counts its ports.
const firstWorker = 9000

// New makes a server; Run starts it.
func New(cfg Config, deps Deps) (*Server, error) {
	allowed, err := mar.ParseAllowed(cfg.AllowedURLs)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, deps: deps, jobs: make(chan func(context.Context)), started: make(chan struct{}), stopped: make(chan struct{}),
		models: map[string]*family{}, workflows: map[string]*workflow{}, pending: map[string]bool{}, workers: firstWorker, gpu: -1,
		gpus: cfg.GPUs, roused: make(chan struct{}, 1),
	}
	s.py.built = map[string]*sync.Mutex{}
	if cfg.DenyEnv != "" {
		if s.deny, err = regexp.Compile("^(?:" + cfg.DenyEnv + ")$"); err != nil {
			return nil, fmt.Errorf("blacklist_env_vars: %w", err)
		}
	}
	if s.gpus < 0 {
		s.gpus = s.countGPUs()
	}
	if s.host, err = os.Hostname(); err != nil {
		s.host = "Unknown" // TorchServe's word
	}
	if s.cfg.Work == "" {
		return nil, errors.New("a TorchServe server needs a folder for unpacked archives")
	}
	if s.cfg.Work, err = filepath.Abs(s.cfg.Work); err != nil {
		return nil, err
	}
	if s.claim, err = claimFolder(filepath.Join(s.cfg.Work, "archives")); err != nil {
		return nil, err
	}
	archives := s.claim.dir
	s.store = mar.Store{Models: cfg.ModelStore, Workflows: cfg.WorkflowStore, Work: archives, Allowed: allowed, Objects: deps.Objects, HTTP: deps.HTTP}
	return s, nil
}

// countGPUs counts those that workers see: what CUDA_VISIBLE_DEVICES names (as the
// platform does for a deployment), which CUDA numbers anew from 0, else NVIDIA's device
// nodes.
func (s *Server) countGPUs() int {
	visible, set := "", false
	for _, e := range s.workerEnv() { // the last one counts
		if names, ok := strings.CutPrefix(e, "CUDA_VISIBLE_DEVICES="); ok {
			visible, set = names, true
		}
	}
	if !set {
		found, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is right
		return len(found)
	}
	n := 0
	for name := range strings.SplitSeq(visible, ",") {
		if name = strings.TrimSpace(name); name == "" || name == "-1" {
			break // CUDA reads no further
		}
		n++
	}
	return n
}

func (s *Server) nextGPU() int {
	if s.gpus <= 0 {
		return -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gpu = (s.gpu + 1) % s.gpus
	return s.gpu
}

func (s *Server) nextWorker() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers++
	return strconv.Itoa(s.workers - 1)
}

func (s *Server) observe(m Metric) {
	if s.deps.Metrics == nil {
		return
	}
	if m.Host == "" {
		m.Host = s.host
	}
	s.deps.Metrics.Observe(m)
}

// Run restores the snapshot or loads the models that the configuration names, then
// keeps all workers until ctx is done. It has stopped them all when it returns.
func (s *Server) Run(ctx context.Context) (err error) {
	defer close(s.stopped)
	if s.sockets, err = os.MkdirTemp(shortTemp(), "tsw-"); err != nil {
		return fmt.Errorf("make a folder for the sockets of workers: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		s.closeZygote()
		s.closeModels()
		err = errors.Join(err, os.RemoveAll(s.sockets), s.claim.release())
	}()
	begun := make(chan error, 1)
	wg.Go(func() { begun <- s.begin(ctx) })
	wg.Go(func() { s.tend(ctx) })
	for {
		select {
		case f := <-s.jobs:
			wg.Go(func() { f(ctx) })
		case err := <-begun:
			if err != nil {
				return err
			}
			close(s.started)
		case <-ctx.Done():
			s.snapshot("shutdown")
			return nil
		}
	}
}

// mostSocket is how long the name of a folder of sockets may be: theirs have at most
// about 100 bytes.
const mostSocket = 70

// shortTemp is the folder for temporary files, or /tmp where its name is too long.
func shortTemp() string {
	if dir := os.TempDir(); len(dir) <= mostSocket {
		return dir
	}
	return "/tmp"
}

// spawn has Run run f.
func (s *Server) spawn(ctx context.Context, f func(context.Context)) error {
	select {
	case s.jobs <- f:
		return nil
	case <-s.stopped:
		return errorf(http.StatusServiceUnavailable, ServiceUnavailable, "the server is stopping")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeModels removes what was unpacked; the workers have gone.
func (s *Server) closeModels() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.models {
		for _, v := range f.versions {
			v.queue.flush(errorf(http.StatusServiceUnavailable, ServiceUnavailable, "the server is stopping"), true)
			if err := v.archive.Remove(); err != nil {
				s.deps.Log.Warn("An unpacked archive is left behind", slog.Any("error", err))
			}
		}
	}
	for _, w := range s.workflows {
		if err := w.archive.Remove(); err != nil {
			s.deps.Log.Warn("An unpacked archive is left behind", slog.Any("error", err))
		}
	}
}

// settled waits until the models of the start are there. A change before that would make a
// snapshot without those that are still to come, and take their names.
func (s *Server) settled(ctx context.Context) error {
	select {
	case <-s.started:
		return nil // also for a client that has gone: what it asked for is done
	default:
	}
	select {
	case <-s.started:
		return nil
	case <-s.stopped:
		return errorf(http.StatusServiceUnavailable, ServiceUnavailable, "the server is stopping")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Started is closed once the models of the start are registered and their workers
// were tried.
func (s *Server) Started() <-chan struct{} { return s.started }

// StartError says, after Started, why models of the start were not registered or have
// no worker; nil = all are well.
func (s *Server) StartError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startErr
}

func (s *Server) startFailed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startErr = errors.Join(s.startErr, err)
}

// find gives a version; "" is the default one.
func (s *Server) find(name, id string) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.models[name]
	if f == nil {
		return nil, modelNotFound(name)
	}
	if id == "" {
		id = f.byDef
	}
	v := f.versions[id]
	if v == nil {
		return nil, versionNotFound(name, id)
	}
	return v, nil
}

// Health says whether models have their workers.
func (s *Server) Health() Health {
	s.mu.Lock()
	var all []*version
	for _, f := range s.models {
		for _, v := range f.versions {
			all = append(all, v)
		}
	}
	s.mu.Unlock()
	health := Healthy
	for _, v := range all {
		m := v.describe()
		ready := 0
		for _, w := range m.Workers {
			if w.State == WorkerReady {
				ready++
			}
		}
		switch {
		case m.MinWorkers == 0 || ready >= m.MinWorkers:
		case ready > 0:
			if health == Healthy {
				health = PartialHealthy
			}
		case m.Trying && m.LastError == "": // they are being started
			if health == Healthy {
				health = PartialHealthy
			}
		default:
			return Unhealthy
		}
	}
	return health
}
