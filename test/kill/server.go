package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

//go:embed testdata/task.sh
var taskScript []byte

//go:embed testdata/flow.sh
var flowScript []byte

// server is the binary on one data directory and one port, started many times.
type server struct {
	binary, dir, data, cache, address string
	ledger                            string // of the tasks
	flows                             string // likewise, of those that are killed
	gate                              gate
	log                               *os.File
	process                           *exec.Cmd
	downs                             []down
	pace                              atomic.Int64 // how much more time the load gets on a busy machine, 1 to 3
}

// down is a time without a server that was ready.
type down struct{ from, to time.Time } // to is zero while it lasts

func newServer(o options) (*server, error) {
	s := &server{dir: o.dir, data: filepath.Join(o.dir, "data"), cache: o.cache, ledger: filepath.Join(o.dir, "tasks.csv"), flows: filepath.Join(o.dir, "flows.csv")}
	var err error
	if s.binary, err = filepath.Abs(o.binary); err != nil {
		return nil, err
	}
	echo, err := filepath.Abs("examples/echo/echo.py")
	if err != nil {
		return nil, err
	}
	script, flow := filepath.Join(o.dir, "task.sh"), filepath.Join(o.dir, "flow.sh")
	config := fmt.Sprintf(`images:
  - {match: kill/task, command: [env, "LEDGER=%s", sh, "%s"]}
  - {match: kill/flow, command: [env, "FLOWS=%s", sh, "%s"]}
  - {match: kill/echo, command: [sh, -c, 'echo "replica,${TATEGU_WORKLOAD_DIR##*/}" >>"%s"; exec python3 "%s"']}
`, s.ledger, script, s.flows, flow, s.ledger, echo)
	err = errors.Join(
		os.MkdirAll(o.dir, 0o700), os.WriteFile(script, taskScript, 0o600), os.WriteFile(s.ledger, nil, 0o600),
		os.WriteFile(flow, flowScript, 0o600), os.WriteFile(s.flows, nil, 0o600),
		os.WriteFile(filepath.Join(o.dir, "tategu.yaml"), []byte(config), 0o600),
	)
	if err != nil {
		return nil, err
	}
	if s.log, err = os.OpenFile(filepath.Join(o.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	s.address, err = freeAddress()
	return s, err
}

// freeAddress is below the ports that the system hands out by itself, and those
// of the metadata servers: nobody takes it between a kill and a start.
func freeAddress() (string, error) {
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+rand.IntN(6000))) //nolint:gosec // any port will do
		l, err := net.Listen("tcp", address)                                          //nolint:noctx // it does not wait
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port between 12000 and 18000")
}

// launch runs the server and does not wait for anything.
func (s *server) launch() error {
	args := []string{"serve", "--data", s.data, "--listen", s.address, "--config", filepath.Join(s.dir, "tategu.yaml")}
	if s.cache != "" {
		args = append(args, "--cache", s.cache)
	}
	s.process = exec.Command(s.binary, args...) //nolint:noctx // it is ended by kill and stop
	s.process.Stdout, s.process.Stderr, s.process.Dir = s.log, s.log, s.dir
	return s.process.Start()
}

// start gives the time from exec to the first 200 of /readyz.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := s.launch(); err != nil {
		return 0, err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			if err := resp.Body.Close(); err != nil {
				return 0, err
			}
			if resp.StatusCode == http.StatusOK {
				if n := len(s.downs); n > 0 {
					s.downs[n-1].to = time.Now()
				}
				return time.Since(began), nil
			}
		}
		if !processAlive(s.process.Process.Pid) || time.Since(began) > time.Minute {
			return 0, fmt.Errorf("the server is not ready after %v: see %s", time.Since(began).Round(time.Millisecond), s.log.Name())
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// kill ends the server, and nothing that it started, in the middle of things.
func (s *server) kill() error {
	s.gate.shut()
	if n := len(s.downs); n == 0 || !s.downs[n-1].to.IsZero() {
		s.downs = append(s.downs, down{from: time.Now()})
	}
	err := s.process.Process.Kill()
	_ = s.process.Wait() // "signal: killed" is what we want
	return err
}

// mark adds a line to the task ledger, so that what ran across a kill is known.
func (s *server) mark(format string, args ...any) error {
	return appendLine(s.ledger, fmt.Sprintf(format, args...))
}

// stop ends the server politely.
func (s *server) stop() error {
	s.gate.shut()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.process.Wait()
}

// endAll ends whatever of ours runs.
func (s *server) endAll() {
	if s.process != nil && s.process.Process != nil && s.process.ProcessState == nil {
		_ = s.process.Process.Kill() // gone already is fine
		_ = s.process.Wait()
	}
	for range 3 { // wrappers first, then what they leave
		for _, p := range s.children() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone already is fine
		}
	}
	_ = s.log.Close() // a log
}

type process struct {
	pid  int
	what string
}

// children gives the processes, other than the server, that belong to the data
// directory: wrappers name it, programs have it in their environment.
func (s *server) children() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // it may end meanwhile
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if bytes.Contains(command, []byte(filepath.Join(s.data, "workloads"))) || bytes.Contains(env, []byte(filepath.Join(s.data, "workloads"))) {
			found = append(found, process{pid, strings.ReplaceAll(string(command), "\x00", " ")})
		}
	}
	return found
}

func processAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}
