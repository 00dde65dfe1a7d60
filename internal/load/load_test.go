package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// server has places, each taken for a time by a request; others wait in line.
type server struct {
	places chan struct{}
	time   func() time.Duration
	fail   func() bool
}

func newServer(places int, d time.Duration) *server {
	return &server{places: make(chan struct{}, places), time: func() time.Duration { return d }, fail: func() bool { return false }}
}

func (s *server) Do(ctx context.Context, _ int) (failure, detail string) {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return "timeout", ctx.Err().Error()
	}
	defer func() { <-s.places }()
	if s.fail() {
		return "503", "out of order"
	}
	if err := pause(ctx, s.time()); err != nil {
		return "timeout", err.Error()
	}
	return "", ""
}

func find(t *testing.T, target Target, c Config) *Result {
	t.Helper()
	c.InFlight = 100
	r, err := Run(t.Context(), target, c)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range r.Steps {
		t.Logf("%d %s %s/s: %d sent, p50 %s p99 %s drift %.3f %s", i, s.Purpose, Rate(s.Rate), s.Sent, Told(s.P50), Told(s.P99), s.Drift, s.Why)
	}
	return r
}

func TestKneeIsTheCapacity(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		places int
		time   time.Duration
		c      Config
	}{
		{places: 1, time: 10 * time.Millisecond},
		{places: 4, time: 20 * time.Millisecond},
		{places: 10, time: 20 * time.Millisecond},
		{places: 3, time: time.Second},
		{places: 2, time: time.Millisecond, c: Config{From: 7}},
		{places: 2, time: 50 * time.Millisecond, c: Config{From: 4000}},                            // from above
		{places: 4, time: 10 * time.Millisecond, c: Config{Poisson: true, Factor: 10, Seed: 1}},    // random callers wait for each other
		{places: 4, time: 20 * time.Millisecond, c: Config{Limit: 500 * time.Millisecond}},         // far from what the step would show
		{places: 4, time: 20 * time.Millisecond, c: Config{Factor: 1000, Step: 2 * time.Second}},   // nothing is ever late: it falls behind
		{places: 20, time: 100 * time.Millisecond, c: Config{Duration: time.Hour, Precision: .01}}, // close
	} {
		capacity := float64(tt.places) / tt.time.Seconds()
		t.Run(fmt.Sprintf("%dx%v", tt.places, tt.time), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if tt.c.Duration == 0 {
					tt.c.Duration = time.Hour
				}
				r := find(t, newServer(tt.places, tt.time), tt.c)
				if math.Abs(r.Knee/capacity-1) > 0.1 || !r.Confirmed || r.Stopped != "" {
					t.Fatalf("knee %.1f of %.1f a second, confirmed %v, %q", r.Knee, capacity, r.Confirmed, r.Stopped)
				}
				if a := r.Advise(2*capacity, nil); a.Concurrency != max(2, tt.places) && !tt.c.Poisson || a.Replicas < 2 || a.Replicas > 4 {
					t.Errorf("advice %+v for %d places and twice the capacity", a, tt.places)
				}
				if r.Work == nil || !r.Work.Held() {
					t.Errorf("at the working rate: %+v", r.Work)
				}
			})
		})
	}
}

// TestNoise has a server that stalls now and then, as everything on a busy machine does.
func TestNoise(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			s := newServer(4, 0)
			s.time = func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				if random.IntN(800) == 0 {
					return 150 * time.Millisecond
				}
				return 9*time.Millisecond + time.Duration(random.IntN(2000))*time.Microsecond
			}
			r := find(t, s, Config{Duration: time.Hour, Floor: 50 * time.Millisecond})
			if r.Knee < 350 || r.Knee > 410 {
				t.Errorf("seed %d: knee %.1f, and the server takes some 394", seed, r.Knee)
			}
		})
	}
}

func TestFailuresEndIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// Beyond two at once it refuses: 100 a second is the most.
		s := &refusing{server: newServer(2, 20*time.Millisecond)}
		r := find(t, s, Config{Duration: time.Hour})
		if math.Abs(r.Knee/100-1) > 0.1 {
			t.Errorf("knee %.1f, want 100", r.Knee)
		}
		last := Step{}
		for _, step := range r.Steps {
			if !step.Held() {
				last = step
			}
		}
		if last.Failed["429"] == 0 || last.Failure != "busy" || !last.Cut {
			t.Errorf("a step beyond it: %+v", last)
		}
	})
}

type refusing struct{ *server }

func (s *refusing) Do(ctx context.Context, n int) (failure, detail string) {
	select {
	case s.places <- struct{}{}:
		<-s.places
		return s.server.Do(ctx, n)
	default:
		return "429", "busy"
	}
}

// TestStallIsCharged shows that requests that were due in a stall count with all of it.
func TestStallIsCharged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := newServer(1, 0)
		s.time = func() time.Duration {
			if n++; n == 50 {
				return time.Second
			}
			return time.Millisecond
		}
		g := &generator{target: s, config: Config{Step: 10 * time.Second, InFlight: 150}.withDefaults(), limit: time.Minute}
		step, err := g.step(t.Context(), Climb, 100)
		if err != nil {
			t.Fatal(err)
		}
		// A hundred were due within the second: their median wait is half of it. A closed
		// loop would have seen a single slow request of a thousand.
		if step.P99 < 800*time.Millisecond || step.P99 > time.Second || step.Max < time.Second {
			t.Errorf("p99 %v, max %v", step.P99, step.Max)
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := find(t, newServer(10, 10*time.Millisecond), Config{MaxRate: 300, Duration: time.Hour})
		if r.Knee != 300 || r.Beyond != 0 || r.Stopped != errMaxRate.Error() || r.Work == nil {
			t.Errorf("with a highest rate: knee %v, beyond %v, %q", r.Knee, r.Beyond, r.Stopped)
		}
		for _, s := range r.Steps {
			if s.Rate > 300 {
				t.Errorf("%v a second were sent", s.Rate)
			}
		}
		begin := time.Now()
		r = find(t, newServer(10, 10*time.Millisecond), Config{Duration: 12 * time.Second})
		if took := time.Since(begin); took > 16*time.Second || r.Stopped != errTime.Error() || r.Knee == 0 {
			t.Errorf("12 s became %v: knee %v, %q", took, r.Knee, r.Stopped)
		}
	})
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := Run(ctx, newServer(10, 10*time.Millisecond), Config{InFlight: 100})
		if err != nil {
			t.Fatal(err)
		}
		if r.Stopped != "interrupted" || r.Knee == 0 || len(r.Steps) == 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestNothingAnswers(t *testing.T) {
	t.Parallel()
	s := newServer(1, 0)
	s.fail = func() bool { return true }
	if _, err := Run(t.Context(), s, Config{}); err == nil || err.Error() != "request 1 of a single caller failed (503): out of order" {
		t.Errorf("%v", err)
	}
}

// TestDrift has answers that come later and later.
func TestDrift(t *testing.T) {
	t.Parallel()
	took := make([]time.Duration, 1000)
	for i := range took {
		took[i] = 10*time.Millisecond + time.Duration(i)*100*time.Microsecond // over 10 s by 100 ms
	}
	if d := drift(took, 10*time.Second); math.Abs(d-0.01) > 1e-3 {
		t.Errorf("drift %v, want 0.01", d)
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	r := &Result{Knee: 200, Limit: 50 * time.Millisecond, At: &Step{Replicas: 2}, Work: &Step{Rate: 140, Busy: 5.6}}
	sizes := []Size{{Instances: 1, Median: 10e6}, {Instances: 2, Median: 11e6}, {Instances: 4, Median: 20e6}, {Instances: 8, Median: 39e6}, {Instances: 16, Median: 70e6}, {Instances: 32, Failure: "400: too many"}}
	if a, want := r.Advise(500, sizes), (Advice{PerReplica: 70, Replicas: 8, Concurrency: 4, Batch: 4}); math.Abs(a.PerReplica-want.PerReplica) > 1e-9 || a.Replicas != want.Replicas || a.Concurrency != want.Concurrency || a.Batch != want.Batch {
		t.Errorf("%+v, want %+v", a, want)
	}
	if a := (&Result{}).Advise(500, nil); a != (Advice{}) {
		t.Errorf("of nothing: %+v", a)
	}
}
