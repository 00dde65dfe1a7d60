package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"tategu/internal/store"
)

// maxGroup bounds how many callers share one commit, so that the first of them
// does not wait for an endless queue.
const maxGroup = 256

type request struct {
	fn   func(tx store.Tx) error
	done chan error
}

// Update implements store.Store. The context is honoured while waiting to be
// taken; once the function runs, the outcome is always awaited.
func (s *Store) Update(ctx context.Context, fn func(tx store.Tx) error) error {
	r := request{fn: fn, done: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return store.ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-s.done:
		// The writer may have answered in its last group.
		select {
		case err := <-r.done:
			return err
		default:
			return store.ErrClosed
		}
	}
}

// runWriter owns the writing connection until Close.
func (s *Store) runWriter() {
	defer close(s.done)
	for {
		select {
		case r := <-s.requests:
			s.commitGroup(s.gather(r))
		case <-s.closing:
			for {
				select {
				case r := <-s.requests:
					s.commitGroup(s.gather(r))
				default:
					return
				}
			}
		}
	}
}

// gather takes what is queued already; it never waits, so a lone writer pays
// one fsync and no delay.
func (s *Store) gather(first request) []request {
	group := []request{first}
	for len(group) < maxGroup {
		select {
		case r := <-s.requests:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

func (s *Store) commitGroup(group []request) {
	results, changes, err := s.runGroup(group)
	if err == nil {
		s.watch.publish(changes)
	}
	for i, r := range group {
		if results[i] != nil || err == nil {
			r.done <- results[i]
			continue
		}
		r.done <- err
	}
}

// runGroup gives each request's own error; err is about the common commit.
func (s *Store) runGroup(group []request) (results []error, changes []store.Change, err error) {
	// The writer outlives its callers' contexts: a caller that leaves must not
	// tear down the commit of the others.
	ctx := context.Background()
	results = make([]error, len(group))
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return results, nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = sqlTx.Rollback() }() // a no-op after Commit
	t := &tx{reader: reader{q: sqlTx}, sql: sqlTx, now: s.now()}
	if err := sqlTx.QueryRowContext(ctx, `SELECT last FROM revision`).Scan(&t.revision); err != nil {
		return results, nil, fmt.Errorf("read revision: %w", err)
	}
	t.revision++
	for i, r := range group {
		if results[i], err = t.run(ctx, r.fn); err != nil {
			return results, nil, err
		}
	}
	if _, err := sqlTx.ExecContext(ctx, `UPDATE revision SET last = ?`, t.revision); err != nil {
		return results, nil, fmt.Errorf("write revision: %w", err)
	}
	if err := sqlTx.Commit(); err != nil {
		return results, nil, fmt.Errorf("commit: %w", err)
	}
	return results, t.changes, nil
}

// tx implements store.Tx.
type tx struct {
	reader
	sql      *sql.Tx
	now      time.Time
	revision int64
	changes  []store.Change
}

var _ store.Tx = (*tx)(nil)

// run executes fn in a savepoint. fnErr is the function's own error, err one of
// the database that spoils the whole group.
func (t *tx) run(ctx context.Context, fn func(tx store.Tx) error) (fnErr, err error) {
	if _, err := t.sql.ExecContext(ctx, `SAVEPOINT caller`); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	before := len(t.changes)
	fnErr = t.call(fn)
	end := `RELEASE caller`
	if fnErr != nil {
		t.changes = t.changes[:before]
		end = `ROLLBACK TO caller; RELEASE caller`
	}
	if _, err := t.sql.ExecContext(ctx, end); err != nil {
		return fnErr, fmt.Errorf("end of savepoint: %w", err)
	}
	return fnErr, nil
}

// call turns a panic of one caller into its error: the writer serves them all.
func (t *tx) call(fn func(tx store.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in store update: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(t)
}

// Put implements store.Tx.
func (t *tx) Put(ctx context.Context, row store.Row) error {
	if row.Kind == "" || row.Key == "" {
		return errors.New("put: a row needs a kind and a key")
	}
	if row.Data == nil {
		row.Data = []byte{}
	}
	now := t.now.UnixNano()
	_, err := t.sql.ExecContext(ctx, `INSERT INTO row (`+columns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET parent = excluded.parent, state = excluded.state, data = excluded.data,
			revision = excluded.revision, updated = excluded.updated`,
		row.Kind, row.Key, row.Parent, row.State, row.Data, t.revision, now, now)
	if err != nil {
		return fmt.Errorf("put %s %s: %w", row.Kind, row.Key, err)
	}
	t.changes = append(t.changes, store.Change{Kind: row.Kind, Key: row.Key})
	return nil
}

// Delete implements store.Tx.
func (t *tx) Delete(ctx context.Context, kind store.Kind, key string) error {
	res, err := t.sql.ExecContext(ctx, `DELETE FROM row WHERE kind = ? AND key = ?`, kind, key)
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", kind, key, err)
	}
	if n, err := res.RowsAffected(); err == nil && n > 0 {
		t.changes = append(t.changes, store.Change{Kind: kind, Key: key, Deleted: true})
	}
	return nil
}

// Append implements store.Tx.
func (t *tx) Append(ctx context.Context, subject, typ string, data []byte) error {
	if data == nil {
		data = []byte{}
	}
	_, err := t.sql.ExecContext(ctx, `INSERT INTO event (subject, seq, time, type, data)
		SELECT ?, coalesce(max(seq), 0) + 1, ?, ?, ? FROM event WHERE subject = ?`,
		subject, t.now.UnixNano(), typ, data, subject)
	if err != nil {
		return fmt.Errorf("append %s to %s: %w", typ, subject, err)
	}
	t.changes = append(t.changes, store.Change{Kind: "event", Key: subject})
	return nil
}
