// Package sqlite is a warehouse in a file.
package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	_ "modernc.org/sqlite" // the driver

	"tategu/internal/warehouse"
	"tategu/internal/warehouse/load"
)

// Warehouse is a file.
type Warehouse struct{ db *load.DB }

// Open names the file; it is made when it is first written.
func Open(path string) (*Warehouse, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the warehouse %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // there is one writer anyway
	return &Warehouse{&load.DB{DB: db, Dialect: load.Dialect{
		Types:  map[warehouse.Type]string{warehouse.Text: "TEXT", warehouse.Integer: "INTEGER", warehouse.Double: "REAL", warehouse.JSON: "TEXT"},
		Param:  func(int) string { return "?" },
		Exists: `SELECT count(*) FROM sqlite_master WHERE ?1 IN ('', 'main') AND type IN ('table', 'view') AND name = ?2 COLLATE NOCASE`,
		Put:    put,
	}}}, nil
}

func put(ctx context.Context, tx *sql.Tx, t warehouse.Table) (func([]any) error, func() error, error) {
	stmt, err := tx.PrepareContext(ctx, "INSERT INTO "+load.QuoteTable(t)+" VALUES (?"+strings.Repeat(", ?", len(t.Columns)-1)+")") //nolint:gosec,sqlclosecheck // a quoted name; the caller closes it
	if err != nil {
		return nil, nil, err
	}
	return func(values []any) error {
		_, err := stmt.ExecContext(ctx, values...)
		return err
	}, stmt.Close, nil
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
