// Package postgres is a warehouse in PostgreSQL.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/lib/pq"

	"tategu/internal/warehouse"
	"tategu/internal/warehouse/load"
)

// connections that loads hold at most.
const connections = 4

// Warehouse is a database.
type Warehouse struct{ db *load.DB }

// Open names the database by a URL or a list of settings (libpq's); nothing is
// connected before it is needed.
func Open(dsn string) (*Warehouse, error) {
	connector, err := pq.NewConnector(dsn)
	if _, unread := errors.AsType[*url.Error](err); unread { // it quotes the address, and the password in it
		return nil, errors.New("the address of a PostgreSQL warehouse is not a URL: want postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes for what else is in the password")
	}
	if err != nil {
		return nil, fmt.Errorf("the address of a PostgreSQL warehouse: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetConnMaxIdleTime(time.Minute)
	return &Warehouse{&load.DB{DB: db, Dialect: load.Dialect{
		Types:  map[warehouse.Type]string{warehouse.Text: "TEXT", warehouse.Integer: "BIGINT", warehouse.Double: "DOUBLE PRECISION", warehouse.JSON: "JSON"},
		Param:  func(n int) string { return fmt.Sprintf("$%d", n) },
		Exists: `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = coalesce(nullif($1::text, ''), current_schema()) AND c.relname = $2::text`,
		Put:    put, Lock: lock,
	}}}, nil
}

// lock keeps two servers, of which one is being killed, off each other's part.
func lock(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext($1))`, "tategu "+id)
	return err
}

func put(ctx context.Context, tx *sql.Tx, t warehouse.Table) (func([]any) error, func() error, error) {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = load.Quote(c.Name)
	}
	stmt, err := tx.PrepareContext(ctx, "COPY "+load.QuoteTable(t)+" ("+strings.Join(names, ", ")+") FROM STDIN")
	if err != nil {
		return nil, nil, err
	}
	put := func(values []any) error {
		_, err := stmt.ExecContext(ctx, values...)
		return err
	}
	return put, func() error {
		if _, err := stmt.ExecContext(ctx); err != nil {
			return err
		}
		return stmt.Close()
	}, nil
}

// Begin implements warehouse.Warehouse.
func (w *Warehouse) Begin(ctx context.Context, id string, tables ...warehouse.Table) (warehouse.Load, error) {
	return w.db.Begin(ctx, id, tables...)
}

// Abort implements warehouse.Warehouse.
func (w *Warehouse) Abort(ctx context.Context, id string, tables ...warehouse.Table) error {
	return w.db.Abort(ctx, id, tables...)
}

// Close implements warehouse.Warehouse.
func (w *Warehouse) Close() error { return w.db.Close() }
