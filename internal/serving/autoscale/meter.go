package autoscale

import "time"

// Meter integrates the number of requests over time, in buckets of one second. It
// is not safe for concurrent use. Times may not go back; what does is ignored.
type Meter struct {
	epoch time.Time
	until time.Duration // load is integrated up to here
	load  int
	ring  []float64 // request-seconds, by second modulo its length
	last  time.Time
}

// NewMeter begins at now and remembers the last window, at least a second.
func NewMeter(now time.Time, window time.Duration) *Meter {
	n := max(1, int((window+time.Second-1)/time.Second))
	return &Meter{epoch: now, ring: make([]float64, n+1)} // and the second that is not over
}

// Add notes that requests came (1) or ended (-1).
func (m *Meter) Add(now time.Time, delta int) {
	m.advance(now)
	m.load += delta
	m.last = now
}

// Active is the number of requests now.
func (m *Meter) Active() int { return m.load }

// Last is when a request came or ended; zero = never.
func (m *Meter) Last() time.Time { return m.last }

// Load gives the mean number of requests in each full second from since until now,
// oldest first, as far as is remembered.
func (m *Meter) Load(since, now time.Time) []float64 {
	m.advance(now)
	end := int64(m.until / time.Second)
	first := int64((since.Sub(m.epoch) + time.Second - 1) / time.Second)
	begin := min(end, max(0, first, end-int64(len(m.ring))+1))
	out := make([]float64, 0, end-begin)
	for s := begin; s < end; s++ {
		out = append(out, m.ring[s%int64(len(m.ring))])
	}
	return out
}

// advance integrates up to now.
func (m *Meter) advance(now time.Time) {
	to := now.Sub(m.epoch)
	size := int64(len(m.ring))
	if oldest := to - time.Duration(size)*time.Second; m.until < oldest {
		clear(m.ring)
		m.until = oldest.Truncate(time.Second) // what is before is forgotten anyway
	}
	for m.until < to {
		second := int64(m.until / time.Second)
		end := min(to, time.Duration(second+1)*time.Second)
		if m.until%time.Second == 0 {
			m.ring[second%size] = 0
		}
		m.ring[second%size] += float64(m.load) * (end - m.until).Seconds()
		m.until = end
	}
}
