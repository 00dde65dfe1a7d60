package sizer

import (
	"math/rand/v2"
	"testing"
	"time"
)

// model is what a pretended model answers a second by its number of workers, when all of
// them have requests.
type model func(workers int) float64

// play has clients ask a model, each again when it has its answer, and decides once a
// second. A worker is ready boot seconds after it is asked for. Rates are a few percent
// off, as on a machine that does other things.
func play(l Limits, m model, boot int, clients func(second int) int, length int, seed uint64) (workers []int) {
	r := rand.New(rand.NewPCG(seed, seed))
	now, ready, due := max(1, l.Min), max(1, l.Min), 0
	var s State
	var seen []Second
	left := 0.0 // of a request that is run
	for i := range length {
		if now != ready && (now < ready || i >= due) {
			ready, seen = now, nil
		}
		n := clients(i)
		run := min(n, ready)
		rate := m(ready) * float64(run) / float64(ready) * (0.97 + 0.06*r.Float64())
		left += rate
		done := int(left)
		left -= float64(done)
		seen = append(seen, Second{
			Done: done, Queue: n - run, Waited: time.Duration(n-run) * time.Second, Took: time.Duration(n) * time.Second,
		})
		d := Decide(l, History{Now: at(i + 1), Seen: seen, Active: n, Workers: now, Ready: ready, State: s})
		if s = d.State; d.Workers > now {
			due = i + 1 + boot
		}
		now = d.Workers
		workers = append(workers, now)
	}
	return workers
}

func always(n int) func(int) int { return func(int) int { return n } }

func changes(workers []int) (n int) {
	for i := 1; i < len(workers); i++ {
		if workers[i] != workers[i-1] {
			n++
		}
	}
	return n
}

// share of the seconds with so many workers.
func share(workers []int, n int) float64 {
	k := 0
	for _, w := range workers {
		if w == n {
			k++
		}
	}
	return float64(k) / float64(len(workers))
}

// TestFindsTheBest: under load the number that answers the most is found, soon, and kept
// but for few trials.
func TestFindsTheBest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		m    model
		want int
	}{
		"threads are of no use":     {func(n int) float64 { return 100 * float64(n) }, 8},
		"workers are of no use":     {func(int) float64 { return 300 }, 1},
		"workers are in the way":    {func(n int) float64 { return 300 / float64(n) }, 1},
		"two are best":              {func(n int) float64 { return []float64{0, 100, 180, 170, 150, 140, 130, 120, 110}[n] }, 2},
		"four are best":             {func(n int) float64 { return []float64{0, 100, 150, 180, 210, 200, 190, 180, 170}[n] }, 4},
		"more are a little better":  {func(n int) float64 { return 100 + 2*float64(n) }, 1},
		"slow, threads of no use":   {func(n int) float64 { return 3 * float64(n) }, 8},
		"slow, workers of no use":   {func(int) float64 { return 3 }, 1},
		"two are best of the noisy": {func(n int) float64 { return []float64{0, 100, 120, 110, 100, 100, 100, 100, 100}[n] }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				workers := play(Limits{Min: 1, Max: 8, Share: 8, Free: -1}, tt.m, 3, always(64), 3600, seed)
				if got := share(workers[300:], tt.want); got < 0.9 {
					t.Errorf("seed %d: %d workers in %.0f%% of the time", seed, tt.want, 100*got)
				}
				if n := changes(workers[300:]); n > 14 {
					t.Errorf("seed %d: %d changes in an hour", seed, n)
				}
			}
		})
	}
}

// TestNoTrialWithoutLoad: as many clients as workers are served have none tried, idleness
// even less.
func TestNoTrialWithoutLoad(t *testing.T) {
	t.Parallel()
	linear := func(n int) float64 { return 100 * float64(n) }
	for clients := range 2 {
		workers := play(Limits{Min: 1, Max: 8, Share: 8, Free: -1}, linear, 3, always(clients), 3600, 1)
		if n := changes(workers); n != 0 {
			t.Errorf("%d clients: %d changes", clients, n)
		}
	}
}

// TestLoadThatComesAndGoes: a load of every other minute has its workers most of the time,
// and they do not come and go with it.
func TestLoadThatComesAndGoes(t *testing.T) {
	t.Parallel()
	linear := func(n int) float64 { return 100 * float64(n) }
	for seed := range uint64(20) {
		load := func(second int) int {
			if second/60%2 == 0 {
				return 64
			}
			return int(seed % 2) // idle, or a client alone
		}
		workers := play(Limits{Min: 1, Max: 4, Share: 4, Free: -1}, linear, 3, load, 7200, seed)
		if n := changes(workers[600:]); n > 40 {
			t.Errorf("seed %d: %d changes in 110 minutes", seed, n)
		}
		if got := share(workers[600:], 4); got < 0.7 {
			t.Errorf("seed %d: all workers in %.0f%% of the time", seed, 100*got)
		}
	}
}

// TestWithinLimits: whatever the load does, the number is within the bounds, and above
// the share of the cores for a moment alone.
func TestWithinLimits(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := Limits{Min: r.IntN(4), Free: -1}
		l.Max, l.Share = l.Min+r.IntN(6), 1+r.IntN(6)
		rates := make([]float64, 20)
		for i := range rates {
			rates[i] = 1 + 200*r.Float64()
		}
		workers := play(l, func(n int) float64 { return rates[n] }, r.IntN(10), func(int) int { return r.IntN(10) * r.IntN(10) }, 1800, seed)
		for i, w := range workers {
			if w < max(min(1, l.Max), l.Min) || w > max(l.Max, 1) || i > 60 && w > max(1, l.Min, l.Share) {
				t.Fatalf("seed %d: %d workers with %+v", seed, w, l)
			}
		}
	}
}

// beside plays a model under steady load beside another one, which has requests for the
// last on seconds of every so many and then the half of four cores.
func beside(on, every, boot int) (workers []int) {
	now, ready, due, others := 1, 1, 0, 0
	var s State
	var seen []Second
	for i := range 3600 {
		if now != ready && (now < ready || i >= due) {
			ready, seen = now, nil
		}
		l, o := Limits{Min: 1, Max: 4, Share: 4, Free: -1}, 0
		if (i+on)%every < on {
			l.Share, o = 2, 2
		}
		disturbed := o != others
		if others = o; disturbed {
			seen = nil
		}
		seen = append(seen, Second{Done: 100 * ready, Queue: 60, Waited: time.Minute, Took: time.Minute})
		d := Decide(l, History{Now: at(i + 1), Seen: seen, Active: 64, Workers: now, Ready: ready, Disturbed: disturbed, State: s})
		if s = d.State; d.Workers > now {
			due = i + 1 + boot
		}
		now = d.Workers
		workers = append(workers, now)
	}
	return workers
}

// TestBesideOthers: workers do not come and go with the requests of another model; they
// go for one that stays.
func TestBesideOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		on, every, boot int
		all             float64 // of the time with four workers, at least
	}{{6, 60, 3, 0.9}, {12, 60, 3, 0.9}, {15, 60, 3, 0.9}, {30, 60, 3, 0.9}, {12, 120, 3, 0.9}, {6, 20, 8, 0}, {6, 14, 3, 0}} {
		workers := beside(c.on, c.every, c.boot)[300:]
		if n, all := changes(workers), share(workers, 4); n > 20 || all < c.all {
			t.Errorf("%d of %d seconds, ready in %d: %d changes in 55 minutes, four in %.0f%% of the time", c.on, c.every, c.boot, n, 100*all)
		}
	}
	if workers := beside(3000, 3600, 3); workers[599] != 4 || workers[620] != 2 || workers[3599] != 2 {
		t.Errorf("before one that stays there are %d, beside it %d, at last %d", workers[599], workers[620], workers[3599])
	}
}
