// Package autoscale says how many replicas a deployed model should have. Decide is
// a pure function of what was seen and what is allowed; Meter and Learner turn
// requests into what it sees. Nothing here starts, waits or reads a clock.
//
// The rule is that of Knative's pod autoscaler (pkg/autoscaler/scaling): requests
// at a time over a stable and a panic window, divided by a share of what a replica
// takes. Unlike there the numbers are exact integrals and not samples, since every
// request passes through this process.
package autoscale

import (
	"fmt"
	"math"
	"time"
)

// Spec is what is allowed and wanted.
type Spec struct {
	Min, Max int
	Initial  int           // replicas that the first request from zero starts; 0 = 1
	Idle     time.Duration // without a request until zero, where Min is 0
	MinUp    time.Duration // from the start from zero until the next zero, at least

	Concurrency int     // requests that a replica takes at a time
	Target      float64 // share of Concurrency that is aimed at; 0 = 0.7
	CPU, GPU    float64 // utilization aimed at, 0 to 1; 0 = does not count
	PerMinute   float64 // requests that come to a replica in a minute, aimed at; 0 = does not count

	Stable, Panic time.Duration // windows; 0 = 60 s and 6 s
	DownDelay     time.Duration // how long less must have been enough
}

// The rule's constants, from Knative's defaults (config-autoscaler).
const (
	defaultTarget = 0.7
	defaultStable = time.Minute
	defaultPanic  = 6 * time.Second
	panicFactor   = 2 // panic when so many times the ready replicas are needed
)

// WithDefaults fills in what is zero and puts bounds in order.
func (s Spec) WithDefaults() Spec {
	if s.Target == 0 {
		s.Target = defaultTarget
	}
	if s.Stable == 0 {
		s.Stable = defaultStable
	}
	if s.Panic == 0 {
		s.Panic = defaultPanic
	}
	s.Concurrency = max(1, s.Concurrency)
	s.Min = max(0, s.Min)
	s.Max = max(1, s.Min, s.Max)
	s.Initial = min(max(1, s.Initial, s.Min), s.Max)
	return s
}

// History is what was seen until now.
type History struct {
	Now    time.Time
	Load   []float64 // requests at a time in each full second with a ready replica, waiting ones too; oldest first
	Active int       // requests right now
	Last   time.Time // when the last request came or ended; zero = there was none
	Up     time.Time // when there were replicas again after none
	Want   int       // replicas asked for so far
	Ready  int       // that can serve
	// CPU and GPU are how busy those of all replicas were over the stable window, in
	// replicas (Utilization); negative = not known.
	CPU, GPU float64
	// PerMinute is how many requests came in a minute, over the stable window; negative =
	// not known.
	PerMinute float64
	State     State // of the decision before
}

// State is what a decision remembers for the next one.
type State struct {
	Panic time.Time // when a burst was seen last; zero = no panic
	Low   time.Time // since when fewer replicas would do; zero = they would not
}

// Decision is the number of replicas to have and why, for people.
type Decision struct {
	Want   int
	Reason string
	State  State
}

// Decide gives the next number of replicas.
func Decide(s Spec, h History) Decision {
	s = s.WithDefaults()
	if h.Want == 0 && s.Min == 0 {
		if h.Active > 0 {
			return Decision{Want: s.Initial, Reason: "a request came while there was no replica"}
		}
		return Decision{Reason: idleReason(s, h)}
	}
	if s.idle(h) {
		return Decision{Reason: idleReason(s, h)}
	}
	if h.Ready == 0 {
		// What waits for a start says nothing of how many replicas it needs.
		want, limit := s.bound(h.Want)
		return Decision{want, "no replica is ready yet; more are considered once one is" + limit, State{}}
	}
	n := s.needs(h)
	state := h.State
	over := n.burst >= panicFactor*max(1, h.Ready)
	switch {
	case over:
		state.Panic = h.Now
	case !state.Panic.IsZero() && h.Now.Sub(state.Panic) >= s.Stable:
		state.Panic = time.Time{}
	}
	if !state.Panic.IsZero() {
		state.Low = time.Time{}
		want, limit := s.bound(max(n.burst, n.replicas, h.Want))
		return Decision{want, n.burstReason(s, want) + limit, state}
	}
	want, limit := s.bound(n.replicas)
	if want >= h.Want {
		state.Low = time.Time{}
		return Decision{want, n.reason(s) + limit, state}
	}
	return s.down(h, n, want, limit, state)
}

// down gives up to half of the replicas back once fewer have been enough for the
// delay.
func (s Spec) down(h History, n need, want int, limit string, state State) Decision {
	if state.Low.IsZero() {
		state.Low = h.Now
	}
	if h.Want > s.Max {
		state.Low = h.Now.Add(-s.DownDelay) // more than is allowed: no need to wait
	}
	if left := s.DownDelay - h.Now.Sub(state.Low); left > 0 {
		return Decision{h.Want, fmt.Sprintf("%s; %s would do and will in %v", n.reason(s)+limit, replicas(want), left.Round(time.Second)), state}
	}
	want = min(s.Max, max(want, h.Want-h.Want/2))
	return Decision{want, n.reason(s) + limit, state}
}

// idle reports that the last replica may go.
func (s Spec) idle(h History) bool {
	if s.Min > 0 || h.Active > 0 || h.Now.Sub(h.Up) < s.MinUp {
		return false
	}
	return h.Now.Sub(later(h.Last, h.Up)) >= s.Idle
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// bound keeps n between the limits, and says so.
func (s Spec) bound(n int) (bounded int, why string) {
	least := max(1, s.Min) // zero is decided by idleness alone
	switch {
	case n > s.Max:
		return s.Max, fmt.Sprintf("; %s needed, max_replica_count is %d", count(n, "replica is", "replicas are"), s.Max)
	case n < least && least == s.Min:
		return least, fmt.Sprintf("; min_replica_count is %d", s.Min)
	}
	return max(n, least), ""
}

// need is what the load asks for.
type need struct {
	stable, panic float64 // requests at a time
	replicas      int     // by the stable window, and by utilization
	burst         int     // by the panic window
	by            string  // what replicas comes from, when it is not requests
}

func (s Spec) needs(h History) need {
	per := s.Target * float64(s.Concurrency)
	n := need{stable: mean(h.Load, s.Stable), panic: mean(h.Load, s.Panic)}
	n.replicas, n.burst = divide(n.stable, per), divide(n.panic, per)
	for _, u := range []struct {
		name        string
		target, now float64
	}{{"CPU", s.CPU, h.CPU}, {"GPU", s.GPU, h.GPU}} {
		if u.target <= 0 || u.now < 0 || h.Ready == 0 {
			continue
		}
		if k := divide(u.now, u.target); k > n.replicas {
			n.replicas, n.by = k, fmt.Sprintf("%.1f replicas' worth of %s is in use and %.0f%% of each is aimed at", u.now, u.name, u.target*100)
		}
	}
	if s.PerMinute > 0 && h.PerMinute > 0 && h.Ready > 0 {
		if k := divide(h.PerMinute, s.PerMinute); k > n.replicas {
			n.replicas, n.by = k, fmt.Sprintf("%.0f requests come in a minute and %.0f to each are aimed at", h.PerMinute, s.PerMinute)
		}
	}
	return n
}

// most is more replicas than there ever are; it keeps numbers in range.
const most = 1 << 20

// divide rounds up, but forgives what is noise of floating point.
func divide(load, per float64) int {
	if !(load > 0) {
		return 0
	}
	return int(min(most, math.Ceil(load/per-1e-9)))
}

// mean of the last seconds of the load that are there.
func mean(load []float64, window time.Duration) float64 {
	n := min(len(load), max(1, int(window/time.Second)))
	if n == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range load[len(load)-n:] {
		sum += v
	}
	return sum / float64(n)
}

func (n need) reason(s Spec) string {
	if n.by != "" {
		return n.by
	}
	return fmt.Sprintf("%.1f requests at a time over %v, a replica is given %.1f (%.0f%% of %d)",
		n.stable, s.Stable, s.Target*float64(s.Concurrency), s.Target*100, s.Concurrency)
}

func (n need) burstReason(s Spec, want int) string {
	if n.burst < want && n.replicas < want {
		return fmt.Sprintf("a burst ended less than %v ago; nothing is taken away until then", s.Stable)
	}
	return fmt.Sprintf("a burst: %.1f requests at a time over %v, a replica is given %.1f (%.0f%% of %d)",
		max(n.panic, n.stable), s.Panic, s.Target*float64(s.Concurrency), s.Target*100, s.Concurrency)
}

func idleReason(s Spec, h History) string {
	if h.Last.IsZero() {
		return fmt.Sprintf("no request came within %v", s.Idle)
	}
	return fmt.Sprintf("no request for %v", s.Idle)
}

func replicas(n int) string { return count(n, "replica", "replicas") }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
