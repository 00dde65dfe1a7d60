package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// config lets every image run as a program that ends at once, and no connection
// leave the machine.
const config = `tunnel: false
logJson: true
images:
  - match: "*"
    command: ["true"]
`

// server is the binary under test on a data directory of its own.
type server struct {
	dir     string
	address string
	cmd     *exec.Cmd
	exited  chan error
}

func startServer(ctx context.Context, binary string) (s *server, err error) {
	s = &server{exited: make(chan error, 1)}
	if s.dir, err = os.MkdirTemp("", "tategu-mutate-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(s.dir) // the first error says more
		}
	}()
	file := filepath.Join(s.dir, "tategu.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(s.logFile())
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	program, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, program, "serve", "--config", file, "--listen", "127.0.0.1:0", "--data", filepath.Join(s.dir, "data"), "--cache", filepath.Join(s.dir, "cache"), "--project", "p", "--uv", program)
	s.cmd.Stderr = log
	s.cmd.Dir = s.dir
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { s.exited <- s.cmd.Wait() }()
	_, rest, ok := strings.Cut(line, "http://")
	if err != nil || !ok {
		text, _ := os.ReadFile(s.logFile()) // the error says enough without
		return nil, fmt.Errorf("the server did not start: %q\n%s", line, text)
	}
	s.address, _, _ = strings.Cut(rest, " ")
	return s, nil
}

func (s *server) logFile() string { return filepath.Join(s.dir, "server.log") }

// stop ends the server and removes its data.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	var err error
	select {
	case err = <-s.exited:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill() // the same
		err = errors.New("the server did not stop when asked to")
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// alive reports whether the process still runs.
func (s *server) alive() bool {
	select {
	case err := <-s.exited:
		s.exited <- err
		return false
	default:
		return true
	}
}

// memory gives a line of /proc/PID/status in bytes: VmRSS now, VmHWM at most.
func (s *server) memory(line string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(text, []byte(line+":"))
	if !ok {
		return 0, fmt.Errorf("no %s", line)
	}
	fields := strings.Fields(string(rest))
	kb, err := strconv.ParseInt(fields[0], 10, 64)
	return kb << 10, err
}

// complaints gives the lines of the server's log that tell of a fault of its own.
func (s *server) complaints() ([]string, error) {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "panic") || strings.HasPrefix(line, "fatal error") || strings.HasPrefix(line, "goroutine ") {
			out = append(out, line)
		}
	}
	return out, nil
}
