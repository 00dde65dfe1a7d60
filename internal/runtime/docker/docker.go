// Package docker runs workloads as containers of a container engine on this
// machine, Docker or Podman, through the unix socket of Docker's API. It owns the
// containers, which it names after the data directory and the workload, and a
// directory a workload; images are the engine's, and given to it where the server
// keeps them. What is no container (a Python environment, a program of the
// machine) is another adapter's.
//
// Files of a workload's directory, each written whole and renamed. After a restart of
// the machine none counts; containers of that time are removed:
//
//	record.json     the workload as accepted (Start returned)
//	container.json  id of its container and its GPUs, written before that is started
//	stop.json       Stop was asked for
//	end.json        the final Exit, after uploads, with the record
//	output          stdout and stderr, copied from the engine's log
//	gcs/ work/ tmp/ what the container sees as /gcs, /tategu/work and /tmp
//
// A server that is killed at any point reads them again and goes on: before
// container.json it waits for room and prepares anew, after it the engine knows what became of the
// container, which is removed once end.json is there.
package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/runtime/workload"

	"google.golang.org/grpc/codes"
)

// Config lists what the adapter needs. Dir, Socket, Schedule, Log and Now are required.
type Config struct {
	Dir     string // one directory a workload
	Volumes string // one directory a named volume; "" = there are none
	Socket  string // path of the engine's unix socket

	Images      []runtime.ImageRule
	Files       runtime.Files        // nil: workloads with Fetch or Publish are refused
	Credentials runtime.Credentials  // nil: no identity
	Logs        runtime.LogSink      // nil: output stays in the workload's directory
	ImageStore  runtime.Images       // nil: only the engine has images
	Schedule    *scheduler.Scheduler // of the machine, shared with other adapters
	Pull        bool                 // the engine pulls what nobody has

	Log *slog.Logger
	Now func() time.Time

	ExtraEnv  map[string]string // for every workload: certificates, proxies
	Keep      time.Duration     // directories of ended workloads nobody released; 0 = a day
	Processes int               // of one container, threads count; 0 = 4096

	Boot string // names this run of the machine, whose end ends all containers; "" = the kernel's
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	cfg    Config
	engine *client
	loader *loader
	data   string // names the data directory in the engine
	ids    *regexp.Regexp

	spawn  func(func(ctx context.Context)) // runs under the context that Close ends
	cancel context.CancelFunc
	wg     sync.WaitGroup

	adopted int // containers of earlier servers that New took over

	mu        sync.Mutex
	closed    bool
	noInit    bool // the engine has no init program
	instances map[string]*instance
}

// New reads the records of earlier servers and takes their containers up again.
// The engine need not be there yet.
func New(cfg Config) (*Runtime, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(cfg.Dir))
	r := &Runtime{
		cfg: cfg, engine: newClient(cfg.Socket), data: hex.EncodeToString(sum[:6]),
		ids: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`), instances: map[string]*instance{},
	}
	r.loader = &loader{engine: r.engine, log: cfg.Log, now: cfg.Now, busy: map[string]chan struct{}{}}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.spawn = func(f func(context.Context)) { r.wg.Go(func() { f(ctx) }) }
	if err := r.adopt(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

func (c *Config) defaults() error {
	if c.Dir == "" || c.Socket == "" || c.Schedule == nil || c.Log == nil || c.Now == nil {
		return errors.New("docker: Dir, Socket, Schedule, Log and Now are required")
	}
	if c.Keep == 0 {
		c.Keep = 24 * time.Hour
	}
	if c.Processes == 0 {
		c.Processes = 4096
	}
	if c.Boot == "" {
		c.Boot = workload.Boot()
	}
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	if strings.Contains(abs, ":") {
		return resource.Invalid("data", "the path %s has a colon, which container engines take for the end of a path", abs).WithHint("name another data directory")
	}
	// The mode keeps other users away from what is open to any user of an image.
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	c.Dir = abs
	return os.Chmod(abs, 0o700) //nolint:gosec // a directory needs x
}

// adopt loads every record and goes on where the last server stopped.
func (r *Runtime) adopt() error {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("read workloads: %w", err)
	}
	var found []*instance
	for _, e := range entries {
		dir := filepath.Join(r.cfg.Dir, e.Name())
		rec, exit, err := workload.Load(dir, r.cfg.Boot)
		switch {
		case record.Absent(err):
			// Its container, if there is one, is removed by the next sweep or Start.
			if err := workload.RemoveAll(dir); err != nil {
				r.cfg.Log.Warn("remove an unfinished workload directory", slog.String("dir", dir), slog.Any("error", err))
			}
			continue
		case err != nil:
			return fmt.Errorf("read workload %s: %w", e.Name(), err)
		}
		in := newInstance(r, rec)
		in.adopted = true
		if exit != nil {
			in.finish(*exit)
		}
		found = append(found, in)
	}
	r.take(found)
	if len(r.instances) > 0 {
		r.cfg.Log.Info("containers of an earlier server taken over", slog.Int("adopted", r.adopted), slog.Int("known", len(r.instances)))
	}
	return nil
}

// Adopted is how many containers New found started by an earlier server and not
// yet put away.
func (r *Runtime) Adopted() int { return r.adopted }

// Ready asks whether the engine answers.
func (r *Runtime) Ready(ctx context.Context) error { return r.engine.ping(ctx) }

// Takes reports whether a workload is a container's: its image is kept by the
// server or the engine, or can be pulled. An error says that nobody can run it.
func (r *Runtime) Takes(ctx context.Context, w runtime.Workload) (bool, error) {
	plan, err := runtime.Choose(ctx, r.cfg.Images, r.runnable(), w.Image)
	return plan.Kept, err
}

// Run removes old directories and lost containers until ctx ends. It closes the
// runtime then; containers go on without it.
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

// Close stops watching. It does not end containers; a later New finds them.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.engine.close()
	return nil
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
		return in, nil
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
	if err := workload.Accept(in.dir, rec, nil); err != nil {
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

// Check refuses what can never run here.
func (r *Runtime) Check(w runtime.Workload) error { return r.check(context.Background(), w) }

func (r *Runtime) check(ctx context.Context, w runtime.Workload) error {
	if !r.ids.MatchString(w.ID) {
		return resource.Invalid("id", "%q is not a workload id: 1 to 200 letters, digits and . _ -", w.ID)
	}
	if err := r.engine.ping(ctx); err != nil {
		return err
	}
	plan, err := runtime.Choose(ctx, r.cfg.Images, r.runnable(), w.Image)
	if err != nil {
		return err
	}
	if !plan.Kept {
		return resource.Errorf(codes.FailedPrecondition, "workload %s is no container of an image: %q means a directory or a program of this machine", w.ID, w.Image).
			WithCause(resource.CauseInput).WithHint("name an image, or change its rule in images: of tategu.yaml")
	}
	if err := workload.Alone(plan, w); err != nil {
		return err
	}
	if err := r.hasCommand(ctx, w); err != nil {
		return err
	}
	if r.cfg.Files == nil && (len(w.Fetch) > 0 || w.Publish) {
		return resource.Errorf(codes.FailedPrecondition, "workload %s needs objects, and there is no object store", w.ID)
	}
	return r.cfg.Schedule.Fits(scheduler.For(w, time.Time{}))
}

// hasCommand looks for one in the image; that of an image that is still to be
// pulled shows later.
func (r *Runtime) hasCommand(ctx context.Context, w runtime.Workload) error {
	image, err := r.runnable().Image(ctx, w.Image)
	if err != nil || image.Digest == "" {
		return err
	}
	_, err = workload.Argv(w, image.Config, "", 0)
	return err
}

// Names of files in a workload's directory.
const (
	fileContainer = "container.json"
	fileStop      = "stop.json"
	dirWork       = "work"
	dirTmp        = "tmp"
)
