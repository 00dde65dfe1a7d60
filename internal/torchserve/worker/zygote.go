package worker

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

//go:embed zygote.py
var zygoteSource string

//go:embed shortcut.py
var shortcutSource string

// Zygote is a Python process with torch and ts loaded, which forks workers: they are
// ready in a fraction of the time, and share its memory.
type Zygote struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	stock string
	done  chan struct{} // closed when it is no more

	mu      sync.Mutex
	workers map[string]*forked // by the id of the start
	ended   bool
}

// forked is a worker of a zygote.
type forked struct {
	p      *Process
	begun  chan struct{} // closed once its id is known
	exited chan struct{} // closed once it has ended
}

// news is what a zygote says.
type news struct {
	Ready  bool
	Stock  string // why no function of the package has a shorter way; "" = they have, or none was wanted
	Unfit  string
	ID     string
	PID    int
	Ended  bool
	Status int
}

// Recipe says how a zygote is started.
type Recipe struct {
	Python    string
	Env       []string // its own; workers have theirs
	Shortcuts bool     // functions of the package have shorter ways (shortcut.py)
	// Output takes each line that it prints.
	Output func(line string)
}

// StartZygote starts one and returns once it can fork.
func StartZygote(ctx context.Context, rec Recipe) (*Zygote, error) {
	ours, theirs, err := messagePair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the zygote has its own
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn made its own
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a socket pair is a %T", conn), conn.Close())
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, unix.Close())
	}
	defer func() { _ = w.Close() }() // the zygote has its own
	// The source is an argument: there is no file to keep.
	boot := `import sys; exec(compile(sys.argv[1], "<tategu>", "exec"), {"__name__": "tategu_zygote"})`
	shortcut := ""
	if rec.Shortcuts {
		shortcut = shortcutSource
	}
	cmd := exec.Command(rec.Python, "-c", boot, zygoteSource, "3", shortcut) //nolint:noctx // Close ends it
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = rec.Env, w, w, []*os.File{theirs}
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a zygote with %s: %w", rec.Python, err), unix.Close(), r.Close())
	}
	z := &Zygote{cmd: cmd, conn: unix, done: make(chan struct{}), workers: map[string]*forked{}}
	p := newProcess()
	go func() { // until nobody can write any more
		p.follow(r, rec.Output)
		_ = r.Close() // read to its end
	}()
	stop := context.AfterFunc(ctx, func() { _ = unix.Close() })
	defer stop()
	first, err := z.read()
	if err == nil && !first.Ready {
		err = fmt.Errorf("no worker can be forked: %s", first.Unfit)
	}
	if err != nil {
		err = errors.Join(err, ctx.Err(), unix.Close())
		z.kill() // it may be in an import that does not end
		return nil, err
	}
	z.stock = first.Stock
	go z.listen()
	return z, nil
}

// Stock says why its workers run the package's functions alone, where shorter ways of
// some were wanted; "" = they have them.
func (z *Zygote) Stock() string { return z.stock }

func (z *Zygote) read() (news, error) {
	b := make([]byte, 64<<10)
	n, err := z.conn.Read(b)
	if err != nil {
		return news{}, fmt.Errorf("the zygote has gone: %w", err)
	}
	if n == 0 {
		return news{}, fmt.Errorf("the zygote has gone: %w", io.EOF)
	}
	var said news
	if err := json.Unmarshal(b[:n], &said); err != nil {
		return news{}, fmt.Errorf("the zygote says %.100q: %w", b[:n], err)
	}
	return said, nil
}

// listen hears of workers until the zygote is no more; then they are none either.
func (z *Zygote) listen() {
	defer close(z.done)
	for {
		said, err := z.read()
		if err != nil {
			break
		}
		z.mu.Lock()
		f := z.workers[said.ID]
		if said.Ended {
			delete(z.workers, said.ID)
		}
		z.mu.Unlock()
		switch {
		case f == nil:
		case said.Ended:
			f.end(exitOfStatus(syscall.WaitStatus(said.Status)))
		default:
			f.p.mu.Lock()
			f.p.pid = said.PID
			f.p.mu.Unlock()
			close(f.begun)
		}
	}
	_ = z.conn.Close() // what it leads to has gone
	z.kill()           // its workers go with it
	z.mu.Lock()
	z.ended = true
	left := z.workers
	z.workers = nil
	z.mu.Unlock()
	for _, f := range left {
		if pid := f.p.PID(); pid > 0 { // what it started is in its group, whose id is taken as long as it is
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		f.end(Exit{Code: 128 + int(syscall.SIGKILL), Signal: syscall.SIGKILL})
	}
}

// kill ends the zygote at once and waits for it.
func (z *Zygote) kill() {
	_ = syscall.Kill(-z.cmd.Process.Pid, syscall.SIGKILL) // not waited for yet: the id is its own
	_ = z.cmd.Wait()                                      // how it ended is known
}

func (f *forked) end(e Exit) {
	f.p.mu.Lock()
	f.p.exit = e
	f.p.mu.Unlock()
	close(f.exited)
}

func exitOfStatus(status syscall.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// Done is closed when the zygote is no more.
func (z *Zygote) Done() <-chan struct{} { return z.done }

// Close ends the zygote and its workers.
func (z *Zygote) Close() {
	_ = z.conn.Close() // its end is the zygote's
	<-z.done
}

// request is what a zygote is asked.
type request struct {
	ID      string   `json:",omitempty"`
	Kill    string   `json:",omitempty"`
	Env     []string `json:",omitempty"`
	Dir     string   `json:",omitempty"`
	Path    []string
	Home    string `json:",omitempty"`
	Socket  string `json:",omitempty"`
	Metrics string `json:",omitempty"`
	Async   bool
	Threads int
}

// maxRequest is how much a zygote reads at once.
const maxRequest = 192 << 10

func (z *Zygote) send(q request, fd ...int) error {
	data, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if len(data) > maxRequest {
		return fmt.Errorf("the worker's environment has %d bytes, which is too much (at most %d)", len(data), maxRequest)
	}
	var rights []byte
	if len(fd) > 0 {
		rights = syscall.UnixRights(fd...)
	}
	_, _, err = z.conn.WriteMsgUnix(data, rights, nil)
	return err
}

// Start implements Launcher.
func (z *Zygote) Start(ctx context.Context, g Program) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }() // the worker has its own
	f := &forked{p: newProcess(), begun: make(chan struct{}), exited: make(chan struct{})}
	var held []int
	if f.p.leash, held, err = newLeash(g.Threads); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	f.p.kill = func() { _ = z.send(request{Kill: g.ID}) } // a zygote that has gone took it along
	z.mu.Lock()
	if z.ended {
		z.mu.Unlock()
		return nil, errors.Join(errors.New("the zygote has gone"), r.Close(), f.p.leash.close())
	}
	z.workers[g.ID] = f
	z.mu.Unlock()
	err = z.send(request{ID: g.ID, Env: g.environment(), Dir: g.Dir, Path: append([]string{}, g.Path...), Home: g.Home, Socket: g.Socket, Metrics: g.Metrics, Async: g.Async, Threads: g.Threads}, append([]int{int(w.Fd())}, held...)...)
	if err != nil { // it has not heard of it, so will not say that it has ended
		z.mu.Lock()
		delete(z.workers, g.ID)
		z.mu.Unlock()
	} else {
		select {
		case <-f.begun:
		case <-f.exited: // at once; whoever waits for it to be ready will see
		case <-z.done:
			err = errors.New("the zygote has gone")
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		f.p.kill()
		return nil, errors.Join(err, r.Close(), f.p.leash.close())
	}
	read := make(chan struct{})
	go func() { // until nobody can write any more
		defer close(read)
		f.p.follow(r, g.Output)
	}()
	go func() { // until the worker has ended
		<-f.exited
		_ = f.p.leash.close() // nobody is at the other end
		drain(r, read)
		close(f.p.done)
	}()
	return f.p, nil
}
