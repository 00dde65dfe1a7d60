package app

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tategu/internal/resource"
)

// uvVersion is installed when the machine has no uv of its own.
const uvVersion = "0.13.9"

// FindUV gives the path of uv, the program that makes Python environments: the
// configured one, one on PATH, or one installed from PyPI into the cache by the
// machine's Python.
func FindUV(ctx context.Context, configured, cache string) (string, error) {
	path, install, err := lookForUV(configured, cache)
	if err == nil && install != nil {
		return install(ctx)
	}
	return path, err
}

// lookForUV gives the path, or what installs uv: without a network that takes many
// seconds to fail, so a server leaves it to the first task that needs it.
func lookForUV(configured, cache string) (path string, install func(context.Context) (string, error), err error) {
	if configured != "" {
		if _, err := os.Stat(configured); err != nil {
			return "", nil, resource.Invalid("uv", "uv: %v", err)
		}
		return configured, nil, nil
	}
	if path, err := exec.LookPath("uv"); err == nil {
		return path, nil, nil
	}
	dir := filepath.Join(cache, "uv-"+uvVersion)
	path = filepath.Join(dir, "bin", "uv")
	if _, err := os.Stat(path); err == nil {
		return path, nil, nil
	}
	for _, python := range []string{"python3.11", "python3"} {
		if _, err := exec.LookPath(python); err == nil {
			return "", func(ctx context.Context) (string, error) { return path, installUV(ctx, python, dir) }, nil
		}
	}
	return "", nil, resource.Errorf(9, "neither uv nor Python was found").WithCause(resource.CauseDependency).
		WithHint("install Python 3.11 (tategu then gets uv by itself), or uv, or set --uv")
}

func installUV(ctx context.Context, python, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "uv-")
	if err != nil {
		return fmt.Errorf("install uv: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // gone after the rename
	for _, args := range [][]string{
		{"-m", "venv", tmp},
		{filepath.Join(tmp, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv==" + uvVersion},
	} {
		name := python
		if args[0] != "-m" {
			name, args = args[0], args[1:]
		}
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			return resource.Errorf(9, "install uv: %w: %s", err, out).WithCause(resource.CauseDependency).
				WithHint("install uv by hand and set --uv")
		}
	}
	return os.Rename(tmp, dir)
}
