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
	recent window
}

// window keeps the last samples, in replicas.
type window []float64

func (w window) add(v float64, most int) window {
	w = append(w, v)
	return w[max(0, len(w)-most):]
}

// mean of the samples; -1 = there are none.
func (w window) mean() float64 {
	if len(w) == 0 {
		return -1
	}
	sum := 0.0
	for _, v := range w {
		sum += v
	}
	return sum / float64(len(w))
}

// Duty averages how busy the GPUs of replicas are. It is not safe for concurrent use.
type Duty struct {
	Window time.Duration // in which samples count

	read   []time.Time
	recent window
}

// Sample notes what was read at a time: of each replica its GPUs, and how busy each GPU
// of the machine was, from 0 to 1. What was read before is no news. A replica counts with
// the mean of its GPUs; one of which nothing is known does not.
func (d *Duty) Sample(read time.Time, replicas [][]string, busy map[string]float64) {
	if n := len(d.read); n > 0 && !read.After(d.read[n-1]) {
		return
	}
	total, known := 0.0, false
	for _, gpus := range replicas {
		sum, n := 0.0, 0
		for _, id := range gpus {
			if b, ok := busy[id]; ok {
				sum, n = sum+b, n+1
			}
		}
		if n > 0 {
			total, known = total+sum/float64(n), true
		}
	}
	if !known {
		d.read, d.recent = nil, nil // as with replicas that are gone
		return
	}
	d.read, d.recent = append(d.read, read), d.recent.add(total, len(d.recent)+1)
	for len(d.read) > 1 && read.Sub(d.read[0]) >= d.Window {
		d.read, d.recent = d.read[1:], d.recent[1:]
	}
}

// Mean is how many replicas' worth of GPUs was in use; -1 = not known.
func (d *Duty) Mean() float64 { return d.recent.mean() }

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
		u.recent = u.recent.add(min(float64(n), busy.Seconds()/elapsed.Seconds()/u.Cores), u.Window)
	}
	u.at, u.used = now, used
}

// Mean is the mean of the samples; -1 = not known.
func (u *Utilization) Mean() float64 { return u.recent.mean() }
