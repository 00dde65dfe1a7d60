package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
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
	workers := map[int]string{}
	for _, pid := range p.tree() {
		workers[pid] = startOf(pid)
	}
	defer func() {
		for pid, start := range workers {
			if start != "" && startOf(pid) == start { // else the number is another's by now
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
	begin, before := time.Now(), cpu(p.tree())
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		now, took := cpu(p.tree()), time.Since(begin).Round(time.Second)
		if took >= limit && now-before < limit/1000 || took >= patience*limit {
			give(fmt.Errorf("after %v, of which it had a processor for %v", took, now))
			return
		}
		before = now
	}
}

// tree gives the process ids of the server.
func (p *process) tree() []int {
	pids := []int{p.cmd.Process.Pid}
	parent := map[int]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return pids
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if stat := statOf(pid); len(stat) > 1 {
			parent[pid], _ = strconv.Atoi(stat[1])
		}
		if p.mark != "" && pid != pids[0] && hasArgument(pid, p.mark) {
			pids = append(pids, pid)
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, above := range parent {
			if slices.Contains(pids, above) && !slices.Contains(pids, pid) {
				pids, grown = append(pids, pid), true
			}
		}
	}
	return pids
}

func hasArgument(pid int, prefix string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.ContainsFunc(strings.Split(string(text), "\x00"), func(a string) bool { return strings.HasPrefix(a, prefix) })
}

// statOf gives the fields of /proc/PID/stat after the name.
func statOf(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat") //nolint:gosec // a number
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// startOf is when a process started, which tells it from a later one of its number; "" = it has ended.
func startOf(pid int) string {
	const state, start = 0, 19
	stat := statOf(pid)
	if len(stat) <= start || stat[state] == "Z" {
		return ""
	}
	return stat[start]
}

// tick is what /proc counts CPU time in.
const tick = 10 * time.Millisecond

// cpu is what some processes have used: utime and stime.
func cpu(pids []int) time.Duration {
	sum := 0
	for _, pid := range pids {
		if stat := statOf(pid); len(stat) > 12 {
			user, _ := strconv.Atoi(stat[11])
			system, _ := strconv.Atoi(stat[12])
			sum += user + system
		}
	}
	return time.Duration(sum) * tick
}

// pss is the memory of some processes, what they share divided among who shares it.
func pss(pids []int) float64 {
	kib := 0
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				n, _ := strconv.Atoi(strings.Fields(rest)[0])
				kib += n
			}
		}
		_ = f.Close()
	}
	return float64(kib) / 1024
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
