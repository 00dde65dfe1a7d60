// Package warehouse is the port for tables of a database of the user's own, into which
// results go. A load is a set of tables that appear whole, once: its parts may be
// written in any order, by several servers after each other, some of which were killed.
// Adapters are children (sqlite, postgres); warehousetest is the contract that they all
// pass.
package warehouse

import (
	"context"
	"regexp"

	"tategu/internal/resource"
)

// Type of a column.
type Type int

// Types. Values are string, int64, float64 and string; nil is NULL.
const (
	Text    Type = iota
	Integer      // 64 bits
	Double       // 64 bits
	JSON         // its text
)

// Column of a table.
type Column struct {
	Name string
	Type Type
}

// Table that a load makes. Schema "" is the database's default.
type Table struct {
	Schema, Name string
	Columns      []Column
}

// nameLength is what PostgreSQL keeps of a name.
const nameLength = 63

// CheckName refuses names that would have to be quoted by whoever uses the table.
func CheckName(name string) error {
	if ok, err := regexp.MatchString(`^[A-Za-z_][A-Za-z0-9_]*$`, name); err != nil || !ok || len(name) > nameLength {
		return resource.Invalid("table", "%q is no name of a table: want up to %d letters, digits and _", name, nameLength)
	}
	return nil
}

// Row is one row of the table with that number.
type Row struct {
	Table  int
	Values []any
}

// Load is the making of some tables.
type Load interface {
	// Part writes all rows that rows gives, or none. A part that was written before, by
	// whomever, is not written again.
	Part(ctx context.Context, n int, rows func(put func(Row) error) error) error
	// Commit gives the tables their names, in one transaction. Doing it again changes
	// nothing.
	Commit(ctx context.Context) error
}

// Warehouse is one database.
type Warehouse interface {
	// Begin starts the load with an id, or goes on with it. A table of that name that
	// another load made, or anybody else, is AlreadyExists.
	Begin(ctx context.Context, id string, tables ...Table) (Load, error)
	// Abort removes what the load with an id has written, if it was begun and is not
	// committed. Whoever begins it again has to write all its parts again.
	Abort(ctx context.Context, id string, tables ...Table) error
	Close() error
}
