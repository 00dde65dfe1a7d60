package event_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tategu/internal/event"
)

// Many receivers have a secret in their path: no log names it.
func TestURLIsNotLogged(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) > 1 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		panic(http.ErrAbortHandler) // the connection breaks
	}))
	t.Cleanup(srv.Close)
	var log strings.Builder
	o, st, stop := run(t, filepath.Join(t.TempDir(), "t.db"), &log, event.Webhook{Name: "w", URL: srv.URL + "/services/hunter2", Secret: secret})
	add(t, o, st, "e1", "failed", "p")
	gone(t, st)
	stop()
	if text := log.String(); !strings.Contains(text, "sent again") || strings.Contains(text, "hunter2") {
		t.Errorf("log:\n%s", text)
	}
}
