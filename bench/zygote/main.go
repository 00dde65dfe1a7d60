// Command zygote measures what the start of a kfp component costs, from the call
// that starts it to its recorded end: forked from a process that has loaded kfp,
// started cold, and in a shell as `python3 -m kfp.dsl.executor_main` without any of
// tategu. All ways run in turns, so that a busy machine is busy for all of them.
//
//	zygote -tategu bin/tategu -uv uv [-n 20] [-cache DIR] [-import json]
//
// A program that does nothing shows how much of it is not Python's. The last line is
// `warm_ms=… none_ms=… cold_ms=… shell_ms=…`, by medians.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

const component = `
import kfp
from kfp import dsl
from kfp.dsl import *
from typing import *

def work(rows: int) -> int:
    import %s
    return rows + 1
`

type options struct {
	tategu, uv, cache, module string
	packages                  []string
	n                         int
}

func main() {
	var o options
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary that serves the wrapper")
	flag.StringVar(&o.uv, "uv", "uv", "what makes the environment")
	flag.StringVar(&o.cache, "cache", "", "where environments are kept; \"\" = made anew")
	flag.StringVar(&o.module, "import", "json", "what the component imports")
	flag.IntVar(&o.n, "n", 20, "starts of each")
	flag.Parse()
	o.packages = append([]string{"--no-deps kfp==2.17.0", "typing-extensions>=3.7.4,<5"}, flag.Args()...)
	if err := bench(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-zygote: "+err.Error())
		os.Exit(1)
	}
}

// side is one runtime.
type side struct {
	r     *process.Runtime
	o     options
	count int
}

func open(o options, dir string, zygotes bool) (*side, error) {
	uv, err := exec.LookPath(o.uv)
	if err != nil {
		return nil, err
	}
	self, err := filepath.Abs(o.tategu)
	if err != nil {
		return nil, err
	}
	parents := ""
	if zygotes {
		parents = filepath.Join(dir, "zygotes")
	}
	r, err := process.New(process.Config{
		Dir: filepath.Join(dir, "workloads"), CacheDir: o.cache, UV: uv, Self: self, Wrapper: process.Packed(), Zygotes: parents,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	return &side{r: r, o: o}, err
}

// run starts a component and gives what the time was until its end was recorded.
func (s *side) run(ctx context.Context) (time.Duration, error) {
	s.count++
	w := runtime.Workload{
		ID: fmt.Sprintf("start-%d", s.count), Dirs: []string{"/gcs/b"},
		Command: []string{"python3", "-m", "kfp.dsl.executor_main", "--component_module_path", runtime.ScriptPath},
		Args:    []string{"--executor_input", input("/gcs/b"), "--function_to_execute", "work"},
		Python:  &runtime.Python{Version: "3.11", Packages: s.o.packages, Script: fmt.Sprintf(component, s.o.module)},
	}
	return s.time(ctx, w)
}

// nothing runs a program that does nothing: what is left is not Python's.
func (s *side) nothing(ctx context.Context) (time.Duration, error) {
	s.count++
	return s.time(ctx, runtime.Workload{ID: fmt.Sprintf("start-%d", s.count), Command: []string{"true"}})
}

func (s *side) time(ctx context.Context, w runtime.Workload) (time.Duration, error) {
	begin := time.Now()
	in, err := s.r.Start(ctx, w)
	if err != nil {
		return 0, err
	}
	exit, err := in.Wait(ctx)
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	if !exit.OK() {
		return 0, fmt.Errorf("%s: %q", exit.Message, exit.Tail)
	}
	return took, in.Release(ctx)
}

func input(dir string) string {
	return `{"inputs":{"parameterValues":{"rows":2}},"outputs":{"parameters":{"Output":{"outputFile":"` + dir + `/Output"}},"outputFile":"` + dir + `/executor_output.json"}}`
}

// shell runs the same without us.
func shell(ctx context.Context, o options, dir string) (time.Duration, error) {
	pythons, err := filepath.Glob(filepath.Join(o.cache, "envs", "*", "lib", "python3*", "site-packages", "kfp"))
	if err != nil || len(pythons) == 0 {
		return 0, errors.Join(errors.New("no environment has kfp"), err)
	}
	python := filepath.Join(pythons[0], "..", "..", "..", "..", "bin", "python")
	source := filepath.Join(dir, "component.py")
	if err := os.WriteFile(source, fmt.Appendf(nil, component, o.module), 0o600); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `"$@"`, "sh", python, "-m", "kfp.dsl.executor_main", "--component_module_path", source,
		"--executor_input", input(dir), "--function_to_execute", "work")
	cmd.Env = append(cmd.Environ(), "_KFP_RUNTIME=true")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return time.Since(begin), nil
}

func bench(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-zygote-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.cache == "" {
		o.cache = filepath.Join(dir, "cache")
	}
	warm, err := open(o, filepath.Join(dir, "warm"), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, warm.r.Close()) }()
	cold, err := open(o, filepath.Join(dir, "cold"), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cold.r.Close()) }()
	for warm.r.Starts().Warm < 3 { // the first ones make the environment and the zygote
		if _, err := warm.run(ctx); err != nil {
			return err
		}
	}
	ways := []struct {
		name  string
		run   func(context.Context) (time.Duration, error)
		times []float64
	}{
		{name: "warm", run: warm.run},
		{name: "none", run: cold.nothing},
		{name: "cold", run: cold.run},
		{name: "shell", run: func(ctx context.Context) (time.Duration, error) { return shell(ctx, o, dir) }},
	}
	for range o.n {
		for i := range ways {
			took, err := ways[i].run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", ways[i].name, err)
			}
			ways[i].times = append(ways[i].times, float64(took.Microseconds())/1000)
		}
	}
	var table, line strings.Builder
	for _, w := range ways {
		slices.Sort(w.times)
		fmt.Fprintf(&table, "%-6s min %.1f  median %.1f ms\n", w.name, w.times[0], w.times[len(w.times)/2])
		fmt.Fprintf(&line, "%s_ms=%.1f ", w.name, w.times[len(w.times)/2])
	}
	_, err = fmt.Fprintf(os.Stdout, "%s%+v\n%s\n", table.String(), warm.r.Starts(), line.String())
	return err
}
