package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("TATEGU_TEST_WRITE"); path != "" {
		if err := writeForever(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func open(tb testing.TB, path string) *sqlite.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return open(t, filepath.Join(t.TempDir(), "state ?#%.db"))
	})
}

func TestReopenKeepsEverything(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	var before store.Row
	for round := range 3 {
		s := open(t, path)
		err := s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Append(t.Context(), "s", strconv.Itoa(round), nil); err != nil {
				return err
			}
			return tx.Put(t.Context(), store.Row{Kind: "k", Key: "row", Data: []byte{byte(round)}})
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path)
		row, err := s.Get(t.Context(), "k", "row")
		if err != nil || row.Data[0] != byte(round) || row.Revision <= before.Revision {
			t.Errorf("round %d: %+v, %v after revision %d", round, row, err, before.Revision)
		}
		events, err := s.Events(t.Context(), "s", 0, 0)
		if err != nil || len(events) != round+1 {
			t.Errorf("round %d: %d events, %v", round, len(events), err)
		}
		before = row
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeForever is the child of TestKill: it prints a row's number once Update has
// acknowledged it.
func writeForever(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	from, err := strconv.Atoi(os.Getenv("TATEGU_TEST_FROM"))
	if err != nil {
		return err
	}
	var next atomic.Int64
	next.Store(int64(from))
	failed := make(chan error)
	for w := range 8 {
		update := s.Update
		if w%2 == 1 {
			update = s.UpdateSoon
		}
		go func() {
			for {
				n := next.Add(1)
				err := update(ctx, func(tx store.Tx) error {
					for _, half := range []string{"a", "b"} {
						row := store.Row{Kind: "k", Key: fmt.Sprintf("%09d%s", n, half), Data: []byte(strings.Repeat(half, 500))}
						if err := tx.Put(ctx, row); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					failed <- err
				}
				if _, err := fmt.Fprintln(os.Stdout, n); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// TestKill kills a writing process, over and over: what it had been told is
// written is there, and whole.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	last := 0
	for round := range 5 {
		acknowledged := killWriter(t, path, last, 100+50*round)
		s := open(t, path)
		for _, n := range acknowledged {
			for _, half := range []string{"a", "b"} {
				row, err := s.Get(t.Context(), "k", fmt.Sprintf("%09d%s", n, half))
				if err != nil || string(row.Data) != strings.Repeat(half, 500) {
					t.Fatalf("round %d: acknowledged row %d%s: %v", round, n, half, err)
				}
			}
			last = max(last, n+100)
		}
		rows, err := s.List(t.Context(), store.Query{Kind: "k"})
		if err != nil || len(rows)%2 != 0 {
			t.Errorf("round %d: %d rows, %v: half an update is there", round, len(rows), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func killWriter(t *testing.T, path string, from, lines int) []int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TATEGU_TEST_WRITE="+path, "TATEGU_TEST_FROM="+strconv.Itoa(from))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []int
	lineReader := bufio.NewScanner(out)
	for lineReader.Scan() {
		n, err := strconv.Atoi(lineReader.Text())
		if err != nil {
			break // the line that the kill cut off
		}
		if acknowledged = append(acknowledged, n); len(acknowledged) == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(acknowledged) < lines {
		t.Fatalf("the writer ended by itself after %d rows", len(acknowledged))
	}
	return acknowledged[:len(acknowledged)-1] // the last line may be cut within its digits
}

// TestIndexes makes sure that engines asking for unfinished work, and lists below
// a parent, do not read the whole table.
func TestIndexes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, tt := range []struct {
		q    store.Query
		want string
	}{
		{store.Query{Kind: "k", States: []string{"A", "B"}}, "row_state"},
		{store.Query{Kind: "k", States: []string{"A"}, Order: store.ByNewest}, "row_state"},
		{store.Query{Kind: "k", Parent: "p"}, "row_parent"},
		{store.Query{Kind: "k", Parent: "p", States: []string{"A"}, Limit: 1}, "row_parent"},
		{store.Query{Kind: "k", Parent: "p", Order: store.ByNewest, Limit: 10}, "row_parent"},
		{store.Query{Kind: "k", Parent: "p", Order: store.ByCreated, Beyond: &store.Row{Key: "x"}}, "row_parent"},
		{store.Query{Kind: "k", Prefix: "p/", From: "p/x", Limit: 10}, "PRIMARY KEY"},
		{store.Query{Kind: "k", Prefix: "p/", From: "p/x", After: "p/y", Limit: 10}, "PRIMARY KEY"},
	} {
		query, args := sqlite.ListSQL(tt.q)
		plan := explain(t, db, query, args)
		if text := strings.Join(plan, "; "); !strings.Contains(text, tt.want) || strings.Contains(text, "SCAN") {
			t.Errorf("plan of %+v is %q, want %s", tt.q, text, tt.want)
		}
	}
	if _, err := s.List(t.Context(), store.Query{Kind: "k"}); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkUpdate shows what group commit brings: durable updates of callers
// that share the fsync.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "state.db"))
			data := make([]byte, 300)
			var next atomic.Int64
			b.SetParallelism(callers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := strconv.FormatInt(next.Add(1)%2000, 10)
					err := s.Update(context.Background(), func(tx store.Tx) error {
						return tx.Put(context.Background(), store.Row{Kind: "task", Key: key, State: "RUNNING", Data: data})
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// explain gives the steps of a query's plan.
func explain(t *testing.T, db *sql.DB, query string, args []any) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestNewerSchemaIsRefused: an older program leaves a newer one's state alone.
func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "schema 9999, made by a newer tategu") {
		t.Errorf("open = %v", err)
	}
}
