package replica

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// dying makes programs that end when they are asked for a prediction, as long as
// there are lives left, and notes who was asked.
type dying struct {
	mu    sync.Mutex
	lives int
	asked []string
}

func (d *dying) boot(_ int, p *program) {
	h := p.handler
	p.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/p" {
			d.mu.Lock()
			d.asked = append(d.asked, p.id)
			die := d.lives > 0
			d.lives--
			d.mu.Unlock()
			if die {
				p.end(runtime.Exit{Code: 139, Signal: "SIGSEGV"})
				<-r.Context().Done()
				return
			}
		}
		h(w, r)
	}
}

func try(ctx context.Context, s *Set, again bool) error {
	resp, err := s.Do(ctx, &Request{Method: http.MethodPost, Path: "/p", Again: again})
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// TestDeadReplica: a request that may be sent again gets another replica, one that
// may not a clear error; one that kills every replica does not go on for ever.
func TestDeadReplica(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		lives int
		again bool
		code  codes.Code
		asked int
	}{
		"may be sent again":     {1, true, codes.OK, 2},
		"may not be sent again": {1, false, codes.Unavailable, 1},
		"kills whoever gets it": {9, true, codes.Unavailable, 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &dying{lives: tc.lives}
				m := &machine{boot: d.boot}
				s, _ := start(t, m, func(c *Config) { c.Count = 2 })
				ready(t, s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := try(ctx, s, tc.again)
				if (tc.code == codes.OK) != (err == nil) || err != nil && (resource.CodeOf(err) != tc.code || !strings.Contains(err.Error(), "over the request")) {
					t.Errorf("got %v", err)
				}
				if len(d.asked) != tc.asked || tc.asked == 2 && d.asked[0] == d.asked[1] {
					t.Errorf("asked %v", d.asked)
				}
			})
		})
	}
}

// TestUnsent: a request that met a replica which is gone waits for the next one,
// ahead of those that came later.
func TestUnsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, nil)
		ready(t, s)
		m.mu.Lock()
		p := m.all[0]
		m.mu.Unlock()
		p.shut.Store(true) // the port is closed, the program not ended yet
		begin := time.Now()
		done := make(chan error, 1)
		go func() { done <- try(t.Context(), s, false) }()
		synctest.Wait()
		if st := s.Status()[0]; st.InFlight != 0 || s.Waiting() != 1 {
			t.Fatalf("%+v, %d wait", st, s.Waiting())
		}
		p.end(runtime.Exit{Code: 1})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < restartFirst || took > restartFirst+probeStarting {
			t.Errorf("answered after %v", took)
		}
	})
}

// TestSuspectIsCleared: a connection that broke takes a replica out of rotation
// until its health route answers.
func TestSuspectIsCleared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, nil)
		ready(t, s)
		m.mu.Lock()
		p := m.all[0]
		m.mu.Unlock()
		p.shut.Store(true)
		done := make(chan error, 1)
		go func() { done <- try(t.Context(), s, false) }()
		synctest.Wait()
		p.shut.Store(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if started, _ := m.count(); started != 1 {
			t.Errorf("started %d times", started)
		}
	})
}

// TestFromZero: requests that come while there is no replica are held, and one
// start serves them all.
func TestFromZero(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, func(c *Config) { c.Count = 0 })
		synctest.Wait()
		errs := make(chan error, 100)
		for range 100 {
			go func() { errs <- try(t.Context(), s, false) }()
		}
		synctest.Wait()
		if started, _ := m.count(); started != 0 || s.Waiting() != 100 {
			t.Fatalf("started %d, %d wait", started, s.Waiting())
		}
		s.Resize(1)
		for range 100 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if started, _ := m.count(); started != 1 {
			t.Errorf("started %d times", started)
		}
	})
}

// TestResizeDrains: what is in flight in a replica that goes is answered, and a
// replica that is wanted meanwhile does not wait for it.
func TestResizeDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, nil)
		ready(t, s)
		answered := make(chan error, 1)
		go func() { answered <- try(t.Context(), s, false) }()
		synctest.Wait()
		s.Resize(0)
		synctest.Wait()
		s.Resize(1)
		ready(t, s)
		if _, live := m.count(); fmt.Sprint(live) != "[set-0-1 set-1-1]" {
			t.Fatalf("live %v", live)
		}
		close(g.let)
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, live := m.count(); fmt.Sprint(live) != "[set-1-1]" {
			t.Fatalf("live %v", live)
		}
	})
}

// TestDrainEnds: a request that never ends does not keep a replica for ever.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		defer close(g.let)
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Drain = 5 * time.Second })
		ready(t, s)
		answered := make(chan error, 1)
		go func() { answered <- try(t.Context(), s, false) }()
		synctest.Wait()
		begin := time.Now()
		s.Resize(0)
		if err := <-answered; resource.CodeOf(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("cut off after %v", took)
		}
	})
}

// TestNoIDTwice: output is kept by the id of a workload, so none comes again.
func TestNoIDTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		m := &machine{boot: func(_ int, p *program) { ids = append(ids, p.id) }}
		s, stop := start(t, m, nil)
		for range 3 {
			s.Resize(1)
			ready(t, s)
			s.Resize(0)
			synctest.Wait()
		}
		stop()
		s, _ = start(t, m, func(c *Config) { c.Attempt = 1000 })
		ready(t, s)
		if !slices.Equal(ids, []string{"set-0-1", "set-0-2", "set-0-3", "set-0-1001"}) {
			t.Errorf("ids %v", ids)
		}
	})
}

// TestFoundAndSurplus: replicas of an earlier server are found wherever they are;
// those that are not wanted any more end.
func TestFoundAndSurplus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		first, stop := start(t, m, func(c *Config) { c.Count = 3 })
		ready(t, first)
		stop()
		if n, err := Running(t.Context(), m, "set"); err != nil || n != 3 {
			t.Fatalf("%d run, %v", n, err)
		}
		second, _ := start(t, m, nil)
		ready(t, second)
		synctest.Wait()
		started, live := m.count()
		if started != 3 || fmt.Sprint(live) != "[set-0-1]" {
			t.Fatalf("started %d, live %v", started, live)
		}
	})
}

// TestTimeoutWhileStarting says what the request waited for.
func TestTimeoutWhileStarting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: func(_ int, p *program) {
			p.handler = nil
			p.phase = func() runtime.Phase { return runtime.Queued }
		}}
		s, _ := start(t, m, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := try(ctx, s, false)
		if resource.CodeOf(err) != codes.Unavailable || !strings.Contains(err.Error(), "no replica yet that can answer: what it is about") {
			t.Errorf("got %v", err)
		}
	})
}

// TestLimit: the number of requests in a replica follows its limit.
func TestLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Concurrency = 1 })
		ready(t, s)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { _ = try(t.Context(), s, false) })
		}
		synctest.Wait()
		for _, n := range []int{1, 3, 2} {
			s.Limit(n)
			synctest.Wait()
			if got := s.Status()[0].InFlight; got != max(n, 3) && (n != 1 || got != 1) {
				t.Errorf("limit %d: %d in flight", n, got)
			}
		}
		close(g.let)
		wg.Wait()
	})
}

// TestIdleConnectionsGo: those to a replica that is gone are not kept, whether it was
// taken away or ended.
func TestIdleConnectionsGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, s)
		m.all[0].end(runtime.Exit{Code: 1})
		<-time.After(time.Minute)
		ready(t, s)
		s.Resize(1)
		synctest.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.released) != 2 || !slices.Equal(m.forgotten, m.released) {
			t.Errorf("connections to %v were closed, want to %v", m.forgotten, m.released)
		}
	})
}
