package sizer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(second int) time.Time { return time.Unix(1_700_000_000+int64(second), 0) }

// seconds of the same load: so many requests answered in each, so many at once of which
// some wait.
func seconds(n, done int, atOnce, waiting float64) []Second {
	x := Second{Done: done, Waited: time.Duration(waiting * float64(time.Second)), Took: time.Duration(atOnce * float64(time.Second))}
	return slices.Repeat([]Second{x}, n)
}

func TestDecide(t *testing.T) {
	t.Parallel()
	open := Limits{Min: 1, Max: 4, Share: 4, Free: 1 << 30, Worker: 200 << 20}
	with := func(change func(l *Limits)) Limits {
		l := open
		change(&l)
		return l
	}
	trial := func(from int, done int, atOnce float64) State {
		return State{From: from, Before: measure(seconds(10, done, atOnce, 0), least)}
	}
	heavy, light := seconds(10, 100, 4, 3), seconds(40, 10, 0.2, 0)
	for name, tt := range map[string]struct {
		l    Limits
		h    History
		want int
		say  string
	}{
		"by hand":              {with(func(l *Limits) { l.Min, l.Max = 2, 2 }), History{Workers: 2, Ready: 2, Active: 9, Seen: heavy}, 2, "set by hand"},
		"none":                 {with(func(l *Limits) { l.Min = 0 }), History{}, 0, "no worker"},
		"bounds went up":       {with(func(l *Limits) { l.Min = 3 }), History{Workers: 1, Ready: 1}, 3, "bounds"},
		"bounds went down":     {with(func(l *Limits) { l.Max = 2 }), History{Workers: 4, Ready: 4}, 2, "bounds"},
		"idle":                 {open, History{Workers: 1, Ready: 1}, 1, "no request"},
		"idle after load":      {open, History{Workers: 1, Ready: 1, Seen: append(slices.Clone(heavy), make([]Second, least)...)}, 1, "no request"},
		"not all ready":        {open, History{Workers: 2, Ready: 1, Active: 4, Seen: heavy}, 2, "not all"},
		"not enough seen":      {open, History{Workers: 1, Ready: 1, Active: 4, Seen: heavy[:4]}, 1, "too few"},
		"slow and not known":   {open, History{Workers: 1, Ready: 1, Active: 4, Seen: seconds(10, 1, 4, 3)}, 1, "too few"},
		"slow":                 {open, History{Workers: 1, Ready: 1, Active: 4, Seen: seconds(25, 1, 4, 3)}, 2, "2 workers are tried"},
		"under load":           {open, History{Workers: 1, Ready: 1, Active: 4, Seen: heavy}, 2, "3.0 requests wait, 100 a second are answered: 2 workers are tried instead of 1"},
		"under load with two":  {open, History{Workers: 2, Ready: 2, Active: 4, Seen: heavy}, 4, "4 workers are tried instead of 2"},
		"up to the most":       {with(func(l *Limits) { l.Max = 3 }), History{Workers: 2, Ready: 2, Active: 4, Seen: heavy}, 3, "3 workers are tried"},
		"has the most":         {open, History{Workers: 4, Ready: 4, Active: 4, Seen: heavy}, 4, "max_worker"},
		"no more than cores":   {with(func(l *Limits) { l.Share = 2 }), History{Workers: 2, Ready: 2, Active: 4, Seen: heavy}, 2, "its 2 cores"},
		"no wait, no trial":    {open, History{Workers: 1, Ready: 1, Active: 1, Seen: seconds(10, 100, 1, 0.2)}, 1, "1.0 requests at a time"},
		"a burst of a second":  {open, History{Workers: 1, Ready: 1, Active: 1, Seen: append(seconds(8, 100, 1, 0), seconds(2, 100, 40, 40)...)}, 1, "at a time"},
		"refused":              {open, History{Workers: 1, Ready: 1, Active: 1, Seen: append(seconds(8, 100, 1, 0), Second{Done: 9, Refused: 1})}, 2, "are tried"},
		"queues that are long": {open, History{Workers: 1, Ready: 1, Active: 9, Seen: slices.Repeat([]Second{{Done: 50, Queue: 8}}, 10)}, 2, "are tried"},
		"no memory":            {with(func(l *Limits) { l.Free = 100 << 20 }), History{Workers: 1, Ready: 1, Active: 4, Seen: heavy}, 1, "2 workers would take 200 MB more, and 100 MB are free"},
		"memory not known":     {with(func(l *Limits) { l.Free = -1 }), History{Workers: 1, Ready: 1, Active: 4, Seen: heavy}, 2, "are tried"},
		"held":                 {open, History{Workers: 1, Ready: 1, Active: 4, Seen: heavy, State: State{Up: Hold{Until: at(60)}, Verdict: "2 were given up"}}, 1, "tried again in 1m0s; 2 were given up"},

		"light":         {open, History{Workers: 4, Ready: 4, Active: 1, Seen: light}, 2, "2 workers are tried instead of 4"},
		"light, at min": {with(func(l *Limits) { l.Min = 2 }), History{Workers: 2, Ready: 2, Active: 1, Seen: light}, 2, "at a time"},
		"light of late": {open, History{Workers: 4, Ready: 4, Active: 1, Seen: append(seconds(5, 100, 40, 30), seconds(20, 10, 0.2, 0)...)}, 4, "at a time"},
		"light, held":   {open, History{Workers: 2, Ready: 2, Active: 1, Seen: light, State: State{Down: Hold{Until: at(60)}}}, 2, "fewer workers are tried in 1m0s at the earliest"},

		"trial starts":          {open, History{Workers: 2, Ready: 1, Active: 4, State: trial(1, 100, 4)}, 2, "2 workers are started"},
		"trial is measured":     {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(3, 150, 4, 2), State: trial(1, 100, 4)}, 2, "tried instead of 1"},
		"trial is won":          {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 120, 4, 2), State: trial(1, 100, 4)}, 2, "2 were kept (2: 120 a second, each in 33.3 ms; 1: 100 a second, each in 40 ms)"},
		"trial is sooner":       {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 100, 2, 0), State: trial(1, 100, 4)}, 2, "2 were kept"},
		"trial is the same":     {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 103, 4, 2), State: trial(1, 100, 4)}, 1, "2 were tried and given up"},
		"trial is worse":        {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 60, 4, 2), State: trial(1, 100, 4)}, 1, "2 were tried and given up (2: 60 a second"},
		"trial, the load fell":  {open, History{Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 40, 0.4, 0), State: trial(1, 100, 4)}, 1, "the load fell"},
		"trial, the load ended": {open, History{Workers: 2, Ready: 2, Seen: make([]Second, 6), State: trial(1, 100, 4)}, 1, "the load ended"},
		"trial does not start":  {open, History{Workers: 2, Ready: 1, Active: 4, Broken: "no memory", State: trial(1, 100, 4)}, 1, "one more does not start: no memory"},
		"trial is disturbed":    {open, History{Workers: 2, Ready: 2, Active: 4, Disturbed: true, State: trial(1, 100, 4)}, 1, "other models"},

		"trial of fewer is won":  {open, History{Workers: 1, Ready: 1, Active: 1, Seen: seconds(21, 10, 0.2, 0), State: trial(2, 10, 0.2)}, 1, "1 were kept"},
		"trial of fewer is lost": {open, History{Workers: 1, Ready: 1, Active: 1, Seen: seconds(21, 10, 0.3, 0), State: trial(2, 10, 0.2)}, 2, "given up"},
		"trial of fewer, load":   {open, History{Workers: 1, Ready: 1, Active: 8, Seen: seconds(4, 10, 4, 3), State: trial(2, 10, 0.2)}, 2, "with 1 of them requests wait"},

		"others come":          {with(func(l *Limits) { l.Share = 2 }), History{Workers: 4, Ready: 4, Active: 4, Seen: heavy}, 4, "share"},
		"others stay":          {with(func(l *Limits) { l.Share = 2 }), History{Workers: 4, Ready: 4, Active: 4, Seen: heavy, State: State{Crowded: at(-10)}}, 2, "other models have requests too: 2 cores are left for this one"},
		"others come in trial": {with(func(l *Limits) { l.Share = 1 }), History{Workers: 2, Ready: 1, Active: 4, State: trial(1, 100, 4)}, 1, "other models"},
		"others, by hand":      {with(func(l *Limits) { l.Share, l.Min = 1, 3 }), History{Workers: 4, Ready: 4, Active: 4, State: State{Crowded: at(-10)}}, 3, "1 core is left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.h.Now = at(0)
			d := Decide(tt.l, tt.h)
			if d.Workers != tt.want || !strings.Contains(d.Reason, tt.say) {
				t.Errorf("%d workers (%s), want %d (... %s ...)", d.Workers, d.Reason, tt.want, tt.say)
			}
			if again := Decide(tt.l, tt.h); fmt.Sprint(again) != fmt.Sprint(d) {
				t.Errorf("the same question is answered %+v, then %+v", d, again)
			}
		})
	}
}

// TestHold: each trial that is lost keeps the next one away for twice as long.
func TestHold(t *testing.T) {
	t.Parallel()
	l := Limits{Min: 1, Max: 2, Share: 2, Free: -1}
	s := State{}
	for n, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		s.From, s.Before = 1, measure(seconds(10, 100, 4, 3), least)
		d := Decide(l, History{Now: at(0), Workers: 2, Ready: 2, Active: 4, Seen: seconds(8, 90, 4, 2), State: s})
		s = d.State
		if got := s.Up.Until.Sub(at(0)); d.Workers != 1 || got != want*time.Minute {
			t.Errorf("after %d lost trials: %d workers, %v until the next, want %v", n+1, d.Workers, got, want*time.Minute)
		}
	}
}
