package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/workload"
)

// environments makes and finds shared Python environments: one directory a hash
// of everything that decides what is in it.
type environments struct {
	dir string
	log *slog.Logger
	now func() time.Time

	installing sync.Mutex
	install    func(context.Context) (string, error) // nil once it is done
	uv         string                                // does not change once install is nil

	mu           sync.Mutex
	interpreters map[string]interpreter // by asked version
	searches     map[string]*search     // that go on, likewise
}

// wish says what an environment must hold.
type wish struct {
	Version  string // "3.11"; "" = any
	Any      bool   // another version will do
	Packages []string
	Indexes  []string
}

// environment is a finished shared environment.
type environment struct {
	dir     string
	site    string // its site-packages
	python  string // the interpreter it was made with
	version string // 3.11.7
	pip     bool
	note    string // what differs from the wish
}

// interpreter is a Python of this machine.
type interpreter struct {
	path    string
	version string // 3.11.7
	note    string
}

// marker is the file that a finished environment has.
const marker = ".tategu-complete.json"

type markerFile struct {
	Python, Version string
	Pip             bool
	Wish            wish
	Made            time.Time
}

// getUV installs uv once. An end of ctx is the only error: it can be done without.
func (e *environments) getUV(ctx context.Context, say func(string)) error {
	e.installing.Lock()
	defer e.installing.Unlock()
	if e.install == nil {
		return nil
	}
	say("installing uv")
	path, err := e.install(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e.install = nil; err != nil {
		e.log.WarnContext(ctx, "Python environments are made by venv and pip, which takes longer", slog.Any("error", err))
		return nil
	}
	e.uv = path
	return nil
}

// get finds the environment or builds it; say tells what is going on, and out
// gets what the tools print.
func (e *environments) get(ctx context.Context, w wish, out io.Writer, say func(string)) (environment, error) {
	if err := e.getUV(ctx, say); err != nil {
		return environment{}, err
	}
	python, err := e.interpreter(ctx, w, say)
	if err != nil {
		return environment{}, err
	}
	dir := filepath.Join(e.dir, key(w, python))
	if env, ok := load(dir, python); ok {
		return env, nil
	}
	say(fmt.Sprintf("waiting for the Python %s environment", python.version))
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return environment{}, fmt.Errorf("lock the Python environment: %w", err)
	}
	defer unlock()
	if env, ok := load(dir, python); ok {
		return env, nil // somebody else built it meanwhile
	}
	say(fmt.Sprintf("creating a Python %s environment with %d packages", python.version, len(w.Packages)))
	start := e.now()
	if err := e.build(ctx, dir, w, python, out); err != nil {
		return environment{}, err
	}
	e.log.InfoContext(ctx, "made a Python environment", slog.String("dir", dir), slog.String("python", python.version),
		slog.Any("packages", w.Packages), slog.Duration("took", e.now().Sub(start)))
	env, ok := load(dir, python)
	if !ok {
		return environment{}, fmt.Errorf("the Python environment %s vanished", dir)
	}
	return env, nil
}

func key(w wish, python interpreter) string {
	b, err := json.Marshal([]any{1, python.path, python.version, w.Packages, w.Indexes, goruntime.GOOS, goruntime.GOARCH})
	if err != nil {
		b = fmt.Appendf(nil, "%v %v", w, python) // strings always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func load(dir string, python interpreter) (environment, bool) {
	var m markerFile
	if err := workload.ReadJSON(filepath.Join(dir, marker), &m); err != nil {
		return environment{}, false
	}
	sites, err := filepath.Glob(filepath.Join(dir, "lib", "python3*", "site-packages"))
	if err != nil || len(sites) != 1 {
		return environment{}, false
	}
	return environment{dir: dir, site: sites[0], python: m.Python, version: m.Version, pip: m.Pip, note: python.note}, true
}

// lock holds a file lock against other processes and goroutines alike.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := box.Lock(ctx, path, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil // ends the lock
}

// build makes the environment in place: scripts in it carry their path, so it
// cannot be renamed; the marker comes last and makes it whole.
func (e *environments) build(ctx context.Context, dir string, w wish, python interpreter, out io.Writer) error {
	if err := workload.RemoveAll(dir); err != nil {
		return err
	}
	pip, err := e.create(ctx, dir, python, out)
	if err != nil {
		return err
	}
	for _, group := range groups(w.Packages) {
		args := append([]string{"pip", "install", "--python", filepath.Join(dir, "bin", "python")}, uvFlags(w.Indexes, group.flags)...)
		command := append([]string{e.uv}, append(args, group.packages...)...)
		if e.uv == "" {
			args := append([]string{"-m", "pip", "install"}, pipFlags(w.Indexes, group.flags)...)
			command = append([]string{filepath.Join(dir, "bin", "python")}, append(args, group.packages...)...)
		}
		if err := e.tool(ctx, out, "install "+strings.Join(group.packages, " "), command); err != nil {
			return err
		}
	}
	return workload.WriteJSON(filepath.Join(dir, marker), markerFile{Python: python.path, Version: python.version, Pip: pip, Wish: w, Made: e.now()})
}

// create makes the empty environment, with pip in it where pip can be had.
func (e *environments) create(ctx context.Context, dir string, python interpreter, out io.Writer) (pip bool, err error) {
	if e.uv == "" {
		return true, e.tool(ctx, out, "create a virtual environment", []string{python.path, "-m", "venv", dir})
	}
	seeded := []string{e.uv, "venv", "--quiet", "--seed", "--python", python.path, dir}
	if err := e.tool(ctx, out, "create a virtual environment", seeded); err == nil || ctx.Err() != nil {
		return true, err
	}
	// Without a package index there is no pip to put in; programs that do not call
	// it run all the same.
	if _, err := fmt.Fprintln(out, "[tategu] pip could not be fetched: this Python environment has none"); err != nil {
		return false, err
	}
	if err := workload.RemoveAll(dir); err != nil {
		return false, err
	}
	return false, e.tool(ctx, out, "create a virtual environment", []string{e.uv, "venv", "--quiet", "--python", python.path, dir})
}

// tool runs uv or pip; its output goes to the workload's log, and tells why it failed.
func (e *environments) tool(ctx context.Context, out io.Writer, what string, command []string) error {
	if _, err := fmt.Fprintf(out, "[tategu] %s\n", what); err != nil {
		return err
	}
	var last bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(out, &last), io.MultiWriter(out, &last)
	cmd.Env = append(os.Environ(), "UV_NO_PROGRESS=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "VIRTUAL_ENV=")
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	failed := runtime.PackageError(what, strings.Split(strings.TrimSpace(last.String()), "\n"))
	failed.Err = err
	return failed
}
