// Command kill kills a server with SIGKILL at seeded moments under a mixed load,
// starts it again on the same data directory, and checks that nothing that was
// acknowledged is lost, that no object is torn and that no task ran twice.
//
//	go run ./test/kill -bin bin/tategu -rounds 50 -seed 1
//
// In each round it kills, by the seed, also zygotes, wrappers and programs: those of
// flows, which are runs with retries, loops and exit tasks (testdata/flows.py). A
// flow may fail by that alone, once its attempts are used up, and never by the end
// of a server or a zygote; judge.go says what must hold of it.
//
// The load keeps a ledger of its own: an answer counts as an acknowledgement once
// it was read in full. Tasks keep another one in a file (testdata/task.sh). A problem
// is told with the seed, the round and what was killed in it. The last line is
//
//	kill-loop: ok rounds=… acked=… lost=… torn=… double=… adopted=… ready_p95_ms=…
//
// and the exit code is 1 when it does not say ok.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

type options struct {
	binary, dir, cache string
	rounds             int
	seed               uint64
	python             bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.binary, "bin", "bin/tategu", "the server")
	flag.StringVar(&o.dir, "dir", "", "work here and keep it (default: a new directory, kept after a failure)")
	flag.StringVar(&o.cache, "cache", "", "cache of the server (default: the server's own)")
	flag.IntVar(&o.rounds, "rounds", 50, "how often to kill")
	flag.Uint64Var(&o.seed, "seed", 1, "of the moments and the load")
	flag.BoolVar(&o.python, "python", true, "run Python components too; they need kfp from an index or the cache")
	flag.Parse()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill-loop:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, o options) (ok bool, err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "tategu-kill-"); err != nil {
			return false, err
		}
		defer func() {
			if ok && err == nil {
				err = os.RemoveAll(o.dir)
			} else {
				fmt.Fprintln(os.Stderr, "kill-loop: data, logs and ledgers are kept in", o.dir)
			}
		}()
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return false, err
	}
	b := &book{out: os.Stderr, began: time.Now()}
	s, err := newServer(o)
	if err != nil {
		return false, err
	}
	defer s.endAll() // also after a failure: nothing of ours is left running
	l := &loop{
		options: o, server: s, book: b, client: newClient(s, b), drained: make(chan struct{}),
		striker: &striker{server: s, book: b, kills: map[string]int{}},
	}
	if err := l.rounds(ctx); err != nil {
		return false, err
	}
	l.verify(ctx)
	_, err = fmt.Fprintln(os.Stdout, l.summary())
	return b.failures() == 0, err
}

// loop is the whole test.
type loop struct {
	options
	server  *server
	book    *book
	client  *client
	ready   []time.Duration // of each start
	adopted int             // as the servers counted

	drained chan struct{} // closed when nothing new shall be begun
	runs    *runs
	flows   *flows
	ticks   *ticks
	striker *striker
	models  *models
	objects []*objects
	batches *batches
	jobs    *jobs
}

// rounds kills as often as asked for, then lets the load come to its end.
func (l *loop) rounds(ctx context.Context) error {
	moments, victims := l.random(0), l.random(3)
	if err := l.start(ctx); err != nil {
		return err
	}
	workers, err := l.load(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	for _, w := range workers {
		working.Go(func() {
			if err := w(ctx); err != nil && ctx.Err() == nil {
				l.book.problem("%v", err)
			}
		})
	}
	for round := 1; round <= l.options.rounds; round++ {
		l.book.enter(l.seed, round)
		if err := l.round(ctx, moments, plan(victims), round); err != nil {
			return fmt.Errorf("seed %d, round %d: %w", l.seed, round, err)
		}
		if round%10 == 0 || round == l.options.rounds {
			l.book.say("%d kills, %d writes acknowledged, %d programs adopted", round, l.book.acked.Load(), l.adopted)
		}
	}
	close(l.drained)
	done := make(chan struct{})
	go func() { // ends with the workers
		working.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(2 * flowPatience):
		return fmt.Errorf("the load did not come to its end within %v of the last start: see what is unfinished in the server's log", 2*flowPatience)
	}
}

// round kills the server and what the strikes say, and starts the server again.
func (l *loop) round(ctx context.Context, moments *rand.Rand, strikes []strike, round int) error {
	length := 50*time.Millisecond + time.Duration(l.server.pace.Load())*time.Duration(moments.Int64N(int64(1450*time.Millisecond)))
	early := time.Duration(moments.Int64N(int64(length)))
	over := time.NewTimer(length)
	defer over.Stop()
	if err := errors.Join(pause(ctx, early), l.striker.hit(ctx, strikes, before, length-early)); err != nil {
		return err
	}
	select {
	case <-over.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	first, second := l.server.kill, func() error { return l.striker.hit(ctx, strikes, beside, 0) }
	if moments.IntN(2) == 0 { // a wrapper that ends just before its server, or just after
		first, second = second, first
	}
	if err := errors.Join(first(), second(), l.server.mark("kill,%d", round), l.striker.hit(ctx, strikes, amid, 0)); err != nil {
		return err
	}
	if round == 1 {
		if err := l.ticks.setBack(ctx); err != nil {
			return err
		}
	}
	if moments.IntN(4) == 0 { // and once more, amid the start
		if err := l.killStart(ctx, time.Duration(moments.Int64N(int64(200*time.Millisecond)))); err != nil {
			return err
		}
	}
	return errors.Join(l.start(ctx), l.striker.hit(ctx, strikes, after, 300*time.Millisecond))
}

// start starts the server and counts what it took over.
func (l *loop) start(ctx context.Context) error {
	took, err := l.server.start(ctx)
	if err != nil {
		return err
	}
	l.ready = append(l.ready, took)
	l.server.pace.Store(int64(min(max(took/(500*time.Millisecond), 1), 3)))
	adopted, err := l.client.metric(ctx, "tategu_workloads_adopted_total")
	if err != nil {
		return err
	}
	l.adopted += adopted
	l.client.http.CloseIdleConnections() // those to the server that was killed
	l.server.gate.open()
	return nil
}

// killStart starts the server and kills it on the way.
func (l *loop) killStart(ctx context.Context, after time.Duration) error {
	if err := l.server.launch(); err != nil {
		return err
	}
	if err := pause(ctx, after); err != nil {
		return err
	}
	return l.server.kill()
}

// random gives a source of its own to each part of the load.
func (l *loop) random(part uint64) *rand.Rand {
	return rand.New(rand.NewPCG(l.seed, part)) //nolint:gosec // a repeatable sequence is the point
}

func (l *loop) summary() string {
	word := "ok"
	if l.book.failures() > 0 {
		word = "FAILED"
	}
	restarts := slices.Sorted(slices.Values(l.ready[min(1, len(l.ready)-1):])) // the first start is not a recovery
	p95 := restarts[(len(restarts)*95+99)/100-1]
	return fmt.Sprintf("kill-loop: %s rounds=%d acked=%d lost=%d torn=%d double=%d adopted=%d ready_p95_ms=%d",
		word, l.options.rounds, l.book.acked.Load(), l.book.lost.Load(), l.book.torn.Load(), l.book.double.Load(), l.adopted, p95.Milliseconds())
}

// isOver says that a part of the load has to end: nothing new shall be begun, or
// ctx has ended, which is the error.
func isOver(ctx context.Context, drained <-chan struct{}) (bool, error) {
	select {
	case <-drained:
		return true, nil
	case <-ctx.Done():
		return true, ctx.Err()
	default:
		return false, nil
	}
}

// pause waits without being deaf to the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
