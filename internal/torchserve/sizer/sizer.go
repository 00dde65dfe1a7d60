// Package sizer says how many workers a model of TorchServe's should have, where its
// client left that open. Decide is a pure function of what was seen and what is allowed.
// Nothing here starts, waits or reads a clock.
//
// Fewer workers have more threads each, since all of them together have the cores.
// Which is better is a model's own, so it is measured: under load another number is
// tried, and kept where it answers more, or sooner.
package sizer

import (
	"fmt"
	"strconv"
	"time"
)

// Limits is what is allowed.
type Limits struct {
	Min, Max int   // workers; the same = nothing is open
	Share    int   // cores for the model beside the others that have requests
	Free     int64 // bytes of memory that may still be taken; negative = not known
	Worker   int64 // bytes that a worker takes; 0 = not known
}

// Second is what was seen in one.
type Second struct {
	Done    int           // requests answered
	Refused int           // requests that found no place
	Queue   int           // requests that waited at its end
	Waited  time.Duration // until a worker began with it, of all answered together
	Took    time.Duration // from arrival to answer, of all answered together
}

// History is what was seen until now.
type History struct {
	Now     time.Time
	Seen    []Second // full seconds since the workers of now were ready, oldest first
	Active  int      // requests that wait or are run
	Workers int      // asked for so far
	Ready   int      // that serve
	Broken  string   // why one of them does not start; "" = all do
	// Disturbed says that other models began or ceased to share the cores.
	Disturbed bool
	State     State
}

// State is what a decision remembers for the next one.
type State struct {
	From     int       // workers before the trial that is on; 0 = none is on
	Before   Figures   // what was measured of them
	Up, Down Hold      // of trials of more, and of fewer
	Yielded  Hold      // to other models' requests: how often of late, and when last
	Fell     bool      // fewer were kept last
	Crowded  time.Time // since when there are more workers than cores for them; zero = there are not
	Verdict  string    // of the last trial
}

// Hold keeps a trial from being made again at once.
type Hold struct {
	Lost  int // trials without gain, one after the other
	Until time.Time
}

// Decision is the number of workers to have and why, for people.
type Decision struct {
	Workers int
	Reason  string
	State   State
}

// What a trial needs and what it must show.
const (
	settle     = 1  // seconds after a change that say nothing
	least      = 5  // seconds of a measurement
	most       = 60 // seconds that are looked back
	lightly    = 30 // seconds of little load before fewer are tried
	enough     = 100
	few        = 10 // requests without which nothing is known
	better     = 1.1
	same       = 0.95
	queued     = 0.5 // requests that wait for each worker, under load
	underused  = 0.5 // requests at a time for each worker that would be left
	firstHold  = 2 * time.Minute
	keptHold   = 5 * time.Minute // of a trial of fewer, after more were kept
	longHold   = time.Hour
	unsureHold = time.Minute
	crowdedFor = 10 * time.Second
	patient    = 5 * time.Minute
)

// Decide gives the next number of workers.
func Decide(l Limits, h History) Decision {
	s := h.State
	switch {
	case h.Workers < l.Min || h.Workers > l.Max:
		return Decision{min(max(h.Workers, l.Min), l.Max), "the bounds were changed", State{}}
	case l.Min == l.Max:
		return Decision{h.Workers, "the number is set by hand", State{}}
	case h.Workers == 0:
		return Decision{0, "it has no worker: scale it to at least one", State{}}
	}
	roof := max(1, l.Min, min(l.Max, l.Share))
	if h.Workers <= roof {
		s.Crowded = time.Time{}
	} else if s.Crowded.IsZero() {
		s.Crowded = h.Now
	}
	if !s.Crowded.IsZero() && (s.From > 0 || h.Now.Sub(s.Crowded) >= s.patience(h.Now)) {
		n := roof
		if s.From > 0 {
			n = min(s.From, h.Workers)
		}
		s = s.yield(h.Now)
		s.From, s.Crowded = 0, time.Time{}
		return Decision{n, fmt.Sprintf("other models have requests too: %s for this one", count(l.Share, "core is left", "cores are left")), s}
	}
	if s.From > 0 {
		return judge(h, s)
	}
	switch {
	case h.Ready < h.Workers:
		return s.stay(h, "not all workers are ready yet")
	case h.Active == 0 && idle(h.Seen):
		return s.stay(h, "no request came lately")
	}
	f := measure(h.Seen, least)
	switch {
	case !f.known():
		return s.stay(h, "too few requests were seen yet")
	case f.loaded(h.Workers):
		return s.more(l, h, f, roof)
	}
	return s.fewer(l, h, f)
}

// stay keeps the workers as they are, and tells what the last trial came to.
func (s State) stay(h History, why string) Decision {
	if s.Verdict != "" {
		why += "; " + s.Verdict
	}
	return Decision{h.Workers, why, s}
}

// more tries more workers, of which each has fewer threads, where requests wait.
func (s State) more(l Limits, h History, f Figures, roof int) Decision {
	next := min(2*h.Workers, roof)
	why := fmt.Sprintf("%.1f requests wait, %s a second are answered", f.Waiting, amount(f.Rate))
	switch {
	case next <= h.Workers && roof < l.Max:
		return s.stay(h, fmt.Sprintf("%s; more workers than its %s would share them", why, count(l.Share, "core", "cores")))
	case next <= h.Workers:
		return s.stay(h, why+"; more workers than max_worker are not wanted")
	case h.Now.Before(s.Up.Until):
		return s.stay(h, fmt.Sprintf("%s; more workers are tried again in %v", why, s.Up.Until.Sub(h.Now).Round(time.Second)))
	}
	if need := l.Worker * int64(next-h.Workers); l.Free >= 0 && need > l.Free {
		return s.stay(h, fmt.Sprintf("%s; %s would take %d MB more, and %d MB are free", why, count(next, "worker", "workers"), need>>20, l.Free>>20))
	}
	s.From, s.Before = h.Workers, f
	return Decision{next, fmt.Sprintf("%s: %s are tried instead of %d", why, count(next, "worker", "workers"), h.Workers), s}
}

// fewer tries fewer workers, of which each has more threads, where a part of them has
// been enough for a while.
func (s State) fewer(l Limits, h History, f Figures) Decision {
	next := max(l.Min, 1, (h.Workers+1)/2)
	long := measure(h.Seen, lightly)
	light := long.Seconds >= lightly && long.Done >= few && long.Refused == 0 && long.AtOnce <= underused*float64(next)
	why := fmt.Sprintf("%.1f requests at a time, %s a second are answered", f.AtOnce, amount(f.Rate))
	switch {
	case next >= h.Workers || !light:
		return s.stay(h, why)
	case h.Now.Before(s.Down.Until):
		return s.stay(h, fmt.Sprintf("%s; fewer workers are tried in %v at the earliest", why, s.Down.Until.Sub(h.Now).Round(time.Second)))
	}
	s.From, s.Before = h.Workers, long
	return Decision{next, fmt.Sprintf("%s: %s tried instead of %d", why, count(next, "worker is", "workers are"), h.Workers), s}
}

// judge ends a trial once enough was seen of it.
func judge(h History, s State) Decision {
	from, up := s.From, h.Workers > s.From
	f := measure(h.Seen, least)
	switch {
	case h.Broken != "":
		return s.back(h, up, "one more does not start: "+h.Broken)
	case h.Disturbed && h.Ready == h.Workers:
		return s.yield(h.Now).unsure(h, up, "other models began or ceased to have requests")
	case h.Ready < h.Workers:
		return Decision{h.Workers, fmt.Sprintf("%s are started, to be tried instead of %d", count(h.Workers, "worker", "workers"), from), s}
	case h.Active == 0 && idle(h.Seen):
		return s.unsure(h, up, "the load ended before they were measured")
	case !up && f.Seconds >= 2 && f.loaded(h.Workers):
		return s.back(h, up, fmt.Sprintf("with %d of them requests wait", h.Workers))
	case !f.known():
		return Decision{h.Workers, fmt.Sprintf("%s are tried instead of %d", count(h.Workers, "worker", "workers"), from), s}
	}
	said := fmt.Sprintf("%d: %s a second, each in %s ms; %d: %s a second, each in %s ms", h.Workers, amount(f.Rate), amount(f.Took*1000), from, amount(s.Before.Rate), amount(s.Before.Took*1000))
	rate, took := f.Rate/s.Before.Rate, f.Took/s.Before.Took
	gain := max(better, 1+chance(f.Done, s.Before.Done))
	switch {
	case up && (rate >= gain || rate >= same && took <= 1/gain):
		return s.keep(h, up, said)
	case up && rate < same && took < 1 && !f.loaded(h.Workers):
		return s.unsure(h, up, "the load fell before they were measured")
	case !up && took <= 1/same:
		return s.keep(h, up, said)
	}
	return s.back(h, up, said)
}

func (s State) keep(h History, up bool, said string) Decision {
	s.From, s.Verdict = 0, fmt.Sprintf("%d were kept (%s)", h.Workers, said)
	if up {
		s.Up = Hold{}
		if s.Fell { // fewer had not been enough for long
			s.Down.Lost++
		}
		s.Down.Until = h.Now.Add(hold(keptHold, s.Down.Lost))
	}
	s.Fell = !up
	return Decision{h.Workers, s.Verdict, s}
}

func (s State) back(h History, up bool, said string) Decision {
	held := &s.Down
	if up {
		held = &s.Up
	}
	held.Until = h.Now.Add(hold(firstHold, held.Lost))
	held.Lost++
	n := s.From
	s.From, s.Verdict = 0, fmt.Sprintf("%d were tried and given up (%s)", h.Workers, said)
	return Decision{n, s.Verdict, s}
}

// unsure ends a trial that showed nothing, for or against.
func (s State) unsure(h History, up bool, said string) Decision {
	held := &s.Down
	if up {
		held = &s.Up
	}
	if until := h.Now.Add(unsureHold); until.After(held.Until) {
		held.Until = until
	}
	n := s.From
	s.From, s.Verdict = 0, fmt.Sprintf("%d were tried: %s", h.Workers, said)
	return Decision{n, s.Verdict, s}
}

// yielded is how often workers went, or a trial ended, for other models' requests of late.
func (s State) yielded(now time.Time) int {
	if now.Sub(s.Yielded.Until) > longHold {
		return 0
	}
	return s.Yielded.Lost
}

// patience is how long there may be more workers than cores for them: longer each time,
// so that workers do not come and go with another model's requests.
func (s State) patience(now time.Time) time.Duration {
	return min(crowdedFor<<min(s.yielded(now), 10), patient)
}

// yield notes that other models' requests are in the way, which keeps a trial that they
// ended from being made again at once.
func (s State) yield(now time.Time) State {
	n := s.yielded(now)
	if until := now.Add(hold(unsureHold, n)); s.From > 0 && until.After(s.Up.Until) {
		s.Up.Until = until
	}
	s.Yielded = Hold{n + 1, now}
	return s
}

// hold doubles with each trial that was lost.
func hold(first time.Duration, lost int) time.Duration {
	return min(first<<min(lost, 10), longHold)
}

// amount writes three digits, and no power of ten.
func amount(x float64) string {
	if x >= 100 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
