package sizer

import (
	"math"
	"time"
)

// Figures is what some seconds show.
type Figures struct {
	Seconds, Done, Refused int
	Rate                   float64 // requests answered in a second
	Took                   float64 // seconds from arrival to answer, on average
	Waiting                float64 // requests that wait, on average
	AtOnce                 float64 // requests that wait or are run, on average

	queues []float64 // that wait, in each second
}

// measure sums the last seconds up: at least so many, and as many more as it takes to
// have seen enough requests.
func measure(seen []Second, seconds int) (f Figures) {
	var waited, took time.Duration
	for i := len(seen) - 1; i >= settle && f.Seconds < most; i-- {
		if f.Seconds >= seconds && f.Done >= enough {
			break
		}
		x := seen[i]
		f.Seconds++
		f.Done += x.Done
		f.Refused += x.Refused
		waited, took = waited+x.Waited, took+x.Took
		f.queues = append(f.queues, max(float64(x.Queue), x.Waited.Seconds()))
	}
	if f.Seconds == 0 {
		return f
	}
	n := float64(f.Seconds)
	f.Rate, f.Waiting, f.AtOnce = float64(f.Done)/n, waited.Seconds()/n, took.Seconds()/n
	if f.Done > 0 {
		f.Took = took.Seconds() / float64(f.Done)
	}
	return f
}

// chance is about how far two counts of the same are from each other by chance, as a share.
func chance(a, b int) float64 { return math.Sqrt(1/float64(max(a, 1)) + 1/float64(max(b, 1))) }

// known says that enough was seen to go by: many requests, or those of a while.
func (f Figures) known() bool {
	return f.Seconds >= least && f.Done >= enough || f.Seconds >= 4*least && f.Done >= few
}

// loaded says that requests wait for workers all the time.
func (f Figures) loaded(workers int) bool {
	busy := 0
	for _, q := range f.queues {
		if q >= queued*float64(workers) {
			busy++
		}
	}
	return f.Refused > 0 || f.Seconds > 0 && 5*busy >= 4*f.Seconds
}

// idle says that nothing was answered or refused of late.
func idle(seen []Second) bool {
	for _, x := range seen[max(0, len(seen)-least):] {
		if x.Done > 0 || x.Refused > 0 {
			return false
		}
	}
	return true
}
