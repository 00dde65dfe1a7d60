package torchserve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"tategu/internal/mar"
	"tategu/internal/torchserve/worker"
)

// interpreter is a Python with the packages that workers need.
type interpreter struct {
	path  string   // of the program
	home  string   // folder of the package ts
	sites []string // folders of its packages
	base  bool     // the server's own, not an environment of one model
}

// question asks an interpreter for what it has, without importing any of it.
const question = `import importlib.util as u, json, site, sys
s = u.find_spec("ts")
print(json.dumps({"Home": list(s.submodule_search_locations)[0] if s and s.submodule_search_locations else "", "Torch": u.find_spec("torch") is not None,
 "Version": "%d.%d" % sys.version_info[:2], "Sites": [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]}))`

// probe looks at the interpreter that the configuration names.
func probe(ctx context.Context, python string, env []string) (interpreter, error) {
	path, err := exec.LookPath(python)
	if err != nil {
		return interpreter{}, fmt.Errorf("there is no Python %q: %w; name one that has the packages torchserve and torch", python, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return interpreter{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-c", question)
	var problem bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stderr = env, "/", &problem
	out, err := cmd.Output()
	if err != nil {
		return interpreter{}, fmt.Errorf("ask %s for its packages: %w: %.500s", path, err, problem.String())
	}
	var found struct {
		Home    string
		Torch   bool
		Version string
		Sites   []string
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return interpreter{}, fmt.Errorf("ask %s for its packages: %w", path, err)
	}
	switch {
	case found.Home == "":
		return interpreter{}, fmt.Errorf("%s (Python %s) has no package torchserve: install it with pip install torchserve, or name another Python", path, found.Version)
	case !found.Torch:
		return interpreter{}, fmt.Errorf("%s (Python %s) has no package torch, which TorchServe's workers import: install it, or name another Python", path, found.Version)
	}
	return interpreter{path: path, home: found.Home, sites: found.Sites, base: true}, nil
}

// pythons keeps what is known of interpreters.
type pythons struct {
	mu     sync.Mutex
	base   *interpreter
	built  map[string]*sync.Mutex // environments, by their folder
	zygote *worker.Zygote
	plain  bool // no zygote can be had, which was told
}

// interpreter gives the one for models without an environment of their own.
func (s *Server) interpreter(ctx context.Context) (interpreter, error) {
	s.py.mu.Lock()
	defer s.py.mu.Unlock()
	if s.py.base == nil {
		found, err := probe(ctx, s.cfg.Python, s.workerEnv())
		if err != nil {
			return interpreter{}, err
		}
		s.py.base = &found
	}
	return *s.py.base, nil
}

// launcher starts workers: from the zygote, or one by one where there is none.
func (s *Server) launcher(ctx context.Context, python interpreter) (worker.Launcher, error) {
	if !s.cfg.Zygote || !python.base {
		return worker.Plain{}, nil
	}
	s.py.mu.Lock()
	defer s.py.mu.Unlock()
	if s.py.zygote != nil {
		select {
		case <-s.py.zygote.Done():
			s.deps.Log.WarnContext(ctx, "The parent of TorchServe workers has ended and is started again")
			s.py.zygote = nil
		default:
			return s.py.zygote, nil
		}
	}
	if s.py.plain {
		return worker.Plain{}, nil
	}
	begun := time.Now()
	z, err := worker.StartZygote(ctx, worker.Recipe{
		Python: python.path, Env: append(s.workerEnv(), "PYTHONUNBUFFERED=1"), Shortcuts: s.cfg.Shortcuts,
		Output: func(line string) {
			s.deps.Log.DebugContext(ctx, "The parent of TorchServe workers", slog.String("line", line))
		},
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		s.py.plain = true
		s.deps.Log.WarnContext(ctx, "TorchServe workers are started one by one, which takes longer", slog.Any("error", err))
		return worker.Plain{}, nil
	}
	s.deps.Log.InfoContext(ctx, "The parent of TorchServe workers is ready", slog.Duration("took", time.Since(begun)))
	if why := z.Stock(); why != "" {
		s.deps.Log.InfoContext(ctx, "TorchServe workers run the package's own functions alone, which takes longer", slog.String("reason", why))
	}
	s.py.zygote = z
	return z, nil
}

func (s *Server) closeZygote() {
	s.py.mu.Lock()
	z := s.py.zygote
	s.py.zygote = nil
	s.py.mu.Unlock()
	if z != nil {
		z.Close()
	}
}

// workerEnv is the environment of workers, without what blacklist_env_vars names.
func (s *Server) workerEnv() []string {
	env := s.cfg.Environment
	if env == nil {
		env = os.Environ()
	}
	kept := make([]string, 0, len(env)+1)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if (s.deny != nil && s.deny.MatchString(name)) || name == "LOCAL_RANK" || name == "TS_DECODE_INPUT_REQUEST" {
			continue
		}
		kept = append(kept, e)
	}
	if !slices.ContainsFunc(kept, func(e string) bool { return strings.HasPrefix(e, "OMP_WAIT_POLICY=") }) {
		// Threads that wait for others of their worker and spin meanwhile are in the way of those.
		kept = append(kept, "OMP_WAIT_POLICY=PASSIVE")
	}
	return append(kept, fmt.Sprintf("TS_DECODE_INPUT_REQUEST=%t", s.cfg.DecodeRequests))
}

// environment gives the interpreter of a model: with requirements, one of its own
// over the server's packages.
func (s *Server) environment(ctx context.Context, archive *mar.Archive) (interpreter, error) {
	requirements, dir := archive.Manifest.Model.RequirementsFile, archive.Dir
	base, err := s.interpreter(ctx)
	if err != nil || requirements == "" || !s.cfg.Requirements {
		return base, err
	}
	text, err := archive.ReadFile(requirements)
	if err != nil {
		return base, errorf(400, InvalidModel, "requirementsFile: %w", err)
	}
	uv := s.cfg.UV
	if uv == "" {
		if uv, err = exec.LookPath("uv"); err != nil {
			return base, errorf(500, InternalServer, "the model has requirements, which uv installs, and uv is not in PATH: %w", err)
		}
	}
	venv := filepath.Join(s.cfg.Work, "environments", environmentKey(base, dir, text))
	s.py.mu.Lock()
	lock := s.py.built[venv]
	if lock == nil {
		lock = &sync.Mutex{}
		s.py.built[venv] = lock
	}
	s.py.mu.Unlock()
	lock.Lock()
	defer lock.Unlock()
	own := interpreter{path: filepath.Join(venv, "bin", "python"), home: base.home, sites: base.sites}
	if _, err := os.Stat(filepath.Join(venv, ".built")); err == nil {
		return own, nil
	}
	if err := buildEnvironment(ctx, uv, venv, dir, filepath.FromSlash(requirements), base); err != nil {
		return base, errors.Join(errorf(400, InvalidModel, "Custom pip package installation failed for model: %w", err), os.RemoveAll(venv))
	}
	return own, nil
}

// local matches requirements that name files: they are of one archive alone.
var local = regexp.MustCompile(`(?m)^\s*(-|\.|/|file:|\S+\.(whl|tar\.gz|zip)\b)|@\s*file:`)

func environmentKey(base interpreter, dir string, text []byte) string {
	key := base.path + "\n" + string(text)
	if local.Match(text) {
		key += "\n" + dir
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:12])
}

func buildEnvironment(ctx context.Context, uv, venv, dir, requirements string, base interpreter) error {
	if err := os.MkdirAll(filepath.Dir(venv), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(venv); err != nil {
		return err
	}
	if err := runUV(ctx, uv, dir, "venv", "--quiet", "--no-config", "--python", base.path, venv); err != nil {
		return err
	}
	python := filepath.Join(venv, "bin", "python")
	if err := runUV(ctx, uv, dir, "pip", "install", "--quiet", "--python", python, "--requirement", requirements); err != nil {
		return err
	}
	// The server's packages come after the model's own.
	var lines strings.Builder
	for _, site := range base.sites {
		fmt.Fprintf(&lines, "import site; site.addsitedir(%q)\n", site)
	}
	found, err := filepath.Glob(filepath.Join(venv, "lib", "python3*", "site-packages"))
	if err != nil || len(found) == 0 {
		return errors.Join(err, fmt.Errorf("%s has no folder of packages", venv))
	}
	if err := os.WriteFile(filepath.Join(found[0], "zz_server.pth"), []byte(lines.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(venv, ".built"), nil, 0o644)
}

func runUV(ctx context.Context, uv, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, uv, args...)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("uv %s: %w: %.2000s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}
