package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const parent = "/v1/projects/p/locations/us-central1/"

// output keeps what a server prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// server is the binary under test on a data directory of its own.
type server struct {
	binary  string
	data    string
	address string
	log     *output
	cmd     *exec.Cmd
	gone    chan struct{}
	http    *http.Client
}

// start runs a server in dir; cache is its cache directory.
func start(ctx context.Context, binary, dir, cache, config string) (*server, error) {
	file := filepath.Join(dir, "tategu.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &server{binary: binary, data: filepath.Join(dir, "data"), log: &output{}, gone: make(chan struct{}), http: &http.Client{Transport: &http.Transport{}}}
	args := []string{"serve", "--config", file, "--listen", "127.0.0.1:0", "--data", s.data, "--cache", cache, "--project", "p", "--log-level", "warn"}
	if uv, err := exec.LookPath("uv"); err == nil {
		args = append(args, "--uv", uv)
	} else {
		args = append(args, "--uv", binary) // none is installed for a test
	}
	s.cmd = exec.CommandContext(ctx, binary, args...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stderr, s.cmd.WaitDelay = dir, environment(), s.log, 5*time.Second
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		defer close(s.gone)
		_ = s.cmd.Wait() // what matters of a server that ended early is its log
	}()
	_, rest, ok := strings.Cut(line, "http://")
	if err != nil || !ok {
		_ = s.cmd.Process.Kill() // it may have ended
		return nil, fmt.Errorf("the server did not start: %q\n%s", line, s.log)
	}
	s.address, _, _ = strings.Cut(rest, " ")
	return s, nil
}

// environment is ours without what points clients elsewhere. Without retries uv
// says at once that an index cannot be reached.
func environment() []string {
	env := []string{"UV_HTTP_RETRIES=0", "UV_DEFAULT_INDEX=http://127.0.0.1:1/simple", "UV_OFFLINE=false"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToUpper(v), "=")
		switch {
		case strings.HasPrefix(name, "TATEGU_"), strings.HasPrefix(name, "UV_"), strings.HasPrefix(name, "PIP_"), strings.HasSuffix(name, "_PROXY"):
		default:
			env = append(env, v)
		}
	}
	return env
}

// close ends the server and the programs that outlive it.
func (s *server) close() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.gone:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill() // the same
		return errors.New("the server did not stop when asked to")
	}
	// A wrapper is known by its arguments, what it runs by its variables.
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	mark := []byte(filepath.Join(s.data, "workloads"))
	for _, e := range entries {
		line, _ := os.ReadFile(filepath.Join(e, "cmdline")) // gone meanwhile is fine
		variables, _ := os.ReadFile(filepath.Join(e, "environ"))
		if !bytes.Contains(line, mark) && !bytes.Contains(variables, mark) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(e)); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may end by itself
		}
	}
	return nil
}

// command runs the command line against the server.
func (s *server) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, append(args, "--data", s.data)...)
	cmd.Env = append(environment(), "DOCKER_CONFIG="+s.data)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// call sends a request; an answer that is an error is a problem. out may be nil.
func (s *server) call(ctx context.Context, method, path string, body, out any) (*problem, error) {
	var payload io.Reader
	if text, ok := body.(string); ok {
		payload = strings.NewReader(text)
	} else if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		var envelope struct{ Error problem }
		if err := json.Unmarshal(data, &envelope); err != nil {
			return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
		}
		return &envelope.Error, nil
	}
	if out == nil {
		return nil, nil
	}
	return nil, json.Unmarshal(data, out)
}

// must is call where no problem is wanted.
func (s *server) must(ctx context.Context, method, path string, body, out any) error {
	p, err := s.call(ctx, method, path, body, out)
	if err == nil && p != nil {
		err = fmt.Errorf("%s %s: %s", method, path, p.Message)
	}
	return err
}

// poll reads path until done says so.
func (s *server) poll(ctx context.Context, path string, out any, done func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.must(ctx, http.MethodGet, path, nil, out); err != nil {
			return err
		}
		if done() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not end: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}
