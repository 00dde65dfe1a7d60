package process

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"tategu/internal/runtime/process/wrapper"

	"golang.org/x/sys/unix"
)

// nest keeps one wrapper that waits for a program, once one was started: its own start
// and what every program sees of the machine are made by then.
type nest struct {
	root  string // an empty directory to build / in; "" = nothing is mounted
	attr  func() *syscall.SysProcAttr
	start func(root string, attr *syscall.SysProcAttr) (*waiting, error)
	log   *slog.Logger

	mu     sync.Mutex
	free   *waiting
	making bool
}

// waiting is a wrapper without a workload. It ends with its socket.
type waiting struct {
	process *os.Process
	conn    *net.UnixConn
	ended   chan struct{} // closed once it has been collected
	keep    func() bool   // takes back that it ends with the server
	mounts  int           // the machine's, as they were before it copied them; -1 = unknown
}

// mountsFile tells by poll(2) that something was mounted or unmounted since it was opened
// (proc_pid_mountinfo(5)).
const mountsFile = "/proc/self/mountinfo"

// outdated reports that the machine has other mounts than the wrapper saw. Where they are
// private, as in a container, new ones do not show in its copy.
func (w *waiting) outdated() bool {
	if w.mounts < 0 {
		return false
	}
	defer func() { _ = unix.Close(w.mounts) }() // opened for reading
	polled := []unix.PollFd{{Fd: int32(w.mounts), Events: unix.POLLPRI}}
	n, err := unix.Poll(polled, 0)
	return err != nil || n > 0
}

// openNest makes what a nest needs; nil where programs have our whole binary as their
// wrapper, which is no small thing to have wait.
func (r *Runtime) openNest() *nest {
	l := r.launcher()
	if l.memory == nil {
		return nil
	}
	n := &nest{attr: r.mounts().sysProcAttr, start: l.wait, log: r.cfg.Log}
	if r.mounts().flags != 0 {
		n.root = filepath.Join(r.cfg.Dir, dirNest)
		if err := os.MkdirAll(n.root, 0o700); err != nil {
			r.cfg.Log.Warn("no wrapper waits for a program", slog.Any("error", err))
			return nil
		}
	}
	return n
}

// take gives the wrapper that waits, whose workload is told next; nil = there is none.
func (n *nest) take() *waiting {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.free
	n.free = nil
	if w == nil {
		return nil
	}
	w.keep()
	if w.outdated() {
		w.close()
		return nil
	}
	return w
}

// fill starts one that waits, unless one does. It ends with ctx.
func (n *nest) fill(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.free != nil || n.making {
		return
	}
	n.making = true
	n.mu.Unlock()
	mounts, err := unix.Open(mountsFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		mounts = -1
	}
	w, err := n.start(n.root, n.attr())
	n.mu.Lock()
	n.making = false
	if err != nil {
		_ = unix.Close(mounts) // opened for reading, if at all
		n.log.WarnContext(ctx, "no wrapper waits for a program", slog.Any("error", err))
		return
	}
	w.mounts = mounts
	w.keep = context.AfterFunc(ctx, func() {
		_ = unix.Close(mounts) // as above
		w.close()
	})
	n.free = w
}

// close ends one that has no workload.
func (w *waiting) close() { _ = w.conn.Close() } // nothing is to be told

func (w *waiting) stopped() bool { return wrapper.Stopped(w.process.Pid) }

// kill ends one that took no workload in time.
func (w *waiting) kill() { _ = w.process.Kill() } // ended already is fine

// wait starts a wrapper that waits for its workload.
func (l launcher) wait(root string, attr *syscall.SysProcAttr) (w *waiting, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the wrapper has its own
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn made its own
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil || !ok {
		return nil, errors.Join(err, conn.Close())
	}
	defer func() { _ = null.Close() }() // likewise
	path, args, env, files := l.waiting(root, wrapperAt)
	p, err := os.StartProcess(path, append(args, "0"), &os.ProcAttr{
		Dir: "/", Files: append([]*os.File{null, null, null, theirs}, files...), Sys: attr, Env: env,
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w = &waiting{process: p, conn: unix, ended: make(chan struct{})}
	go func() { // ends with the wrapper, which may outlive the server
		_, _ = p.Wait() // its exit status is in exit.json
		close(w.ended)
	}()
	return w, nil
}

// wrapWaiting has the wrapper that waits take the workload, if there is one: false = a
// wrapper has to be started. One that comes too late finds that another has it, and the
// lock on the directory decides; dismiss ends one that was too late. It is not ended
// before: it may have the workload, and only has not been heard.
func (in *instance) wrapWaiting(ctx context.Context, out *os.File) (ours bool, dismiss func()) {
	n := in.r.nest()
	if n == nil {
		return false, func() {}
	}
	defer in.r.spawn(n.fill)
	w := n.take()
	if w == nil {
		return false, func() {}
	}
	defer w.close()
	said, err := ask(w.conn, in.dir, out)
	if err == nil {
		err = hear(ctx, w.stopped, said.taken)
		in.over = said.over
	}
	if ours = in.reattach(); !ours && ctx.Err() == nil {
		in.r.cfg.Log.DebugContext(ctx, "a wrapper that waited did not take a workload", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	return ours, func() {
		if in.watch.PID != 0 && in.watch.PID != w.process.Pid {
			w.kill()
		}
	}
}
