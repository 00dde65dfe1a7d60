package process

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"tategu/internal/runtime/process/wrapper"
)

// Verb is the hidden verb of our binary that runs one workload: the main program
// calls Main with what follows it.
const Verb = wrapper.Verb

// Main is the wrapper in a binary that is more than that. The result is its exit code.
func Main(args []string) int { return wrapper.Main(args) }

// launcher starts wrappers: the small program, from memory, where our binary
// carries it, else our whole binary again.
type launcher struct {
	self   string
	memory *os.File // nil = self
}

func (r *Runtime) openLauncher() launcher {
	l := launcher{self: r.cfg.Self}
	if r.cfg.Wrapper == nil {
		return l
	}
	f, err := unpackWrapper(r.cfg.Wrapper)
	if err != nil {
		r.cfg.Log.Warn("programs start slowly: the small wrapper cannot be used, the whole binary is", slog.Any("error", err))
		return l
	}
	l.memory = f
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory = f
	return l
}

// unpackWrapper brings the small wrapper where it can be started.
func unpackWrapper(b []byte) (*os.File, error) {
	packed, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("unpack the wrapper: %w", err)
	}
	f, err := programFile()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, packed); err != nil { //nolint:gosec // it is part of our own binary
		return nil, errors.Join(fmt.Errorf("unpack the wrapper: %w", err), f.Close())
	}
	if err := seal(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// environment of a wrapper: of the server's own nothing passes.
func (l launcher) environment() []string {
	env := []string{wrapper.Mark + "=1", "GOMAXPROCS=2"}
	if l.memory == nil {
		// Our whole binary makes much at its start that stays; looking through it again
		// and again takes longer than all that a wrapper does.
		env = append(env, "GOGC=off", "GOMEMLIMIT=48MiB")
	}
	return env
}

// program is the path of what is started, and what the child needs for it after
// the n descriptors that it has.
func (l launcher) program(n int) (path string, files []*os.File) {
	if l.memory == nil {
		return l.self, nil
	}
	return fmt.Sprintf("/proc/self/fd/%d", n), []*os.File{l.memory}
}

// command makes cmd a wrapper with these arguments.
func (l launcher) command(cmd *exec.Cmd, args ...string) *exec.Cmd {
	path, files := l.program(3)
	cmd.Path, cmd.Args, cmd.Env, cmd.ExtraFiles = path, append([]string{l.self, Verb}, args...), l.environment(), files
	return cmd
}

// start starts the wrapper of a workload's directory, with the output file as its
// stdout and stderr. taken gets one value: true once the wrapper has said that it
// took the workload, false when it has ended without.
func (l launcher) start(dir string, out *os.File, attr *syscall.SysProcAttr) (taken <-chan bool, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }() // opened for reading
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	files := []*os.File{null, out, out, w}
	path, more := l.program(len(files))
	p, err := os.StartProcess(path, []string{l.self, Verb, dir}, &os.ProcAttr{
		Dir: dir, Files: append(files, more...), Sys: attr, Env: append(l.environment(), wrapper.DirVariable+"="+dir),
	})
	_ = w.Close() // the wrapper has its own
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	said := make(chan bool, 1)
	go func() { // ends with the wrapper, which may outlive the server
		n, _ := r.Read(make([]byte, 1)) // an error is the end of a wrapper that said nothing
		said <- n == 1
		_ = r.Close()   // nothing follows
		_, _ = p.Wait() // its exit status is in exit.json
	}()
	return said, nil
}
