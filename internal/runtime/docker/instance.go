package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
	"tategu/internal/volume"

	"google.golang.org/grpc/codes"
)

// instance is one workload's life. Its goroutine is drive; everybody else reads
// status under mu.
type instance struct {
	r       *Runtime
	rec     workload.Accepted
	dir     string
	logs    *workload.Shipper
	adopted bool // accepted by an earlier server

	done  chan struct{} // closed once status.Exit is set
	stop  chan struct{} // closed by the first Stop
	again chan struct{} // holds one, put in by each further Stop: its grace counts
	once  sync.Once

	// Of drive alone.
	gpus        []runtime.GPU
	credentials map[string]string
	container   containerFile
	engine      *client // has the container

	mu     sync.Mutex
	status runtime.Status
}

// containerFile is container.json.
type containerFile struct {
	ID      string
	Socket  string // of its engine: the configured one may be another by now
	Program string // its first word
	Note    string // what a person should know of how it runs
	OOMs    int    // oom.Kills before its start
	Before  int64  // bytes of the output that are not the program's
	GPUs    []runtime.GPU
}

// Whole implements record.Whole.
func (c *containerFile) Whole() bool { return c.ID != "" }

// stopFile is stop.json.
type stopFile struct{ Grace time.Duration }

func newInstance(r *Runtime, rec workload.Accepted) *instance {
	in := &instance{
		r: r, rec: rec, dir: filepath.Join(r.cfg.Dir, rec.Workload.ID),
		done: make(chan struct{}), stop: make(chan struct{}), again: make(chan struct{}, 1),
		engine: r.engine, status: runtime.Status{Phase: runtime.Preparing, Message: "accepted"},
	}
	in.logs = workload.NewShipper(r.cfg.Logs, rec.Workload, in.dir)
	return in
}

// place is what is done around the program. Links that lead out of /gcs mean
// something else here than in the container.
func (in *instance) place() workload.Place {
	return workload.Place{
		Dir: in.dir, Workload: in.rec.Workload, Files: in.r.cfg.Files, Contained: true, Stop: in.stop,
		Log: in.r.cfg.Log, Now: in.r.cfg.Now, Say: in.set,
	}
}

func (in *instance) path(file string) string { return filepath.Join(in.dir, file) }

// ID implements runtime.Instance.
func (in *instance) ID() string { return in.rec.Workload.ID }

// Owner implements runtime.Instance.
func (in *instance) Owner() string { return in.rec.Workload.Owner }

// Address implements runtime.Instance. Containers share the machine's network.
func (in *instance) Address() string {
	if in.rec.Port == 0 {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(in.rec.Port))
}

// CPUTime implements runtime.Metered.
func (in *instance) CPUTime() (time.Duration, bool) {
	st := in.Status()
	if st.Phase != runtime.Running || st.PID == 0 {
		return 0, false
	}
	return workload.CPUTime(st.PID)
}

// Status implements runtime.Instance.
func (in *instance) Status() runtime.Status {
	in.mu.Lock()
	defer in.mu.Unlock()
	return workload.Queued(in.r.cfg.Schedule, in.ID(), in.status)
}

// Wait implements runtime.Instance.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-in.done:
		return *in.Status().Exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

// Stop implements runtime.Instance. The wish is on disk when it takes effect, so
// a restarted server holds to it. It waits for the end.
func (in *instance) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-in.done:
		return nil
	default:
	}
	err := record.WriteWhole(in.path(fileStop), stopFile{Grace: grace})
	if volume.Blocked(err) {
		// A full disk keeps no program running, which may be what fills it. Without the
		// file it gets no grace; whoever asked asks again after a restart.
		in.r.cfg.Log.WarnContext(ctx, "stop a workload without a record of it", slog.String("workload", in.ID()), slog.Any("error", err))
		err = nil
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // released meanwhile
		}
		return fmt.Errorf("stop %s: %w", in.ID(), err)
	}
	in.once.Do(func() { close(in.stop) })
	select {
	case in.again <- struct{}{}:
	default:
	}
	_, err = in.Wait(ctx)
	return err
}

// stopping reports that Stop was called, now or of an earlier server.
func (in *instance) stopping() bool {
	select {
	case <-in.stop:
		return true
	default:
		return workload.Exists(in.path(fileStop))
	}
}

// Log implements runtime.Instance.
func (in *instance) Log(_ context.Context, offset int64) (io.ReadCloser, error) {
	return workload.OpenOutput(in.dir, in.ID(), offset)
}

// Release implements runtime.Instance.
func (in *instance) Release(_ context.Context) error {
	if in.Status().Exit == nil {
		return resource.Errorf(codes.FailedPrecondition, "workload %s still runs", in.ID()).WithHint("stop it first")
	}
	in.r.mu.Lock()
	defer in.r.mu.Unlock()
	if err := workload.Discard(in.dir); err != nil {
		return fmt.Errorf("release %s: %w", in.ID(), err)
	}
	delete(in.r.instances, in.ID())
	return nil
}

func (in *instance) set(phase runtime.Phase, format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status.Phase, in.status.Message = phase, fmt.Sprintf(format, args...)
}

func (in *instance) finish(exit runtime.Exit) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status.Phase, in.status.Message, in.status.Exit = runtime.Ended, exit.Message, &exit
	close(in.done)
}

// drive sees the workload from its record to its end. When ctx ends first the
// server is going down: everything on disk and in the engine stays as it is.
func (in *instance) drive(ctx context.Context) {
	exit := in.through(ctx)
	if in.engine != in.r.engine {
		defer in.engine.close()
	}
	if ctx.Err() != nil {
		return
	}
	if err := workload.WriteEnd(ctx, in.r.cfg.Log, in.dir, exit, in.rec); err != nil {
		if ctx.Err() != nil {
			return
		}
		in.r.cfg.Log.ErrorContext(ctx, "record the end of a workload", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	if in.container.ID != "" {
		if err := in.engine.remove(ctx, in.container.ID); err != nil && ctx.Err() == nil {
			// The next sweep tries again.
			in.r.cfg.Log.WarnContext(ctx, "remove an ended container", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
	in.finish(exit)
}

// through runs the program and puts its files away. Its identity ends before
// anybody hears of its end.
func (in *instance) through(ctx context.Context) runtime.Exit {
	err := in.admit(ctx)
	if err == nil {
		var end func()
		end, err = in.identify(ctx)
		defer end()
	}
	in.logs.Begin()
	if err == nil {
		err = in.launch(ctx)
	}
	var exit runtime.Exit
	if err == nil {
		exit, err = in.await(ctx)
	}
	in.logs.End()
	if ctx.Err() != nil {
		return exit
	}
	in.r.cfg.Schedule.Release(in.ID())
	if err != nil {
		exit = in.failed(err)
	}
	return in.place().Settle(ctx, exit, in.logs)
}

// identify opens the workload's identity and gives what ends it.
func (in *instance) identify(ctx context.Context) (end func(), err error) {
	id := workload.Identity{Credentials: in.r.cfg.Credentials, Workload: in.rec.Workload, Adopted: in.adopted, Log: in.r.cfg.Log}
	if workload.Exists(in.path(fileContainer)) {
		return id.Later(ctx), nil
	}
	in.credentials, end, err = id.Open(ctx, in.stop)
	return end, err
}
