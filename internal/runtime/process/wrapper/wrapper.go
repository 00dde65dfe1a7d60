// Package wrapper is the small program between the server and a workload's program:
// it starts it, outlives the server, and writes how it ended. It is linked into
// a binary of its own that starts in a tenth of the server's time, so that it
// imports little: nothing of the API.
package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"tategu/internal/runtime/oom"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/record"
)

// Verb is the hidden verb of our binary that runs one workload: the main program
// calls Main with what follows it.
const Verb = "exec-workload"

// Mark in the environment tells a program that it runs as a wrapper, so that one
// that does not serve Verb stops instead of starting servers of its own.
const Mark = "TATEGU_WRAPPER"

// DirVariable marks every process of a workload in its environment.
const DirVariable = "TATEGU_WORKLOAD_DIR"

// Descriptors that the server gives a wrapper besides the first three.
const (
	linkFD = 3 // a pipe: a byte on it says that the wrapper took the workload, another that its end is written; of a waiting one a socket to who tells it of its workload
	selfFD = 4 // the wrapper's own program, where that is no file
	warmFD = 5 // a socket to a program that was forked
)

// ProbeGCS and ProbeContainer are the wrapper's arguments for trying what the
// machine allows.
const (
	ProbeGCS       = "--probe"
	ProbeContainer = "--probe-container"
)

// Main is the wrapper: it runs the workload of the directory args[0] and writes
// how it ended. It outlives the server, so it speaks to it by files only. The
// result is its exit code.
func Main(args []string) int {
	var err error
	switch {
	case len(args) == 3 && args[0] == ProbeGCS:
		err = probe(args[1], args[2])
	case len(args) == 3 && args[0] == ProbeContainer:
		err = box.Try(args[1], args[2])
	case len(args) == 1:
		err = wrap(args[0], nil, nil, link())
	case len(args) == 5 && args[0] == Waiting:
		err = wait(args[1], args[2], args[4])
	default:
		fmt.Fprintln(os.Stderr, "usage: "+Verb+" DIR")
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // kept in the output file
		return 1
	}
	return 0
}

// link gives the pipe to the server that started us; no program inherits what
// belongs to us. It is nil where a person started us.
func link() *os.File {
	if os.Getenv(Mark) == "" {
		return nil
	}
	syscall.CloseOnExec(linkFD)
	syscall.CloseOnExec(selfFD)
	return os.NewFile(linkFD, "link")
}

// wrap runs the workload of dir; the program may wait already, as may what it sees.
func wrap(dir string, warm *program, v *view, server *os.File) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // ends the lock with us
	switch err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil // another wrapper of this workload is at it
	case err != nil:
		return fmt.Errorf("lock: %w", err)
	}
	if record.Exists(filepath.Join(dir, FileRunning)) {
		return nil // it was started before: a program runs once at most
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM)
	// Taken and dropped: a program would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT)

	var s Spec
	if err := record.ReadWhole(filepath.Join(dir, FileSpec), &s); err != nil {
		return err
	}
	if s.Container != nil {
		return wrapContainer(dir, s, server, signals)
	}
	shown := v.show(dir, s) // while the program gets ready
	if err := announce(dir, os.Getpid(), warm.ready(), server); err != nil {
		return err
	}
	exit := run(dir, s, shown, warm, signals)
	exit.Ended = time.Now()
	if err := insist(func() error { return record.WriteWhole(filepath.Join(dir, FileExit), exit) }); err != nil {
		return err
	}
	_ = lock.Close() // the directory may soon be another's
	// Our own end takes a while: the kernel takes a tree of mounts apart. Nobody needs
	// to wait for that, nor for us.
	tell(server)
	return nil
}

// tell writes to the link; a server that was killed meanwhile looks at the files.
func tell(server *os.File) { _, _ = server.Write([]byte{'\n'}) }

// announce says who watches the program; pid is ours as the machine sees it. The
// server learns it by the file and, without looking again and again, by the pipe.
func announce(dir string, pid int, warm bool, server *os.File) error {
	start, err := StartTime(pid)
	if err != nil {
		return err
	}
	if err := insist(func() error {
		return record.WriteWhole(filepath.Join(dir, FileRunning), Running{PID: pid, Start: start, Warm: warm})
	}); err != nil {
		return err
	}
	tell(server)
	return nil
}

// insist repeats a write until the disk has room for it: what it says is lost otherwise.
func insist(write func() error) error {
	const most = 15 * time.Second
	for pause := most / 30; ; pause = min(2*pause, most) {
		err := write()
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return err
		}
		<-time.After(pause)
	}
}

// show shows the directories of a workload to its program.
func (v *view) show(dir string, s Spec) error {
	if s.GCS == "" {
		return nil
	}
	mounts := append([]Mount{{From: s.GCS, To: s.GCSRoot}}, s.Volumes...)
	if v.ready() {
		return v.add(mounts)
	}
	return mount(dir, mounts)
}

// run starts the program and sees its whole tree to the end. Where not all could be
// shown to it, it does not start.
func run(dir string, s Spec, shown error, warm *program, signals <-chan os.Signal) Exit {
	if shown != nil {
		return Exit{Code: -1, Error: "show directories to the program: " + shown.Error()}
	}
	if err := becomeReaper(); err != nil {
		return Exit{Code: -1, Error: "become the parent of orphans: " + err.Error()}
	}
	ooms := oom.Kills()
	pid, begun := warm.begin()
	var err error
	if !begun {
		pid, err = spawn(s)
	}
	if err != nil {
		return notStarted(err, s.Dir, "")
	}
	status, stopped := supervise(pid, signals, family{
		grace: func() (time.Duration, bool) {
			var s Stop
			if err := record.ReadJSON(filepath.Join(dir, FileStop), &s); err != nil {
				s.Grace = 0
			}
			return s.Grace, true
		},
		kill: func() { killTree(pid) },
	})
	exit := ended(status)
	exit.Stopped, exit.OOM = stopped, oom.Kills() > ooms
	return exit
}

func ended(status syscall.WaitStatus) (exit Exit) {
	if status.Signaled() {
		exit.Code, exit.Signal = 128+int(status.Signal()), signalName(status.Signal())
	} else {
		exit.Code = status.ExitStatus()
	}
	return exit
}

func spawn(s Spec) (pid int, err error) {
	path, err := box.Look(s.Command[0], s.Dir, s.Env)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }() // opened for reading
	attr := &syscall.SysProcAttr{Setpgid: true}
	start := func(group *os.File) (int, error) {
		inGroup(attr, group)
		// Stdout and stderr are the output file that the server gave us.
		return syscall.ForkExec(path, s.Command, &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Files: []uintptr{null.Fd(), 1, 2}, Sys: attr})
	}
	if s.Low {
		pid, err = box.Low(s.Cgroup, start)
	} else {
		pid, err = start(nil)
	}
	if err != nil {
		return 0, &fs.PathError{Op: box.OpStart, Path: path, Err: err}
	}
	return pid, nil
}

// family is how a program and all that it started are ended.
type family struct {
	grace func() (time.Duration, bool) // that Stop gives; false = nobody asked for it
	kill  func()                       // of everything
}

// supervise waits for the program, then ends what it left behind. A SIGTERM
// passes Stop on: the program's group is asked, and killed after the grace.
func supervise(pid int, signals <-chan os.Signal, f family) (status syscall.WaitStatus, stopped bool) {
	program := make(chan death, 1)
	none := make(chan struct{})
	go reap(pid, program, none) // ends when no child is left
	var grace <-chan time.Time
	var again <-chan time.Time // kills anew what was forked meanwhile
	ended := false
	for {
		select {
		case d := <-program:
			status, ended = d.status, true
			if d.last {
				return status, stopped
			}
			f.kill()
			again = time.After(10 * time.Millisecond)
		case <-none:
			if !ended {
				status = (<-program).status // sent before none was closed
			}
			return status, stopped
		case <-signals:
			wait, asked := f.grace()
			if !asked {
				continue
			}
			stopped = true
			_ = syscall.Kill(-pid, syscall.SIGTERM) // gone already is fine
			grace = time.After(wait)
		case <-grace:
			f.kill()
			again = time.After(10 * time.Millisecond)
		case <-again:
			f.kill()
			again = time.After(50 * time.Millisecond)
		}
	}
}

// death is the end of the program.
type death struct {
	status syscall.WaitStatus
	last   bool // it left nothing behind: looking for it would take longer than many programs
}

// reap collects every child, also orphans that the kernel gave us.
func reap(pid int, program chan<- death, none chan<- struct{}) {
	defer close(none)
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return
		case got == pid:
			program <- death{status, childless()}
		}
	}
}

func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM", syscall.SIGSEGV: "SIGSEGV", syscall.SIGABRT: "SIGABRT",
		syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE", syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGPIPE: "SIGPIPE",
	}
	if name, ok := names[s]; ok {
		return name
	}
	return s.String()
}
