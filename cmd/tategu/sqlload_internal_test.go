package main

import (
	"strings"
	"testing"
)

// No field of a record is lost to the names of others, and none ends the load.
func TestSQLColumnNames(t *testing.T) {
	t.Parallel()
	q, err := newSQLSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.db.Close() })
	j, c := &sqlTable{q: q, name: "j"}, &sqlTable{q: q, name: "c"}
	if err := j.json(t.Context(), []byte(`{"_row":5,"a":1,"A":2,"":3,"rowid":4,"a\u0000\"b":6,"_Record":7}`), true); err != nil {
		t.Fatal(err)
	}
	if err := j.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.csv(t.Context(), strings.NewReader("a,a,oid,\n1,2,3,4\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int{
		`SELECT _row * 1000000 + _row_ * 100000 + a * 10000 + A_ * 1000 + "" * 100 + rowid_ * 10 + "a_""b" FROM j`: 1512346,
		`SELECT _Record_ FROM j`:                             7,
		`SELECT a * 1000 + a_ * 100 + oid_ * 10 + "" FROM c`: 1234,
	} {
		var got int
		if err := q.db.QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %d, %v", query, got, err)
		}
	}
}
