// Package warehousetest is the contract of warehouses.
package warehousetest

import (
	"database/sql"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/warehouse"
)

func tables(name string) []warehouse.Table {
	return []warehouse.Table{
		{Name: name, Columns: []warehouse.Column{{Name: "key", Type: warehouse.Integer}, {Name: "prediction", Type: warehouse.Double}, {Name: "instance", Type: warehouse.JSON}, {Name: "text", Type: warehouse.Text}}},
		{Name: name + "_errors", Columns: []warehouse.Column{{Name: "message", Type: warehouse.Text}}},
	}
}

const perPart = 100

func part(tb testing.TB, l warehouse.Load, n int) {
	tb.Helper()
	err := l.Part(tb.Context(), n, func(put func(warehouse.Row) error) error {
		for i := range perPart {
			if err := put(warehouse.Row{Values: []any{int64(n*perPart + i), 0.5, `{"a": "\u0000'"}`, "tab\tback\\slash\nline"}}); err != nil {
				return err
			}
		}
		return put(warehouse.Row{Table: 1, Values: []any{nil}})
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// Run tests warehouses that open makes, all of one database; db reads it.
func Run(t *testing.T, open func() warehouse.Warehouse, db *sql.DB) {
	t.Helper()
	begin := func(t *testing.T, id, name string) (warehouse.Load, warehouse.Warehouse) {
		t.Helper()
		w := open()
		t.Cleanup(func() { _ = w.Close() })
		l, err := w.Begin(t.Context(), id, tables(name)...)
		if err != nil {
			t.Fatal(err)
		}
		return l, w
	}
	t.Run("whole, once", func(t *testing.T) {
		first, w := begin(t, "job1", "one")
		part(t, first, 0)
		part(t, first, 2)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		second, _ := begin(t, "job1", "one") // the server was started again
		part(t, second, 2)
		part(t, second, 1)
		if _, err := db.ExecContext(t.Context(), `SELECT * FROM one`); err == nil {
			t.Error("the table is seen before it is committed")
		}
		for range 2 {
			if err := second.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		third, w := begin(t, "job1", "one")
		part(t, third, 1)
		if err := errors.Join(third.Commit(t.Context()), w.Abort(t.Context(), "job1", tables("one")...)); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT count(*) FROM one`); n != 3*perPart {
			t.Errorf("%d rows", n)
		}
		if n := count(t, db, `SELECT count(DISTINCT key) FROM one WHERE prediction = 0.5`); n != 3*perPart {
			t.Errorf("%d keys", n)
		}
		if n := count(t, db, `SELECT count(*) FROM one_errors WHERE message IS NULL`); n != 3 {
			t.Errorf("%d errors", n)
		}
		var text string
		if err := db.QueryRowContext(t.Context(), `SELECT text FROM one WHERE key = 7`).Scan(&text); err != nil || text != "tab\tback\\slash\nline" {
			t.Errorf("text %q, %v", text, err)
		}
	})
	t.Run("all of a part or nothing", func(t *testing.T) {
		l, _ := begin(t, "job2", "two")
		stop := errors.New("stop")
		err := l.Part(t.Context(), 0, func(put func(warehouse.Row) error) error {
			if err := put(warehouse.Row{Values: []any{int64(1), nil, nil, "x"}}); err != nil {
				return err
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatalf("got %v", err)
		}
		part(t, l, 0)
		if err := l.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT count(*) FROM two`); n != perPart {
			t.Errorf("%d rows", n)
		}
	})
	t.Run("tables of others", func(t *testing.T) {
		if _, err := db.ExecContext(t.Context(), `CREATE TABLE three (x INTEGER)`); err != nil {
			t.Fatal(err)
		}
		w := open()
		defer func() { _ = w.Close() }()
		if _, err := w.Begin(t.Context(), "job3", tables("three")...); resource.CodeOf(err) != codes.AlreadyExists {
			t.Errorf("got %v", err)
		}
		if _, err := w.Begin(t.Context(), "job3", tables(`th"ree`)...); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("got %v", err)
		}
	})
	t.Run("abort", func(t *testing.T) {
		w := open()
		defer func() { _ = w.Close() }()
		if err := w.Abort(t.Context(), "job4", tables("four")...); err != nil { // nothing was begun
			t.Fatal(err)
		}
		l, _ := begin(t, "job4", "four")
		part(t, l, 0)
		if err := w.Abort(t.Context(), "job4", tables("four")...); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT count(*) FROM tategu_loads WHERE load = 'job4'`); n != 0 {
			t.Errorf("%d parts are still known", n)
		}
		again, _ := begin(t, "job4", "four")
		if err := again.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT count(*) FROM four`); n != 0 {
			t.Errorf("%d rows", n)
		}
	})
}
