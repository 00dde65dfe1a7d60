package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"tategu/bench/harness"
)

const (
	project  = "bench"
	location = "projects/" + project + "/locations/us-central1"
	callers  = 64 // connections of REST, and calls at once of either protocol
	idle     = 4 * time.Second
	poll     = 20 * time.Millisecond
)

// server is a fresh tategu.
type server struct {
	cmd            *exec.Cmd
	ended          chan struct{}
	address, token string
	log            string
	http           *http.Client
	conn           *grpc.ClientConn // of queries
	writes         *grpc.ClientConn // of upserts, which another program does, as a rule
}

// startServer gives a server even where it fails, once the process is there.
func startServer(ctx context.Context, binary, dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "tategu.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "cache: %s\nvectors:\n  idle: %v\n", filepath.Join(dir, "cache"), idle), 0o600); err != nil {
		return nil, err
	}
	s := &server{log: filepath.Join(dir, "server.log"), ended: make(chan struct{})}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	s.cmd = exec.Command(binary, "serve", "--data", data, "--listen", "127.0.0.1:0", "--config", config) //nolint:noctx // it is ended by signals
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, dir
	err = s.cmd.Start()
	_ = log.Close() // the server has its own
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait() // what it says of itself is in the log
	}()
	if s.address, err = harness.Listens(ctx, s.log, s.ended); err != nil {
		return s, err
	}
	secret, err := exec.CommandContext(ctx, binary, "token", "create", "--email", "bench@example.com", "--role", "user", "--project", project, "--data", data).Output()
	if err != nil {
		return s, fmt.Errorf("make a token: %w", err)
	}
	s.token = "Bearer " + strings.TrimSpace(string(secret))
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	if s.conn, err = grpc.NewClient(s.address, plain); err != nil {
		return s, err
	}
	s.writes, err = grpc.NewClient(s.address, plain)
	return s, err
}

func (s *server) close() error {
	var err error
	for _, conn := range []*grpc.ClientConn{s.conn, s.writes} {
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
	}
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return err
}

// as puts the token into a gRPC call.
func (s *server) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", s.token)
}

// memory gives a figure of /proc/PID/status, such as VmRSS, in bytes.
func (s *server) memory(key string) (int64, error) {
	return harness.Memory(s.cmd.Process.Pid, key)
}

// builders gives the most memory that one of the programs below the server has had, of
// those that are there now.
func (s *server) builders() (most int64) {
	for _, pid := range harness.Tree(s.cmd.Process.Pid)[1:] {
		if n, err := harness.Memory(pid, "VmHWM"); err == nil { // else it has ended
			most = max(most, n)
		}
	}
	return most
}

// send makes one request of REST and gives the body of the answer.
func (s *server) send(ctx context.Context, method, path, contentType string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", s.token)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: %s: %.500s", method, path, resp.Status, text)
	}
	return text, nil
}

func (s *server) call(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(text)
	}
	text, err := s.send(ctx, method, path, "application/json", r)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// operation is a long-running one.
type operation struct {
	Name     string
	Done     bool
	Error    *struct{ Message string }
	Response struct{ Name string }
}

// operate starts an operation, waits for its end, and gives the name of what it made.
func (s *server) operate(ctx context.Context, path string, body any) (name string, err error) {
	var op operation
	if err := s.call(ctx, http.MethodPost, path, body, &op); err != nil {
		return "", err
	}
	return s.await(ctx, op)
}

func (s *server) await(ctx context.Context, op operation) (name string, err error) {
	err = harness.Until(ctx, 20*time.Minute, poll, op.Name+" is done", func() (bool, error) {
		if op.Done {
			return true, nil
		}
		err := s.call(ctx, http.MethodGet, "/v1/"+op.Name, nil, &op)
		return op.Done, err
	})
	if err == nil && op.Error != nil {
		err = fmt.Errorf("%s: %s", op.Name, op.Error.Message)
	}
	return op.Response.Name, err
}

// bucket makes one that keeps nothing of what is removed.
func (s *server) bucket(ctx context.Context, name string) error {
	return s.call(ctx, http.MethodPost, "/storage/v1/b?project="+project,
		map[string]any{"name": name, "softDeletePolicy": map[string]any{"retentionDurationSeconds": "0"}}, nil)
}

// upload streams what write gives into an object.
func (s *server) upload(ctx context.Context, bucket, object string, write func(io.Writer) error) error {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(write(w)) }() // the reader sees the error
	path := "/upload/storage/v1/b/" + bucket + "/o?uploadType=media&name=" + url.QueryEscape(object)
	_, err := s.send(ctx, http.MethodPost, path, "application/octet-stream", r)
	return errors.Join(err, r.Close())
}

func (s *server) remove(ctx context.Context, bucket, object string) error {
	return s.call(ctx, http.MethodDelete, "/storage/v1/b/"+bucket+"/o/"+url.PathEscape(object), nil, nil)
}
