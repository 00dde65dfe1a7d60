package process

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"tategu/internal/runtime"
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

// environmentOf is that of the wrapper of a workload's directory.
func (l launcher) environmentOf(dir string) []string {
	return append(l.environment(), wrapper.DirVariable+"="+dir)
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
// stdout and stderr.
func (l launcher) start(dir string, out *os.File, attr *syscall.SysProcAttr) (heard, error) {
	files, said, err := wrapperFiles(out)
	if err != nil {
		return heard{}, err
	}
	defer files.close() // the wrapper has its own
	path, more := l.program(len(files))
	p, err := os.StartProcess(path, []string{l.self, Verb, dir}, &os.ProcAttr{
		Dir: dir, Files: append(slices.Clone(files), more...), Sys: attr, Env: l.environmentOf(dir),
	})
	if err != nil {
		return heard{}, errors.Join(err, said.Close())
	}
	return listen(said, func() { _, _ = p.Wait() }), nil // its exit status is in exit.json
}

// waiting is how a wrapper is started that waits for its workload: see wrapper.Waiting,
// whose pid comes last. root is a directory to build / in, or "".
func (l launcher) waiting(root string, n int) (path string, args, env []string, files []*os.File) {
	path, files = l.program(n)
	shown := ""
	if root != "" {
		shown = runtime.GCSRoot
	}
	return path, []string{l.self, Verb, wrapper.Waiting, root, shown, strings.Repeat("/", wrapper.Padding)}, l.environment(), files
}

// ask tells a wrapper that waits at the other end of conn of its workload, by way of
// whoever passes it on.
func ask(conn *net.UnixConn, dir string, out *os.File) (heard, error) {
	said, link, err := os.Pipe()
	if err != nil {
		return heard{}, err
	}
	defer func() { _ = link.Close() }() // what was sent is the receiver's
	frame, err := wrapper.Frame(wrapper.Request{Dir: dir})
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(zygotePatience))
	}
	if err == nil {
		_, _, err = conn.WriteMsgUnix(frame, syscall.UnixRights(int(out.Fd()), int(link.Fd())), nil)
	}
	if err != nil {
		return heard{}, errors.Join(err, said.Close())
	}
	return listen(said, func() {}), nil
}

// inheritance is a wrapper's descriptors from 0.
type inheritance []*os.File

// wrapperFiles opens them; said reads what the wrapper writes to its link.
func wrapperFiles(out *os.File) (files inheritance, said *os.File, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	said, link, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, null.Close())
	}
	return inheritance{null, out, out, link}, said, nil
}

// close closes what is not the caller's.
func (f inheritance) close() {
	_ = f[0].Close() // opened for reading
	_ = f[linkAt].Close()
}

// linkAt is the place of the link among a wrapper's descriptors.
const linkAt = 3

// heard is what a wrapper says of itself. taken gets one value: true once it took the
// workload, false when it has ended without. over is closed when it has written the end
// of the workload, and not where it cannot say so: its own end tells, too.
type heard struct {
	taken <-chan bool
	over  <-chan struct{}
}

// listen hears the wrapper.
func listen(r *os.File, after func()) heard {
	said, over := make(chan bool, 1), make(chan struct{})
	go func() { // ends with the wrapper, which may outlive the server
		word := func() bool {
			n, _ := r.Read(make([]byte, 1)) // an error is the end of a wrapper that said nothing
			return n == 1
		}
		taken := word()
		if said <- taken; taken && word() {
			close(over)
		}
		_ = r.Close() // nothing follows
		after()
	}()
	return heard{taken: said, over: over}
}
