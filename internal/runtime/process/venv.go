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
)

//go:embed sitecustomize.py
var hookSource []byte

// Variables that the hook reads.
const (
	gcsVariable  = "TATEGU_GCS_DIR"
	venvVariable = "TATEGU_VENV"
	// siteVariable is where the packages of the shared environment are, for programs
	// that use a package's files without Python.
	siteVariable = "TATEGU_SITE_PACKAGES"
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
	if err := in.r.layers.take(venv, base); err != nil {
		return "", fmt.Errorf("make the Python environment of the workload: %w", err)
	}
	return venv, nil
}

// activate makes python, pip and what they install the first that is found.
func activate(env map[string]string, dir, venv string, base environment) {
	user := filepath.Join(dir, "user")
	path := []string{filepath.Join(venv, "bin"), filepath.Join(user, "bin"), filepath.Join(base.dir, "bin"), env["PATH"]}
	env["PATH"] = strings.Join(path, string(os.PathListSeparator))
	env["VIRTUAL_ENV"], env[venvVariable], env["PYTHONUSERBASE"], env[siteVariable] = venv, venv, user, base.site
	env["PIP_DISABLE_PIP_VERSION_CHECK"], env["PIP_ROOT_USER_ACTION"] = "1", "ignore"
	hook := filepath.Join(venv, dirHook)
	if more := env["PYTHONPATH"]; more != "" {
		hook += string(os.PathListSeparator) + more
	}
	env["PYTHONPATH"] = hook
	delete(env, "PYTHONHOME")
}
