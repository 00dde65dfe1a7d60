package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"tategu/internal/store"
)

var errBoom = errors.New("boom")

func isClosed(err error) bool { return errors.Is(err, store.ErrClosed) }

func testUpdates(t *testing.T, open Open) {
	t.Helper()
	t.Run("all or nothing", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: kind, Key: "old", Data: []byte("1")})
		err := s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(t.Context(), store.Row{Kind: kind, Key: "new"}); err != nil {
				return err
			}
			if err := tx.Delete(t.Context(), kind, "old"); err != nil {
				return err
			}
			return errBoom
		})
		if !errors.Is(err, errBoom) {
			t.Errorf("Update = %v, want the function's error", err)
		}
		absent(t, s, "new")
		get(t, s, "old")
	})
	t.Run("a transaction sees its own writes, others do not yet", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		err := s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(t.Context(), store.Row{Kind: kind, Key: "k"}); err != nil {
				return err
			}
			absent(t, s, "k")
			get(t, tx, "k")
			checkKeys(t, tx, store.Query{}, []string{"k"})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		get(t, s, "k")
	})
	t.Run("soon, and others at once", func(t *testing.T) { t.Parallel(); testSoon(t, open(t)) })
	t.Run("a panic is the caller's error alone", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		err := s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(t.Context(), store.Row{Kind: kind, Key: "lost"}); err != nil {
				return err
			}
			panic("no such luck")
		})
		if err == nil || !strings.Contains(err.Error(), "no such luck") {
			t.Errorf("Update = %v, want the panic", err)
		}
		absent(t, s, "lost")
		put(t, s, store.Row{Kind: kind, Key: "next"})
	})
	t.Run("a cancelled caller", func(t *testing.T) { t.Parallel(); testCancelled(t, open(t)) })
	t.Run("a kept transaction is dead", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		var kept store.Tx
		if err := s.Update(t.Context(), func(tx store.Tx) error { kept = tx; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := kept.Put(t.Context(), store.Row{Kind: kind, Key: "late"}); err == nil {
			t.Error("a transaction wrote after its function had returned")
		}
		absent(t, s, "late")
	})
	t.Run("every update has its own revision", func(t *testing.T) { t.Parallel(); testRevisions(t, open(t)) })
}

// testCancelled: who leaves before runs nothing; who leaves amid it fails alone,
// although several callers share one commit.
func testCancelled(t *testing.T, s store.Store) {
	t.Helper()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(gone, func(store.Tx) error { t.Error("ran for a caller that had left"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update of a caller that had left = %v", err)
	}
	var group errgroup.Group
	for i := range 40 {
		group.Go(func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := s.Update(ctx, func(tx store.Tx) error {
				if err := tx.Put(ctx, store.Row{Kind: kind, Key: strconv.Itoa(i)}); err != nil {
					return err
				}
				if i%2 == 1 {
					cancel()
				}
				return tx.Put(ctx, store.Row{Kind: kind, Key: strconv.Itoa(i) + "b"})
			})
			if i%2 == 1 && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("caller %d left amid its update and got %w", i, err)
			}
			if i%2 == 0 && err != nil {
				return fmt.Errorf("caller %d paid for another's leaving: %w", i, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if n := len(list(t, s, store.Query{})); n != 40 {
		t.Errorf("%d rows, want two of each of 20 callers", n)
	}
}

// testRevisions has many callers rewrite one row: none may see a revision that
// somebody else was given too.
func testRevisions(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, store.Row{Kind: kind, Key: "k"})
	seen := map[int64]bool{} // guarded by Update, which runs one function at a time
	var group errgroup.Group
	for range 50 {
		group.Go(func() error {
			return s.Update(t.Context(), func(tx store.Tx) error {
				row, err := tx.Get(t.Context(), kind, "k")
				if err != nil {
					return err
				}
				if seen[row.Revision] {
					return fmt.Errorf("revision %d was given twice", row.Revision)
				}
				seen[row.Revision] = true
				return tx.Put(t.Context(), row)
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// testCrowd: writers and readers at once; nobody ever sees a lock error, and
// counters that are read and written lose nothing.
func testCrowd(t *testing.T, open Open) {
	t.Helper()
	const writers, readers, rounds = 32, 32, 20
	s := open(t)
	put(t, s, store.Row{Kind: kind, Key: "counter", Data: []byte("0")})
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			last := int64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				row, err := s.Get(t.Context(), kind, "counter")
				if err != nil {
					t.Error(err)
					return
				}
				if row.Revision < last {
					t.Errorf("revision went from %d to %d", last, row.Revision)
				}
				last = row.Revision
				if _, err := s.List(t.Context(), store.Query{Kind: kind, Limit: 10}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var writing errgroup.Group
	for w := range writers {
		writing.Go(func() error {
			for i := range rounds {
				if err := s.Update(t.Context(), count(t.Context(), fmt.Sprintf("%d-%d", w, i))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := writing.Wait(); err != nil {
		t.Error(err)
	}
	close(stop)
	reading.Wait()
	if got := string(get(t, s, "counter").Data); got != strconv.Itoa(writers*rounds) {
		t.Errorf("counter = %s, want %d: an update was lost", got, writers*rounds)
	}
	if n := len(list(t, s, store.Query{Prefix: "n/"})); n != writers*rounds {
		t.Errorf("%d rows, want %d", n, writers*rounds)
	}
}

// count adds one to the counter and writes a row of its own.
func count(ctx context.Context, name string) func(store.Tx) error {
	return func(tx store.Tx) error {
		row, err := tx.Get(ctx, kind, "counter")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(row.Data))
		if err != nil {
			return err
		}
		row.Data = []byte(strconv.Itoa(n + 1))
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
		return tx.Put(ctx, store.Row{Kind: kind, Key: "n/" + name})
	}
}

func testWatches(t *testing.T, open Open) {
	t.Helper()
	t.Run("changes arrive, of the asked kinds alone", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		put(t, s, store.Row{Kind: kind, Key: "before"})
		w := s.Watch(kind)
		defer w.Close()
		put(t, s, store.Row{Kind: "other", Key: "x"}, store.Row{Kind: kind, Key: "k"})
		checkChanges(t, w, store.Change{Kind: kind, Key: "k"})
	})
	t.Run("changes of one key coalesce to the last", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		w := s.Watch(kind)
		defer w.Close()
		for range 5 {
			put(t, s, store.Row{Kind: kind, Key: "a"})
			put(t, s, store.Row{Kind: kind, Key: "b"})
		}
		remove(t, s, "a")
		checkChanges(t, w, store.Change{Kind: kind, Key: "a", Deleted: true}, store.Change{Kind: kind, Key: "b"})
	})
	t.Run("what was rolled back is not told", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		w := s.Watch()
		defer w.Close()
		_ = s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(t.Context(), store.Row{Kind: kind, Key: "lost"}); err != nil {
				return err
			}
			return errBoom
		})
		put(t, s, store.Row{Kind: kind, Key: "k"})
		checkChanges(t, w, store.Change{Kind: kind, Key: "k"})
	})
	t.Run("events are changes", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		w := s.Watch("event")
		defer w.Close()
		appendEvent(t, s, "subject", "t")
		checkChanges(t, w, store.Change{Kind: "event", Key: "subject"})
	})
	t.Run("next ends with its context, and with the watcher or the store", func(t *testing.T) { t.Parallel(); testWatchEnds(t, open) })
}

func checkChanges(t *testing.T, w store.Watcher, want ...store.Change) {
	t.Helper()
	got, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("changes = %+v, want %+v", got, want)
	}
}

func testWatchEnds(t *testing.T, open Open) {
	t.Helper()
	s := open(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	w := s.Watch()
	if _, err := w.Next(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Next of a caller that left = %v", err)
	}
	w.Close()
	if _, err := w.Next(t.Context()); !isClosed(err) {
		t.Errorf("Next on a closed watcher = %v", err)
	}
	open1 := s.Watch()
	waiting := make(chan error, 1)
	go func() {
		_, err := open1.Next(context.WithoutCancel(t.Context()))
		waiting <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !isClosed(err) {
		t.Errorf("Next while the store closes = %v", err)
	}
	if _, err := s.Watch().Next(t.Context()); !isClosed(err) {
		t.Errorf("Next of a watcher on a closed store = %v", err)
	}
}

// testSoon: what does not wait for the disk is seen, in order, and fails as ever.
func testSoon(t *testing.T, s store.Store) {
	t.Helper()
	for n := range 4 {
		update := s.UpdateSoon
		if n%2 == 1 {
			update = s.Update
		}
		err := update(t.Context(), func(tx store.Tx) error {
			if n > 0 {
				get(t, tx, strconv.Itoa(n-1))
			}
			return tx.Put(t.Context(), store.Row{Kind: kind, Key: strconv.Itoa(n)})
		})
		if err != nil {
			t.Fatal(err)
		}
		get(t, s, strconv.Itoa(n))
	}
	err := s.UpdateSoon(t.Context(), func(tx store.Tx) error {
		if err := tx.Put(t.Context(), store.Row{Kind: kind, Key: "lost"}); err != nil {
			return err
		}
		return errBoom
	})
	if !errors.Is(err, errBoom) {
		t.Errorf("UpdateSoon = %v, want the function's error", err)
	}
	absent(t, s, "lost")
}
