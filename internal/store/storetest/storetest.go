// Package storetest is the contract of a store: every adapter passes Run. It
// tests by noun (rows, lists, events, updates, watches) and through the port only.
package storetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Open gives an empty store, closed when the test ends.
type Open func(t *testing.T) store.Store

// Run runs the whole contract.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, group := range []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"rows", testRows},
		{"lists", testLists},
		{"parents", testParents},
		{"states below", testStatesBelow},
		{"events", testEvents},
		{"updates", testUpdates},
		{"watches", testWatches},
		{"crowd", testCrowd},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			group.run(t, open)
		})
	}
}

const kind store.Kind = "thing"

func put(t *testing.T, s store.Store, rows ...store.Row) {
	t.Helper()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		for _, r := range rows {
			if err := tx.Put(t.Context(), r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, s store.Store, key string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(t.Context(), kind, key) }); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s store.Reader, key string) store.Row {
	t.Helper()
	r, err := s.Get(t.Context(), kind, key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func list(t *testing.T, s store.Reader, q store.Query) []store.Row {
	t.Helper()
	if q.Kind == "" {
		q.Kind = kind
	}
	rows, err := s.List(t.Context(), q)
	if err != nil {
		t.Fatalf("List(%+v): %v", q, err)
	}
	return rows
}

func keys(rows []store.Row) []string {
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Key)
	}
	return out
}

// absent fails unless key is reported missing.
func absent(t *testing.T, s store.Reader, key string) {
	t.Helper()
	if r, err := s.Get(t.Context(), kind, key); resource.CodeOf(err) != codes.NotFound {
		t.Errorf("Get(%q) = %+v, %v, want NotFound", key, r, err)
	}
}

func testRows(t *testing.T, open Open) {
	t.Helper()
	t.Run("what is put is got", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		want := store.Row{Kind: kind, Key: "k", Parent: "p", State: "RUNNING", Data: []byte("a\x00b\xff")}
		put(t, s, want)
		got := get(t, s, "k")
		if got.Revision <= 0 || got.Created.IsZero() || !got.Updated.Equal(got.Created) {
			t.Errorf("revision %d, created %v, updated %v are not filled", got.Revision, got.Created, got.Updated)
		}
		got.Revision, got.Created, got.Updated = 0, want.Created, want.Updated
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("a missing row is NotFound", func(t *testing.T) {
		t.Parallel()
		absent(t, open(t), "none")
	})
	t.Run("kinds are apart", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: "other", Key: "k"})
		absent(t, s, "k")
	})
	t.Run("put again keeps Created and replaces the rest", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: kind, Key: "k", Parent: "p", State: "A", Data: []byte("1")})
		before := get(t, s, "k")
		put(t, s, store.Row{Kind: kind, Key: "k"})
		got := get(t, s, "k")
		if !got.Created.Equal(before.Created) || got.Revision <= before.Revision {
			t.Errorf("created %v -> %v, revision %d -> %d", before.Created, got.Created, before.Revision, got.Revision)
		}
		if got.Parent != "" || got.State != "" || len(got.Data) != 0 {
			t.Errorf("old values stayed: %+v", got)
		}
	})
	t.Run("deleted is gone, and deleting nothing is fine", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: kind, Key: "k"})
		remove(t, s, "k")
		absent(t, s, "k")
		remove(t, s, "k")
	})
	t.Run("a row needs a kind and a key", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		for _, r := range []store.Row{{Key: "k"}, {Kind: kind}} {
			if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(t.Context(), r) }); err == nil {
				t.Errorf("Put(%+v) was accepted", r)
			}
		}
	})
	t.Run("a closed store says so", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: kind, Key: "k"})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, getErr := s.Get(t.Context(), kind, "k")
		_, listErr := s.List(t.Context(), store.Query{Kind: kind})
		updateErr := s.Update(t.Context(), func(store.Tx) error { return nil })
		for op, err := range map[string]error{"Get": getErr, "List": listErr, "Update": updateErr} {
			if !isClosed(err) {
				t.Errorf("%s on a closed store = %v, want ErrClosed", op, err)
			}
		}
	})
}

// odd keys: bytewise order must hold for all of them.
func oddKeys() []string {
	all := []string{"a", "a\x00", "a\x00b", "a/b", "a0", "aa", "é", "日本", "\xff\xfe", "a%b", "a_b", "A", "'; DROP TABLE row; --", "z\xff", "z\xff\xff"}
	slices.Sort(all)
	return all
}

func testLists(t *testing.T, open Open) {
	t.Helper()
	t.Run("bytewise order and windows", func(t *testing.T) {
		t.Parallel()
		s, all := open(t), oddKeys()
		rows := make([]store.Row, 0, len(all))
		for _, k := range all {
			rows = append(rows, store.Row{Kind: kind, Key: k})
		}
		put(t, s, rows...)
		for i, k := range all {
			checkKeys(t, s, store.Query{From: k}, all[i:])
			checkKeys(t, s, store.Query{After: k}, all[i+1:])
			checkKeys(t, s, store.Query{Prefix: k}, startingWith(all, k))
			checkKeys(t, s, store.Query{Offset: i, Limit: 2}, all[i:min(i+2, len(all))])
			checkKeys(t, s, store.Query{Prefix: "a", After: k, Limit: 1}, first(startingWith(all[i+1:], "a")))
		}
	})
	t.Run("parents and states", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s,
			store.Row{Kind: kind, Key: "1", Parent: "p", State: "A"}, store.Row{Kind: kind, Key: "2", Parent: "q", State: "B"},
			store.Row{Kind: kind, Key: "3", Parent: "p", State: "C"}, store.Row{Kind: kind, Key: "4", Parent: "p"},
			store.Row{Kind: "other", Key: "5", Parent: "p", State: "A"})
		checkKeys(t, s, store.Query{Parent: "p"}, []string{"1", "3", "4"})
		checkKeys(t, s, store.Query{States: []string{"A", "B"}}, []string{"1", "2"})
		checkKeys(t, s, store.Query{States: []string{"", "C"}}, []string{"3", "4"})
		checkKeys(t, s, store.Query{Parent: "p", States: []string{"C", "B"}}, []string{"3"})
		checkKeys(t, s, store.Query{States: []string{"none"}}, nil)
	})
	t.Run("by time, page by page", func(t *testing.T) { t.Parallel(); testTimeOrder(t, open(t)) })
	t.Run("a query that makes no sense is an error", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		if _, err := s.List(t.Context(), store.Query{Kind: kind, Beyond: &store.Row{Key: "k"}}); err == nil {
			t.Error("Beyond by key was accepted")
		}
		if _, err := s.List(t.Context(), store.Query{Kind: kind, Order: 99}); err == nil {
			t.Error("an unknown order was accepted")
		}
	})
}

// testTimeOrder writes rows in two commits, so that times repeat, and walks them
// in pages both ways.
func testTimeOrder(t *testing.T, s store.Store) {
	t.Helper()
	for c := range 4 {
		batch := make([]store.Row, 0, 3)
		for i := range 3 {
			batch = append(batch, store.Row{Kind: kind, Key: strconv.Itoa((7 * (3*c + i)) % 12), Parent: "p"})
		}
		put(t, s, batch...)
	}
	all := list(t, s, store.Query{})
	slices.SortFunc(all, func(a, b store.Row) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return cmpText(a.Key, b.Key)
	})
	want := keys(all)
	for _, order := range []store.Order{store.ByCreated, store.ByNewest} {
		for size := 1; size <= 5; size++ {
			var got []string
			q := store.Query{Order: order, Parent: "p", Limit: size}
			for {
				page := list(t, s, q)
				if len(page) == 0 {
					break
				}
				got = append(got, keys(page)...)
				q.Beyond = &page[len(page)-1]
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("order %d, pages of %d: %s", order, size, d)
			}
		}
		slices.Reverse(want)
	}
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func startingWith(all []string, prefix string) []string {
	var out []string
	for _, k := range all {
		if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
			out = append(out, k)
		}
	}
	return out
}

func first(s []string) []string { return s[:min(1, len(s))] }

func checkKeys(t *testing.T, s store.Reader, q store.Query, want []string) {
	t.Helper()
	got := keys(list(t, s, q))
	if !slices.Equal(got, want) {
		t.Errorf("List(%+v) = %q, want %q", q, got, want)
	}
}

func testEvents(t *testing.T, open Open) {
	t.Helper()
	t.Run("numbered per subject without gaps", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		for i := range 3 {
			appendEvent(t, s, "a", fmt.Sprintf("t%d", i))
		}
		appendEvent(t, s, "b", "other")
		events, err := s.Events(t.Context(), "a", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range events {
			if e.Seq != int64(i+1) || e.Type != fmt.Sprintf("t%d", i) || e.Subject != "a" || string(e.Data) != e.Type || e.Time.IsZero() {
				t.Errorf("event %d = %+v", i, e)
			}
		}
		if len(events) != 3 {
			t.Errorf("%d events, want 3", len(events))
		}
	})
	t.Run("after and limit", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		for i := range 5 {
			appendEvent(t, s, "a", fmt.Sprintf("t%d", i))
		}
		events, err := s.Events(t.Context(), "a", 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) != 2 || events[0].Seq != 3 || events[1].Seq != 4 {
			t.Errorf("events after 2, at most 2: %+v", events)
		}
	})
	t.Run("an update that fails leaves no gap", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		appendEvent(t, s, "a", "1")
		_ = s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Append(t.Context(), "a", "lost", nil); err != nil {
				return err
			}
			return errBoom
		})
		appendEvent(t, s, "a", "2")
		events, err := s.Events(t.Context(), "a", 0, 0)
		if err != nil || len(events) != 2 || events[1].Seq != 2 || events[1].Type != "2" {
			t.Errorf("events = %+v, %v", events, err)
		}
	})
}

func appendEvent(t *testing.T, s store.Store, subject, typ string) {
	t.Helper()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		return tx.Append(context.WithoutCancel(t.Context()), subject, typ, []byte(typ))
	})
	if err != nil {
		t.Fatal(err)
	}
}
