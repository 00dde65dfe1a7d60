package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	nameBuild       = "tategu image build"
	nameDockerBuild = "docker build, push"

	buildFiles = 50 // of 1 MiB each, half of it random
)

// registry is a server that keeps images.
type registry struct {
	binary, data, address string
	cmd                   *exec.Cmd
}

func openRegistry(ctx context.Context, binary, dir string) (*registry, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once: a port that was free a moment ago
	if err != nil {
		return nil, err
	}
	r := &registry{binary: binary, data: filepath.Join(dir, "server"), address: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()                                                                                            // the server has its own descriptor
	r.cmd = exec.Command(binary, "serve", "--data", r.data, "--cache", filepath.Join(dir, "server-cache"), "--listen", r.address) //nolint:noctx // close ends it, in its own way
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Dir = log, log, dir
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	return r, errors.Join(r.ready(ctx))
}

// ready waits until the server answers.
func (r *registry) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close() // the status is the answer
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		}
	}
}

func (r *registry) close() error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	limit := time.AfterFunc(30*time.Second, func() { _ = r.cmd.Process.Kill() }) // gone already is fine
	defer limit.Stop()
	return r.cmd.Wait()
}

func (r *registry) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, r.binary, append(args, "--data", r.data)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tategu %s: %w: %.300s", strings.Join(args[:2], " "), err, out)
	}
	return nil
}

// builds gives the ways to bring 50 MB onto a base and into our registry. Each run
// has files that nobody has seen: fill makes them, for all ways of one round.
func builds(ctx context.Context, r *registry, d *docker, dir, program string) (ways []*way, fill func() error, err error) {
	if err := r.run(ctx, "image", "build", program, "-t", "bench/base:1"); err != nil {
		return nil, nil, err
	}
	files := filepath.Join(dir, "context", "files")
	if err := os.MkdirAll(files, 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "context", "Dockerfile"), []byte("FROM "+dockerBase+"\nCOPY files /app\n"), 0o600); err != nil {
		return nil, nil, err
	}
	ours := &way{name: nameBuild, timed: func(ctx context.Context) error {
		return r.run(ctx, "image", "build", files, "--base", "bench/base:1", "-t", "bench/ours:1")
	}}
	theirs := missing(nameDockerBuild, d.why)
	if d.why == nil {
		theirs = &way{name: nameDockerBuild, timed: func(ctx context.Context) error { return d.build(ctx, filepath.Dir(files), r.address+"/bench/docker:1") }}
	}
	return []*way{ours, theirs}, func() error { return fillFiles(files) }, nil
}

func (d *docker) build(ctx context.Context, dir, name string) error {
	if _, err := d.run(ctx, "build", "-q", "-t", name, dir); err != nil {
		return err
	}
	_, err := d.run(ctx, "push", "-q", name)
	return err
}

func fillFiles(dir string) error {
	b := make([]byte, 1<<20)
	for i := range buildFiles {
		if _, err := rand.Read(b[:len(b)/2]); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
