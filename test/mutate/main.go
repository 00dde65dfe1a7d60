// Command mutate sends seeded mutations of valid requests to a real server and
// says whether each answer is one that a client may get: never an internal
// error, never a hanging or dead server, never memory without bound.
//
// Request N of seed S is always the same request, so that a failure is replayed
// with -seed S -only N. The server's state is not part of that: what earlier
// requests left behind may matter, and -first replays a range in order.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// options are the command line.
type options struct {
	binary  string // of tategu
	count   int    // requests
	specs   int    // pipeline specs through the parser
	seed    uint64
	only    int // one request alone, -1 = all
	first   int // where the range begins
	workers int
	rssMB   int    // how much the server may grow
	send    bool   // specs go to a server instead
	limits  bool   // pipelines at their bounds, too
	shared  string // conformance cases, "" = none
	verbose bool
	peaks   bool // tell which requests raised the server's memory
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "mutate: "+err.Error())
		os.Exit(2)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("mutate", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/tategu", "the server under test")
	f.IntVar(&o.count, "n", 10000, "requests")
	f.IntVar(&o.specs, "specs", -1, "pipeline specs for the parser; as many as requests if negative")
	f.Uint64Var(&o.seed, "seed", 1, "seed of everything")
	f.IntVar(&o.only, "only", -1, "send this request alone")
	f.IntVar(&o.first, "first", 0, "begin with this request")
	f.IntVar(&o.workers, "workers", 4, "requests at a time")
	f.IntVar(&o.rssMB, "rss", 200, "how many MB the server's memory may grow above what it is after start and setup")
	f.BoolVar(&o.send, "send", false, "send the pipeline specs to a server, which runs them, instead of giving them to the parser")
	f.BoolVar(&o.limits, "limits", true, "send pipelines at each of their bounds, too")
	f.StringVar(&o.shared, "shared", os.Getenv("TATEGU_SHARED"), "folder with conformance/kfp")
	f.BoolVar(&o.peaks, "peaks", false, "send one request at a time and tell which raise the server's memory by more than 4 MB")
	f.BoolVar(&o.verbose, "v", false, "print each request and its answer")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.specs < 0 {
		o.specs = o.count
	}
	if o.only >= 0 {
		o.specs, o.limits = 0, false
	}
	if o.peaks {
		o.workers = 1
	}
	return o, nil
}

// run gives the number of failed checks.
func run(ctx context.Context, args []string, out io.Writer) (failed int, err error) {
	o, err := parseFlags(args)
	if err != nil {
		return 0, err
	}
	r := &report{out: out, seed: o.seed, verbose: o.verbose, statuses: map[string]int{}, unsupported: map[string]int{}}
	if o.count > 0 {
		if err := runRequests(ctx, o, r); err != nil {
			return r.failed, err
		}
	}
	if o.specs > 0 {
		try := runSpecs
		if o.send {
			try = sendSpecs
		}
		if err := try(ctx, o, r); err != nil {
			return r.failed, err
		}
	}
	if o.limits {
		if err := runLimits(ctx, o, r); err != nil {
			return r.failed, err
		}
	}
	r.end()
	return r.failed, nil
}
