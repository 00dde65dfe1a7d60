package replica

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestCheckComesBeforeRequests: every program that starts is checked once, one that was
// taken over is not.
func TestCheckComesBeforeRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, asked := &machine{}, 0
		check := func(ctx context.Context, b Backend) error {
			asked++
			resp, err := b.Do(ctx, &Request{Method: http.MethodPost, Path: "/check"})
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}
		s, stop := start(t, m, func(c *Config) { c.Check = check })
		ready(t, s)
		if asked != 1 {
			t.Fatalf("checked %d times", asked)
		}
		stop()
		s, _ = start(t, m, func(c *Config) { c.Check = check })
		ready(t, s)
		if started, _ := m.count(); started != 1 || asked != 1 {
			t.Errorf("%d started, checked %d times: one that runs was checked again", started, asked)
		}
	})
}

func TestCheckThatFailsIsToldAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		bad := errors.New("it predicts nonsense")
		var good atomic.Bool
		s, _ := start(t, m, func(c *Config) {
			c.Check = func(context.Context, Backend) error {
				if good.Load() {
					return nil
				}
				return bad
			}
		})
		if err := s.WaitReady(t.Context()); !errors.Is(err, bad) {
			t.Fatalf("error %v", err)
		}
		if started, _ := m.count(); started != 1 {
			t.Errorf("%d were started before it was told", started)
		}
		good.Store(true) // as after a repair: it is tried again
		<-time.After(restartMax)
		ready(t, s)
		if slices.ContainsFunc(s.Status(), func(st Status) bool { return st.State != Ready }) {
			t.Errorf("status %+v", s.Status())
		}
	})
}
