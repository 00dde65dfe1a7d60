package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/app"
)

// featuresImage is what the example's program is pushed as.
const featuresImage = "examples/rust-features:v1"

// features gives the image of the features step, built and pushed to the server; "" for
// the step in Python, after saying why, and for an example without one.
func (d demo) features(ctx context.Context, cmd *cobra.Command, data string, state app.State) (string, error) {
	if d.source == "" {
		return "", nil
	}
	cargo, why, err := cargoFor(d.source)
	if err != nil {
		return "", err
	}
	out := cmd.OutOrStdout()
	if why != "" {
		_, _ = fmt.Fprintf(out, "the features step runs in Python: %s\n", why)
		return "", nil
	}
	start := time.Now()
	program, err := cargoBuild(ctx, cargo, d.source, cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(out, "%-44s %6.1f s\n", "features step in Rust, built by cargo", time.Since(start).Seconds())
	start = time.Now()
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	build := exec.CommandContext(ctx, self, "image", "build", program, "--into", "/", "-t", featuresImage, "--data", data)
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the image of the features step: %w: %s", err, text)
	}
	_, _ = fmt.Fprintf(out, "%-44s %6.1f s\n", "its image, built and pushed", time.Since(start).Seconds())
	if why, err = runs(ctx, self, data); err != nil {
		return "", err
	}
	if why != "" {
		_, _ = fmt.Fprintf(out, "the features step runs in Python: %s\n", why)
		return "", nil
	}
	return state.Address + "/" + featuresImage, nil
}

// runs says why the server cannot run the image; "" = it can. Without arguments the
// program itself has nothing to do, and how it ends is no matter.
func runs(ctx context.Context, self, data string) (why string, err error) {
	var said bytes.Buffer
	c := exec.CommandContext(ctx, self, "run", "--quiet", "--data", data, featuresImage)
	c.Stderr = &said
	err = c.Run()
	if end, ok := errors.AsType[*exec.ExitError](err); ok {
		if end.ExitCode() == exitOurs {
			return strings.TrimPrefix(strings.TrimSpace(said.String()), "tategu: "), nil
		}
		return "", nil
	}
	return "", err
}

// cargoFor finds cargo, or says why the program cannot be built here.
func cargoFor(source string) (cargo, why string, err error) {
	if runtime.GOOS != "linux" {
		return "", "containers need Linux", nil
	}
	if _, err := os.Stat(filepath.Join(source, "Cargo.toml")); errors.Is(err, fs.ErrNotExist) {
		return "", source + " is not there", nil
	} else if err != nil {
		return "", "", fmt.Errorf("demo: %w", err)
	}
	cargo, err = exec.LookPath("cargo")
	if err != nil {
		return "", "cargo is not installed", nil //nolint:nilerr // which is the reason
	}
	return cargo, "", nil
}

// cargoBuild makes one static program, which an image from scratch needs, and
// gives its path. The target is named, so that build scripts stay dynamic.
func cargoBuild(ctx context.Context, cargo, source string, log io.Writer) (string, error) {
	arch, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if !ok {
		arch = runtime.GOARCH
	}
	target := arch + "-unknown-linux-gnu"
	c := exec.CommandContext(ctx, cargo, "build", "--quiet", "--release", "--locked", "--offline", "--target", target)
	c.Dir, c.Stderr = source, log
	c.Env = append(c.Environ(), "RUSTFLAGS=-C target-feature=+crt-static", "CARGO_TARGET_DIR=target")
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s with cargo: %w", source, err)
	}
	return filepath.Join(source, "target", target, "release", filepath.Base(source)), nil
}
