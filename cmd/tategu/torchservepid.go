//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const (
	// readyVariable names the descriptor on which a server in the background tells that
	// it listens.
	readyVariable = "TATEGU_TORCHSERVE_READY"
	readyDesc     = 3
	stopPatience  = 60 * time.Second
)

// pidPath is where TorchServe keeps the process id of its server: there is one of a
// user's temporary directory.
func pidPath() string { return filepath.Join(os.TempDir(), ".model_server.pid") }

// pidFile is held by a server as long as it runs, by a lock that ends with the process.
type pidFile struct{ f *os.File }

func openPID() (*os.File, error) {
	f, err := os.OpenFile(pidPath(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of the server's process id: %w; TMPDIR names another place", err)
	}
	info, err := f.Stat()
	if err == nil {
		if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
			// Whoever it is would have us signal any process of ours.
			err = fmt.Errorf("%s is of another user; TMPDIR names another place", pidPath())
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// held says whether a server runs, and which process it is.
func held(f *os.File) (pid int, running bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return 0, false, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 64))
	if err != nil {
		return 0, true, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pid, err = strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil || pid <= 0 {
		return 0, true, fmt.Errorf("%s is held and has no process id: a server is just starting, or ending", pidPath())
	}
	return pid, true, nil
}

// claimPID makes this process the server.
func claimPID() (*pidFile, error) {
	f, err := openPID()
	if err != nil {
		return nil, err
	}
	if _, running, err := held(f); running || err != nil {
		if running {
			err = errors.New("TorchServe is already running, please use torchserve --stop to stop TorchServe.") //nolint:staticcheck // TorchServe's words
		}
		return nil, errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &pidFile{f}, nil
}

func (p *pidFile) release() error { return errors.Join(p.f.Truncate(0), p.f.Close()) }

// stopTorchserve ends the server that runs and waits for it.
func stopTorchserve(cmd *cobra.Command) error {
	f, err := openPID()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	say := func(text string) error { _, err := fmt.Fprintln(cmd.OutOrStdout(), text); return err }
	pid, running, err := held(f)
	if err != nil {
		return err
	}
	if !running {
		return say("TorchServe is not currently running.")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), stopPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, running, _ := held(f); !running {
			return say("TorchServe has stopped.")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopping TorchServe (process %d) took too long; kill -9 %d ends it at once", pid, pid)
		case <-tick.C:
		}
	}
}

// background starts the server as a process of its own and waits until it listens and
// the workers of the start have loaded their models, or failed to.
func (f *torchserveFlags) background(cmd *cobra.Command) error {
	if _, err := f.settings(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(logLocation(), 0o755); err != nil {
		return err
	}
	path := filepath.Join(logLocation(), "ts_log.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child's
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()                                    // only read
	child := exec.Command(self, append(os.Args[1:], "--foreground")...) //nolint:gosec,noctx // it is this program, and outlives us
	child.Stdout, child.Stderr, child.ExtraFiles = log, log, []*os.File{w}
	child.Env = append(os.Environ(), readyVariable+"="+strconv.Itoa(readyDesc))
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	told, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(told) == 0 {
		return errors.Join(fmt.Errorf("the server did not start: %s", lastWords(path, begin)), ignoreExit(child.Wait()))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "TorchServe runs as process %d; its log is %s\n", child.Process.Pid, path)
	return errors.Join(err, child.Process.Release())
}

// ignoreExit drops what a log has told already.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// lastWords is the last line of a log since a position.
func lastWords(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "tategu: ")
}

// keepReady keeps the descriptor of tellReady from the processes that this one starts:
// one that held it would keep whoever waits on it.
func keepReady() {
	if os.Getenv(readyVariable) != "" {
		syscall.CloseOnExec(readyDesc)
	}
}

// tellReady tells whoever started this server in the background that it listens.
func tellReady() {
	if os.Getenv(readyVariable) == "" {
		return
	}
	f := os.NewFile(readyDesc, "ready")
	_, _ = f.WriteString("ready\n") // who asked may have gone
	_ = f.Close()
}
