package local

import (
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/vector"
	"tategu/internal/vector/vectortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a server's state, which several backends may be opened on, one at a time.
type place struct {
	rows  store.Store
	blobs *blob.Store
	dir   string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	content, err := disk.Open(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	return &place{rows: rows, blobs: blob.New(rows, content, time.Now), dir: dir}
}

func (p *place) open(t *testing.T, change func(*Config)) *Backend {
	t.Helper()
	log, err := telemetry.NewLogger(t.Output(), telemetry.Text, "error")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Store: p.rows, Contents: p.blobs.Contents(), Cache: filepath.Join(p.dir, "cache"), Log: log, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	b, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *place) index(t *testing.T, id string, cfg vector.Config) vector.Index {
	t.Helper()
	return vectortest.Index(t, p.rows, id, cfg)
}

// TestConformance has merges at many points: never, and after every few datapoints.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, merge := range map[string]bool{"unmerged": false, "merged": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vectortest.Run(t, func(t *testing.T) vectortest.Fixture {
				t.Helper()
				p := newPlace(t)
				current := p.open(t, nil)
				t.Cleanup(func() {
					if err := current.Close(); err != nil {
						t.Error(err)
					}
				})
				wrap := func() vector.Backend {
					if merge {
						return merging{current}
					}
					return current
				}
				return vectortest.Fixture{Backend: wrap(), Index: p.index, Reopen: func(t *testing.T) vector.Backend {
					t.Helper()
					if err := current.Close(); err != nil {
						t.Fatal(err)
					}
					current = p.open(t, nil)
					return wrap()
				}}
			})
		})
	}
}
