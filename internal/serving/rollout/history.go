package rollout

import (
	"iter"
	"math"
	"time"
)

// window of the baseline, in seconds.
const window = 60

// history is what the baseline did in the last minute, by the second.
type history struct {
	slots [window]slot
}

type slot struct {
	second       int64
	n, bad, slow int
	times        Times
}

func (h *history) add(at time.Time, failed, late, timed bool, took time.Duration) {
	second := at.Unix()
	s := &h.slots[second%window]
	if s.second != second {
		*s = slot{second: second}
	}
	s.n++
	if failed {
		s.bad++
	}
	if late {
		s.slow++
	}
	if timed {
		s.times.Add(took)
	}
}

func failures(s *slot) int { return s.bad }

func lates(s *slot) int { return s.slow }

// rate is the share of requests that count.
func (h *history) rate(now time.Time, count func(*slot) int) float64 {
	n, of := 0, 0
	for s := range h.within(now) {
		n, of = n+count(s), of+s.n
	}
	return float64(n) / float64(max(of, beside))
}

func (h *history) requests(now time.Time) (n int) {
	for s := range h.within(now) {
		n += s.n
	}
	return n
}

func (h *history) within(now time.Time) iter.Seq[*slot] {
	return func(yield func(*slot) bool) {
		second := now.Unix()
		for i := range h.slots {
			if age := second - h.slots[i].second; age >= 0 && age < window && !yield(&h.slots[i]) {
				return
			}
		}
	}
}

// p99 of the last minute, and of how many requests it is.
func (h *history) p99(now time.Time) (n int, d time.Duration) {
	all := Times{}
	for s := range h.within(now) {
		all.join(&s.times)
	}
	return all.Quantile(0.99)
}

// Times is a histogram whose buckets are 15 % apart, from 50 µs to an hour.
type Times struct {
	Counts [buckets]uint32 `json:"counts"`
	N      int             `json:"n"`
}

const (
	buckets = 130
	least   = 50 * time.Microsecond
	apart   = 1.15
)

// Add counts a time.
func (t *Times) Add(d time.Duration) {
	i := 0
	if d > least {
		i = min(int(math.Log(float64(d)/float64(least))/math.Log(apart))+1, buckets-1)
	}
	t.Counts[i]++
	t.N++
}

func (t *Times) join(o *Times) {
	if o.N == 0 {
		return
	}
	for i, c := range o.Counts {
		t.Counts[i] += c
	}
	t.N += o.N
}

// Quantile gives how many there are, and the upper bound of the bucket in which q lies.
func (t *Times) Quantile(q float64) (n int, d time.Duration) {
	rank := int(math.Ceil(q * float64(t.N)))
	for i, c := range t.Counts {
		if rank -= int(c); rank <= 0 {
			return t.N, time.Duration(float64(least) * math.Pow(apart, float64(i)))
		}
	}
	return t.N, 0
}
