package process

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
)

//go:embed sitecustomize.py
var hookSource []byte

// Variables that the hook reads.
const (
	gcsVariable  = "TATEGU_GCS_DIR"
	venvVariable = "TATEGU_VENV"
)

// environment gives the workload a Python environment of its own: a thin layer
// over the shared one with its packages, so that pip inside the program (also
// with --user, as custom jobs from a local script do) changes nothing shared.
func (in *instance) environment(ctx context.Context, plan runtime.Plan, out io.Writer) (venv string, err error) {
	want := wish{Version: plan.Version, Any: plan.AnyPython, Packages: plan.Packages}
	if p := in.rec.Workload.Python; p != nil {
		want.Packages, want.Indexes = slices.Concat(plan.Packages, p.Packages), p.Indexes
		if p.Version != "" {
			want.Version = p.Version
		}
	}
	if want.Version == "" {
		want.Version, want.Any = in.r.cfg.Python, true
	}
	base, err := in.r.envs.get(ctx, want, out, func(message string) { in.set(runtime.Preparing, "%s", message) })
	if err != nil {
		return "", err
	}
	in.python, in.base = base.note, base
	venv = filepath.Join(in.dir, dirVenv)
	if err := layer(venv, base); err != nil {
		return "", fmt.Errorf("make the Python environment of the workload: %w", err)
	}
	hook := filepath.Join(in.dir, dirHook)
	if err := os.MkdirAll(hook, 0o700); err != nil {
		return "", err
	}
	return venv, os.WriteFile(filepath.Join(hook, "sitecustomize.py"), hookSource, 0o600)
}

// layer writes a virtual environment by hand: a few small files and links, the
// packages of base behind its own ones. PEP 405 says what makes one.
func layer(venv string, base environment) error {
	if err := workload.RemoveAll(venv); err != nil { // left by a server that was killed
		return err
	}
	site := filepath.Join(venv, "lib", filepath.Base(filepath.Dir(base.site)), "site-packages")
	bin := filepath.Join(venv, "bin")
	for _, d := range []string{site, bin} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// pip installs with --user only where the system's packages are visible; the
	// hook hides them again.
	cfg := fmt.Sprintf("home = %s\ninclude-system-site-packages = true\nversion = %s\n", filepath.Dir(base.python), base.version)
	if err := os.WriteFile(filepath.Join(venv, "pyvenv.cfg"), []byte(cfg), 0o600); err != nil {
		return err
	}
	pth := fmt.Sprintf("import site; site.addsitedir(%q)\n", base.site)
	if err := os.WriteFile(filepath.Join(site, "_tategu.pth"), []byte(pth), 0o600); err != nil {
		return err
	}
	if err := os.Symlink(base.python, filepath.Join(bin, "python")); err != nil {
		return err
	}
	for _, name := range []string{"python3", filepath.Base(filepath.Dir(base.site))} {
		if err := again(filepath.Join(bin, "python"), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	if !base.pip {
		return nil
	}
	pip := "#!/bin/sh\nexec \"" + filepath.Join(bin, "python3") + "\" -m pip \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "pip"), []byte(pip), 0o755); err != nil {
		return err
	}
	return again(filepath.Join(bin, "pip"), filepath.Join(bin, "pip3"))
}

// again gives a file or a link a second name: that is cheaper than a second one. Where
// the disk has no such names it is a link.
func again(path, name string) error {
	if os.Link(path, name) == nil {
		return nil
	}
	return os.Symlink(filepath.Base(path), name)
}

// activate makes python, pip and what they install the first that is found.
func activate(env map[string]string, dir, venv string, base environment) {
	user := filepath.Join(dir, "user")
	path := []string{filepath.Join(venv, "bin"), filepath.Join(user, "bin"), filepath.Join(base.dir, "bin"), env["PATH"]}
	env["PATH"] = strings.Join(path, string(os.PathListSeparator))
	env["VIRTUAL_ENV"], env[venvVariable], env["PYTHONUSERBASE"] = venv, venv, user
	env["PIP_DISABLE_PIP_VERSION_CHECK"], env["PIP_ROOT_USER_ACTION"] = "1", "ignore"
	hook := filepath.Join(dir, dirHook)
	if more := env["PYTHONPATH"]; more != "" {
		hook += string(os.PathListSeparator) + more
	}
	env["PYTHONPATH"] = hook
	delete(env, "PYTHONHOME")
}
