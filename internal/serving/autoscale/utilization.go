package autoscale

import "time"

// Utilization follows how busy the CPUs of replicas are over the last samples, in
// replicas: 1.5 is three that use half of what they have. What all use together stays
// what it is when there are more of them, so that one more is not asked for twice. It
// is not safe for concurrent use.
type Utilization struct {
	Cores  float64 // that a replica has
	Window int     // samples that count

	at     time.Time
	used   map[string]time.Duration
	recent []float64
}

// Sample notes what each replica has used so far. Those that were there at the
// sample before count; without replicas what was seen is forgotten.
func (u *Utilization) Sample(now time.Time, used map[string]time.Duration) {
	if len(used) == 0 {
		u.used, u.recent = nil, nil
		return
	}
	var busy time.Duration
	n := 0
	for id, d := range used {
		// What an exiting process took with it is no use of less than nothing.
		if before, ok := u.used[id]; ok {
			busy += max(0, d-before)
			n++
		}
	}
	if elapsed := now.Sub(u.at); n > 0 && elapsed > 0 && u.Cores > 0 {
		u.recent = append(u.recent, min(float64(n), busy.Seconds()/elapsed.Seconds()/u.Cores))
		u.recent = u.recent[max(0, len(u.recent)-u.Window):]
	}
	u.at, u.used = now, used
}

// Mean is the mean of the samples; -1 = not known.
func (u *Utilization) Mean() float64 {
	if len(u.recent) == 0 {
		return -1
	}
	sum := 0.0
	for _, v := range u.recent {
		sum += v
	}
	return sum / float64(len(u.recent))
}
