package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/process/oci"
	"tategu/internal/runtime/process/wrapper"
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

	done chan struct{} // closed once status.Exit is set
	stop chan struct{} // closed by the first Stop: preparation ends
	once sync.Once

	// Of drive alone.
	identity    *identity
	credentials map[string]string
	python      string    // what of the Python environment a person should know
	tree        *oci.Tree // of a container, until its wrapper runs
	granted     bool
	gpus        []runtime.GPU
	contained   bool
	orderly     bool            // its wrapper saw all of it end
	over        <-chan struct{} // closed once a wrapper that this server started has written the end
	base        environment     // of a Python program
	recipe      recipe          // of one that can be forked

	mu     sync.Mutex
	status runtime.Status
	watch  wrapper.Running // set once the phase is Running
	group  box.Cgroup      // likewise
}

func newInstance(r *Runtime, rec workload.Accepted) *instance {
	in := &instance{
		r: r, rec: rec, dir: filepath.Join(r.cfg.Dir, rec.Workload.ID),
		done: make(chan struct{}), stop: make(chan struct{}),
		status: runtime.Status{Phase: runtime.Preparing, Message: "accepted"},
	}
	in.logs = workload.NewShipper(r.cfg.Logs, rec.Workload, in.dir)
	return in
}

// ID implements runtime.Instance.
func (in *instance) ID() string { return in.rec.Workload.ID }

// Owner implements runtime.Instance.
func (in *instance) Owner() string { return in.rec.Workload.Owner }

// Address implements runtime.Instance.
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
	err := record.WriteWhole(filepath.Join(in.dir, fileStop), wrapper.Stop{Grace: grace})
	if volume.Blocked(err) {
		// A full disk keeps no program running, which may be what fills it. Without the
		// file it gets no grace; whoever asked asks again after a restart.
		in.r.cfg.Log.WarnContext(ctx, "stop a workload without a record of it", slog.String("workload", in.ID()), slog.Any("error", err))
		err = in.stopWithoutRoom()
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // released meanwhile
		}
		return fmt.Errorf("stop %s: %w", in.ID(), err)
	}
	in.once.Do(func() { close(in.stop) })
	in.signalStop()
	_, err = in.Wait(ctx)
	return err
}

// stopWithoutRoom leaves a stop.json without content, which takes no room: wrappers
// go by it, and a wrapper of a container by nothing else.
func (in *instance) stopWithoutRoom() error {
	f, err := os.OpenFile(filepath.Join(in.dir, fileStop), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if volume.Blocked(err) {
		return nil // not even a name: what is no container stops all the same
	}
	return err
}

// signalStop tells a running wrapper to read stop.json.
func (in *instance) signalStop() {
	in.mu.Lock()
	w := in.watch
	in.mu.Unlock()
	if w.PID != 0 && wrapper.Alive(w.PID, w.Start) {
		_ = syscall.Kill(w.PID, syscall.SIGTERM) // gone already is fine
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
	away, err := in.leave()
	if err == nil { // nobody waits for what follows
		err = in.putAway(away)
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", in.ID(), err)
	}
	return nil
}

// putAway removes the directory, but for what serves the next workload: nothing of the
// program is left that could still write there. One in a container is somebody else,
// who owns what it made.
func (in *instance) putAway(dir string) error {
	if goruntime.GOOS == "linux" && in.orderly && !in.contained { // elsewhere a program may leave others behind
		in.r.layers.give(filepath.Join(dir, dirVenv), filepath.Join(in.dir, dirVenv), in.base)
		if in.r.spare.give(dir, in.rec.Workload) {
			return nil
		}
	}
	return workload.RemoveAll(dir)
}

// leave takes the workload out of the runtime. Its id may be used again.
func (in *instance) leave() (away string, err error) {
	in.r.mu.Lock()
	defer in.r.mu.Unlock()
	if away, err = workload.TakeAway(in.dir); err == nil {
		delete(in.r.instances, in.ID())
	}
	return away, err
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
// server is going down: everything on disk stays as it is.
func (in *instance) drive(ctx context.Context) {
	exit := in.through(ctx)
	if ctx.Err() != nil {
		return
	}
	if err := workload.WriteEnd(ctx, in.r.cfg.Log, in.dir, exit, in.rec); err != nil {
		if ctx.Err() != nil {
			return
		}
		in.r.cfg.Log.ErrorContext(ctx, "record the end of a workload", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	in.finish(exit)
}

// through runs the program and puts its files away. Its identity ends before
// anybody hears of its end.
func (in *instance) through(ctx context.Context) runtime.Exit {
	end := func() {}
	err := in.admit(ctx)
	in.logs.Begin()
	if err == nil {
		in.identity = in.identify(ctx)
		end = in.identity.close
		err = in.launch(ctx)
	}
	var exit runtime.Exit
	if err == nil {
		exit, err = in.await(ctx)
	}
	in.logs.End()
	closed := make(chan struct{})
	go func() { defer close(closed); end() }()
	defer func() { <-closed }()
	if ctx.Err() != nil {
		return exit
	}
	in.r.cfg.Schedule.Release(in.ID())
	if err != nil {
		exit = in.place().Failed(err)
	}
	return in.place().Settle(ctx, exit, in.logs)
}

// launch makes the wrapper run, unless one did already. An end before the
// program ran comes back as an error; failed turns it into an Exit.
func (in *instance) launch(ctx context.Context) error {
	// A server that was killed a moment before may have started a wrapper, which is
	// still to say who it is: nothing is prepared beside it.
	if begun, err := in.begun(ctx); begun || err != nil {
		if begun && in.granted {
			in.keep() // it began before, with what it was given then
		}
		return err
	}
	if workload.Exists(filepath.Join(in.dir, fileStop)) {
		return workload.ErrStopped
	}
	prep, cancel := workload.UntilStop(ctx, in.stop)
	defer cancel()
	s, err := in.prepare(prep)
	if err != nil {
		if prep.Err() != nil && ctx.Err() == nil {
			return workload.ErrStopped
		}
		return err
	}
	defer func() { _ = in.tree.Close() }() // the wrapper holds it by now, or never will
	if err = record.WriteWhole(filepath.Join(in.dir, fileSpec), s); err != nil {
		err = fmt.Errorf("write the program's description: %w", err)
	} else {
		err = in.wrap(ctx, s)
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, groupOf(s).Remove()) // nobody else knows it
	}
	return err
}

// wrap starts the wrapper and waits until it has taken the workload over.
func (in *instance) wrap(ctx context.Context, s wrapper.Spec) error {
	out, err := workload.AppendOutput(in.dir)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the wrapper has its own descriptor
	mode := mountMode{}
	if s.GCS != "" {
		mode = in.r.mounts()
	}
	attr := mode.sysProcAttr()
	if s.Container != nil {
		attr = box.Attr(s.Container.IDs, s.Container.Alone)
	}
	if s.Python && in.wrapWarm(ctx, out) {
		return nil
	}
	if s.Container == nil {
		ours, dismiss := in.wrapWaiting(ctx, out)
		defer dismiss()
		if ours {
			return nil
		}
	}
	said, err := in.r.launcher().start(in.dir, out, attr)
	if err != nil {
		return fmt.Errorf("start the wrapper: %w", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-said.taken:
	}
	in.over = said.over
	if begun, err := in.begun(ctx); begun || err != nil {
		return err
	}
	return fmt.Errorf("the wrapper %s %s ended before it began", in.r.cfg.Self, Verb)
}

// begun reports that a wrapper took the workload, and waits for one that is at it.
// Of two the second finds the lock taken and leaves the workload to the first.
func (in *instance) begun(ctx context.Context) (bool, error) {
	for tick := time.Tick(time.Millisecond); ; {
		if in.reattach() {
			return true, nil
		}
		if !in.locked() {
			return in.reattach(), nil // it may have ended meanwhile
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick:
		}
	}
}

// locked reports a wrapper at work on the directory. No child may be forked
// meanwhile: it would hold our lock until it has become its program, and a wrapper
// that comes by then would think that another is at it.
func (in *instance) locked() bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.Open(in.dir)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // ends the lock, too
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// reattach finds a wrapper that took this workload.
func (in *instance) reattach() bool {
	path := filepath.Join(in.dir, fileWrapper)
	var w wrapper.Running
	if err := record.ReadWhole(path, &w); err != nil {
		return false
	}
	st, err := os.Stat(path)
	if err != nil {
		return false
	}
	var s wrapper.Spec
	err = record.ReadWhole(filepath.Join(in.dir, fileSpec), &s)
	in.contained = err != nil || s.Container != nil // when in doubt, its links are not followed
	in.gpus = in.r.gpus(s.GPUs)
	in.mu.Lock()
	in.status.GPUs = in.gpus
	in.watch, in.group = w, groupOf(s)
	in.status.Phase, in.status.PID, in.status.Started, in.status.Message = runtime.Running, w.PID, st.ModTime(), startNote(s, w)
	in.mu.Unlock()
	if workload.Exists(filepath.Join(in.dir, fileStop)) {
		in.signalStop() // asked for between the start and now, perhaps of an earlier server
	}
	return true
}

// untilOver returns once the wrapper has said that it wrote the end, or is gone.
func (in *instance) untilOver(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	gone := make(chan struct{})
	go func() { defer close(gone); err = waitExit(watching, in.watch.PID, in.watch.Start) }() // ends with the context
	select {
	case <-in.over:
		cancel()
		<-gone
		return nil
	case <-gone:
		return err
	}
}

// await returns once the wrapper has recorded the end.
func (in *instance) await(ctx context.Context) (runtime.Exit, error) {
	if err := in.untilOver(ctx); err != nil {
		return runtime.Exit{}, err
	}
	in.mu.Lock()
	group := in.group
	in.mu.Unlock()
	if err := group.Remove(); err != nil {
		in.r.cfg.Log.WarnContext(ctx, "a container has ended", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	var e wrapper.Exit
	err := record.ReadWhole(filepath.Join(in.dir, fileExit), &e)
	if record.Absent(err) {
		wrapper.KillStrays(in.watch.PID, in.dir)
		return runtime.Exit{
			Code: 128 + int(syscall.SIGKILL), Signal: "SIGKILL", Cause: resource.CausePlatform, Ended: in.r.cfg.Now(),
			Message: "the program was lost: its wrapper was killed or the machine restarted",
		}, nil
	}
	if err != nil {
		return runtime.Exit{}, err
	}
	in.orderly = true
	return in.explain(e), nil
}
