package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Step is one rate that was tried. Times are counted from when a request was due.
type Step struct {
	Purpose  Purpose
	Rate     float64 // requests a second that were due
	Sent     int     // requests that became due
	Answered int     // well, whenever
	Good     int     // well, and within the limit
	Failed   map[string]int
	Failure  string // the words of the first failure
	P50, P99 time.Duration
	Max      time.Duration
	// Busy is the mean number of requests under way, from when they were due.
	Busy float64
	// Drift is by how much answers came later in the second half of the step, as a
	// share of the time: what a server lags behind the rate.
	Drift    float64
	Late     time.Duration // p99 of how late this program itself sent
	Cut      bool          // ended early, since it could not hold any more
	Replicas int           // when it ended; 0 = not known
	Why      string        // it did not hold; "" = it did
}

// Held says that the target kept up.
func (s *Step) Held() bool { return s.Why == "" }

// Bounds of what holds.
const (
	goodShare = 0.99
	mostDrift = 0.02
)

// generator sends requests on time.
type generator struct {
	target Target
	config Config
	limit  time.Duration // that requests may take; 0 = not known yet
	count  atomic.Int64  // of requests so far
}

// one sends the next request.
func (g *generator) one(ctx context.Context, timeout time.Duration) (failure, detail string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	failure, detail = g.target.Do(ctx, int(g.count.Add(1)-1))
	if failure != "" && ctx.Err() != nil {
		failure = "timeout"
	}
	return failure, detail
}

// Requests of a step.
const (
	leastRequests = 50
	mostRequests  = 1 << 21
	longerStep    = 10 // times Config.Step, for slow rates
)

func (g *generator) requests(rate float64) int {
	n := math.Max(rate*g.config.Step.Seconds(), math.Min(leastRequests, rate*longerStep*g.config.Step.Seconds()))
	return int(math.Min(math.Max(n, 2), mostRequests))
}

// patience is how long an answer is waited for under load: one that takes much longer
// than the limit is lost anyway.
func (g *generator) patience() time.Duration {
	return min(g.config.Timeout, max(10*g.limit, 2*time.Second))
}

// settle is the pause between two steps.
const settle = 200 * time.Millisecond

// step tries one rate. The error is that of ctx.
func (g *generator) step(ctx context.Context, purpose Purpose, rate float64) (Step, error) {
	if err := pause(ctx, settle); err != nil {
		return Step{}, err
	}
	r := &run{generator: g, rate: rate, due: g.schedule(rate), patience: g.patience()}
	r.records = make([]record, len(r.due))
	r.allowed = int64(math.Floor((1 - goodShare) * float64(len(r.due))))
	sent := r.send(ctx)
	if err := ctx.Err(); err != nil {
		return Step{}, err
	}
	s := r.judge(sent)
	s.Purpose = purpose
	if g.config.Replicas != nil {
		s.Replicas = g.config.Replicas(ctx)
	}
	return s, nil
}

// schedule gives when each request is due, from the start of a step.
func (g *generator) schedule(rate float64) []time.Duration {
	due := make([]time.Duration, g.requests(rate))
	if !g.config.Poisson {
		for i := range due {
			due[i] = time.Duration(float64(i) / rate * float64(time.Second))
		}
		return due
	}
	random := rand.New(rand.NewPCG(g.config.Seed, math.Float64bits(rate))) //nolint:gosec // repeatable on purpose
	at := 0.0
	for i := range due {
		at += random.ExpFloat64() / rate
		due[i] = time.Duration(at * float64(time.Second))
	}
	return due
}

// record is what became of a request.
type record struct {
	took    time.Duration // from when it was due
	late    time.Duration // from when it was due until it was sent
	failure string
}

// run is a step under way.
type run struct {
	*generator

	rate     float64
	due      []time.Duration
	patience time.Duration
	records  []record
	allowed  int64 // that may fail or be late
	bad      atomic.Int64
	first    sync.Once
	detail   string
}

// send sends until all is sent or too much has failed, waits for the answers and
// tells how many there are.
func (r *run) send(ctx context.Context) int {
	var under sync.WaitGroup
	places := make(chan struct{}, r.config.InFlight)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	begin := time.Now()
	sent := 0
	for sent < len(r.due) && r.bad.Load() <= r.allowed && ctx.Err() == nil {
		if wait := r.due[sent] - time.Since(begin); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				continue
			}
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		n := sent
		under.Go(func() {
			r.ask(ctx, begin, n)
			<-places
		})
		sent++
	}
	under.Wait()
	return sent
}

// ask sends the n-th request of the step.
func (r *run) ask(ctx context.Context, begin time.Time, n int) {
	late := time.Since(begin) - r.due[n]
	failure, detail := r.one(ctx, r.patience)
	rec := record{took: time.Since(begin) - r.due[n], late: late, failure: failure}
	r.records[n] = rec
	if failure != "" {
		r.first.Do(func() { r.detail = detail })
	}
	if failure != "" || rec.took > r.limit {
		r.bad.Add(1)
	}
}

// judge counts the first n requests.
func (r *run) judge(n int) Step {
	s := Step{Rate: r.rate, Sent: n, Failed: map[string]int{}, Failure: r.detail, Cut: n < len(r.due)}
	took, late := make([]time.Duration, 0, n), make([]time.Duration, 0, n)
	var sum time.Duration
	for _, rec := range r.records[:n] {
		late = append(late, rec.late)
		sum += rec.took
		if rec.failure != "" {
			s.Failed[rec.failure]++
			continue
		}
		s.Answered++
		if rec.took <= r.limit {
			s.Good++
		}
		took = append(took, rec.took)
	}
	s.Drift = drift(took, time.Duration(float64(n)/r.rate*float64(time.Second)))
	s.Busy = r.rate * sum.Seconds() / float64(n) // Little's law
	p := percentiles(took, 0.5, 0.99, 1)
	s.P50, s.P99, s.Max = p[0], p[1], p[2]
	s.Late = percentiles(late, 0.99)[0]
	s.Why = r.why(&s)
	return s
}

func (r *run) why(s *Step) string {
	switch failed := s.Sent - s.Answered; {
	case int64(failed) > r.allowed:
		return fmt.Sprintf("%d of %d failed", failed, s.Sent)
	case int64(s.Sent-s.Good) > r.allowed:
		return "p99 is above " + Told(r.limit)
	case s.Drift > mostDrift:
		return fmt.Sprintf("falls behind by %s a second", Told(time.Duration(s.Drift*float64(time.Second))))
	}
	return ""
}

// drift compares the medians of both halves of a step that took length: while a
// server gets more than it can do, each answer is later than the one before it. Times,
// in the order in which requests were due.
func drift(took []time.Duration, length time.Duration) float64 {
	half := len(took) / 2
	if half == 0 || length <= 0 {
		return 0
	}
	first, second := percentiles(slices.Clone(took[:half]), 0.5)[0], percentiles(slices.Clone(took[half:]), 0.5)[0]
	return (second - first).Seconds() / (length.Seconds() / 2)
}

// percentiles sorts the durations; of none they are 0.
func percentiles(d []time.Duration, shares ...float64) []time.Duration {
	slices.Sort(d)
	out := make([]time.Duration, len(shares))
	for i, share := range shares {
		if len(d) > 0 {
			out[i] = d[max(0, int(math.Ceil(share*float64(len(d))))-1)]
		}
	}
	return out
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
