package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// snapshotPages is how much is copied between two looks at the context.
const snapshotPages = 1024

// Snapshot writes a copy of everything that is committed now into a new file, by
// SQLite's backup interface, while writers go on. The caller syncs the file.
func (s *Store) Snapshot(ctx context.Context, path string, progress func(done, total int)) (err error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// In a transaction of its own the copy is of one moment; without it, a commit
	// by the writer would let it start again.
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT last FROM revision`).Scan(&n); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return conn.Raw(func(driver any) error { return copyPages(ctx, driver, path, progress) })
}

func copyPages(ctx context.Context, driver any, path string, progress func(done, total int)) (err error) {
	source, ok := driver.(interface {
		NewBackup(target string) (*sqlite.Backup, error)
	})
	if !ok {
		return errors.New("snapshot: the driver has no backup")
	}
	b, err := source.NewBackup((&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, b.Finish()) }()
	for {
		more, err := b.Step(snapshotPages)
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		progress(b.PageCount()-b.Remaining(), b.PageCount())
		if !more {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Snapshot is a file that nobody writes, such as the copy by Store.Snapshot.
type Snapshot struct {
	reader
	db *sql.DB
}

var _ store.Reader = (*Snapshot)(nil)

// OpenSnapshot opens a file as it is; nothing beside it is made.
func OpenSnapshot(path string) (*Snapshot, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	q := url.Values{"mode": {"ro"}, "immutable": {"1"}, "_pragma": {"query_only(1)", "temp_store(MEMORY)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", path, err)
	}
	return &Snapshot{reader: reader{q: db}, db: db}, nil
}

// Schema is the number of the last migration.
func (s *Snapshot) Schema(ctx context.Context) (version int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("schema of the snapshot: %w", err)
	}
	return version, nil
}

// Check reads the whole file for damage.
func (s *Snapshot) Check(ctx context.Context) error {
	var result string
	if err := s.db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&result); err != nil {
		return fmt.Errorf("check the state: %w", err)
	}
	if result != "ok" {
		return resource.Errorf(15, "the state is damaged: %s", result)
	}
	return nil
}

// NewestSchema is the number of the last migration that this program knows.
func NewestSchema() (newest int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	for _, f := range files {
		n, err := goose.NumericComponent(f)
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", f, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// Close lets go of the file.
func (s *Snapshot) Close() error { return s.db.Close() }
