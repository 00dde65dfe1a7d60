// Command containers measures how long a program in a container takes to begin,
// from the call that asks for it to the program's first line, and how long 50 MB
// take to become an image in our registry. All ways run in turns, so that a busy
// machine is busy for all of them.
//
//	containers -tategu bin/tategu [-n 20] [-builds 5]
//
// The last line is `start_ms=… vs_docker=…x build_ms=…`, by medians; what could
// not be measured is "n/a", and its line above says why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// way is one way to do what is measured.
type way struct {
	name   string
	before func() error                              // what is not measured; may be nil
	after  func() error                              // likewise
	run    func(ctx context.Context) (string, error) // gives what the program wrote: when it began
	timed  func(ctx context.Context) error           // in place of run: until it returns
	why    error                                     // it is not to be had here
	times  []float64                                 // milliseconds
	whole  []float64                                 // likewise, of run until it returned
}

func main() {
	tategu := flag.String("tategu", "bin/tategu", "the binary that is measured")
	n := flag.Int("n", 20, "starts of each")
	rounds := flag.Int("builds", 5, "builds of each")
	flag.Parse()
	if err := bench(context.Background(), *tategu, *n, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench-containers: "+err.Error())
		os.Exit(1)
	}
}

func bench(ctx context.Context, tategu string, n, rounds int) (err error) {
	if n < 1 || rounds < 1 {
		return errors.New("-n and -builds are 1 at least")
	}
	dir, err := os.MkdirTemp("", "bench-containers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "rootfs", "program")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./bench/containers/program")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	d := openDocker(ctx, dir)
	defer func() { err = errors.Join(err, d.close()) }()
	d.why = d.load(ctx, filepath.Dir(program))
	starts, err := measureStarts(ctx, d, tategu, dir, program, n)
	if err != nil {
		return err
	}
	made, err := measureBuilds(ctx, d, tategu, dir, program, rounds)
	if err != nil {
		return err
	}
	return report(starts, made)
}

func measureStarts(ctx context.Context, d *docker, tategu, dir, program string, n int) (ways []*way, err error) {
	ours, closeOurs, err := openTategu(tategu, dir, program)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeOurs()) }()
	ways = append([]*way{command("exec", program)}, ours...)
	ways = append(ways, bubblewrap(dir), runc(ctx, dir), d.way())
	for range n {
		measureAll(ctx, ways)
	}
	return ways, nil
}

func measureBuilds(ctx context.Context, d *docker, tategu, dir, program string, n int) (ways []*way, err error) {
	r, err := openRegistry(ctx, tategu, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	ways, fill, err := builds(ctx, r, d, dir, program)
	if err != nil {
		return nil, err
	}
	for round := range n + 1 {
		if err := fill(); err != nil {
			return nil, err
		}
		measureAll(ctx, ways)
		for _, w := range ways {
			if round == 0 && w.why == nil {
				w.times = nil // the base is sent once
			}
		}
	}
	return ways, nil
}

func measureAll(ctx context.Context, ways []*way) {
	for _, w := range ways {
		if w.why == nil {
			w.why = w.measure(ctx)
		}
	}
}

func (w *way) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if w.before != nil {
		if err := w.before(); err != nil {
			return err
		}
	}
	began := time.Now()
	if w.timed != nil {
		err := w.timed(ctx)
		w.times = append(w.times, time.Since(began).Seconds()*1e3)
		return err
	}
	out, err := w.run(ctx)
	whole := time.Since(began).Seconds() * 1e3
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	if w.after != nil {
		if err := w.after(); err != nil {
			return err
		}
	}
	at, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("it wrote %q", out)
	}
	w.times, w.whole = append(w.times, float64(at-began.UnixNano())/1e6), append(w.whole, whole)
	return nil
}

func median(times []float64) float64 { return slices.Sorted(slices.Values(times))[len(times)/2] }

func report(starts, made []*way) error {
	found := map[string]*way{}
	for _, w := range slices.Concat(starts, made) {
		found[w.name] = w
		if w.why != nil {
			_, _ = fmt.Fprintf(os.Stdout, "%-22s n/a  (%s)\n", w.name, strings.ReplaceAll(w.why.Error(), "\n", " "))
			continue
		}
		line := fmt.Sprintf("%-22s min %7.1f  median %7.1f ms", w.name, slices.Min(w.times), median(w.times))
		if w.whole != nil {
			line += fmt.Sprintf("  to its end min %7.1f  median %7.1f", slices.Min(w.whole), median(w.whole))
		}
		_, _ = fmt.Fprintln(os.Stdout, line)
	}
	container, host, built := found[nameContainer], found[nameHost], found[nameBuild]
	if err := errors.Join(container.why, host.why, built.why); err != nil {
		return err
	}
	versus := "n/a"
	if d := found[nameDocker]; d.why == nil {
		versus = fmt.Sprintf("%.1fx", median(d.times)/median(container.times))
	}
	_, _ = fmt.Fprintf(os.Stdout, "start_ms=%.1f vs_docker=%s build_ms=%.0f\n", median(container.times), versus, median(built.times))
	return nil
}

// command starts a program of this machine.
func command(name string, args ...string) *way {
	return &way{name: name, run: func(ctx context.Context) (string, error) {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}}
}
