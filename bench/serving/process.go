package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tategu/bench/harness"
)

// process is a server on its core, with all that it starts.
type process struct {
	cmd  *exec.Cmd
	log  string
	mark string // programs whose arguments begin with it belong to it, wherever they hang
	done chan struct{}
}

// command runs a program on a core; "" = on any.
func command(ctx context.Context, core, name string, args ...string) *exec.Cmd {
	if core != "" {
		args = append([]string{"-c", core, name}, args...)
		name = "taskset"
	}
	cmd := exec.CommandContext(ctx, name, args...)        //nolint:gosec // what it runs is what it measures
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ended as a whole
	return cmd
}

func (b *bench) start(ctx context.Context, name, dir string, env []string, argv ...string) (*process, error) {
	p, err := start(ctx, b.options, name, dir, env, argv...)
	if err == nil {
		b.running = append(b.running, p)
	}
	return p, err
}

func start(ctx context.Context, o options, name, dir string, env []string, argv ...string) (*process, error) {
	p := &process{log: filepath.Join(o.folder, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd = command(ctx, o.cores[0], argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, append(os.Environ(), env...), log, log
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	err = p.cmd.Start()
	_ = log.Close() // the child has its own
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // what it says of itself is in the log
	}()
	return p, nil
}

// pause stops a server that has no turn, with the workers that it started in groups of
// their own: some poll.
func (p *process) pause()  { p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) {
	for _, pid := range p.tree() {
		_ = syscall.Kill(pid, s) // it may have ended
	}
}

func (p *process) stop() error {
	p.resume()
	// Some start their workers in groups of their own, and end before them.
	workers := map[int]harness.Stat{}
	for _, pid := range p.tree() {
		workers[pid], _ = harness.Read(pid)
	}
	defer func() {
		for pid, was := range workers {
			if now, ok := harness.Read(pid); ok && now.Start == was.Start { // else the number is another's by now
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // and what a polite end leaves behind
	<-p.done
	return nil
}

// tail is the end of what it said.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log) //nolint:gosec // a file of its own folder
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// answers waits until the server answers a GET, whatever it says: for limit, and longer
// while it works, since a machine that others use starts a Python slowly.
func (p *process) answers(ctx context.Context, url string, limit time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go p.watch(ctx, limit, cancel)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("it ended: %s", p.tail())
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w: %s", context.Cause(ctx), p.tail())
		}
	}
}

// patience is how many times its limit a server may take that still works.
const patience = 4

// watch gives up when the limit is over and the server has used next to no processor
// time for a tenth of it, or when patience is at its end.
func (p *process) watch(ctx context.Context, limit time.Duration, give context.CancelCauseFunc) {
	look := time.NewTicker(limit / 10)
	defer look.Stop()
	begin, before := time.Now(), harness.CPU(p.tree())
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		now, took := harness.CPU(p.tree()), time.Since(begin).Round(time.Second)
		if took >= limit && now-before < limit/1000 || took >= patience*limit {
			give(fmt.Errorf("after %v, of which it had a processor for %v", took, now))
			return
		}
		before = now
	}
}

// tree gives the process ids of the server, its own first.
func (p *process) tree() []int {
	roots := []int{p.cmd.Process.Pid}
	for _, pid := range harness.All() {
		if p.mark != "" && pid != roots[0] && hasArgument(pid, p.mark) {
			roots = append(roots, pid)
		}
	}
	return harness.Tree(roots...)
}

func hasArgument(pid int, prefix string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.ContainsFunc(strings.Split(string(text), "\x00"), func(a string) bool { return strings.HasPrefix(a, prefix) })
}

// freePort asks the kernel for one.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("a listener without a port")
	}
	return a.Port, nil
}
