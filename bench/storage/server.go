package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one running server with buckets "big" and "small".
type server struct {
	name, base string
	cmd        *exec.Cmd
	log        *os.File
	client     *http.Client
}

func startTategu(ctx context.Context, binary, dir string) (*server, error) {
	return start(ctx, "tategu", dir, func(port string) *exec.Cmd {
		return exec.Command(binary, "serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:"+port)
	})
}

func startFake(ctx context.Context, binary, dir string) (*server, error) {
	return start(ctx, "fake-gcs-server", dir, func(port string) *exec.Cmd {
		root := filepath.Join(dir, "data")
		_ = os.MkdirAll(root, 0o700) // its absence fails the start below
		return exec.Command(binary, "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "filesystem", "-filesystem-root", root)
	})
}

// start runs a server until it lists its buckets, and makes two.
func start(ctx context.Context, name, dir string, command func(port string) *exec.Cmd) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	s := &server{name: name, base: "http://127.0.0.1:" + port, cmd: command(port), log: log, client: newClient()}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, dir
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	for _, bucket := range []string{"big", "small", "listed"} {
		if err := s.makeBucket(ctx, bucket); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), s.stop())
		}
	}
	return s, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// makeBucket tries until the server answers.
func (s *server) makeBucket(ctx context.Context, name string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/storage/v1/b?project=bench", strings.NewReader(`{"name":"`+name+`"}`))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		err = s.discard(req)
		if err == nil || time.Now().After(deadline) || !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the server and removes what it says; an error shows its last words.
func (s *server) stop() error {
	s.client.CloseIdleConnections()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait() // its exit status after a signal means nothing
	timer.Stop()
	return s.log.Close()
}

// status reads a figure of /proc/PID/status in bytes.
func (s *server) status(key string) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) >= 2 && f[0] == key+":" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc has no %s of %s", key, s.name)
}
