package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// start runs a set on the machine until the test ends or stop is called, which
// waits for Run. It leaves the replicas alone.
func start(t *testing.T, m *machine, change func(*Config)) (s *Set, stop func()) {
	t.Helper()
	cfg := Config{
		Name: "set", Title: "the model", Count: 1, Runtime: m, Client: m, Health: "/health", Log: slog.New(slog.DiscardHandler),
		Workload: func(id string) runtime.Workload { return runtime.Workload{ID: id} },
	}
	if change != nil {
		change(&cfg)
	}
	s = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return s, stop
}

func ready(t *testing.T, s *Set) {
	t.Helper()
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ask sends a body and gives the answer's text.
func ask(ctx context.Context, s *Set, body string) (string, error) {
	resp, err := s.Do(ctx, &Request{Method: http.MethodPost, Path: "/p", Body: []byte(body)})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func TestAnswersAndStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, s)
		if got, err := ask(t.Context(), s, "hello"); err != nil || got != "/p hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		if started, live := m.count(); started != 2 || fmt.Sprint(live) != "[set-0-1 set-1-1]" {
			t.Fatalf("started %d, live %v", started, live)
		}
		if err := s.Stop(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		if _, live := m.count(); len(live) != 0 {
			t.Fatalf("%v was left behind", live)
		}
		if _, err := ask(t.Context(), s, "late"); resource.CodeOf(err) != codes.Unavailable {
			t.Fatalf("after Stop: %v", err)
		}
	})
}

func TestSlowStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: func(_ int, p *program) {
			h, at := p.handler, time.Now().Add(5*time.Second)
			p.handler = func(w http.ResponseWriter, r *http.Request) {
				if time.Now().Before(at) {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				h(w, r)
			}
		}}
		s, _ := start(t, m, nil)
		begin := time.Now()
		// A request before the replica is up is held, not refused.
		if got, err := ask(t.Context(), s, "held"); err != nil || got != "/p held" {
			t.Fatalf("got %q, %v", got, err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 5*time.Second+2*probeStarting {
			t.Fatalf("ready after %v", took)
		}
	})
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: func(_ int, p *program) {
			p.handler = nil
			p.end(runtime.Exit{Code: 3, Cause: resource.CauseUserCode, Message: "it raised an error", Tail: []string{"Traceback", "ImportError: nope"}})
		}}
		s, _ := start(t, m, nil)
		err := s.WaitReady(t.Context())
		for _, want := range []string{"exit code 3", "it raised an error", "ImportError: nope"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
		if started, live := m.count(); started != giveUpAfter || len(live) != 0 {
			t.Errorf("started %d times, %v left", started, live)
		}
		if _, err := ask(t.Context(), s, "x"); resource.CodeOf(err) != codes.Unavailable || !strings.Contains(err.Error(), "exit code 3") {
			t.Errorf("a request while it cannot start: %v", err)
		}
	})
}

// TestRequired: so many ready replicas are enough, and it is over when so many cannot
// be had.
func TestRequired(t *testing.T) {
	t.Parallel()
	for required, want := range map[int]bool{0: false, 1: true, 2: true, 3: false, 9: false} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{boot: func(_ int, p *program) {
				if strings.HasPrefix(p.id, "set-1-") { // the second place
					p.handler = nil
					p.end(runtime.Exit{Code: 3, Cause: resource.CauseUserCode})
				}
			}}
			s, _ := start(t, m, func(c *Config) { c.Count, c.Required = 3, required })
			if err := s.WaitReady(t.Context()); (err == nil) != want {
				t.Errorf("with %d required: %v", required, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{refuse: resource.Invalid("image", "nothing is known about the image")}
		s, _ := start(t, m, nil)
		begin := time.Now()
		if err := s.WaitReady(t.Context()); resource.CodeOf(err) != codes.InvalidArgument {
			t.Fatalf("got %v", err)
		}
		if time.Since(begin) > 0 {
			t.Error("a refused workload was tried again")
		}
	})
}

// TestNeverHealthy: what kept a replica from becoming ready has a name.
func TestNeverHealthy(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		boot  func(p *program)
		cause resource.Cause
		say   string
	}{
		"PORT_NEVER_OPENED": {func(p *program) { p.handler = nil }, resource.CauseUserCode, "within 1m0s"},
		"HEALTH_ROUTE_FAILS": {func(p *program) {
			p.handler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }
		}, resource.CauseUserCode, "418"},
		"PREPARING": {func(p *program) {
			p.handler = nil
			p.phase = func() runtime.Phase { return runtime.Preparing }
		}, resource.CauseDependency, "what it is about"},
		"ENDED": {func(p *program) {
			p.handler = nil
			p.end(runtime.Exit{Message: "ended"})
		}, resource.CauseUserCode, "foreground"},
	}
	for reason, tc := range tests {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &machine{boot: func(_ int, p *program) { tc.boot(p) }}
				s, _ := start(t, m, func(c *Config) { c.Start = time.Minute })
				err := s.WaitReady(t.Context())
				e, ok := errors.AsType[*resource.Error](err)
				if !ok || e.Reason != reason || e.Cause != tc.cause || !strings.Contains(err.Error(), tc.say) {
					t.Fatalf("got %+v", err)
				}
			})
		})
	}
}

// TestQueuedReplica: the time in which a replica must answer begins when there is
// room for it.
func TestQueuedReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		room := time.Now().Add(time.Hour)
		m := &machine{boot: func(_ int, p *program) {
			serve := p.handler
			p.phase = func() runtime.Phase {
				if time.Now().Before(room) {
					return runtime.Queued
				}
				return runtime.Running
			}
			p.handler = func(w http.ResponseWriter, r *http.Request) {
				if time.Now().Before(room.Add(30 * time.Second)) {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				serve(w, r)
			}
		}}
		s, _ := start(t, m, func(c *Config) { c.Start = time.Minute })
		ready(t, s)
		if started, _ := m.count(); started != 1 {
			t.Fatalf("started %d times", started)
		}
	})
}

func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, nil)
		ready(t, s)
		m.mu.Lock()
		first := m.all[0]
		m.mu.Unlock()
		first.end(runtime.Exit{Code: 139, Signal: "SIGSEGV"})
		synctest.Wait()
		if got, err := ask(t.Context(), s, "again"); err != nil || got != "/p again" {
			t.Fatalf("got %q, %v", got, err)
		}
		if started, live := m.count(); started != 2 || fmt.Sprint(live) != "[set-0-2]" {
			t.Fatalf("started %d, live %v", started, live)
		}
	})
}

func TestBackOffGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		m := &machine{boot: func(_ int, p *program) {
			starts = append(starts, time.Now())
			p.end(runtime.Exit{Code: 1})
		}}
		_, stop := start(t, m, nil)
		time.Sleep(10 * time.Minute) //nolint:forbidigo // the bubble's clock, not a wait
		stop()
		for i := 2; i < len(starts); i++ {
			before, after := starts[i-1].Sub(starts[i-2]), starts[i].Sub(starts[i-1])
			if after < before || after > restartMax {
				t.Fatalf("start %d came after %v, the one before after %v", i, after, before)
			}
		}
		if len(starts) < 10 || len(starts) > 20 {
			t.Fatalf("%d starts in ten minutes", len(starts))
		}
	})
}

func TestUnhealthyGetsNoRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sick := make(chan bool, 1)
		sick <- false
		m := &machine{boot: func(_ int, p *program) {
			if p.id != "set-0-1" {
				return
			}
			h := p.handler
			p.handler = func(w http.ResponseWriter, r *http.Request) {
				now := <-sick
				sick <- now
				if now {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				h(w, r)
			}
		}}
		s, _ := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, s)
		<-sick
		sick <- true
		time.Sleep(unhealthyAfter*probeReady + time.Second) //nolint:forbidigo // the bubble's clock, not a wait
		if st := s.Status(); st[0].State != Unhealthy || st[1].State != Ready {
			t.Fatalf("states %v %v", st[0].State, st[1].State)
		}
		for range 4 {
			if got, err := ask(t.Context(), s, "x"); err != nil || got != "/p x" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		<-sick
		sick <- false
		time.Sleep(2 * probeReady) //nolint:forbidigo // the bubble's clock, not a wait
		if st := s.Status(); st[0].State != Ready {
			t.Fatalf("after it is well again: %v", st[0].State)
		}
		if started, _ := m.count(); started != 2 {
			t.Errorf("an unhealthy replica was started again")
		}
	})
}

func TestAdoption(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		first, stop := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, first)
		stop() // the server ends: replicas go on
		if _, live := m.count(); len(live) != 2 {
			t.Fatalf("live after the end of Run: %v", live)
		}
		second, _ := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, second)
		if started, _ := m.count(); started != 2 {
			t.Fatalf("%d starts: the replicas were not found again", started)
		}
		if got, err := ask(t.Context(), second, "x"); err != nil || got != "/p x" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func TestResize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, nil)
		ready(t, s)
		s.Resize(3)
		ready(t, s)
		if _, live := m.count(); len(live) != 3 {
			t.Fatalf("live %v", live)
		}
		s.Resize(1)
		synctest.Wait()
		if _, live := m.count(); fmt.Sprint(live) != "[set-0-1]" {
			t.Fatalf("live %v", live)
		}
	})
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, stop := start(t, m, nil)
		ready(t, s)
		stop()
		if err := Cleanup(t.Context(), m, "set"); err != nil {
			t.Fatal(err)
		}
		if _, live := m.count(); len(live) != 0 {
			t.Fatalf("live %v", live)
		}
	})
}
