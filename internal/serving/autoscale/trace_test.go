package autoscale

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// play runs a trace, of requests at a time for each second, through a meter and
// decisions once a second. A replica is ready boot seconds after it is asked for.
func play(s Spec, boot int, trace func(second int) float64, seconds int) []int {
	r := rand.New(rand.NewPCG(7, 7))
	m := NewMeter(at(0), time.Minute)
	h := History{Want: s.Min, Ready: s.Min, CPU: -1, GPU: -1, Up: at(0)}
	ready := map[int]int{} // by second: replicas from then on
	wants := make([]int, 0, seconds)
	for second := range seconds {
		// The load of the second changes inside of it too.
		for _, part := range []float64{0, .3, .8} {
			level := trace(second)
			n := int(level)
			if r.Float64() < level-float64(n) {
				n++
			}
			if d := n - m.Active(); d != 0 {
				m.Add(at(float64(second)+part), d)
			}
		}
		h.Now = at(float64(second + 1))
		if n, ok := ready[second]; ok {
			h.Ready = min(n, h.Want)
		}
		h.Load, h.Active, h.Last = m.Load(at(0), h.Now), m.Active(), m.Last()
		d := Decide(s, h)
		if h.Want == 0 && d.Want > 0 {
			h.Up = h.Now
		}
		if d.Want > h.Want {
			ready[second+1+boot] = d.Want
		}
		h.Want, h.State, h.Ready = d.Want, d.State, min(h.Ready, d.Want)
		wants = append(wants, d.Want)
	}
	return wants
}

func changes(wants []int) (n int) {
	for i := 1; i < len(wants); i++ {
		if wants[i] != wants[i-1] {
			n++
		}
	}
	return n
}

// TestConstantLoad: load that does not change gets a number that does not either.
func TestConstantLoad(t *testing.T) {
	t.Parallel()
	for _, level := range []float64{1, 6.9, 7, 7.1, 13.9, 14, 20, 35} {
		s := Spec{Min: 1, Max: 10, Concurrency: 10, DownDelay: 30 * time.Second}
		wants := play(s, 3, func(int) float64 { return level }, 1200)
		settled := wants[300:]
		if c := changes(settled); c > 1 { // one: noise at a border, which then holds
			t.Errorf("load %v: %d changes: %v", level, c, settled)
		}
		if want := int(math.Ceil(level / 7)); settled[len(settled)-1] != want && settled[len(settled)-1] != want+1 {
			t.Errorf("load %v: %d replicas, want %d", level, settled[len(settled)-1], want)
		}
	}
}

// TestBurst: within the panic window there are as many replicas as a burst needs,
// and they go in halves after it.
func TestBurst(t *testing.T) {
	t.Parallel()
	s := Spec{Min: 1, Max: 20, Concurrency: 10, DownDelay: 10 * time.Second}
	wants := play(s, 2, func(second int) float64 {
		if second >= 100 && second < 130 {
			return 70
		}
		return 1
	}, 400)
	if wants[99] != 1 || wants[106] < 10 {
		t.Errorf("before %d, after 6 s %d", wants[99], wants[106])
	}
	for i := 107; i < 160; i++ {
		if wants[i] < wants[i-1] {
			t.Fatalf("down from %d to %d at %d, in a panic", wants[i-1], wants[i], i)
		}
	}
	for i := 1; i < len(wants); i++ {
		if wants[i] < wants[i-1]/2 {
			t.Errorf("from %d to %d at once", wants[i-1], wants[i])
		}
	}
	if wants[399] != 1 {
		t.Errorf("%d replicas at the end", wants[399])
	}
}

// TestRamp: a slow rise and fall is followed; at no time is the load of the last
// minute more than what the replicas take.
func TestRamp(t *testing.T) {
	t.Parallel()
	s := Spec{Min: 1, Max: 20, Concurrency: 10, DownDelay: 30 * time.Second}
	level := func(second int) float64 { return 60 * (1 - math.Abs(float64(second)-600)/600) }
	wants := play(s, 2, level, 1200)
	for i := 120; i < 1200; i++ {
		if lag := level(i - 60); i < 600 && float64(wants[i])*10 < lag {
			t.Fatalf("at %d: %d replicas for a load of %.0f a minute before", i, wants[i], lag)
		}
	}
	if top := wants[620]; top < 8 || top > 10 {
		t.Errorf("%d replicas at the top", top)
	}
	if c := changes(wants); c > 40 {
		t.Errorf("%d changes on a ramp", c)
	}
}

// TestIdleAndBack: zero after the idle time, not before, and up again at once.
func TestIdleAndBack(t *testing.T) {
	t.Parallel()
	s := Spec{Max: 5, Initial: 2, Concurrency: 10, Idle: 20 * time.Second}
	wants := play(s, 1, func(second int) float64 {
		if second < 50 || second >= 200 && second < 210 {
			return 3
		}
		return 0
	}, 300)
	if wants[0] != 2 || wants[68] == 0 || wants[71] != 0 || wants[199] != 0 || wants[200] != 2 || wants[299] != 0 {
		t.Errorf("%v", wants)
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	m := NewMeter(at(0), 5*time.Second)
	m.Add(at(.5), 1)
	m.Add(at(1.25), 3)
	m.Add(at(1.75), -2)
	want := []float64{.5, .25 + 2 + .5, 2}
	if got := m.Load(at(0), at(3)); len(got) != 3 || !near(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got := m.Load(at(0), at(3.9)); !near(got, want) {
		t.Errorf("a second that is not over counts: %v", got)
	}
	if got := m.Load(at(0), at(7)); !near(got, []float64{2, 2, 2, 2, 2}) {
		t.Errorf("after 7 s: %v", got)
	}
	if got := m.Load(at(4.5), at(7)); !near(got, []float64{2, 2}) {
		t.Errorf("since 4.5 s: %v", got)
	}
	if got := m.Load(at(8), at(7)); len(got) > 0 {
		t.Errorf("since later than now: %v", got)
	}
	m.Add(at(7.5), -2)
	if got := m.Load(at(0), at(1000.5)); !near(got, []float64{0, 0, 0, 0, 0}) || m.Active() != 0 || !m.Last().Equal(at(7.5)) {
		t.Errorf("after a long time: %v, %d active", got, m.Active())
	}
	if got := m.Load(at(0), at(900)); !near(got, []float64{0, 0, 0, 0, 0}) {
		t.Errorf("back in time: %v", got)
	}
}

func near(got, want []float64) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if math.Abs(got[i]-want[i]) > 1e-9 {
			return false
		}
	}
	return true
}

// TestMeterIsExact: the integral over any events is that of a plain sum.
func TestMeterIsExact(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		m, now, load, sum := NewMeter(at(0), time.Minute), 0.0, 0, 0.0
		for {
			step := math.Round(r.ExpFloat64()*500) / 1000
			if now+step > 50 {
				break
			}
			sum, now = sum+float64(load)*step, now+step
			delta := 1
			if load > 0 && r.IntN(2) == 0 {
				delta = -1
			}
			load += delta
			m.Add(at(now), delta)
		}
		sum += float64(load) * (50 - now)
		total := 0.0
		for _, v := range m.Load(at(0), at(50)) {
			total += v
		}
		if math.Abs(total-sum) > 1e-6 || m.Active() != load {
			t.Fatalf("%v request-seconds, want %v", total, sum)
		}
	}
}

// server answers as many requests at once as it has workers; others wait in it.
type server struct {
	workers int
	time    float64 // seconds of work of a request
}

// TestLearner drives servers of known capacity with more than they can take.
func TestLearner(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		server
		least, most int
	}{
		"one at a time": {server{1, .05}, 1, 3},
		"four threads":  {server{4, .05}, 6, 10},
		"sleeps":        {server{200, .2}, 300, 500},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := NewLearner(at(0))
			l.Observe(time.Duration(tc.time*float64(time.Second)), 1)
			for second := 1; second <= 120; second++ {
				n := l.Limit()
				took := tc.time * max(1, float64(n)/float64(tc.workers)) // in a steady state
				for range int(float64(n) / took) {
					l.Observe(time.Duration(took*float64(time.Second)), n)
				}
				l.Step(at(float64(second)), 1)
			}
			if got := l.Limit(); got < tc.least || got > tc.most {
				t.Errorf("learned %d, want %d to %d", got, tc.least, tc.most)
			}
		})
	}
}

// TestLearnerAtRest: a load that the limit does not hold back teaches nothing.
func TestLearnerAtRest(t *testing.T) {
	t.Parallel()
	l := NewLearner(at(0))
	for second := 1; second <= 100; second++ {
		for range 20 {
			l.Observe(10*time.Millisecond, 1)
		}
		l.Step(at(float64(second)), 1)
	}
	if got := l.Limit(); got != firstLimit {
		t.Errorf("learned %d from a single request at a time", got)
	}
}
