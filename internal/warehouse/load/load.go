// Package load is what the adapters of package warehouse share: the bookkeeping of
// loads in the database itself, so that it is in the transactions of what it is about.
package load

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/warehouse"
)

// Dialect is in what databases differ.
type Dialect struct {
	Types map[warehouse.Type]string
	// Param names the nth parameter, from 1.
	Param func(n int) string
	// Exists is a query with the parameters schema and name whether a table is there.
	Exists string
	// Put begins to write rows into a table; put is called for each, then done.
	Put func(ctx context.Context, tx *sql.Tx, table warehouse.Table) (put func(values []any) error, done func() error, err error)
	// Lock serializes the transactions of a load with each other; nil = they are anyway.
	Lock func(ctx context.Context, tx *sql.Tx, id string) error
}

// DB is a database with its dialect.
type DB struct {
	*sql.DB

	Dialect Dialect
}

// book is the table of what was loaded: a row for each part, and committed for a load
// that is complete.
const (
	book      = "tategu_loads"
	committed = -1
)

// Quote quotes a name.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// QuoteTable quotes the name of a table with its schema.
func QuoteTable(t warehouse.Table) string {
	if t.Schema == "" {
		return Quote(t.Name)
	}
	return Quote(t.Schema) + "." + Quote(t.Name)
}

// Load implements warehouse.Load.
type Load struct {
	db     *DB
	id     string
	tables []warehouse.Table
	stage  []warehouse.Table
	over   bool // committed by an earlier server
}

// load names the tables in which a load is made.
func (d *DB) load(id string, tables []warehouse.Table) (*Load, error) {
	l := &Load{db: d, id: id, tables: tables}
	sum := sha256.Sum256([]byte(id))
	for i, t := range tables {
		for _, name := range []string{t.Name, t.Schema} {
			if err := warehouse.CheckName(name); err != nil && name != "" {
				return nil, err
			}
		}
		stage := t
		stage.Name = fmt.Sprintf("tategu_stage_%s_%d", hex.EncodeToString(sum[:8]), i)
		l.stage = append(l.stage, stage)
	}
	return l, nil
}

// Begin implements warehouse.Warehouse.
func (d *DB) Begin(ctx context.Context, id string, tables ...warehouse.Table) (*Load, error) {
	l, err := d.load(id, tables)
	if err != nil {
		return nil, err
	}
	if err := d.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+book+` (load TEXT NOT NULL, part BIGINT NOT NULL, PRIMARY KEY (load, part))`)
		return err
	}); err != nil {
		// Two servers that begin at once make the same table: then it is there.
		if _, missing := d.ExecContext(ctx, `SELECT 1 FROM `+book+` WHERE 1 = 0`); missing != nil {
			return nil, err
		}
	}
	return l, d.transact(ctx, l.begin(ctx))
}

func (l *Load) begin(ctx context.Context) func(*sql.Tx) error {
	return func(tx *sql.Tx) (err error) {
		if err := l.lock(ctx, tx); err != nil {
			return err
		}
		if l.over, err = l.has(ctx, tx, committed); err != nil || l.over {
			return err
		}
		for i, t := range l.tables {
			there, err := l.exists(ctx, tx, t)
			if err != nil {
				return err
			}
			if there {
				return resource.Errorf(codes.AlreadyExists, "the table %s exists already", t.Name).WithCause(resource.CauseInput).
					WithHint("name another one, or drop it: a job makes its table")
			}
			if there, err = l.exists(ctx, tx, l.stage[i]); err != nil {
				return err
			}
			if there {
				continue
			}
			columns := make([]string, len(t.Columns))
			for k, c := range t.Columns {
				columns[k] = Quote(c.Name) + " " + l.db.Dialect.Types[c.Type]
			}
			if _, err := tx.ExecContext(ctx, "CREATE TABLE "+QuoteTable(l.stage[i])+" ("+strings.Join(columns, ", ")+")"); err != nil {
				return fmt.Errorf("create the table: %w", err)
			}
		}
		return nil
	}
}

func (l *Load) lock(ctx context.Context, tx *sql.Tx) error {
	if l.db.Dialect.Lock == nil {
		return nil
	}
	return l.db.Dialect.Lock(ctx, tx, l.id)
}

func (l *Load) exists(ctx context.Context, tx *sql.Tx, t warehouse.Table) (bool, error) {
	var n int
	err := tx.QueryRowContext(ctx, l.db.Dialect.Exists, t.Schema, t.Name).Scan(&n)
	return n > 0, err
}

// has reports a mark of the book.
func (l *Load) has(ctx context.Context, tx *sql.Tx, part int) (bool, error) {
	var n int
	p := l.db.Dialect.Param
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+book+` WHERE load = `+p(1)+` AND part = `+p(2), l.id, part).Scan(&n)
	return n > 0, err
}

func (l *Load) mark(ctx context.Context, tx *sql.Tx, part int) error {
	p := l.db.Dialect.Param
	_, err := tx.ExecContext(ctx, `INSERT INTO `+book+` (load, part) VALUES (`+p(1)+`, `+p(2)+`)`, l.id, part) //nolint:gosec // only the names of parameters are put in
	return err
}

// Part implements warehouse.Load.
func (l *Load) Part(ctx context.Context, n int, rows func(put func(warehouse.Row) error) error) error {
	if l.over {
		return nil
	}
	return l.db.transact(ctx, func(tx *sql.Tx) error {
		if err := l.lock(ctx, tx); err != nil {
			return err
		}
		if there, err := l.has(ctx, tx, n); err != nil || there {
			return err
		}
		if err := l.mark(ctx, tx, n); err != nil {
			return err
		}
		open, done := -1, func() error { return nil }
		var put func([]any) error
		err := rows(func(r warehouse.Row) (err error) {
			if r.Table != open { // one at a time: rows of a table come together
				if err := done(); err != nil {
					return err
				}
				open = r.Table
				if put, done, err = l.db.Dialect.Put(ctx, tx, l.stage[open]); err != nil {
					return err
				}
			}
			return put(r.Values)
		})
		return errors.Join(err, done())
	})
}

// Commit implements warehouse.Load.
func (l *Load) Commit(ctx context.Context) error {
	return l.db.transact(ctx, func(tx *sql.Tx) error {
		if err := l.lock(ctx, tx); err != nil {
			return err
		}
		if over, err := l.has(ctx, tx, committed); err != nil || over {
			return err
		}
		for i, t := range l.tables {
			if _, err := tx.ExecContext(ctx, "ALTER TABLE "+QuoteTable(l.stage[i])+" RENAME TO "+Quote(t.Name)); err != nil {
				return fmt.Errorf("name the table %s: %w", t.Name, err)
			}
		}
		if err := l.forget(ctx, tx); err != nil {
			return err
		}
		return l.mark(ctx, tx, committed)
	})
}

func (l *Load) forget(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM `+book+` WHERE load = `+l.db.Dialect.Param(1), l.id) //nolint:gosec // only the names of parameters are put in
	return err
}

// Abort implements warehouse.Warehouse.
func (d *DB) Abort(ctx context.Context, id string, tables ...warehouse.Table) error {
	l, err := d.load(id, tables)
	if err != nil {
		return err
	}
	return d.transact(ctx, func(tx *sql.Tx) error {
		if there, err := l.exists(ctx, tx, warehouse.Table{Name: book}); err != nil || !there {
			return err
		}
		if err := l.lock(ctx, tx); err != nil {
			return err
		}
		if over, err := l.has(ctx, tx, committed); err != nil || over {
			return err
		}
		for _, t := range l.stage {
			if _, err := tx.ExecContext(ctx, "DROP TABLE IF EXISTS "+QuoteTable(t)); err != nil {
				return err
			}
		}
		return l.forget(ctx, tx)
	})
}

// transact runs fn in a transaction. What the database says is told as its own fault.
func (d *DB) transact(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return failed(err)
	}
	if err := fn(tx); err != nil {
		return failed(errors.Join(err, rolledBack(tx.Rollback())))
	}
	return failed(tx.Commit())
}

func rolledBack(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil // the driver did it
	}
	return err
}

// failed makes an error of a database one that says whose turn it is.
func failed(err error) error {
	if _, ours := errors.AsType[*resource.Error](err); err == nil || ours {
		return err
	}
	return resource.Errorf(codes.Unavailable, "the warehouse: %w", err).WithCause(resource.CauseDependency).
		WithHint("look whether the database of `warehouses` in the configuration is there and takes writes")
}
