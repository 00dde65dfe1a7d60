package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tategu/bench/harness"
	"tategu/internal/load"
)

// contestant answers predictions in one way.
type contestant struct {
	name   string
	target *load.Endpoint
	server *process
	// own = only the process itself is measured, not what it starts: the proxy apart
	// from the replica.
	own    bool
	shared bool // others use the server too: it is never stopped
	knee   float64
	limit  time.Duration // that the knee was found with
	rounds []round
}

// round is what one turn measured.
type round struct {
	rate     float64       // requests a second of many callers
	cpu      time.Duration // of the server, for each of those requests
	alone    time.Duration // p50 of one caller
	cpuAlone time.Duration
	p50, p99 time.Duration // at 70 % of the knee
	memory   float64       // MiB
}

const callers = 16 // of the closed loop

func (c *contestant) pids() []int {
	if c.own {
		return []int{c.server.cmd.Process.Pid}
	}
	return c.server.tree()
}

// turn measures one round, with closed loops of some length; search has the knee looked
// for.
func (c *contestant) turn(ctx context.Context, length time.Duration, search bool) error {
	if !c.shared {
		c.server.resume()
		c.target.Close() // it may have ended connections that waited too long
		defer c.server.pause()
	}
	if _, err := c.ask(ctx, callers, 200*time.Millisecond); err != nil { // warm
		return err
	}
	var r round
	pids := c.pids()
	many, err := c.ask(ctx, callers, length)
	if err != nil {
		return err
	}
	r.rate, r.cpu = float64(many.answers)/many.took.Seconds(), many.cpu
	one, err := c.ask(ctx, 1, length)
	if err != nil {
		return err
	}
	r.alone, r.cpuAlone = one.p50, one.cpu
	r.memory = float64(harness.PSS(pids)) / (1 << 20)
	switch {
	case c.knee != 0:
	case search:
		if err := c.find(ctx, r.rate); err != nil {
			return err
		}
	default:
		c.knee = r.rate
	}
	step, err := load.Measure(ctx, c.target, load.Config{Step: length, Timeout: 5 * time.Second, InFlight: 500}, load.WorkShare*c.knee)
	if err != nil {
		return err
	}
	r.p50, r.p99 = step.P50, step.P99
	c.rounds = append(c.rounds, r)
	return nil
}

// find looks for the knee, once: from what the closed loop got, which is near it.
func (c *contestant) find(ctx context.Context, rate float64) error {
	r, err := load.Run(ctx, c.target, load.Config{
		From: 0.7 * rate, MaxRate: 2 * rate, Step: 500 * time.Millisecond, Precision: 0.1, Duration: 12 * time.Second, InFlight: 500, Floor: 20 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	c.knee, c.limit = r.Knee, r.Limit
	if c.knee == 0 {
		c.knee = 0.5 * rate // the machine is too busy to tell: half is surely below it
	}
	return nil
}

// asked is what a closed loop saw.
type asked struct {
	answers int
	took    time.Duration
	p50     time.Duration
	cpu     time.Duration // of the server, for each answer
}

// ask has n callers ask again as soon as they were answered.
func (c *contestant) ask(ctx context.Context, n int, length time.Duration) (asked, error) {
	ctx, cancel := context.WithTimeout(ctx, length+10*time.Second)
	defer cancel()
	var failed atomic.Pointer[string]
	times := make([][]time.Duration, n)
	pids := c.pids()
	used, begin := harness.CPU(pids), time.Now()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for k := i; time.Since(begin) < length && failed.Load() == nil; k += n {
				sent := time.Now()
				if failure, detail := c.target.Do(ctx, k); failure != "" {
					text := failure + ": " + detail
					failed.Store(&text)
					return
				}
				times[i] = append(times[i], time.Since(sent))
			}
		})
	}
	all.Wait()
	took, spent := time.Since(begin), harness.CPU(pids)-used
	if text := failed.Load(); text != nil {
		return asked{}, fmt.Errorf("%s does not answer: %s", c.name, *text)
	}
	every := slices.Concat(times...)
	slices.Sort(every)
	return asked{answers: len(every), took: took, p50: every[len(every)/2], cpu: spent / time.Duration(len(every))}, nil
}
