package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/app"
	"tategu/internal/resource"
)

func demoCommand() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo [-- ARGUMENT...]",
		Short: "Run an example end to end: the supplier recommendation, or another one",
		Long: `demo starts a server on a free port and a new data directory, makes the example's
Python environment with the unmodified clients, and runs the example's run.py against it,
with the arguments given here. The proxy variables are set for the example alone; its
"tategu" is this program.`,
		Example: `  tategu demo
  tategu demo --example examples/similar-drawings --features '' -- --page "$PWD/similar.html"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configure(cmd)
			if err != nil {
				return err
			}
			d.cache = cfg.Cache
			return d.run(cmd, args)
		},
	}
	cmd.Flags().StringVar(&d.example, "example", "examples/supplier-recommendation", "folder of the example")
	cmd.Flags().StringVar(&d.source, "features", "examples/rust-features", "folder of a step in Rust, which run.py gets built with --features-image; '' for none")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep the data directory and print where it is")
	cmd.Flags().StringVar(&d.python, "python", "3.11", "Python version of the example")
	return cmd
}

type demo struct {
	example, source, python, cache string
	keep                           bool
}

func (d demo) run(cmd *cobra.Command, more []string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if _, err := os.Stat(filepath.Join(d.example, "run.py")); err != nil {
		return resource.NotFound(d.example).WithHint("run tategu demo from the project's root, or name the folder with --example")
	}
	data, err := os.MkdirTemp("", "tategu-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if d.keep {
		_, _ = fmt.Fprintf(out, "data directory: %s\n", data)
	} else {
		defer func() { _ = os.RemoveAll(data) }() // a temporary directory; nothing depends on it
	}
	start := time.Now()
	python, err := d.environment(ctx, cmd)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%-44s %6.1f s\n", "python environment of the example", time.Since(start).Seconds())
	start = time.Now()
	stop, err := d.serve(ctx, cmd, data)
	if err != nil {
		return err
	}
	defer stop()
	_, _ = fmt.Fprintf(out, "%-44s %6.1f s\n", "server start", time.Since(start).Seconds())
	state, err := app.ReadState(data)
	if err != nil {
		return err
	}
	args := []string{"run.py", "--cache", filepath.Join(d.cache, "downloads")}
	image, err := d.features(ctx, cmd, data, state)
	if err != nil {
		return err
	}
	if image != "" {
		args = append(args, "--features-image", image)
	}
	tools, err := toolPath()
	if err != nil {
		return err
	}
	run := exec.CommandContext(ctx, python, append(args, more...)...)
	run.Dir, run.Stdout, run.Stderr = d.example, out, cmd.ErrOrStderr()
	// Compiled modules save the next run six seconds of imports.
	run.Env = overlay(os.Environ(), append(state.InterceptEnv(),
		app.Variable{Name: "PYTHONDONTWRITEBYTECODE"}, app.Variable{Name: "PATH", Value: tools}, app.Variable{Name: "TATEGU_DATA", Value: data}))
	run.Cancel = func() error { return run.Process.Signal(syscall.SIGINT) }
	if err := run.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return resource.Errorf(9, "the example ended with exit code %d", exit.ExitCode()).WithHint("its output above says why; --keep leaves the server's data for a look")
		}
		return fmt.Errorf("run the example: %w", err)
	}
	return nil
}

// toolPath is the PATH with this program's folder in front.
func toolPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	return filepath.Dir(self) + string(os.PathListSeparator) + os.Getenv("PATH"), nil
}

// overlay sets variables over an environment.
func overlay(env []string, vars []app.Variable) []string {
	for _, v := range vars {
		if v.Value == "" {
			env = removeVariable(env, v.Name)
			continue
		}
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

func removeVariable(env []string, name string) []string {
	out := make([]string, 0, len(env))
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	return out
}

// environment makes (once) the example's virtual environment and gives its interpreter.
func (d demo) environment(ctx context.Context, cmd *cobra.Command) (string, error) {
	uv, err := app.FindUV(ctx, "", d.cache)
	if err != nil {
		return "", err
	}
	requirements := filepath.Join(d.example, "requirements.txt")
	want, err := os.ReadFile(requirements)
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	venv := filepath.Join(d.cache, "demo", filepath.Base(d.example))
	python, stamp := filepath.Join(venv, "bin", "python"), filepath.Join(venv, "requirements.txt")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == string(want) {
		return python, nil
	}
	for _, args := range [][]string{
		{"venv", "--quiet", "--allow-existing", "--python", d.python, venv},
		{"pip", "install", "--quiet", "--python", python, "-r", requirements},
	} {
		c := exec.CommandContext(ctx, uv, args...)
		c.Stdout, c.Stderr = cmd.ErrOrStderr(), cmd.ErrOrStderr()
		if err := c.Run(); err != nil {
			return "", fmt.Errorf("uv %s: %w", args[0], err)
		}
	}
	return python, os.WriteFile(stamp, want, 0o600) //nolint:gosec // the path is the caller's own cache directory
}

// serve starts this program as a server of its own, waits until it is ready and
// returns what ends it.
func (d demo) serve(ctx context.Context, cmd *cobra.Command, data string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	logFile, err := os.Create(filepath.Join(data, "server.log"))
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	server := exec.CommandContext(ctx, self, "serve", "--data", data, "--cache", d.cache, "--listen", "127.0.0.1:0")
	server.Stderr = logFile
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGTERM) }
	server.WaitDelay = 15 * time.Second
	stdout, err := server.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	stop = func() {
		_ = server.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = server.Wait()                          // its exit code says nothing more than its log
		_ = logFile.Close()
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		stop()
		text, _ := os.ReadFile(logFile.Name())
		return nil, resource.Errorf(9, "the server did not start:\n%s", text)
	}
	go func() { // drains stdout until the server closes it
		for lines.Scan() {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), lines.Text())
		}
	}()
	return stop, nil
}
