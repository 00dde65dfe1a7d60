package autoscale

import "time"

// Meter integrates the number of requests over time, in buckets of one second. It
// is not safe for concurrent use. Times may not go back; what does is ignored.
type Meter struct {
	epoch time.Time
	until time.Duration // load is integrated up to here
	load  int
	ring  []float64 // request-seconds, by second modulo its length
	came  []float64 // requests that came, likewise
	last  time.Time
}

// NewMeter begins at now and remembers the last window, at least a second.
func NewMeter(now time.Time, window time.Duration) *Meter {
	n := max(1, int((window+time.Second-1)/time.Second))
	return &Meter{epoch: now, ring: make([]float64, n+1), came: make([]float64, n+1)} // and the second that is not over
}

// Add notes that requests came (1) or ended (-1).
func (m *Meter) Add(now time.Time, delta int) {
	m.advance(now)
	m.load += delta
	m.last = now
	if delta > 0 {
		m.came[int64(m.until/time.Second)%int64(len(m.came))] += float64(delta)
	}
}

// Active is the number of requests now.
func (m *Meter) Active() int { return m.load }

// Last is when a request came or ended; zero = never.
func (m *Meter) Last() time.Time { return m.last }

// Load gives the mean number of requests in each full second from since until now,
// oldest first, as far as is remembered.
func (m *Meter) Load(since, now time.Time) []float64 { return m.seconds(m.ring, since, now) }

// PerMinute is how many requests came in a minute, by the full seconds from since until
// now, as far as is remembered; -1 = there is none yet.
func (m *Meter) PerMinute(since, now time.Time) float64 {
	came := m.seconds(m.came, since, now)
	if len(came) == 0 {
		return -1
	}
	return mean(came, time.Duration(len(came))*time.Second) * 60
}

func (m *Meter) seconds(ring []float64, since, now time.Time) []float64 {
	m.advance(now)
	end := int64(m.until / time.Second)
	first := int64((since.Sub(m.epoch) + time.Second - 1) / time.Second)
	begin := min(end, max(0, first, end-int64(len(ring))+1))
	out := make([]float64, 0, end-begin)
	for s := begin; s < end; s++ {
		out = append(out, ring[s%int64(len(ring))])
	}
	return out
}

// advance integrates up to now.
func (m *Meter) advance(now time.Time) {
	to := now.Sub(m.epoch)
	size := int64(len(m.ring))
	if oldest := to - time.Duration(size)*time.Second; m.until < oldest {
		clear(m.ring)
		clear(m.came)
		m.until = oldest.Truncate(time.Second) // what is before is forgotten anyway
	}
	for m.until < to {
		second := int64(m.until / time.Second)
		end := min(to, time.Duration(second+1)*time.Second)
		if m.until%time.Second == 0 {
			m.ring[second%size] = 0
		}
		m.ring[second%size] += float64(m.load) * (end - m.until).Seconds()
		if m.until = end; m.until%time.Second == 0 {
			m.came[(second+1)%size] = 0 // requests may come before anything of it is integrated
		}
	}
}
