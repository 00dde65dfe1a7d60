// Package process runs workloads as child processes of this machine. It owns the
// working directories, the Python environments, the /gcs mapping, log shipping
// and the wrapper that records exit statuses. It does not own objects, tokens or
// logs at rest: those come in through the runtime port's interfaces.
//
// Every workload has a directory under Config.Dir with these files; each is
// written whole and renamed, so what exists is true as long as the machine runs.
// After a restart of the machine none counts; a file without its content counts as
// absent:
//
//	record.json   the workload as accepted (Start returned)
//	spec.json     what the wrapper runs, and on which GPUs (preparation is done)
//	wrapper.json  pid and start time of the wrapper (the program may be running)
//	stop.json     Stop was asked for
//	exit.json     how the program ended, by the wrapper
//	end.json      the final Exit, after uploads, with the record
//	output        stdout and stderr
//	gcs/ work/ tmp/ venv/
//	box/          what a container changes of its image, and where it is built
//
// A server that is killed at any point reads them again and goes on: before
// wrapper.json it waits for room and prepares anew, after it the wrapper is watched by pid and start
// time, after exit.json the rest is done again.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/inventory"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/runtime/workload"
)

// Config lists what the adapter needs. Dir and CacheDir are required.
type Config struct {
	Dir      string // one directory a workload
	CacheDir string // Python environments and unpacked images, safe to delete while nothing runs
	Volumes  string // one directory a named volume; "" = there are none

	Images      []runtime.ImageRule
	Files       runtime.Files        // nil: workloads with Fetch or Publish are refused
	Credentials runtime.Credentials  // nil: no identity
	Logs        runtime.LogSink      // nil: output stays in the working directory
	ImageStore  runtime.Images       // nil: no image but those of Images is known
	Schedule    *scheduler.Scheduler // of the machine, shared with other adapters; nil = one of its own

	Log *slog.Logger
	Now func() time.Time

	UV       string            // path of uv; "" = InstallUV, else python -m venv and pip
	Python   string            // version where none is asked for; "" = the newest found
	Self     string            // our binary, which serves Verb; "" = the running one
	Wrapper  []byte            // a small program that serves Verb alone, packed by gzip; nil = Self
	ExtraEnv map[string]string // for every workload: certificates, proxies
	// InstallUV gets uv where UV is not set, before the first environment is needed;
	// nil or an error: python -m venv and pip do it.
	InstallUV func(ctx context.Context) (path string, err error)

	// Zygotes is a directory for parents of Python components, which have loaded what
	// these import and fork them; "" = none is ever forked. Such a parent ends when
	// nothing was forked for Idle, 0 = 10 minutes.
	Zygotes string
	Idle    time.Duration

	Keep     time.Duration // directories of ended workloads nobody released; 0 = a day
	NoMounts bool          // map /gcs by the Python hook even where mounts work

	ImageBytes int64 // unpacked images that nothing uses are removed beyond this; 0 = 20 GiB
	Processes  int   // of one container, threads count; 0 = 4096

	Boot string // names this run of the machine, whose end ends all programs; "" = the kernel's
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	cfg      Config
	envs     *environments
	mounts   func() mountMode
	launcher func() launcher
	boxes    func() boxes
	nursery  *nursery // nil = programs are never forked
	nest     func() *nest
	layers   layers
	spare    skeletons
	ids      *regexp.Regexp

	spawn  func(func(ctx context.Context)) // runs under the context that Close ends
	cancel context.CancelFunc
	wg     sync.WaitGroup

	adopted int // programs of earlier servers that New took over

	mu        sync.Mutex
	closed    bool
	memory    *os.File // what wrappers are started from, once one was needed
	instances map[string]*instance
}

// New reads the records of earlier servers and takes their workloads up again.
func New(cfg Config) (*Runtime, error) {
	if os.Getenv(wrapper.Mark) != "" {
		return nil, fmt.Errorf("%s was started as a wrapper but does not serve the verb %s (tests: call process.Main in TestMain)", os.Args[0], Verb)
	}
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	r := &Runtime{cfg: cfg, instances: map[string]*instance{}, ids: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.spawn = func(f func(context.Context)) { r.wg.Go(func() { f(ctx) }) }
	r.envs = &environments{dir: filepath.Join(cfg.CacheDir, "envs"), uv: cfg.UV, install: cfg.InstallUV, log: cfg.Log, now: cfg.Now, interpreters: map[string]interpreter{}}
	r.layers, r.spare = layers{newShelf(filepath.Join(cfg.Dir, dirLayers))}, skeletons{newShelf(filepath.Join(cfg.Dir, dirSpare))}
	r.launcher = sync.OnceValue(r.openLauncher)
	r.mounts = sync.OnceValue(func() mountMode { return probeMounts(cfg, r.launcher()) })
	r.nest = sync.OnceValue(r.openNest)
	r.boxes = sync.OnceValue(func() boxes { return openBoxes(cfg, r.launcher()) })
	if err := errors.Join(r.openNursery(), r.adopt()); err != nil {
		cancel()
		r.wg.Wait()
		return nil, err
	}
	return r, nil
}

func (c *Config) defaults() error {
	if c.Dir == "" || c.CacheDir == "" || c.Log == nil || c.Now == nil {
		return errors.New("process: Dir, CacheDir, Log and Now are required")
	}
	if c.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find our own binary: %w", err)
		}
		c.Self = self
	}
	if c.Schedule == nil {
		inv, err := inventory.Find(context.Background(), inventory.Declared{}, c.Log)
		if err != nil {
			return err
		}
		c.Schedule = scheduler.New(inv, c.Now, scheduler.Options{})
	}
	if c.Keep == 0 {
		c.Keep = 24 * time.Hour
	}
	if c.Idle == 0 {
		c.Idle = zygoteIdle
	}
	if c.Processes == 0 {
		c.Processes = 4096
	}
	if c.Boot == "" {
		c.Boot = workload.Boot()
	}
	for _, dir := range []*string{&c.Dir, &c.CacheDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("process: %w", err)
		}
		if err := os.MkdirAll(abs, 0o700); err != nil {
			return fmt.Errorf("process: %w", err)
		}
		*dir = abs
	}
	return nil
}

// Run removes old directories until ctx ends. It closes the runtime then;
// workloads go on without it.
func (r *Runtime) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		r.sweep(ctx)
		select {
		case <-ctx.Done():
			return r.Close()
		case <-tick.C:
		}
	}
}

// Close stops watching. It does not end workloads; a later New finds them.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	cgroups(r.cfg).Tidy()
	r.mu.Lock()
	defer r.mu.Unlock()
	memory := r.memory
	if r.memory = nil; memory != nil {
		return memory.Close()
	}
	return nil
}

func (r *Runtime) sweep(ctx context.Context) {
	if freed, err := r.imageStore(box.Mapping{}).Collect(ctx); err != nil || freed > 0 {
		r.cfg.Log.InfoContext(ctx, "removed unpacked images", slog.Int64("bytes", freed), slog.Any("error", err))
	}
	for _, in := range r.known() {
		exit := in.Status().Exit
		if exit == nil || r.cfg.Now().Sub(exit.Ended) < r.cfg.Keep {
			continue
		}
		if err := in.Release(ctx); err != nil {
			r.cfg.Log.WarnContext(ctx, "remove an old workload directory", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
}

func (r *Runtime) known() []*instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.instances), func(a, b *instance) int { return strings.Compare(a.ID(), b.ID()) })
}

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, w runtime.Workload) (runtime.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if in, err := r.Find(ctx, w.ID); err == nil {
		return in, nil // whatever has become of its image since
	}
	if err := r.check(ctx, w); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if in, ok := r.instances[w.ID]; ok {
		return in, nil
	}
	if r.closed {
		return nil, errors.New("the runtime is closed")
	}
	rec := workload.Accepted{Workload: w, Created: r.cfg.Now(), Boot: r.cfg.Boot}
	if w.Port {
		port, err := workload.FreePort(ctx)
		if err != nil {
			return nil, err
		}
		rec.Port = port
	}
	in := newInstance(r, rec)
	if err := workload.Accept(in.dir, rec, func(dir string) error { return r.spare.make(dir, w) }); err != nil {
		return nil, fmt.Errorf("start %s: %w", w.ID, err)
	}
	r.instances[w.ID] = in
	r.cfg.Schedule.Enqueue(in.ask())
	r.spawn(in.drive)
	return in, nil
}

// Find implements runtime.Runtime.
func (r *Runtime) Find(_ context.Context, id string) (runtime.Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in, ok := r.instances[id]; ok {
		return in, nil
	}
	return nil, resource.NotFound(id)
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.Instance, error) {
	known := r.known()
	out := make([]runtime.Instance, len(known))
	for i, in := range known {
		out[i] = in
	}
	return out, nil
}

func (r *Runtime) volumes() workload.Volumes { return workload.Volumes(r.cfg.Volumes) }

// VolumeNames implements runtime.Volumes.
func (r *Runtime) VolumeNames() ([]string, error) { return r.volumes().VolumeNames() }

// DropVolume implements runtime.Volumes.
func (r *Runtime) DropVolume(name string) error { return r.volumes().DropVolume(name) }
