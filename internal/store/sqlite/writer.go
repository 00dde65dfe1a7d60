package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"tategu/internal/store"
	"tategu/internal/volume"
)

// maxGroup bounds how many callers share one commit, so that the first of them
// does not wait for an endless queue.
const maxGroup = 256

type request struct {
	fn   func(tx store.Tx) error
	soon bool // the disk need not have it yet
	done chan error
}

// Update implements store.Store. The context is honoured while waiting to be
// taken; once the function runs, the outcome is always awaited.
func (s *Store) Update(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.update(ctx, request{fn: fn, done: make(chan error, 1)})
}

// UpdateSoon implements store.Store.
func (s *Store) UpdateSoon(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.update(ctx, request{fn: fn, soon: true, done: make(chan error, 1)})
}

func (s *Store) update(ctx context.Context, r request) error {
	if err := cmp.Or(ctx.Err(), s.disk.Writable()); err != nil {
		return err
	}
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
	s.tend(err)
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
	if err := s.disk.Writable(); err != nil { // it broke while these waited
		return results, nil, err
	}
	if err := s.patience(ctx, group); err != nil {
		return results, nil, s.fault("begin", err)
	}
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return results, nil, s.fault("begin", err)
	}
	defer func() { _ = sqlTx.Rollback() }() // a no-op after Commit
	q := steady{tx: sqlTx, hot: s.hot, bound: map[string]*sql.Stmt{}}
	var revision int64
	if err := q.stmt(ctx, selectRevision).QueryRowContext(ctx).Scan(&revision); err != nil { //nolint:sqlclosecheck // the transaction closes it
		return results, nil, s.fault("read revision", err)
	}
	now := s.now()
	for i, r := range group {
		// Each caller has a revision of its own: two writes of a row never share one.
		revision++
		t := &tx{q: q, now: now, revision: revision, fault: s.fault, pages: &s.since, events: map[string]int64{}}
		t.reader = reader{q: t}
		if results[i], err = t.run(ctx, r.fn); err != nil {
			return results, nil, err
		}
		if results[i] == nil {
			changes = append(changes, t.changes...)
		}
	}
	if _, err := q.ExecContext(ctx, updateRevision, revision); err != nil {
		return results, nil, s.fault("write revision", err)
	}
	if err := sqlTx.Commit(); err != nil {
		return results, nil, s.fault("commit", err)
	}
	return results, changes, nil
}

// patience lets the next commit wait for the disk if one of the group does. A commit
// that does not is a part of the same log, in its place: the next fsync of the log is
// its, too, also that of a checkpoint.
func (s *Store) patience(ctx context.Context, group []request) error {
	soon := !slices.ContainsFunc(group, func(r request) bool { return !r.soon })
	if soon == s.soon {
		return nil
	}
	level := "FULL"
	if soon {
		level = "NORMAL"
	}
	if _, err := s.write.ExecContext(ctx, "PRAGMA synchronous = "+level); err != nil {
		return err
	}
	s.soon = soon
	return nil
}

// steady runs statements to their end. SQLite answers an interrupted write by
// rolling back the whole transaction, which here is also other callers'; so a
// cancelled caller is told before its statement and never amid it.
type steady struct {
	tx    *sql.Tx
	hot   *statements
	bound map[string]*sql.Stmt // of hot, in this transaction
}

// stmt gives a compiled statement of the transaction, or nil.
func (s steady) stmt(ctx context.Context, query string) *sql.Stmt {
	if st := s.bound[query]; st != nil {
		return st
	}
	st := s.hot.find(query)
	if st != nil {
		st = s.tx.StmtContext(ctx, st)
		s.bound[query] = st
	}
	return st
}

func (s steady) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if st := s.stmt(ctx, query); st != nil { //nolint:sqlclosecheck // the transaction closes it
		return st.ExecContext(ctx, args...)
	}
	return s.tx.ExecContext(ctx, query, args...)
}

func (s steady) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if st := s.stmt(ctx, query); st != nil { //nolint:sqlclosecheck // the transaction closes it
		return st.QueryContext(ctx, args...)
	}
	return s.tx.QueryContext(ctx, query, args...)
}

// errEnded answers a tx that was kept after its function returned.
var errEnded = errors.New("the transaction has ended: its function returned")

// tx implements store.Tx for one caller.
type tx struct {
	reader
	q        steady
	now      time.Time
	revision int64
	changes  []store.Change
	events   map[string]int64 // the last of each subject, once one was appended
	ended    bool
	fault    func(op string, err error) error
	pages    *int  // of Store.since
	lost     error // the first failure of the disk: SQLite has rolled everything back
}

var _ store.Tx = (*tx)(nil)

// QueryContext is how the embedded reader reads.
func (t *tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if t.ended {
		return nil, errEnded
	}
	return t.q.QueryContext(ctx, query, args...)
}

func (t *tx) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.ended {
		return nil, errEnded
	}
	return t.q.ExecContext(ctx, query, args...)
}

// run executes fn in a savepoint. fnErr is the function's own error, err one of
// the database that spoils the whole group.
func (t *tx) run(ctx context.Context, fn func(tx store.Tx) error) (fnErr, err error) {
	if _, err := t.q.ExecContext(ctx, savepoint); err != nil {
		return nil, t.fault("savepoint", err)
	}
	fnErr = t.call(fn)
	t.ended = true
	if t.lost != nil { // whatever the function made of it
		return t.lost, t.lost
	}
	end := release
	if fnErr != nil {
		end = `ROLLBACK TO caller; RELEASE caller`
	}
	if _, err := t.q.ExecContext(ctx, end); err != nil {
		return fnErr, t.fault("end of savepoint", err)
	}
	return fnErr, nil
}

// failed names the operation and keeps in mind a failure of the disk.
func (t *tx) failed(op string, err error) error {
	err = t.fault(op, err)
	if t.lost == nil && volume.Blocked(err) {
		t.lost = err
	}
	return err
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
	_, err := t.exec(ctx, putRow,
		row.Kind, row.Key, row.Parent, row.State, row.Data, t.revision, now, now)
	if err != nil {
		return t.failed(fmt.Sprintf("put %s %s", row.Kind, row.Key), err)
	}
	*t.pages += 1 + len(row.Data)>>12
	t.changes = append(t.changes, store.Change{Kind: row.Kind, Key: row.Key})
	return nil
}

// Delete implements store.Tx.
func (t *tx) Delete(ctx context.Context, kind store.Kind, key string) error {
	res, err := t.exec(ctx, deleteRow, kind, key)
	if err != nil {
		return t.failed(fmt.Sprintf("delete %s %s", kind, key), err)
	}
	if n, err := res.RowsAffected(); err == nil && n > 0 {
		*t.pages++
		t.changes = append(t.changes, store.Change{Kind: kind, Key: key, Deleted: true})
	}
	return nil
}

// Append implements store.Tx.
func (t *tx) Append(ctx context.Context, subject, typ string, data []byte) error {
	if data == nil {
		data = []byte{}
	}
	seq, err := t.lastEvent(ctx, subject)
	if err == nil {
		_, err = t.exec(ctx, appendEvent, subject, seq+1, t.now.UnixNano(), typ, data)
	}
	if err != nil {
		return t.failed(fmt.Sprintf("append %s to %s", typ, subject), err)
	}
	t.events[subject] = seq + 1
	*t.pages += 1 + len(data)>>12
	t.changes = append(t.changes, store.Change{Kind: "event", Key: subject})
	return nil
}

// lastEvent is the number of a subject's last event; 0 = it has none.
func (t *tx) lastEvent(ctx context.Context, subject string) (seq int64, err error) {
	if seq, known := t.events[subject]; known {
		return seq, nil
	}
	rows, err := t.QueryContext(ctx, lastEvent, subject)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // rows.Err below reports what matters
	for rows.Next() {
		if err := rows.Scan(&seq); err != nil {
			return 0, err
		}
	}
	return seq, rows.Err()
}
