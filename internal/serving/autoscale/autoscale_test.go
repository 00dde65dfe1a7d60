package autoscale

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func flat(n int, v float64) []float64 { return slices.Repeat([]float64{v}, n) }

func TestDecide(t *testing.T) {
	t.Parallel()
	spec := Spec{Min: 1, Max: 10, Concurrency: 10, DownDelay: 30 * time.Second}
	zero := Spec{Min: 0, Max: 10, Concurrency: 10, Idle: 20 * time.Second}
	now := at(100)
	tests := map[string]struct {
		spec Spec
		h    History
		want int
		say  string
	}{
		"as much as fits":       {spec, History{Load: flat(60, 7), Want: 1, Ready: 1}, 1, "7.0 requests at a time over 1m0s, a replica is given 7.0 (70% of 10)"},
		"a little more":         {spec, History{Load: flat(60, 7.1), Want: 1, Ready: 1}, 2, "7.1 requests"},
		"short history":         {spec, History{Load: flat(3, 20), Want: 3, Ready: 3}, 3, "20.0 requests"},
		"a burst":               {spec, History{Load: append(flat(54, 1), flat(6, 40)...), Want: 1, Ready: 1}, 6, "a burst: 40.0 requests at a time over 6s"},
		"a burst that is met":   {spec, History{Load: append(flat(54, 1), flat(6, 40)...), Want: 6, Ready: 6}, 6, "would do and will in 30s"},
		"more than allowed":     {spec, History{Load: flat(60, 200), Want: 10, Ready: 10}, 10, "29 replicas are needed, max_replica_count is 10"},
		"nothing to do":         {spec, History{Load: flat(60, 0), Want: 1, Ready: 1}, 1, "min_replica_count is 1"},
		"less, not yet":         {spec, History{Load: flat(60, 7), Want: 4, Ready: 4}, 4, "1 replica would do and will in 30s"},
		"less, half goes":       {spec, History{Load: flat(60, 7), Want: 8, Ready: 8, State: State{Low: at(70)}}, 4, "7.0 requests"},
		"less, the last of two": {spec, History{Load: flat(60, 7), Want: 2, Ready: 2, State: State{Low: at(70)}}, 1, "7.0 requests"},
		"never down in panic":   {spec, History{Load: flat(60, 1), Want: 6, Ready: 6, State: State{Panic: at(90), Low: at(10)}}, 6, "a burst ended less than 1m0s ago"},
		"panic is over":         {spec, History{Load: flat(60, 1), Want: 6, Ready: 6, State: State{Panic: at(40)}}, 6, "would do and will in 30s"},
		"maximum was lowered":   {Spec{Min: 1, Max: 2, Concurrency: 1, DownDelay: time.Hour}, History{Load: flat(60, 9), Want: 8, Ready: 8}, 2, "max_replica_count is 2"},
		"minimum was raised":    {Spec{Min: 3, Max: 5, Concurrency: 1}, History{Want: 1, Ready: 1}, 3, "min_replica_count is 3"},
		"none is ready yet":     {spec, History{Load: flat(60, 99), Want: 2}, 2, "no replica is ready yet"},
		"from zero":             {zero, History{Active: 1}, 1, "a request came while there was no replica"},
		"from zero to several":  {Spec{Max: 4, Initial: 3}, History{Active: 1}, 3, "a request came"},
		"still zero":            {zero, History{}, 0, "no request came within 20s"},
		"idle":                  {zero, History{Load: flat(60, 0), Want: 1, Ready: 1, Last: at(80), Up: at(10)}, 0, "no request for 20s"},
		"idle, not long enough": {zero, History{Load: flat(60, 0), Want: 1, Ready: 1, Last: at(81), Up: at(10)}, 1, "0.0 requests"},
		"busy with one":         {zero, History{Load: flat(60, 1), Active: 1, Want: 1, Ready: 1, Last: at(10), Up: at(10)}, 1, "1.0 requests"},
		"up for too short":      {Spec{Max: 2, Idle: time.Second, MinUp: 30 * time.Second}, History{Want: 1, Ready: 1, Last: at(80), Up: at(71)}, 1, "0.0 requests"},
		"never asked":           {zero, History{Want: 1, Ready: 1, Up: at(80)}, 0, "no request came within 20s"},
		"several idle at once":  {zero, History{Load: flat(60, 0), Want: 5, Ready: 5, Last: at(70)}, 0, "no request for 20s"},
		"CPU":                   {Spec{Min: 1, Max: 9, Concurrency: 10, CPU: .6}, History{Load: flat(60, 1), Want: 2, Ready: 2, CPU: 1.8, GPU: -1}, 3, "1.8 replicas' worth of CPU is in use and 60% of each is aimed at"},
		"CPU not known":         {Spec{Min: 1, Max: 9, Concurrency: 10, CPU: .6}, History{Load: flat(60, 1), Want: 2, Ready: 2, CPU: -1, GPU: -1}, 1, "1.0 requests"},
		"GPU wants most":        {Spec{Min: 1, Max: 9, Concurrency: 10, CPU: .6, GPU: .5}, History{Load: flat(60, 1), Want: 2, Ready: 2, CPU: 1.8, GPU: 2}, 4, "2.0 replicas' worth of GPU is in use"},
		"so many in a minute":   {Spec{Min: 1, Max: 9, Concurrency: 10, PerMinute: 100}, History{Load: flat(60, 1), Want: 2, Ready: 2, CPU: -1, GPU: -1, PerMinute: 301}, 4, "301 requests come in a minute and 100 to each are aimed at"},
		"a minute not known":    {Spec{Min: 1, Max: 9, Concurrency: 10, PerMinute: 100, DownDelay: time.Minute}, History{Load: flat(60, 1), Want: 2, Ready: 2, PerMinute: -1}, 2, "1 replica would do"},
		"a minute, not counted": {spec, History{Load: flat(60, 1), Want: 1, Ready: 1, PerMinute: 1e6}, 1, "1.0 requests"},
		"CPU is not counted":    {spec, History{Load: flat(60, 1), Want: 1, Ready: 1, CPU: 1, GPU: 1}, 1, "1.0 requests"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.h.Now = now
			got := Decide(tc.spec, tc.h)
			if got.Want != tc.want || !strings.Contains(got.Reason, tc.say) {
				t.Errorf("got %d, %q; want %d with %q", got.Want, got.Reason, tc.want, tc.say)
			}
		})
	}
}

// TestBounds: whatever is seen, what comes out is allowed.
func TestBounds(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		s := Spec{
			Min: r.IntN(4), Max: r.IntN(12), Initial: r.IntN(5), Idle: time.Duration(r.IntN(90)) * time.Second, Concurrency: r.IntN(20),
			DownDelay: time.Duration(r.IntN(60)) * time.Second, CPU: r.Float64(), MinUp: time.Duration(r.IntN(60)) * time.Second,
		}
		h := History{
			Now: at(1000), Active: r.IntN(3), Want: r.IntN(15), Last: at(900 + 100*r.Float64()), Up: at(900 + 100*r.Float64()),
			CPU: r.Float64()*20 - 5, GPU: -1,
		}
		h.Ready = r.IntN(h.Want + 1)
		for range r.IntN(61) {
			h.Load = append(h.Load, math.Exp(r.NormFloat64()*3))
		}
		if r.IntN(2) == 0 {
			h.State = State{Panic: at(900 + 100*r.Float64()), Low: at(900 + 100*r.Float64())}
		}
		d, full := Decide(s, h), s.WithDefaults()
		switch {
		case d.Want > full.Max || d.Want < full.Min:
			t.Fatalf("%d replicas for %+v, %+v", d.Want, s, h)
		case d.Want == 0 && h.Active > 0:
			t.Fatalf("nobody serves what is there: %+v, %+v", s, h)
		case d.Want > 0 && d.Want < h.Want/2 && h.Want <= full.Max:
			t.Fatalf("from %d to %d at once: %+v, %+v", h.Want, d.Want, s, h)
		case d.Want > 0 && d.Want < h.Want && h.Want <= full.Max && !d.State.Panic.IsZero():
			t.Fatalf("down to %d in a panic: %+v, %+v", d.Want, s, h)
		case d.Reason == "":
			t.Fatalf("no reason for %+v, %+v", s, h)
		}
	}
}

// TestMonotone: more load never means fewer replicas.
func TestMonotone(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		s := Spec{Min: r.IntN(3), Max: 1 + r.IntN(20), Concurrency: 1 + r.IntN(20), Idle: time.Hour}
		h := History{Now: at(1000), Want: 1 + r.IntN(10), CPU: -1, GPU: -1, Up: at(999)}
		h.Ready = h.Want
		for range 1 + r.IntN(60) {
			h.Load = append(h.Load, r.Float64()*100)
		}
		more := h
		more.Load = slices.Clone(h.Load)
		for i := range more.Load {
			more.Load[i] += r.Float64() * 50
		}
		if a, b := Decide(s, h), Decide(s, more); b.Want < a.Want {
			t.Fatalf("%d replicas, and %d for more load: %+v, %+v", a.Want, b.Want, s, h)
		}
	}
}

// TestPerMinute: requests are counted in the second in which they come, as long as the
// meter remembers.
func TestPerMinute(t *testing.T) {
	t.Parallel()
	m := NewMeter(at(0), 10*time.Second)
	if got := m.PerMinute(at(0), at(0.5)); got != -1 {
		t.Errorf("without a full second: %v", got)
	}
	for s := range 40 { // on the second, within it, and just before its end
		n := 1 + s/20 // twice as many in the second half
		for _, part := range []float64{0, .5, .999} {
			for range n {
				m.Add(at(float64(s)+part), 1)
				m.Add(at(float64(s)+part), -1)
			}
		}
		want := 180.0
		if s >= 29 { // of the last ten full seconds all were of the second half
			want = 360
		}
		if got := m.PerMinute(at(0), at(float64(s+1))); (s < 20 || s >= 29) && got != want {
			t.Errorf("after %d s: %v, want %v", s+1, got, want)
		}
	}
	if got := m.PerMinute(at(35), at(40)); got != 360 {
		t.Errorf("since a while ago: %v", got)
	}
	if got := m.PerMinute(at(0), at(45)); got != 180 {
		t.Errorf("five seconds without any: %v", got)
	}
	if got := m.PerMinute(at(0), at(1000)); got != 0 {
		t.Errorf("long after: %v", got)
	}
}
