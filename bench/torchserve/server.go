package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tategu/bench/harness"
)

// patience is how long a server may take to start, also on a busy machine.
const patience = 3 * time.Minute

// seen is what a turn showed.
type seen struct {
	rate     float64
	p50, p99 time.Duration
	cpu      time.Duration // of the server's whole tree, per request
	python   time.Duration // of that, the workers' share
	memory   float64       // MB, what is shared divided
}

// server is one of the two.
type server struct {
	name    string
	program string
	port    int // of inference; management has the next, metrics the one after
	cmd     *exec.Cmd
	seen    map[turn][]seen
}

func newServer(name, program string, port int) *server {
	return &server{name: name, program: program, port: port, seen: map[turn][]seen{}}
}

// start brings it up with two models of one worker: without batches, and with.
func (s *server) start(ctx context.Context, o options, store string) error {
	dir := filepath.Join(o.folder, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.properties")
	text := fmt.Sprintf("inference_address=http://127.0.0.1:%d\nmanagement_address=http://127.0.0.1:%d\nmetrics_address=http://127.0.0.1:%d\ngrpc_inference_port=%d\ngrpc_management_port=%d\ndisable_token_authorization=true\nenable_model_api=true\njob_queue_size=1000\ndisable_system_metrics=true\n",
		s.port, s.port+1, s.port+2, s.port+3, s.port+4)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	args := []string{"--start", "--foreground", "--ncs", "--model-store", store, "--ts-config", config}
	if s.name != "java" {
		args = append([]string{"torchserve"}, args...)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own
	s.cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", "0", s.program}, args...)...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, log, log
	s.cmd.Env = append(os.Environ(), "PATH="+filepath.Join(o.venv, "bin")+":"+os.Getenv("PATH"), "OMP_NUM_THREADS=1", "TMPDIR="+dir) // where the one in Java looks for another
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for call(limit, http.MethodGet, s.url(0, "/ping")) != nil {
		select {
		case <-tick.C:
		case <-limit.Done():
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it does not start: %s", text[max(0, len(text)-3000):])
		}
	}
	// The one in Java waits for a batch to fill: 5 ms served it best. Ours does not wait.
	wait := "&max_batch_delay=5"
	if s.name != "java" {
		wait = ""
	}
	for _, batch := range []int{1, 16} {
		more := ""
		if batch > 1 {
			more = wait
		}
		if err := call(ctx, http.MethodPost, s.url(1, fmt.Sprintf("/models?url=digits.mar&model_name=digits%d&batch_size=%d&initial_workers=1&synchronous=true%s", batch, batch, more))); err != nil {
			return err
		}
		if _, err := s.turn(ctx, turn{batch, 8}, time.Second); err != nil { // warm
			return err
		}
	}
	return nil
}

func (s *server) url(which int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", s.port+which, path)
}

func (s *server) pids() []int { return harness.Tree(s.cmd.Process.Pid) }

func (s *server) pause() {
	for _, pid := range s.pids() {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
}

func (s *server) resume() {
	for _, pid := range s.pids() {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
	}
}

func (s *server) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.resume()
	pids := s.pids()
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	done := make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // killed is how it ends
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // likewise
		<-done
	}
	for _, pid := range pids { // the one in Java leaves workers behind at times
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// turn has clients ask for a while, each again as soon as it has its answer.
func (s *server) turn(ctx context.Context, t turn, length time.Duration) (seen, error) {
	body := `{"instances": [[` + strings.TrimSuffix(strings.Repeat("0.5, ", 64), ", ") + `]]}`
	text := fmt.Sprintf("POST /predictions/digits%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.batch, len(body), body)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	pids := s.pids()
	python := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !isPython(pid) })
	before, beforePython, begun := harness.CPU(pids), harness.CPU(python), time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	for range t.clients {
		wg.Go(func() {
			took, err := s.client(ctx, []byte(text))
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed != nil {
		return seen{}, failed
	}
	if len(all) == 0 {
		return seen{}, errors.New("no answer at all")
	}
	used, lasted := harness.CPU(pids)-before, time.Since(begun)
	usedPython := harness.CPU(python) - beforePython
	slices.Sort(all)
	return seen{
		rate: float64(len(all)) / lasted.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100],
		cpu: used / time.Duration(len(all)), python: usedPython / time.Duration(len(all)), memory: float64(harness.PSS(pids)) / (1 << 20),
	}, nil
}

// client asks over one connection until ctx is done.
func (s *server) client(ctx context.Context, request []byte) (took []time.Duration, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r := bufio.NewReader(c)
	for ctx.Err() == nil {
		begun := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusOK || !strings.Contains(string(text), "predictions") {
			return nil, fmt.Errorf("%s: %s", res.Status, text)
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// cold is how long a worker takes that is asked for, until it has answered.
func (s *server) cold(ctx context.Context, times int) (time.Duration, error) {
	var all []time.Duration
	for range times {
		if err := call(ctx, http.MethodPut, s.url(1, "/models/digits1?min_worker=0&synchronous=true")); err != nil {
			return 0, err
		}
		begun := time.Now()
		if err := call(ctx, http.MethodPut, s.url(1, "/models/digits1?min_worker=1&synchronous=true")); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

func (s *server) median(t turn) seen {
	return seen{
		rate: middle(s.seen[t], func(m seen) float64 { return m.rate }), p50: middle(s.seen[t], func(m seen) time.Duration { return m.p50 }),
		p99: middle(s.seen[t], func(m seen) time.Duration { return m.p99 }), cpu: middle(s.seen[t], func(m seen) time.Duration { return m.cpu }),
		python: middle(s.seen[t], func(m seen) time.Duration { return m.python }), memory: middle(s.seen[t], func(m seen) float64 { return m.memory }),
	}
}

func middle[T cmp.Ordered](all []seen, of func(seen) T) T {
	values := make([]T, len(all))
	for i, m := range all {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// isPython says that a process is a worker, or the parent of some.
func isPython(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(string(name), "python")
}
