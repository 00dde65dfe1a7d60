package event_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tategu/internal/event"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver takes events and answers the statuses it was given, then 204.
type receiver struct {
	t        *testing.T
	mu       sync.Mutex
	statuses []int
	got      []string // ids, each time
	bodies   map[string]string
	came     chan struct{}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		r.t.Error(err)
	}
	id := req.Header.Get("webhook-id")
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, req.Header.Get("webhook-timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); req.Header.Get("webhook-signature") != want {
		r.t.Errorf("signature %s, want %s", req.Header.Get("webhook-signature"), want)
	}
	var e struct{ SpecVersion, ID, Type, Subject, Source string }
	if err := json.Unmarshal(body, &e); err != nil || e.SpecVersion != "1.0" || e.ID != id || e.Source != "//tategu/projects/p" {
		r.t.Errorf("event %s: %v", body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, ok := r.bodies[id]; ok && before != string(body) {
		r.t.Errorf("event %s became another one", id)
	}
	r.bodies[id] = string(body)
	r.got = append(r.got, id)
	status := http.StatusNoContent
	if len(r.statuses) > 0 {
		status, r.statuses = r.statuses[0], r.statuses[1:]
	}
	w.WriteHeader(status)
	r.came <- struct{}{}
}

func newReceiver(t *testing.T, statuses ...int) (*receiver, string) {
	t.Helper()
	r := &receiver{t: t, statuses: statuses, bodies: map[string]string{}, came: make(chan struct{}, 100)}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return r, srv.URL
}

// run has an outbox at work until stop.
func run(t *testing.T, path string, log io.Writer, hooks ...event.Webhook) (o *event.Outbox, st store.Store, stop func()) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	o = event.New(event.Config{Store: db, Webhooks: hooks, Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, Delay: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return o, db, stop
}

func add(t *testing.T, o *event.Outbox, st store.Store, id, typ, project string) {
	t.Helper()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		return o.Add(t.Context(), tx, event.Event{ID: id, Type: "x." + typ, Subject: "s", Project: project, Time: time.Unix(7, 0), Data: json.RawMessage(`{"a":1}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gone waits until the outbox is empty.
func gone(t *testing.T, st store.Store) {
	t.Helper()
	w := st.Watch(event.Kind)
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		rows, err := st.List(ctx, store.Query{Kind: event.Kind})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			return
		}
		if _, err := w.Next(ctx); err != nil {
			t.Fatalf("%d are left: %v", len(rows), err)
		}
	}
}

func TestRetriesUntilTaken(t *testing.T) {
	t.Parallel()
	r, url := newReceiver(t, 500, 302, 429)
	o, st, _ := run(t, filepath.Join(t.TempDir(), "t.db"), io.Discard, event.Webhook{URL: url, Secret: secret})
	add(t, o, st, "one", "failed", "p")
	add(t, o, st, "one", "failed", "p")
	gone(t, st)
	if len(r.got) != 4 || len(r.bodies) != 1 {
		t.Errorf("got %q", r.got)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	r, url := newReceiver(t)
	hook := event.Webhook{URL: url, Secret: secret, Projects: []string{"p"}, Types: []string{"failed"}}
	o, st, _ := run(t, filepath.Join(t.TempDir(), "t.db"), io.Discard, hook)
	add(t, o, st, "a", "succeeded", "p")
	add(t, o, st, "b", "failed", "q")
	add(t, o, st, "c", "failed", "p")
	gone(t, st)
	if len(r.got) != 1 || r.got[0] != "c" {
		t.Errorf("got %q", r.got)
	}
}

// TestSurvives: what was not taken before a restart is sent after it, with the same id.
func TestSurvives(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "t.db")
	down, url := newReceiver(t, 500)
	var log bytes.Buffer
	o, st, stop := run(t, path, &log, event.Webhook{Name: "h", URL: "http://127.0.0.1:1/", Secret: secret})
	add(t, o, st, "one", "failed", "p")
	w := st.Watch(event.Kind)
	if _, err := w.Next(t.Context()); err != nil { // it was tried, or added
		t.Fatal(err)
	}
	w.Close()
	stop()
	if strings.Contains(log.String(), "MfKQ9") {
		t.Error("the secret is in the log")
	}
	_, st, _ = run(t, path, io.Discard, event.Webhook{Name: "h", URL: url, Secret: secret})
	gone(t, st)
	if len(down.got) != 2 || len(down.bodies) != 1 {
		t.Errorf("got %q", down.got)
	}
}

func TestGoneAndForgotten(t *testing.T) {
	t.Parallel()
	r, url := newReceiver(t, 410)
	path := filepath.Join(t.TempDir(), "t.db")
	o, st, stop := run(t, path, io.Discard, event.Webhook{URL: url, Secret: secret})
	add(t, o, st, "one", "failed", "p")
	gone(t, st)
	stop()
	if len(r.got) != 1 {
		t.Errorf("got %q", r.got)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, w := range map[string]event.Webhook{
		"":              {URL: "https://x/y", Secret: secret},
		"http(s)":       {URL: "ftp://x", Secret: secret},
		"password":      {URL: "https://a:b@x", Secret: secret},
		"whsec_":        {URL: "https://x", Secret: "tooshort"},
		"not succeeded": {URL: "https://x", Secret: secret, Types: []string{"done"}},
	} {
		err := w.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", w, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", w, w, w), "MfKQ9") {
			t.Error("the secret shows")
		}
	}
}
