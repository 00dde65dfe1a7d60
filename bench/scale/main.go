// Command scale measures how the pipeline engine bears numbers: a loop of many
// tasks, many runs at once, many runs stored. It drives the built binary as a client
// of its API.
//
//	scale -tategu bin/tategu [-tasks 10000] [-runs 100] [-stored 10000] [-only tasks,kill,fair,stored]
//
// The programs are `sh`, as a task in any language is a program, and every task
// leaves a mark in a file, by which this program counts them without asking the
// server. A table comes first, then one last line:
// `tasks_per_s=… rss_ratio=… fair=… list_p99_ms=…`, in which what was left out by
// -only is "n/a". list_p99_ms is the worst p99 of the kinds of list and get with all
// runs stored and nothing else at work. Progress goes to stderr.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type options struct {
	tategu, dir, only   string
	tasks, runs, stored int
}

func main() {
	var o options
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary that is measured")
	flag.StringVar(&o.dir, "dir", "", "folder for all data (default: a temporary one)")
	flag.StringVar(&o.only, "only", "tasks,kill,fair,stored", "what is measured")
	flag.IntVar(&o.tasks, "tasks", 10_000, "iterations of the loop, 2,000 to 50,000")
	flag.IntVar(&o.runs, "runs", 100, "runs at once, 2 to 1,000")
	flag.IntVar(&o.stored, "stored", 10_000, "runs that are stored when lists are timed, 200 to 100,000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-scale:", err)
		os.Exit(1)
	}
}

// bench is one pass over everything; each part has a server and a data directory of
// its own, so that none sees what another left.
type bench struct {
	options
	last map[string]string // figures of the last line
}

func run(ctx context.Context, o options) (err error) {
	within := func(n, least, most int) bool { return n >= least && n <= most }
	if !within(o.tasks, 2000, 50_000) || !within(o.runs, 2, 1000) || !within(o.stored, 200, 100_000) {
		return errors.New("-tasks, -runs or -stored is out of its bounds; -help names them")
	}
	if o.tategu, err = filepath.Abs(o.tategu); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "bench-scale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.dir = dir
	b := &bench{options: o, last: map[string]string{"tasks_per_s": "n/a", "rss_ratio": "n/a", "fair": "n/a", "list_p99_ms": "n/a"}}
	parts := map[string]func(context.Context, *server) error{"tasks": b.loop, "kill": b.kill, "fair": b.fair, "stored": b.storedRuns}
	only := strings.Split(o.only, ",")
	for _, name := range only {
		if parts[name] == nil {
			return fmt.Errorf("-only: there is no part %q", name)
		}
	}
	for _, name := range []string{"tasks", "kill", "fair", "stored"} {
		if !slices.Contains(only, name) {
			continue
		}
		if err := b.part(ctx, name, parts[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = fmt.Fprintf(os.Stdout, "tasks_per_s=%s rss_ratio=%s fair=%s list_p99_ms=%s\n",
		b.last["tasks_per_s"], b.last["rss_ratio"], b.last["fair"], b.last["list_p99_ms"])
	return err
}

// part measures one thing on a server of its own. What fails shows the server's last
// words.
func (b *bench) part(ctx context.Context, name string, measure func(context.Context, *server) error) (err error) {
	s, err := newServer(b.tategu, filepath.Join(b.dir, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.start(ctx); err != nil {
		return errors.Join(err, s.words())
	}
	if err := measure(ctx, s); err != nil {
		return errors.Join(err, s.words())
	}
	return nil
}

// row prints one line of the table.
func row(name, format string, values ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "%-34s %s\n", name, fmt.Sprintf(format, values...)) // a table nobody reads stops nothing
}

// say tells on stderr how far the work is.
func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", values...)
}

// times are durations of one thing.
type times []time.Duration

func (t times) sorted() times { return slices.Sorted(slices.Values(t)) }

// at gives a quantile of sorted times; 1 is the slowest.
func (t times) at(q float64) time.Duration {
	return t[min(int(q*float64(len(t))), len(t)-1)]
}

// line shows them in milliseconds.
func (t times) line() string {
	if len(t) == 0 {
		return "none"
	}
	s := t.sorted()
	return fmt.Sprintf("min %.1f  median %.1f  p99 %.1f  max %.1f ms (%d)", ms(s[0]), ms(s.at(0.5)), ms(s.at(0.99)), ms(s.at(1)), len(s))
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
