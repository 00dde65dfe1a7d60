package autoscale

import (
	"math"
	"slices"
	"time"
)

// Bounds of a learned limit. It begins where a server with a few threads is busy,
// and an overload of one that takes a single request at a time is not deep.
const (
	firstLimit = 8
	leastLimit = 2 // the next request is there when one ends
	mostLimit  = 1000
	enough     = 10  // answers that a step of learning needs
	slow       = 2.0 // times the time of a lone request: more at a time is no gain
	kept       = 64  // times of lone requests that are remembered
)

// Learner finds how many requests a replica takes at a time: additive increase
// while answers come as fast as those of lone requests, decrease to what the
// server was seen to work on at once when they take twice as long. It is not safe
// for concurrent use.
type Learner struct {
	limit  float64
	alone  []time.Duration // of requests that had the replica to themselves
	at     int             // where the next one goes
	took   []time.Duration // since the last step
	began  time.Time       // of the step
	lowest time.Duration   // median of any step; 0 = none yet
}

// NewLearner begins at now.
func NewLearner(now time.Time) *Learner { return &Learner{limit: firstLimit, began: now} }

// Limit is what is known so far.
func (l *Learner) Limit() int { return int(l.limit) }

// Observe notes one good answer: how long the replica took until its headers came,
// and how many requests it had when this one was sent, itself included.
func (l *Learner) Observe(took time.Duration, beside int) {
	if beside <= 1 {
		if len(l.alone) < kept {
			l.alone = append(l.alone, took)
		} else {
			l.alone[l.at] = took
		}
		l.at = (l.at + 1) % kept
	}
	if len(l.took) < 10_000 { // a second's answers; beyond that a part tells enough
		l.took = append(l.took, took)
	}
}

// Step learns from the answers since the last step, once there are enough, and
// reports whether the limit changed. ready is the number of replicas.
func (l *Learner) Step(now time.Time, ready int) bool {
	elapsed := now.Sub(l.began)
	if len(l.took) < enough || elapsed <= 0 || ready < 1 {
		if len(l.took) == 0 {
			l.began = now
		}
		return false
	}
	middle := median(l.took)
	if l.lowest == 0 || middle < l.lowest {
		l.lowest = middle
	}
	before := l.Limit()
	l.adjust(middle, busy(l.took, elapsed)/float64(ready))
	l.took, l.began = l.took[:0], now
	return l.Limit() != before
}

// busy is the mean number of requests at a time that add up to the times taken.
func busy(took []time.Duration, elapsed time.Duration) float64 {
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	return sum.Seconds() / elapsed.Seconds()
}

func (l *Learner) adjust(middle time.Duration, each float64) {
	base := l.lowest
	if len(l.alone) > 0 {
		base = min(base, median(l.alone))
	}
	ratio := float64(middle) / float64(max(base, time.Microsecond))
	switch {
	case ratio > slow && each > l.limit/2:
		// By Little's law each/ratio requests are worked on at once; twice as many
		// keep the time of an answer within the bound.
		l.limit = max(leastLimit, l.limit/2, min(l.limit-1, math.Round(slow*each/ratio)))
	case ratio <= slow && each >= 0.8*l.limit:
		l.limit = min(mostLimit, l.limit+max(1, math.Floor(l.limit/4)))
	}
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Clone(of)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
