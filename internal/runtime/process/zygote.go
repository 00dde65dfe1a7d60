package process

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"
)

//go:embed leave.py
var leaveSource []byte

//go:embed rehearse.py
var rehearseSource []byte

// rehearsal stands among a zygote's imports for kfp's executor, which it runs for nothing.
const rehearsal = "(rehearsal)"

//go:embed zygote.py
var zygoteSource []byte

const (
	// zygoteBoot keeps our code out of the program's __main__ and off its command line.
	zygoteBoot = `import sys; exec(compile(open(sys.argv[1], "rb").read(), "<tategu>", "exec"), {"__name__": "tategu_zygote"})`
	// zygoteRoom is how long a workload's command line and directory may show to ps.
	zygoteRoom = 4096
	// zygotePatience is how long a request may take to be read, and a program to be forked.
	zygotePatience = 10 * time.Second
	fileZygote     = "zygote.py"
	wrapperAt      = 4 // the descriptor of the wrapper's program, in a zygote and in the wrapper
)

// unfitError is wrapped by what tells that an import cannot be loaded beforehand.
type unfitError struct{ entry, why string }

func (e *unfitError) Error() string {
	return fmt.Sprintf("%s is not loaded beforehand: %s", e.entry, e.why)
}

// zygote is a Python process that forks programs. It ends with its socket.
type zygote struct {
	dir   string
	cmd   *exec.Cmd
	bytes int64         // resident, once it was ready
	ended chan struct{} // closed once it has been collected

	mu   sync.Mutex // one request at a time
	conn *net.UnixConn
}

// zygoteSettings is what zygote.py gets on its command line.
type zygoteSettings struct {
	Dir     string   // of the zygote, which stands in paths where a program has its own
	Imports []string // to load, in this order
	Private []string // variables that differ from task to task
	Mark    string   // the variable that marks a workload's processes
	Room    int      // bytes of padding

	Namespaces uintptr // that every program gets, as flags of clone(2)

	Own  bool     // the wrapper's program is no file but descriptor 4
	Path string   // of the wrapper
	Args []string // likewise; the program's pid is appended
	Env  []string // likewise
}

// zygoteNews is what a zygote writes: that it is ready, or why it ends.
type zygoteNews struct {
	Ready      bool
	Bytes      int64
	Unfit, Why string
}

// openZygote starts one over an environment and returns when it has loaded the
// imports. It ends with ctx or Close.
func openZygote(ctx context.Context, parent string, base environment, recipe recipe, wrappers launcher, namespaces uintptr) (z *zygote, err error) {
	dir, err := os.MkdirTemp(parent, "zygote-") // what a killed server leaves goes at the next start
	if err != nil {
		return nil, err
	}
	defer func() {
		if z == nil {
			err = errors.Join(err, workload.RemoveAll(dir))
		}
	}()
	if err := layer(filepath.Join(dir, dirVenv), base); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, fileZygote), slices.Concat(leaveSource, rehearseSource, zygoteSource), 0o600); err != nil {
		return nil, err
	}
	started, err := startZygote(dir, recipe, wrappers, namespaces)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, started.kill)
	defer stop()
	if err := started.awaitReady(); err != nil {
		started.close()
		return nil, errors.Join(err, ctx.Err())
	}
	return started, nil
}

func startZygote(dir string, recipe recipe, wrappers launcher, namespaces uintptr) (z *zygote, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the zygote has its own
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn made its own
	if err != nil {
		return nil, err
	}
	defer func() {
		if z == nil {
			_ = conn.Close() // nobody is at the other end
		}
	}()
	out, err := os.OpenFile(filepath.Join(dir, fileOutput), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the zygote has its own
	root := ""
	if namespaces != 0 {
		root = filepath.Join(dir, wrapper.DirRoot)
		if err := os.Mkdir(root, 0o700); err != nil {
			return nil, err
		}
	}
	path, args, env, files := wrappers.waiting(root, wrapperAt)
	settings, err := json.Marshal(zygoteSettings{
		Dir: dir, Imports: recipe.imports, Private: recipe.private, Mark: wrapper.DirVariable, Room: zygoteRoom, Namespaces: namespaces,
		Own: len(files) > 0, Path: path, Args: args, Env: env,
	})
	if err != nil {
		return nil, err
	}
	pad := strings.Repeat("/", zygoteRoom)
	cmd := exec.Command(filepath.Join(dir, dirVenv, "bin", "python3"), "-c", zygoteBoot, filepath.Join(dir, fileZygote), "3", string(settings), pad) //nolint:noctx // close ends it
	// The first variable is room for the mark of a program.
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, append([]string{wrapper.DirVariable + "=" + pad}, recipe.environment(dir)...), append([]*os.File{theirs}, files...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no Ctrl-C of a terminal
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a socket pair is a %T", conn), cmd.Process.Kill(), cmd.Wait())
	}
	return &zygote{dir: dir, cmd: cmd, conn: unix, ended: make(chan struct{})}, nil
}

func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // a program that is started meanwhile must not inherit them
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "zygote"), os.NewFile(uintptr(fds[1]), "server"), nil
}

// awaitReady reads the zygote's first line; it ends itself when that takes too long.
func (z *zygote) awaitReady() error {
	line, err := bufio.NewReader(z.conn).ReadBytes('\n')
	var news zygoteNews
	if err == nil {
		err = json.Unmarshal(line, &news)
	}
	switch {
	case err == nil && news.Ready:
		z.bytes = news.Bytes
		return nil
	case err == nil:
		return &unfitError{entry: news.Unfit, why: news.Why}
	}
	said := workload.Tail(filepath.Join(z.dir, fileOutput))
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended")
	}
	return fmt.Errorf("%w: %s", err, strings.Join(said, " | "))
}

// watch returns when the zygote has ended, and collects it.
func (z *zygote) watch() {
	_ = z.cmd.Wait() // how it ended says nothing that its socket did not
	z.mu.Lock()
	_ = z.conn.Close() // nobody is at the other end
	z.mu.Unlock()
	_ = workload.RemoveAll(z.dir) // a leftover goes at the next start
	close(z.ended)
}

// kill ends it. What it has forked goes on.
func (z *zygote) kill() { _ = z.cmd.Process.Kill() } // ended already is fine

func (z *zygote) close() {
	z.kill()
	z.watch()
}

// fork asks for a program and its wrapper; what comes of it shows by what is heard.
func (z *zygote) fork(dir string, out *os.File) (heard, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return ask(z.conn, dir, out)
}
