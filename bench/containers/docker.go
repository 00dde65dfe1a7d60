package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	nameDocker = "docker run"
	dockerBase = "tategu-bench:1" // the program's file alone
)

// docker is a client and the daemon that it speaks to.
type docker struct {
	path    string
	env     []string
	why     error     // there is none
	daemon  *exec.Cmd // ours; nil = one that was there
	ended   <-chan struct{}
	scratch string // of our daemon
}

// openDocker takes the daemon that is there, else starts one of its own, without a
// network, whose files are below dir.
func openDocker(ctx context.Context, dir string) *docker {
	d := &docker{}
	if d.path, d.why = exec.LookPath("docker"); d.why != nil {
		return d
	}
	d.env = append(os.Environ(), "DOCKER_BUILDKIT=0", "DOCKER_CONFIG="+filepath.Join(dir, "docker-client"))
	if _, err := d.run(ctx, "version"); err == nil {
		return d
	}
	daemon, err := exec.LookPath("dockerd")
	switch {
	case err != nil:
		d.why = fmt.Errorf("no daemon runs, and there is none to start: %w", err)
	case os.Geteuid() != 0:
		d.why = errors.New("no daemon runs, and only root can start one")
	default:
		d.why = d.start(ctx, daemon, filepath.Join(dir, "docker"))
	}
	return d
}

func (d *docker) start(ctx context.Context, daemon, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the daemon has its own descriptor
	socket := "unix://" + filepath.Join(dir, "socket")
	cmd := exec.Command(daemon, "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", filepath.Join(dir, "data"), //nolint:noctx // close ends it, in its own way
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "-H", socket)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	d.daemon, d.scratch = cmd, dir
	d.env = append(d.env, "DOCKER_HOST="+socket)
	ended := make(chan struct{})
	go func() { // ends with the daemon
		_ = cmd.Wait() // its log says why
		close(ended)
	}()
	d.ended = ended
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.Tick(100 * time.Millisecond); ; {
		if _, err = d.run(ctx, "version"); err == nil {
			return nil
		}
		select {
		case <-tick:
		case <-ended:
			d.daemon = nil
			return fmt.Errorf("dockerd ended: %s", lastLine(log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("dockerd does not answer: %w", err)
		}
	}
}

func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// close ends our own daemon, and unmounts what it leaves.
func (d *docker) close() error {
	if d.daemon == nil {
		return nil
	}
	if err := d.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("dockerd does not end"), d.daemon.Process.Kill())
	}
	return unmountBelow(d.scratch)
}

func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(string(b), "\n")
	for _, line := range slices.Backward(lines) { // the last mounted first
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			errs = append(errs, os.NewSyscallError("unmount "+f[1], syscall.Unmount(f[1], syscall.MNT_DETACH)))
		}
	}
	return errors.Join(errs...)
}

func (d *docker) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.path, args...)
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("docker %s: %w: %.300s", args[0], err, out)
	}
	return string(out), nil
}

// load makes an image of the program's file.
func (d *docker) load(ctx context.Context, rootfs string) error {
	if d.why != nil {
		return d.why
	}
	tar := filepath.Join(filepath.Dir(rootfs), "rootfs.tar")
	if out, err := exec.CommandContext(ctx, "tar", "-C", rootfs, "-cf", tar, "program").CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	_, err := d.run(ctx, "import", tar, dockerBase)
	return err
}

// way starts the program in the image, with the machine's network as ours do.
func (d *docker) way() *way {
	if d.why != nil {
		return missing(nameDocker, d.why)
	}
	return &way{name: nameDocker, run: func(ctx context.Context) (string, error) {
		return d.run(ctx, "run", "--rm", "--network", "host", dockerBase, "/program")
	}}
}
