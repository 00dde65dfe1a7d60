// Command fault injects faults into a real server and looks at what a person is
// told: whose turn it is (the cause), why, and a next step that works. Nothing is
// simulated: memory runs out in a control group, a disk is full, an index refuses
// connections, a layer is damaged on the disk.
//
// It prints one line a fault and last `N passed, N failed`; a fault that needs what
// this machine does not have is skipped with the reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// patience is how long one fault may take to show.
const patience = 90 * time.Second

func main() {
	binary := flag.String("binary", "bin/tategu", "the server under test")
	python := flag.String("python", "", "a Python with google-cloud-storage; without one its faults are skipped")
	only := flag.String("only", "", "regular expression over names")
	jobs := flag.Int("jobs", 4, "faults at the same time")
	verbose := flag.Bool("v", false, "print what a person is told")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := run(ctx, options{*binary, *python, *only, *jobs, *verbose})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

type options struct {
	binary, python, only string
	jobs                 int
	verbose              bool
}

// skipError says what is missing for a fault.
type skipError struct{ why string }

func (e skipError) Error() string { return e.why }

func run(ctx context.Context, o options) (failed int, err error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return 0, err
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var mu sync.Mutex
	var all sync.WaitGroup
	passed, skipped := 0, 0
	slots := make(chan struct{}, o.jobs)
	for _, f := range faults() {
		if !only.MatchString(f.name) {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			text, err := w.try(ctx, f)
			mu.Lock()
			defer mu.Unlock()
			skip, skips := errors.AsType[skipError](err)
			switch {
			case skips:
				skipped++
				_, _ = fmt.Fprintf(os.Stdout, "skip %s: %s\n", f.name, skip.why)
			case err != nil:
				failed++
				_, _ = fmt.Fprintf(os.Stdout, "FAIL %s: %v\n%s\n", f.name, err, text)
			default:
				passed++
				_, _ = fmt.Fprintf(os.Stdout, "ok   %s: %s\n", f.name, f.cause)
				if o.verbose {
					_, _ = fmt.Fprintln(os.Stdout, text)
				}
			}
		})
	}
	all.Wait()
	if failed > 0 {
		_, _ = fmt.Fprintf(os.Stdout, "the server's log:\n%s\n", w.server.log)
	}
	if skipped > 0 {
		_, _ = fmt.Fprintf(os.Stdout, "%d skipped\n", skipped)
	}
	_, _ = fmt.Fprintf(os.Stdout, "%d passed, %d failed\n", passed, failed)
	return failed, nil
}
