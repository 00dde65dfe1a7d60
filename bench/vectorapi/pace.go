package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// load is what a constant rate saw.
type load struct {
	p50, p99, worst time.Duration
	asked, failed   int
	first           error
}

// open sends requests at a constant rate, whether or not earlier ones were answered, and
// counts each from when it was due. At most `callers` are under way: what is due then
// waits here, and its wait counts.
func open(ctx context.Context, rate int, length time.Duration, do func(ctx context.Context, n int) error) load {
	ctx, cancel := context.WithTimeout(ctx, length+30*time.Second)
	defer cancel()
	total := int(length.Seconds() * float64(rate))
	took, errs := make([]time.Duration, total), make([]error, total)
	type due struct {
		n  int
		at time.Time
	}
	queue := make(chan due, total)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for d := range queue {
				errs[d.n] = do(ctx, d.n)
				took[d.n] = time.Since(d.at)
			}
		})
	}
	start := time.Now().Add(5 * time.Millisecond)
	for n := range total {
		at := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		sleep(time.Until(at))
		queue <- due{n, at}
	}
	close(queue)
	all.Wait()
	l := load{asked: total}
	for _, err := range errs {
		if err != nil {
			l.failed++
			if l.first == nil {
				l.first = err
			}
		}
	}
	slices.Sort(took)
	l.p50, l.p99, l.worst = took[total/2], took[min(total-1, total*99/100)], took[total-1]
	return l
}

// sleep is the kernel's: timers of the runtime may be a millisecond late when the
// program has nothing else to do, which would be counted as the server's.
func sleep(d time.Duration) {
	if d > 0 {
		t := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&t, nil) // a signal ends it early: the request is sent early
	}
}

// err says that requests failed: no figure stands for such a load.
func (l load) err() error {
	if l.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d requests failed: %w", l.failed, l.asked, l.first)
}
