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
	"syscall"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tategu/bench/harness"
)

// server is one data directory and the server on it, which may be started many times.
type server struct {
	binary, dir, address string
	cmd                  *exec.Cmd
	conn                 *grpc.ClientConn
	jobs                 pb.PipelineServiceClient
}

func newServer(binary, dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir}
	config := "images:\n  - {match: bench/shell, command: [sh]}\n"
	if err := os.WriteFile(filepath.Join(dir, "tategu.yaml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it only names a free port
	if err != nil {
		return nil, err
	}
	s.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	// As the clients for Python and Go do, it takes answers of any size.
	s.conn, err = grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	s.jobs = pb.NewPipelineServiceClient(s.conn)
	return s, nil
}

func (s *server) log() string { return filepath.Join(s.dir, "server.log") }

// start gives the time from exec to the first 200 of /readyz.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(s.log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()                                              // the server has its own
	s.cmd = exec.Command(s.binary, "serve", "--data", filepath.Join(s.dir, "data"), //nolint:noctx // it is killed by signals
		"--config", filepath.Join(s.dir, "tategu.yaml"), "--listen", s.address)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, s.dir
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return 0, fmt.Errorf("start the server: %w", err)
	}
	err = harness.Until(ctx, 2*time.Minute, time.Millisecond, "the server is ready", func() (bool, error) { return s.ready(ctx), nil })
	return time.Since(began), err
}

func (s *server) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// end sends a signal to the server alone and waits for its end.
func (s *server) end(how syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	http.DefaultClient.CloseIdleConnections()
	err := s.cmd.Process.Signal(how)
	timer := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait() // its exit status after a signal means nothing
	timer.Stop()
	s.cmd = nil
	return err
}

// close ends the server in order, so that no program of it goes on.
func (s *server) close() error { return errors.Join(s.end(syscall.SIGTERM), s.conn.Close()) }

// words is the end of the server's log, as an error.
func (s *server) words() error { return errors.New(harness.Tail(s.log())) }

// memory gives a figure of /proc/PID/status, such as VmRSS, in bytes.
func (s *server) memory(key string) (int64, error) {
	return harness.Memory(s.cmd.Process.Pid, key)
}

// processor is the time that the server has spent on all cores, its ended children
// included.
func (s *server) processor() (own, children time.Duration, err error) {
	stat, ok := harness.Read(s.cmd.Process.Pid)
	if !ok {
		return 0, 0, errors.New("the server is not in /proc, which only Linux has")
	}
	return stat.CPU, stat.Children, nil
}
