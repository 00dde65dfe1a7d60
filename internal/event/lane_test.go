package event_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tategu/internal/event"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// receivers answer by the host of the request.
type receivers map[string]func(*http.Request) (int, error)

func (r receivers) RoundTrip(req *http.Request) (*http.Response, error) {
	status, err := r[req.URL.Host](req)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// counted says how often a receiver was asked, and how many at a time at most.
type counted struct {
	mu              sync.Mutex
	asked, now, top int
	ids             map[string]int
}

func (c *counted) by(answer func(*http.Request) (int, error)) func(*http.Request) (int, error) {
	return func(req *http.Request) (int, error) {
		c.mu.Lock()
		c.asked++
		c.now++
		c.top = max(c.top, c.now)
		if c.ids == nil {
			c.ids = map[string]int{}
		}
		c.ids[req.Header.Get("webhook-id")]++
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.now--
		}()
		return answer(req)
	}
}

func (c *counted) seen() (asked, top int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, c.top
}

// laned runs an outbox in the bubble of a test.
func laned(t *testing.T, to receivers, hosts ...string) (add func(ids ...string), left func(host string) int) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	var hooks []event.Webhook
	for _, host := range hosts {
		hooks = append(hooks, event.Webhook{URL: "http://" + host + "/", Secret: secret})
	}
	o := event.New(event.Config{Store: db, Webhooks: hooks, Log: slog.New(slog.DiscardHandler), Now: time.Now, Transport: to})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	add = func(ids ...string) {
		t.Helper()
		err := db.Update(t.Context(), func(tx store.Tx) error {
			for _, id := range ids {
				e := event.Event{ID: id, Type: "x.failed", Subject: "s", Project: "p", Time: time.Unix(7, 0), Data: json.RawMessage(`{}`)}
				if err := o.Add(t.Context(), tx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return add, func(host string) (n int) {
		t.Helper()
		rows, err := db.List(t.Context(), store.Query{Kind: event.Kind})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if strings.HasSuffix(row.Key, "/"+host) {
				n++
			}
		}
		return n
	}
}

func names(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("e%02d", i))
	}
	return ids
}

func takes(*http.Request) (int, error) { return http.StatusNoContent, nil }

func away(*http.Request) (int, error) { return 0, errors.New("connection refused") }

func hangs(req *http.Request) (int, error) {
	<-req.Context().Done()
	return 0, req.Context().Err()
}

// TestNobodyWaitsForAnother: one receiver hangs and one is away; the third has all its
// events before any time has passed, those that come later too.
func TestNobodyWaitsForAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var slow, dead, good counted
		add, left := laned(t, receivers{"slow": slow.by(hangs), "dead": dead.by(away), "good": good.by(takes)}, "slow", "dead", "good")
		start := time.Now()
		add(names(20)...)
		synctest.Wait()
		for time.Since(start) < time.Minute {
			if n := left("good"); n > 0 {
				t.Fatalf("%d events wait after %v", n, time.Since(start))
			}
			<-time.After(7 * time.Second)
			add("at " + time.Now().String())
			synctest.Wait()
		}
		if asked, _ := slow.seen(); asked == 0 || left("slow") < 20 {
			t.Errorf("the slow one was asked %d times and has %d left", asked, left("slow"))
		}
		if _, top := slow.seen(); top > 4 {
			t.Errorf("the slow one had %d requests at a time", top)
		}
	})
}

// TestAwayIsLeftAlone: of a receiver that is away only one event asks, ever more
// seldom; when it is back it gets them all, each once.
func TestAwayIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dead counted
		var back bool
		var mu sync.Mutex
		add, left := laned(t, receivers{"dead": dead.by(func(req *http.Request) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if back {
				return takes(req)
			}
			return http.StatusServiceUnavailable, nil
		})}, "dead")
		add(names(30)...)
		synctest.Wait()
		first, _ := dead.seen()
		if first == 0 || first > 4 {
			t.Fatalf("asked %d times at first", first)
		}
		<-time.After(10 * time.Minute) // pauses of 5, 10, ... 320 s
		synctest.Wait()
		if asked, _ := dead.seen(); asked-first < 5 || asked-first > 8 {
			t.Errorf("asked %d times in ten minutes", asked-first)
		}
		mu.Lock()
		back = true
		mu.Unlock()
		before, _ := dead.seen()
		<-time.After(11 * time.Minute)
		synctest.Wait()
		if after, _ := dead.seen(); left("dead") > 0 || after-before != 30 {
			t.Errorf("%d are left, and it was asked %d times", left("dead"), after-before)
		}
	})
}

// TestOneEventThatIsRefused delays no other of its receiver.
func TestOneEventThatIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var picky counted
		add, left := laned(t, receivers{"picky": picky.by(func(req *http.Request) (int, error) {
			if req.Header.Get("webhook-id") == "e00" {
				return http.StatusBadRequest, nil
			}
			return takes(req)
		})}, "picky")
		add(names(20)...)
		synctest.Wait()
		if n := left("picky"); n != 1 {
			t.Errorf("%d are left", n)
		}
	})
}

// TestGivenUp: after days of a receiver that is away nothing is kept for it.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dead counted
		add, left := laned(t, receivers{"dead": dead.by(away)}, "dead")
		add(names(10)...)
		<-time.After(71 * time.Hour)
		synctest.Wait()
		if n := left("dead"); n != 10 {
			t.Errorf("%d are left before the third day is over", n)
		}
		add("young")
		<-time.After(4 * time.Hour)
		synctest.Wait()
		if n := left("dead"); n != 1 {
			t.Errorf("%d are left after three days, want the one that is young", n)
		}
	})
}
