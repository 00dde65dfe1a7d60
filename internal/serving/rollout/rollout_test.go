package rollout_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tategu/internal/serving/rollout"
)

// load is a seeded trace: requests at a rate, of which the canary takes a share.
type load struct {
	rate, share    float64
	base, canary   float64 // error rates
	baseMS, slowMS float64 // medians of the times
	both           float64 // the error rate of both after half of the time
	late           float64 // share of the canary's requests that take ten times as long
}

// run gives the reason and after how many requests of the canary it was given.
func (l load) run(rule rollout.Rule, seed uint64, seconds float64) (reason string, seen, failed int) {
	rng := rand.New(rand.NewPCG(seed, 7))
	j := rollout.NewJudge(rule)
	at, end := time.Unix(1_000_000, 0), seconds*l.rate
	for i := range int(end) {
		at = at.Add(time.Duration(float64(time.Second) / l.rate))
		o := rollout.Outcome{At: at, Canary: rng.Float64() < l.share}
		p, ms := l.base, l.baseMS
		if o.Canary {
			p, ms = l.canary, l.slowMS
			if rng.Float64() < l.late {
				ms *= 10
			}
		}
		if float64(i) > end/2 {
			p = max(p, l.both)
		}
		o.Failed = rng.Float64() < p
		o.Took = time.Duration((0.8 + rng.ExpFloat64()*0.3) * ms * float64(time.Millisecond))
		if o.Canary {
			seen++
			if o.Failed {
				failed++
			}
		}
		if reason = j.Observe(o); reason != "" {
			return reason, seen, failed
		}
	}
	return "", seen, failed
}

func rule(t *testing.T, more map[string]string) rollout.Rule {
	t.Helper()
	labels := map[string]string{rollout.Label: "2"}
	maps.Copy(labels, more)
	r, err := rollout.FromLabels(labels)
	if err != nil {
		t.Fatal(err)
	}
	return *r
}

// TestBadCanary: what is plainly worse is found within few of its requests, by the
// right reason, for every seed.
func TestBadCanary(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		load   load
		rule   map[string]string
		reason string
		within int // requests of the canary
	}{
		"fails always":                 {load{rate: 200, share: .05, canary: 1, baseMS: 5, slowMS: 5}, nil, "failed", 15},
		"fails half of the time":       {load{rate: 200, share: .05, canary: .5, baseMS: 5, slowMS: 5}, nil, "failed", 50},
		"fails more than a bad one":    {load{rate: 200, share: .1, base: .2, canary: .6, baseMS: 5, slowMS: 5}, nil, "failed", 400},
		"ten times as slow":            {load{rate: 200, share: .05, baseMS: 20, slowMS: 200}, nil, "longer", 20},
		"a third is ten times as slow": {load{rate: 200, share: .05, baseMS: 20, slowMS: 20, late: .33}, nil, "longer", 120},
		"slower than it may be":        {load{rate: 200, share: .05, baseMS: 200, slowMS: 200}, map[string]string{rollout.LabelMaxP99: "100ms"}, "longer", 20},
		"without others":               {load{rate: 20, share: 1, canary: 1, slowMS: 5}, nil, "failed", 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				reason, seen, _ := tt.load.run(rule(t, tt.rule), seed, 120)
				if !strings.Contains(reason, tt.reason) || seen > tt.within {
					t.Fatalf("seed %d: %q after %d requests of the canary", seed, reason, seen)
				}
			}
		})
	}
}

// TestGoodCanary: what is as good as the others stays, whatever befalls both.
func TestGoodCanary(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]load{
		"both well":                 {rate: 200, share: .05, baseMS: 5, slowMS: 5},
		"both fail now and then":    {rate: 200, share: .2, base: .03, canary: .03, baseMS: 5, slowMS: 5},
		"a little worse":            {rate: 200, share: .2, base: .01, canary: .015, baseMS: 20, slowMS: 24},
		"both break at once":        {rate: 200, share: .05, both: 1, baseMS: 5, slowMS: 5},
		"both break at half":        {rate: 200, share: .5, both: .5, baseMS: 5, slowMS: 5},
		"few requests":              {rate: 2, share: .1, baseMS: 50, slowMS: 60},
		"the canary is much better": {rate: 100, share: .3, base: .3, baseMS: 100, slowMS: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				if reason, seen, _ := l.run(rule(t, nil), seed, 300); reason != "" {
					t.Fatalf("seed %d: %q after %d requests of the canary", seed, reason, seen)
				}
			}
		})
	}
}

// TestLate: requests that never end are counted when they are late.
func TestLate(t *testing.T) {
	t.Parallel()
	j := rollout.NewJudge(rule(t, nil))
	at := time.Unix(1_000_000, 0)
	if j.Limit(at) != 0 {
		t.Fatal("a limit without requests")
	}
	for range 100 {
		j.Observe(rollout.Outcome{At: at, Took: 50 * time.Millisecond})
	}
	at = at.Add(time.Second)
	if l := j.Limit(at); l < 110*time.Millisecond || l > 130*time.Millisecond {
		t.Fatalf("the limit is %v", l)
	}
	reason, n := "", 0
	for ; reason == "" && n < 100; n++ {
		for range 19 {
			j.Observe(rollout.Outcome{At: at, Took: 50 * time.Millisecond})
		}
		reason = j.Late(at)
	}
	if n != 10 || !strings.Contains(reason, "10 of its last 10 requests took longer than") {
		t.Errorf("%q after %d", reason, n)
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	if r, err := rollout.FromLabels(map[string]string{"team": "x"}); r != nil || err != nil {
		t.Fatal(r, err)
	}
	r := rule(t, map[string]string{
		rollout.LabelMaxErrors: "0.5", rollout.LabelMaxP99: "250ms", rollout.LabelMinRequests: "30", rollout.LabelSteps: "5-25-100", rollout.LabelInterval: "90s",
	})
	if r.MaxErrors != 0.005 || r.MaxP99 != 250*time.Millisecond || r.MinRequests != 30 || r.Interval != 90*time.Second {
		t.Errorf("%+v", r)
	}
	if got := []int32{r.Next(1), r.Next(5), r.Next(30), r.Next(100)}; fmt.Sprint(got) != "[5 25 100 0]" {
		t.Errorf("steps %v", got)
	}
	back, err := rollout.FromLabels(r.Labels())
	if err != nil || !back.Equal(&r) {
		t.Errorf("%+v, %v", back, err)
	}
	for name, value := range map[string]string{
		rollout.LabelMaxErrors: "-1", rollout.LabelMaxP99: "fast", rollout.LabelMinRequests: "0", rollout.LabelSteps: "25-5", rollout.LabelInterval: "1ms",
		rollout.LabelMaxSlowdown: "NaN", rollout.Label + "-unknown": "1",
	} {
		if _, err := rollout.FromLabels(map[string]string{rollout.Label: "2", name: value}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if _, err := rollout.FromLabels(map[string]string{rollout.LabelMaxP99: "1s"}); err == nil {
		t.Error("a rule without a canary")
	}
}

func TestSplits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		split map[string]int32
		share int32
		want  map[string]int32
	}{
		{map[string]int32{"a": 95, "c": 5}, 0, map[string]int32{"a": 100}},
		{map[string]int32{"a": 60, "b": 30, "c": 10}, 0, map[string]int32{"a": 67, "b": 33}},
		{map[string]int32{"a": 95, "c": 5}, 25, map[string]int32{"a": 75, "c": 25}},
		{map[string]int32{"a": 95, "c": 5}, 100, map[string]int32{"c": 100}},
		{map[string]int32{"c": 100}, 0, map[string]int32{"c": 100}},
	} {
		if got := rollout.With(tt.split, "c", tt.share); !maps.Equal(got, tt.want) {
			t.Errorf("%v with %d: %v", tt.split, tt.share, got)
		}
	}
}

// FuzzLabels: a label is refused or makes a rule that is read back the same.
func FuzzLabels(f *testing.F) {
	f.Add("1", "250ms", "2", "10", "5-25-100", "10m")
	f.Add("1e-3", "1h", "1.5", "1", "100", "1s")
	f.Fuzz(func(t *testing.T, errors, p99, slowdown, least, steps, interval string) {
		r, err := rollout.FromLabels(map[string]string{
			rollout.Label: "2", rollout.LabelMaxErrors: errors, rollout.LabelMaxP99: p99, rollout.LabelMaxSlowdown: slowdown,
			rollout.LabelMinRequests: least, rollout.LabelSteps: steps, rollout.LabelInterval: interval,
		})
		if err != nil {
			return
		}
		if _, err := rollout.FromLabels(r.Labels()); err != nil {
			t.Errorf("%+v makes labels that are refused: %v", r, err)
		}
		if share := r.Next(0); share < 1 || share > 100 {
			t.Errorf("the first step of %q is %d", steps, share)
		}
	})
}
