package replica

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// gate makes every prediction wait until it is let through, and notes its body.
type gate struct {
	mu   sync.Mutex
	seen []string
	let  chan struct{}
}

func (g *gate) boot(_ int, p *program) {
	h := p.handler
	p.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/p" {
			var b [16]byte
			n, _ := r.Body.Read(b[:])
			g.mu.Lock()
			g.seen = append(g.seen, string(b[:n]))
			g.mu.Unlock()
			<-g.let
		}
		h(w, r)
	}
}

func (g *gate) bodies() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

func TestQueueIsFairAndForgetsLeavers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Concurrency = 1 })
		ready(t, s)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		leaver, leave := context.WithCancel(t.Context())
		for i, body := range []string{"a", "b", "c", "d"} {
			ctx := t.Context()
			if body == "b" {
				ctx = leaver
			}
			wg.Go(func() { _, errs[i] = ask(ctx, s, body) })
			synctest.Wait() // one after the other into the queue
		}
		if n := s.Waiting(); n != 3 {
			t.Fatalf("%d wait", n)
		}
		leave()
		synctest.Wait()
		if resource.CodeOf(errs[1]) != codes.Canceled {
			t.Fatalf("the one that left got %v", errs[1])
		}
		close(g.let)
		wg.Wait()
		if got := g.bodies(); !slices.Equal(got, []string{"a", "c", "d"}) {
			t.Fatalf("the replica saw %v", got)
		}
		if errs[0] != nil || errs[2] != nil || errs[3] != nil {
			t.Fatal(errs)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Concurrency, c.Queue, c.QueueBytes = 1, 2, 10 })
		ready(t, s)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = ask(t.Context(), s, "1234") })
			synctest.Wait()
		}
		if _, err := ask(t.Context(), s, "1234567"); resource.CodeOf(err) != codes.ResourceExhausted {
			t.Errorf("more bytes than may wait: %v", err)
		}
		wg.Go(func() { _, _ = ask(t.Context(), s, "1") })
		synctest.Wait()
		if _, err := ask(t.Context(), s, "1"); resource.CodeOf(err) != codes.ResourceExhausted {
			t.Errorf("more requests than may wait: %v", err)
		}
		close(g.let)
		wg.Wait()
	})
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Concurrency = 1 })
		ready(t, s)
		defer close(g.let)
		for range 2 { // one in flight, one in the queue
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := ask(ctx, s, "x")
			cancel()
			if resource.CodeOf(err) != codes.Unavailable || !strings.Contains(err.Error(), "in time") {
				t.Fatalf("got %v", err)
			}
		}
	})
}

func TestLeastInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, func(c *Config) { c.Count, c.Concurrency = 3, 2 })
		ready(t, s)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { _, _ = ask(t.Context(), s, "x") })
			synctest.Wait()
		}
		var busy []int
		for _, st := range s.Status() {
			busy = append(busy, st.InFlight)
		}
		slices.Sort(busy)
		if !slices.Equal(busy, []int{1, 2, 2}) {
			t.Errorf("in flight %v", busy)
		}
		close(g.let)
		wg.Wait()
	})
}

func TestDrainWaitsForAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{let: make(chan struct{})}
		m := &machine{boot: g.boot}
		s, _ := start(t, m, nil)
		ready(t, s)
		answered := make(chan error, 1)
		go func() {
			_, err := ask(t.Context(), s, "x")
			answered <- err
		}()
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- s.Stop(t.Context(), 30*time.Second) }()
		synctest.Wait()
		if _, live := m.count(); len(live) != 1 {
			t.Fatal("the replica was stopped under its request")
		}
		close(g.let)
		if err := errors.Join(<-answered, <-stopped); err != nil {
			t.Fatal(err)
		}
		if _, live := m.count(); len(live) != 0 {
			t.Fatalf("live %v", live)
		}
	})
}

func TestLocal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, nil, func(c *Config) {
			c.Runtime = nil
			c.Local = Bytes(func(_ context.Context, body []byte) ([]byte, error) {
				if string(body) == "bad" {
					return nil, resource.Invalid("instances", "bad")
				}
				return append([]byte("got "), body...), nil
			})
		})
		ready(t, s)
		if got, err := ask(t.Context(), s, "x"); err != nil || got != "got x" {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := ask(t.Context(), s, "bad"); resource.CodeOf(err) != codes.InvalidArgument {
			t.Fatalf("got %v", err)
		}
		if err := s.Stop(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPanic: what a backend in this process did not end holds no place afterwards.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, nil, func(c *Config) {
			c.Runtime = nil
			c.Local = Bytes(func(_ context.Context, body []byte) ([]byte, error) {
				if string(body) == "bad" {
					panic("bad")
				}
				return body, nil
			})
		})
		ready(t, s)
		for range 1000 { // more than there are places
			func() {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				_, _ = ask(t.Context(), s, "bad")
			}()
		}
		if got, err := ask(t.Context(), s, "x"); err != nil || got != "x" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := s.Stop(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
	})
}
