package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program says how a worker process is started.
type Program struct {
	ID      string // of this start, unique
	Python  string // interpreter; its packages must have ts and torch
	Home    string // folder of the package ts
	Dir     string // the model's files: working directory
	Path    []string
	Socket  string // its name ends in a dot and a number
	Env     []string
	Metrics string // file of metric definitions
	Async   bool
	Threads int // of torch; 0 = its own default
	// Output takes each line that the worker prints, from one goroutine at a time.
	Output func(line string)
}

// Exit is how a worker process ended.
type Exit struct {
	Code   int            // exit status; 128 + Signal when a signal ended it
	Signal syscall.Signal // 0 = it left by itself
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "it was killed by " + signalName(e.Signal)
	}
	return "it left with status " + strconv.Itoa(e.Code)
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGBUS:
		return "SIGBUS"
	default:
		return s.String()
	}
}

// Process is a worker process.
type Process struct {
	ready chan struct{} // closed once it listens
	done  chan struct{} // closed once it has ended and its output is read
	kill  func()
	leash *leash // nil = it was not forked by us

	mu   sync.Mutex
	pid  int
	exit Exit
	tail []string
}

// tailLines of output are kept for whoever asks why it died.
const tailLines = 20

// readyLine is what a worker prints when it listens.
const readyLine = "Torch worker started."

func newProcess() *Process {
	return &Process{ready: make(chan struct{}), done: make(chan struct{})}
}

// Ready is closed when the worker listens on its socket.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends it and all that it started, at once. Done tells when it has.
func (p *Process) Kill() { p.kill() }

// PID is its process id.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Exit says how it ended, once it has.
func (p *Process) Exit() Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Tail gives the last lines of its output.
func (p *Process) Tail() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tail)
}

// follow reads output until its end.
func (p *Process) follow(r io.Reader, output func(string)) {
	b := bufio.NewReaderSize(r, 64<<10)
	isReady := false
	for {
		line, err := readLine(b)
		if line != "" {
			if !isReady && line == readyLine {
				isReady = true
				close(p.ready)
			}
			p.keep(line)
			output(line)
		}
		if err != nil {
			return // the end, or a pipe that is no more
		}
	}
}

func (p *Process) keep(line string) {
	if strings.HasPrefix(line, metricMark) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tail) == tailLines {
		p.tail = slices.Delete(p.tail, 0, 1)
	}
	p.tail = append(p.tail, clip(line))
}

func clip(line string) string {
	if len(line) > 1000 {
		return strings.ToValidUTF8(line[:1000], "") + "..."
	}
	return line
}

// readLine gives a line without its end; one of more than 64 KiB comes in pieces.
func readLine(b *bufio.Reader) (string, error) {
	line, err := b.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return strings.TrimRight(string(line), "\r\n"), err
}

// Launcher starts worker processes.
type Launcher interface {
	// Start returns once the process exists; Ready tells when it listens. ctx bounds
	// the start alone.
	Start(ctx context.Context, p Program) (*Process, error)
}

// Plain starts each worker as a process of its own.
type Plain struct{}

// arguments of the worker's script.
func (g Program) arguments() []string {
	args := []string{"--sock-type", "unix", "--sock-name", g.Socket, "--metrics-config", g.Metrics}
	if g.Async {
		args = append(args, "--async")
	}
	return args
}

func (g Program) environment() []string {
	env := slices.Clone(g.Env)
	if len(g.Path) > 0 {
		env = append(env, "PYTHONPATH="+strings.Join(g.Path, string(os.PathListSeparator)))
	}
	if g.Threads > 0 {
		n := strconv.Itoa(g.Threads)
		env = append(env, "OMP_NUM_THREADS="+n, "MKL_NUM_THREADS="+n, "OPENBLAS_NUM_THREADS="+n)
	}
	return append(env, "PYTHONUNBUFFERED=1")
}

// Start implements Launcher.
func (Plain) Start(_ context.Context, g Program) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }()                                                                          // the worker has its own
	cmd := exec.Command(g.Python, append([]string{g.Home + "/model_service_worker.py"}, g.arguments()...)...) //nolint:noctx // Kill ends it
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = g.Dir, g.environment(), w, w
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a worker with %s: %w", g.Python, err), r.Close())
	}
	p := newProcess()
	p.pid = cmd.Process.Pid
	ended := false // under p.mu: afterwards the id may be another's
	p.kill = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !ended {
			_ = syscall.Kill(-p.pid, syscall.SIGKILL) // it may have gone just now
		}
	}
	read := make(chan struct{})
	go func() { // until nobody can write any more
		defer close(read)
		p.follow(r, g.Output)
	}()
	go func() { // until the process has ended
		awaitEnd(p.pid)
		p.kill() // what it started goes with it
		p.mu.Lock()
		_ = cmd.Wait() // its state says how it ended
		ended = true
		p.exit = exitOf(cmd.ProcessState)
		p.mu.Unlock()
		drain(r, read)
		close(p.done)
	}()
	return p, nil
}

// drainLimit is how long the output of a process may go on once it has ended: what it
// started in a session of its own keeps the pipe, and is not ours to end.
const drainLimit = 2 * time.Second

// drain waits for read to be closed, by what reads r, and closes r.
func drain(r io.Closer, read <-chan struct{}) {
	timer := time.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
	}
	_ = r.Close() // a reader that waits returns
	<-read
}

func exitOf(s *os.ProcessState) Exit {
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal()}
	}
	return Exit{Code: s.ExitCode()}
}
