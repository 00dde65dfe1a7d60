// Package sqlite keeps a store in one SQLite file (WAL, synchronous=FULL). One
// goroutine owns the writing connection: it runs the functions of all waiting
// callers inside savepoints of a single transaction and commits once for all of
// them, so that a commit's fsync is shared (group commit); where none of them waits for
// the disk there is none. Readers use a pool of
// read-only connections and never wait for the writer.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/volume"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers bounds concurrent read connections; each holds a page cache of readCache
// KB, which fills as the file grows and then stays. What it lacks the kernel has.
const readers, readCache = 4, 1000

// Store is a store.Store in a SQLite file.
type Store struct {
	reader
	write *sql.DB
	read  *sql.DB
	now   func() time.Time
	disk  *volume.Volume
	soon  bool // commits do not wait for the disk now; of the writer alone
	since int  // pages written, about, since the log was last looked at; of the writer alone

	compiled, hot *statements // of the readers, and of the writer

	requests chan request
	done     chan struct{} // closed when the writer goroutine has ended
	closing  chan struct{}
	once     sync.Once
	watch    hub
}

var _ store.Store = (*Store)(nil)

// Option changes what Open makes.
type Option func(*Store)

// OnVolume names the disk that the file is on: what fails there is told to it,
// and nothing is written once it is read-only.
func OnVolume(v *volume.Volume) Option { return func(s *Store) { s.disk = v } }

// WithClock gives the time of rows and events; without it, it is the system's.
func WithClock(now func() time.Time) Option { return func(s *Store) { s.now = now } }

// Open opens or creates the file, brings its schema up to date and starts the
// writer, which runs until Close.
func Open(ctx context.Context, path string, options ...Option) (*Store, error) {
	if err := migrate(ctx, path); err != nil {
		return nil, err
	}
	write, err := open(path, "rwc")
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := open(path, "ro")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	s := &Store{
		write: write, read: read, now: time.Now,
		requests: make(chan request, 256), done: make(chan struct{}), closing: make(chan struct{}),
	}
	for _, option := range options {
		option(s)
	}
	s.compiled, s.hot = newStatements(read), newStatements(write)
	for _, text := range hotTexts() {
		if _, err := s.hot.get(ctx, text); err != nil { //nolint:sqlclosecheck // Close closes all
			return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), read.Close(), write.Close())
		}
	}
	if err := s.keepLogRoom(ctx, path); err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	s.reader = reader{q: pool{db: read, compiled: s.compiled, closing: s.closing}}
	go s.runWriter()
	return s, nil
}

// pool reads while the store is open.
type pool struct {
	db       *sql.DB
	compiled *statements
	closing  <-chan struct{}
}

func (p pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	select {
	case <-p.closing:
		return nil, store.ErrClosed
	default:
	}
	st, err := p.compiled.get(ctx, query) //nolint:sqlclosecheck // Close closes all
	switch {
	case err != nil:
		return nil, err
	case st == nil:
		return p.db.QueryContext(ctx, query, args...)
	}
	return st.QueryContext(ctx, args...)
}

func open(path, mode string) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)",
		"wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", logLimit), // see checkpoint.go
	}, "_txlock": {"immediate"}}
	if mode == "ro" {
		q["_pragma"] = []string{"busy_timeout(10000)", "query_only(1)", fmt.Sprintf("cache_size(-%d)", readCache)}
		q.Del("_txlock")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return db, nil
}

func migrate(ctx context.Context, path string) error {
	db, err := open(path, "rwc")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // migrations are committed; nothing is buffered
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrate store: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("migrate store: %w", err)
	}
	// An older program must not write what a newer one keeps in another form.
	switch is, known, err := p.GetVersions(ctx); {
	case err != nil:
		return fmt.Errorf("migrate store %s: %w", path, err)
	case is > known:
		return resource.Errorf(codes.FailedPrecondition, "%s has schema %d, made by a newer tategu; this one knows schemas up to %d", path, is, known).
			WithHint("start the newer tategu, or restore a backup made by this one")
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate store %s: %w", path, err)
	}
	return nil
}

// Close commits what is queued, stops the writer and closes the file.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closing) })
	<-s.done
	s.watch.closeAll()
	return errors.Join(s.compiled.close(), s.hot.close(), s.read.Close(), s.write.Close())
}

// Watch implements store.Store.
func (s *Store) Watch(kinds ...store.Kind) store.Watcher { return s.watch.add(kinds) }
