// Package load finds how much a model's endpoint takes. It sends requests at rates
// of its own choosing, whether or not earlier ones were answered, as independent
// callers do (an open loop), and counts the time of each from the moment at which it
// was due: a server that stalls is charged for the requests that wait meanwhile.
// It knows the server by what it answers alone.
package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Target gets the requests.
type Target interface {
	// Do sends the n-th request and waits for its answer. failure is "" for a good
	// one, otherwise a short word that failures are counted by ("429", "timeout"),
	// with detail in the server's words.
	Do(ctx context.Context, n int) (failure, detail string)
}

// Config says what is tried. Zero fields take the defaults named.
type Config struct {
	From    float64 // requests a second to begin with; 0 = half of what one caller gets
	MaxRate float64 // never more; 0 = 20,000
	// Duration bounds the whole search; what is known by then is the result. 0 = 5 minutes.
	Duration time.Duration
	Step     time.Duration // how long a rate is tried; 0 = 3 s. Slow rates take longer: 50 requests, at most 10 times Step
	// Limit is the longest that 99 of 100 requests may take. 0 = Factor times as long as
	// those of a caller who is alone, and at least Floor more.
	Limit     time.Duration
	Factor    float64       // 0 = 3
	Floor     time.Duration // 0 = 5 ms
	Precision float64       // the knee is known to this share; 0 = 0.03
	Tries     int           // a rate fails when it failed so often in turn; 0 = 3
	InFlight  int           // requests that wait for an answer at most; 0 = 2,000
	Timeout   time.Duration // longest wait for one answer; 0 = 30 s
	Poisson   bool          // requests come at random, instead of evenly
	Seed      uint64        // of the random times
	// Replicas tells how many replicas there are now; nil or 0 = it cannot be known.
	Replicas func(ctx context.Context) int
	// Show gets each step as it ends; nil = nobody.
	Show func(Step)
}

func (c Config) withDefaults() Config {
	c.MaxRate = or(c.MaxRate, 20_000)
	c.Duration = or(c.Duration, 5*time.Minute)
	c.Step = or(c.Step, 3*time.Second)
	c.Factor = or(c.Factor, 3)
	c.Floor = or(c.Floor, 5*time.Millisecond)
	c.Precision = or(c.Precision, 0.03)
	c.Tries = or(c.Tries, 3)
	c.InFlight = or(c.InFlight, 2_000)
	c.Timeout = or(c.Timeout, 30*time.Second)
	return c
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Purpose says why a step was made.
type Purpose string

// What steps are made for.
const (
	Climb   Purpose = "climb"   // upwards, each twice the last
	Bisect  Purpose = "bisect"  // between what held and what did not
	Confirm Purpose = "confirm" // once more at the knee
	Work    Purpose = "work"    // at the share of the knee that a replica is given
)

// WorkShare of the knee is what a replica should be given: it leaves room for
// bursts. The autoscaler aims at the same share of a replica's concurrency.
const WorkShare = 0.7

// Result is what was found.
type Result struct {
	Alone Alone
	Limit time.Duration // that 99 of 100 requests may take
	Steps []Step        // in the order in which they were made
	// Knee is the highest rate that held, 0 when none did. Beyond is the lowest rate
	// above it that did not; 0 when nothing failed up to Config.MaxRate.
	Knee, Beyond float64
	Confirmed    bool
	At           *Step  // the last step at the knee that held
	Work         *Step  // at WorkShare of the knee; nil when there was no time for it
	Stopped      string // why the search ended before it was over; "" = it did not
}

// Alone is how the target answers one caller who asks again when answered.
type Alone struct {
	Requests int
	P50, P99 time.Duration
}

// Requests of the caller who is alone.
const (
	warmUp     = 10
	aloneMost  = 200
	aloneLeast = 5
	aloneTime  = 3 * time.Second // then it has been enough
)

// Run looks for the knee until it is found, the time is over or ctx ends; the end of
// ctx is no error, but ends what is known. An error says that the target does not
// answer even a caller who is alone.
func Run(ctx context.Context, t Target, c Config) (*Result, error) {
	c = c.withDefaults()
	g := &generator{target: t, config: c}
	begin := time.Now()
	r := &Result{}
	var err error
	if r.Alone, err = g.alone(ctx); err != nil {
		return nil, err
	}
	r.Limit = c.Limit
	if r.Limit == 0 {
		r.Limit = max(time.Duration(c.Factor*float64(r.Alone.P99)), r.Alone.P99+c.Floor)
	}
	g.limit = r.Limit
	if c.From == 0 {
		c.From = math.Max(1, 0.5/r.Alone.P50.Seconds())
	}
	s := &search{config: c, result: r, step: g.step, left: func() time.Duration { return c.Duration - time.Since(begin) }}
	err = s.run(ctx)
	r.Stopped = reason(err)
	if err == nil || errors.Is(err, errMaxRate) {
		if err := s.work(ctx); err != nil {
			r.Stopped = reason(err)
		}
	}
	return r, nil
}

// Why a search ends early.
var (
	errTime    = errors.New("the time was over")
	errMaxRate = errors.New("the highest rate allowed was reached")
	errSlow    = errors.New("even the lowest rate did not hold")
)

func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "interrupted"
	}
	return err.Error()
}

// alone asks one request after the other.
func (g *generator) alone(ctx context.Context) (Alone, error) {
	ask := func(most, least int) ([]time.Duration, error) {
		var took []time.Duration
		for begin := time.Now(); len(took) < most && (len(took) < least || time.Since(begin) < aloneTime); {
			sent := time.Now()
			failure, detail := g.one(ctx, g.config.Timeout)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if failure != "" {
				return nil, fmt.Errorf("request %d of a single caller failed (%s): %s", g.count.Load(), failure, detail)
			}
			took = append(took, time.Since(sent))
		}
		return took, nil
	}
	if _, err := ask(warmUp, 1); err != nil { // the first may have to start something
		return Alone{}, err
	}
	took, err := ask(aloneMost, aloneLeast)
	if err != nil {
		return Alone{}, err
	}
	n := len(took)
	p := percentiles(took, 0.5, 0.99)
	return Alone{Requests: n, P50: p[0], P99: p[1]}, nil
}

// Measure tries one rate for Config.Step, to whatever end: nothing is late.
func Measure(ctx context.Context, t Target, c Config, rate float64) (Step, error) {
	c = c.withDefaults()
	g := &generator{target: t, config: c, limit: or(c.Limit, c.Timeout)}
	return g.step(ctx, Work, rate)
}
