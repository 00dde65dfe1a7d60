//go:build linux

// Package durability drives the real binary where disks fill up, fail and are
// moved: what a client was told must still be true afterwards.
package durability

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain builds the binary unless TATEGU_BIN names one.
func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	if os.Getenv("TATEGU_BIN") != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "tategu-durability-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "tategu")
	build := exec.Command("go", "build", "-o", binary, "tategu/cmd/tategu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w: %s", err, out)
	}
	if err := os.Setenv("TATEGU_BIN", binary); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// server is a running tategu.
type server struct {
	t    *testing.T
	data string
	base string
	cmd  *exec.Cmd
	log  *logBuffer
	http *http.Client
	gone chan struct{}
}

// logBuffer keeps what a server prints.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// options of start.
type options struct {
	config string   // tategu.yaml
	prefix []string // of the command line, such as strace
	limit  time.Duration
}

// start runs a server on a data directory and waits until it is ready. It is
// killed at the end of the test, with the programs it started.
func start(t *testing.T, data string, o options) *server {
	t.Helper()
	s, err := tryStart(t, data, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStart(t *testing.T, data string, o options) (*server, error) {
	t.Helper()
	side := t.TempDir()
	args := append(slices.Clone(o.prefix), os.Getenv("TATEGU_BIN"), "serve", "--listen", "127.0.0.1:0", "--data", data,
		"--cache", filepath.Join(side, "cache"), "--log-level", "warn", "--uv", os.Args[0]) // no Python environment is made here
	if o.config != "" {
		path := filepath.Join(side, "tategu.yaml")
		if err := os.WriteFile(path, []byte(o.config), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", path)
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = side, cleanEnv()
	s := &server{t: t, data: data, cmd: cmd, log: &logBuffer{}, gone: make(chan struct{}), http: &http.Client{Transport: &http.Transport{}}}
	cmd.Stderr = s.log
	// A program that inherited stderr must not keep Wait waiting.
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		defer close(s.gone)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := regexp.MustCompile(`ready on (http://\S+)`).FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
		_ = cmd.Wait() // the tests look at the log
	}()
	t.Cleanup(func() {
		s.kill()
		killPrograms(data)
		if t.Failed() {
			t.Logf("log of the server on %s:\n%s", data, s.log)
		}
	})
	if o.limit == 0 {
		o.limit = time.Minute
	}
	select {
	case s.base = <-ready:
		return s, nil
	case <-s.gone:
		return s, fmt.Errorf("the server ended before it was ready:\n%s", s.log)
	case <-time.After(o.limit):
		return s, fmt.Errorf("the server is not ready:\n%s", s.log)
	}
}

func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToUpper(v), "=")
		if !strings.HasPrefix(name, "TATEGU_") && !strings.HasSuffix(name, "_PROXY") {
			env = append(env, v)
		}
	}
	return env
}

// pid is the server's own, also below strace.
func (s *server) pid() int {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data, "run", "server.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var state struct{ PID int }
	if err := json.Unmarshal(b, &state); err != nil {
		s.t.Fatal(err)
	}
	return state.PID
}

// stop ends the server as an operator does.
func (s *server) stop() {
	s.t.Helper()
	if err := syscall.Kill(s.pid(), syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	<-s.gone
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.gone
}

// killPrograms ends what servers on a data directory left running.
func killPrograms(data string) {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return
	}
	mark := filepath.Join(data, "workloads")
	for _, e := range entries {
		line, err := os.ReadFile(e)
		if err != nil || !bytes.Contains(line, []byte(mark)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(e))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may end by itself
		}
	}
}

// answer is what came back of a request.
type answer struct {
	status int
	body   []byte
	header http.Header
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s", a.status, a.body[:min(len(a.body), 2000)])
}

// decode reads the JSON body.
func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if a.status >= 300 {
		t.Fatalf("answered %s", a)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a)
	}
}

// try sends a request; an error means that no whole answer came.
func (s *server) try(method, path string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, data, resp.Header}, err
}

func (s *server) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, strings.NewReader(body), header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// get reads JSON.
func (s *server) get(path string, v any) {
	s.t.Helper()
	s.do(http.MethodGet, path, "").decode(s.t, v)
}

func objectPath(bucket, name string) string {
	return "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(name)
}

// alive reports that the server has not ended.
func (s *server) alive() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

// command runs the command line.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv("TATEGU_BIN"), args...)
	cmd.Env = cleanEnv()
	out, err := cmd.CombinedOutput()
	return string(out), err
}
