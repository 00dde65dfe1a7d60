// Command torchserve measures a TorchServe of tategu beside the one in Java: the same
// worker package, archive and requests, in turns, each with one worker on core 0, the
// load on core 1. See CONTRIBUTING.md for how to run it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options of the command line.
type options struct {
	tategu string
	before string        // another tategu to measure beside; "" = none
	venv   string        // environment with torchserve, torch and torch-model-archiver
	rounds int           // each server has as many turns of each kind
	length time.Duration // of a turn
	folder string
}

// turn is a kind of load.
type turn struct {
	batch   int
	clients int
}

func turns() []turn { return []turn{{1, 1}, {1, 32}, {16, 1}, {16, 32}} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-torchserve:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var o options
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary under test")
	flag.StringVar(&o.before, "before", "", "another tategu, to see what a change does; its figures are told, and compared with none")
	flag.StringVar(&o.venv, "venv", ".venv/torchserve", "environment with the packages torchserve, torch and torch-model-archiver")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, of which the median is told")
	flag.DurationVar(&o.length, "length", 3*time.Second, "how long each turn takes")
	flag.Parse()
	for _, p := range []*string{&o.tategu, &o.venv} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if o.folder, err = os.MkdirTemp("", "bench-torchserve-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.folder)) }()
	python := filepath.Join(o.venv, "bin", "python")
	store := filepath.Join(o.folder, "store")
	if err := os.Mkdir(store, 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, python, "bench/torchserve/model.py", store).CombinedOutput(); err != nil {
		return fmt.Errorf("make the model: %w: %s", err, out)
	}
	torchserve := filepath.Join(o.venv, "bin", "torchserve")
	servers := []*server{newServer("java", torchserve, 18080), newServer("tategu", o.tategu, 19080)}
	if o.before != "" {
		if o.before, err = filepath.Abs(o.before); err != nil {
			return err
		}
		servers = append(servers, newServer("before", o.before, 20080))
	}
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for _, s := range servers {
		if err := s.start(ctx, o, store); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := measure(ctx, o, servers); err != nil {
		return err
	}
	cold, err := servers[1].cold(ctx, 5)
	if err != nil {
		return err
	}
	report(servers, cold)
	return nil
}

// measure gives each server its turns, the others stopped meanwhile.
func measure(ctx context.Context, o options, servers []*server) error {
	for _, s := range servers {
		s.pause()
	}
	for round := range o.rounds {
		for _, t := range turns() {
			for i := range servers {
				s := servers[(i+round)%len(servers)]
				s.resume()
				seen, err := s.turn(ctx, t, o.length)
				s.pause()
				if err != nil {
					return fmt.Errorf("%s, batch %d, %d clients: %w", s.name, t.batch, t.clients, err)
				}
				s.seen[t] = append(s.seen[t], seen)
			}
		}
	}
	for _, s := range servers {
		s.resume()
	}
	return nil
}

func report(servers []*server, cold time.Duration) {
	say("%-8s %5s %7s %9s %9s %9s %12s %8s %11s %8s\n", "server", "batch", "clients", "req/s", "p50 ms", "p99 ms", "CPU us/req", "(least)", "(in Python)", "PSS MB")
	for _, t := range turns() {
		for _, s := range servers {
			m := s.median(t)
			least := slices.MinFunc(s.seen[t], func(a, b seen) int { return cmp.Compare(a.cpu, b.cpu) }).cpu
			say("%-8s %5d %7d %9.0f %9.2f %9.2f %12d %8d %11d %8.0f\n", s.name, t.batch, t.clients, m.rate, ms(m.p50), ms(m.p99), m.cpu.Microseconds(), least.Microseconds(), m.python.Microseconds(), m.memory)
		}
	}
	batches := []int{1, 16}
	rate, cpu, memory := make([]float64, 0, len(batches)), make([]float64, 0, len(batches)), make([]float64, 0, len(batches))
	for _, batch := range batches {
		t := turn{batch, 32}
		a, b := servers[0].median(t), servers[1].median(t)
		rate, cpu, memory = append(rate, b.rate/a.rate), append(cpu, float64(b.cpu)/float64(a.cpu)), append(memory, b.memory/a.memory)
	}
	// Of the two batch sizes the one that is worse for us.
	say("rps_c32=%.1fx cpu=%.2fx mem=%.2fx cold_ms=%d\n", slices.Min(rate), slices.Max(cpu), slices.Max(memory), cold.Milliseconds())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) } // nobody reads on: nothing to do

// call asks a server's management.
func call(ctx context.Context, method, url string) error {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	if err == nil && res.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, url, res.Status, strings.TrimSpace(string(body)))
	}
	return err
}
