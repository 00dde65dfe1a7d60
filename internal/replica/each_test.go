package replica

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPrepare: every program is prepared before it gets requests, also one that was taken
// over, and again after it could not do what Each told all.
func TestPrepare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		var prepared atomic.Int32
		hold := make(chan struct{})
		prepare := func(context.Context, Backend) error {
			prepared.Add(1)
			<-hold
			return nil
		}
		s, stop := start(t, m, func(c *Config) { c.Count, c.Prepare = 2, prepare })
		<-time.After(time.Minute)
		if prepared.Load() != 2 || s.Ready() != 0 {
			t.Fatalf("prepared %d, %d are ready while they are being prepared", prepared.Load(), s.Ready())
		}
		var reached atomic.Int32
		if err := s.Each(t.Context(), func(context.Context, int, Backend) error { reached.Add(1); return nil }); err != nil || reached.Load() != 2 {
			t.Errorf("Each reaches %d of those that are being prepared, %v", reached.Load(), err)
		}
		close(hold)
		ready(t, s)
		stop()
		s, _ = start(t, m, func(c *Config) { c.Count, c.Prepare = 2, prepare })
		ready(t, s)
		if started, _ := m.count(); started != 2 || prepared.Load() != 4 {
			t.Errorf("%d started, prepared %d times: those that were taken over too", started, prepared.Load())
		}
	})
}

func TestEachPreparesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		var prepared atomic.Int32
		hold := make(chan struct{}, 3)
		hold <- struct{}{}
		hold <- struct{}{}
		s, _ := start(t, m, func(c *Config) {
			c.Count, c.Prepare = 2, func(context.Context, Backend) error {
				<-hold
				prepared.Add(1)
				return nil
			}
		})
		ready(t, s)
		var told atomic.Int32
		err := s.Each(t.Context(), func(context.Context, int, Backend) error {
			if told.Add(1) == 1 {
				return errors.New("it cannot")
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "of the model: it cannot") || told.Load() != 2 {
			t.Fatalf("told %d: %v", told.Load(), err)
		}
		out := 0
		for range 20 { // only the other one is asked
			resp, err := s.Do(t.Context(), &Request{Path: "/p"})
			if err != nil {
				t.Fatal(err)
			}
			out++
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		if prepared.Load() != 2 || out != 20 {
			t.Fatalf("prepared %d", prepared.Load())
		}
		hold <- struct{}{}
		<-time.After(time.Second)
		if prepared.Load() != 3 || s.Ready() != 2 {
			t.Errorf("prepared %d, %d ready", prepared.Load(), s.Ready())
		}
		if started, _ := m.count(); started != 2 {
			t.Errorf("%d were started", started)
		}
	})
}

func TestPrepareFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		bad := errors.New("it cannot be that")
		s, _ := start(t, m, func(c *Config) { c.Prepare = func(context.Context, Backend) error { return bad } })
		if err := s.WaitReady(t.Context()); !errors.Is(err, bad) {
			t.Fatalf("error %v", err)
		}
	})
}
