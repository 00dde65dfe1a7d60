// Command containers measures how long a program in a container takes to begin:
// from the call that asks for it to the program's first line. All ways run in
// turns, so that a busy machine is busy for all of them.
//
//	containers -tategu bin/tategu [-n 20]
//
// The last line is `start_ms=… vs_docker=…x build_ms=…`; what could not be
// measured is "-".
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

// way is one way to start the program; run gives what it wrote.
type way struct {
	name  string
	run   func(ctx context.Context) (string, error)
	why   error // it is not to be had here
	times []float64
}

func main() {
	tategu := flag.String("tategu", "bin/tategu", "the binary that is measured")
	n := flag.Int("n", 20, "starts of each")
	flag.Parse()
	if err := bench(context.Background(), *tategu, *n); err != nil {
		fmt.Fprintln(os.Stderr, "bench-containers: "+err.Error())
		os.Exit(1)
	}
}

func bench(ctx context.Context, tategu string, n int) (err error) {
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
	ours, closeOurs, err := openTategu(tategu, dir, program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOurs()) }()
	ways := append([]*way{command("exec", program)}, ours...)
	ways = append(ways, bubblewrap(dir), runc(ctx, dir), docker(ctx, dir))
	for range n {
		for _, w := range ways {
			if w.why == nil {
				w.why = w.measure(ctx)
			}
		}
	}
	return report(ways)
}

func (w *way) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	out, err := w.run(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	at, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("it wrote %q", out)
	}
	w.times = append(w.times, float64(at-began.UnixNano())/1e6)
	return nil
}

func (w *way) median() float64 {
	if len(w.times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(w.times))[len(w.times)/2]
}

func report(ways []*way) error {
	found := map[string]*way{}
	for _, w := range ways {
		found[w.name] = w
		if w.why != nil {
			_, _ = fmt.Fprintf(os.Stdout, "%-18s -  (%v)\n", w.name, w.why)
			continue
		}
		_, _ = fmt.Fprintf(os.Stdout, "%-18s min %6.1f  median %6.1f ms\n", w.name, slices.Min(w.times), w.median())
	}
	container, host, docker := found[nameContainer], found[nameHost], found["docker run"]
	if container.why != nil {
		return container.why
	}
	if host.why != nil {
		return host.why
	}
	_, _ = fmt.Fprintf(os.Stdout, "of these, namespaces and mounts: %.1f ms (medians: %s less %s)\n", container.median()-host.median(), nameContainer, nameHost)
	versus := "-"
	if docker.why == nil {
		versus = fmt.Sprintf("%.1fx", docker.median()/container.median())
	}
	_, _ = fmt.Fprintf(os.Stdout, "start_ms=%.1f vs_docker=%s build_ms=-\n", container.median(), versus)
	return nil
}

// command starts a program of this machine.
func command(name string, args ...string) *way {
	return &way{name: name, run: func(ctx context.Context) (string, error) {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}}
}
