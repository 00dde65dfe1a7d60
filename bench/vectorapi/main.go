// Command vectorapi measures vector search as a client sees it: a fresh server, files
// of datapoints in a bucket, an index that is created and deployed, and FindNeighbors
// over gRPC and REST at a constant rate, each request with a token.
//
//	vectorapi -tategu bin/tategu [-rows 100000] [-seconds 10] [-million 1000000]
//
// Latencies are counted from the time at which a request was due, so that a server
// that falls behind is not spared the requests that wait. The server and the load
// share the machine. A table comes first, then one last line:
// `p50_ms=… p99_ms=… p99_upserts_ms=… build_s=… rss_1m_mb=…`, each the worst of its
// column; rss_1m_mb is "n/a" with -million 0. Progress goes to stderr.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"tategu/bench/harness"
)

type options struct {
	tategu, dir             string
	rows, million, qps      int
	seconds, upserts, seeds int
}

func main() {
	var o options
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary under test")
	flag.StringVar(&o.dir, "dir", "", "folder for all data, of which up to 2 GB are written and removed (default: a temporary one)")
	flag.IntVar(&o.rows, "rows", 100_000, "datapoints of the index that is timed")
	flag.IntVar(&o.million, "million", 1_000_000, "datapoints of the index whose memory is measured; 0 = none")
	flag.IntVar(&o.seconds, "seconds", 10, "of each load")
	flag.IntVar(&o.qps, "qps", 500, "requests a second, of one query each")
	flag.IntVar(&o.upserts, "upserts", 100, "upserts a second, of one datapoint each, beside queries")
	flag.IntVar(&o.seeds, "seed", 1, "of the vectors")
	flag.Parse()
	// Those that wait in the kernel for the next request to be due hold a processor of Go's
	// until it is taken from them, which may be ten milliseconds later: answers would wait.
	const pacers = 2
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + pacers)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-vector-api:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.rows < 1000 || o.million != 0 && o.million < 1000 || o.seconds < 1 || o.qps < 1 || o.upserts < 1 {
		return errors.New("an index has 1000 rows or more; seconds and rates are positive")
	}
	if o.tategu, err = filepath.Abs(o.tategu); err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "bench-vector-api-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	b := &bench{options: o}
	if err := b.onServer(ctx, "small", b.small); err != nil {
		return err
	}
	rss := "n/a"
	if o.million > 0 {
		if err := b.onServer(ctx, "million", b.large); err != nil {
			return err
		}
		rss = fmt.Sprintf("%.0f", float64(b.rss)/(1<<20))
	}
	say("p50_ms=%s p99_ms=%s p99_upserts_ms=%s build_s=%.1f rss_1m_mb=%s\n", ms(b.p50), ms(b.p99), ms(b.p99Upserts), b.build.Seconds(), rss)
	return nil
}

// bench is one pass; its figures are of the last line.
type bench struct {
	options

	p50, p99, p99Upserts, build time.Duration
	rss                         int64
}

// onServer runs a part against a server and a data directory of its own.
func (b *bench) onServer(ctx context.Context, name string, part func(context.Context, *server) error) (err error) {
	dir := filepath.Join(b.dir, name)
	s, err := startServer(ctx, b.tategu, dir)
	if err == nil {
		err = part(ctx, s)
	}
	if s != nil {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n%s", err, harness.Tail(s.log))
		}
		err = errors.Join(err, s.close())
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func say(format string, args ...any)  { _, _ = fmt.Fprintf(os.Stdout, format, args...) } // nobody reads on: nothing to do
func note(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
