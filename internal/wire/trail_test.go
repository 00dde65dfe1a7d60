package wire_test

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"tategu/internal/identity"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/wire"
)

// recording makes a change that carries its own audit entry.
type recording struct{ rows *sqlite.Store }

func (h recording) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	committed := func() {}
	err := h.rows.Update(ctx, func(tx store.Tx) (err error) {
		committed, err = identity.RecordSuccess(ctx, tx)
		return err
	})
	if err != nil {
		panic(err)
	}
	committed()
	if r.URL.Query().Get("fail") != "" {
		w.WriteHeader(http.StatusNotFound)
	}
}

// TestRecordedChangesAreNotAuditedTwice: but a call that fails after its change has
// an entry of the failure too.
func TestRecordedChangesAreNotAuditedTwice(t *testing.T) {
	t.Parallel()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	f := start(t, func(c *wire.Config) {
		c.Routes = []wire.Route{{Name: "storage", Audit: true, Handler: recording{rows}, Prefixes: []string{"/storage/"}}}
	})
	f.do(t, "POST", "/storage/a", "")
	f.do(t, "POST", "/storage/b?fail=1", "")
	if got, want := f.gate.trail(), []string{"operator storage POST  /storage/b NotFound"}; !slices.Equal(got, want) {
		t.Errorf("entries of their own: %q, want %q", got, want)
	}
	events, err := rows.Events(context.Background(), "audit/-", 0, 0)
	if err != nil || len(events) != 2 {
		t.Errorf("%d entries with their changes, %v", len(events), err)
	}
}
