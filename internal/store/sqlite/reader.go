package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// querier is the part of sql.DB and tx that reading needs.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// reader implements store.Reader over a connection pool or a transaction.
type reader struct{ q querier }

const columns = `kind, key, parent, state, data, revision, created, updated`

type scanner interface{ Scan(dest ...any) error }

func scan(s scanner) (store.Row, error) {
	var r store.Row
	var created, updated int64
	err := s.Scan(&r.Kind, &r.Key, &r.Parent, &r.State, &r.Data, &r.Revision, &created, &updated)
	r.Created, r.Updated = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	return r, err
}

// Get implements store.Reader.
func (r reader) Get(ctx context.Context, kind store.Kind, key string) (store.Row, error) {
	rows, err := r.rows(ctx, selectRow, kind, key)
	switch {
	case err != nil:
		return store.Row{}, fmt.Errorf("get %s %s: %w", kind, key, err)
	case len(rows) == 0:
		return store.Row{}, resource.NotFound(key)
	}
	return rows[0], nil
}

// List implements store.Reader.
func (r reader) List(ctx context.Context, q store.Query) ([]store.Row, error) {
	if q.Order < store.ByKey || q.Order > store.ByNewest || q.Beyond != nil && q.Order == store.ByKey {
		return nil, fmt.Errorf("list %s: order %d does not go with the query", q.Kind, q.Order)
	}
	query, args := listSQL(q)
	rows, err := r.rows(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", q.Kind, err)
	}
	return rows, nil
}

func (r reader) rows(ctx context.Context, query string, args ...any) ([]store.Row, error) {
	rows, err := r.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err below reports what matters
	var out []store.Row
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

func listSQL(q store.Query) (string, []any) {
	where, args := conditions(q)
	order := []string{store.ByKey: "key", store.ByCreated: "created, key", store.ByNewest: "created DESC, key DESC"}[q.Order]
	limit := q.Limit
	if limit == 0 {
		limit = -1
	}
	return `SELECT ` + columns + ` FROM ` + source(q) + ` WHERE ` + where + ` ORDER BY ` + order + ` LIMIT ? OFFSET ?`, append(args, limit, q.Offset)
}

// source is the table, with the index of states or of parents where the query
// names nothing narrower: left alone, SQLite reads the whole kind to spare itself
// the sorting.
func source(q store.Query) string {
	byState := len(q.States) > 0 && !slices.Contains(q.States, "")
	switch {
	case byState && q.Prefix != "" && q.Parent == "" && q.After == "" && q.From == "" && q.Beyond == nil:
		return "row INDEXED BY row_state" // whose entries go on with the key
	case q.Prefix != "" || q.After != "" || q.From != "" || q.Beyond != nil:
		return "row"
	case q.Parent != "":
		return "row INDEXED BY row_parent"
	case byState:
		return "row INDEXED BY row_state"
	}
	return "row"
}

func conditions(q store.Query) (string, []any) {
	conds, args := []string{"kind = ?"}, []any{q.Kind}
	add := func(cond string, arg any) {
		conds, args = append(conds, cond), append(args, arg)
	}
	if q.Parent != "" {
		add("parent = ?", q.Parent)
	}
	// One lower bound: of two, SQLite seeks to one and steps over rows to the other.
	from, compare := max(q.Prefix, q.From), "key >= ?"
	if q.After != "" && q.After >= from {
		from, compare = q.After, "key > ?"
	}
	if from != "" {
		add(compare, from)
	}
	if end := store.PrefixEnd(q.Prefix); end != "" {
		add("key < ?", end)
	}
	if q.Beyond != nil {
		compare := ">"
		if q.Order == store.ByNewest {
			compare = "<"
		}
		conds = append(conds, "(created, key) "+compare+" (?, ?)")
		args = append(args, q.Beyond.Created.UnixNano(), q.Beyond.Key)
	}
	if len(q.States) > 0 {
		conds = append(conds, "state IN (?"+strings.Repeat(", ?", len(q.States)-1)+")")
		for _, s := range q.States {
			args = append(args, s)
		}
		if !slices.Contains(q.States, "") {
			conds = append(conds, "state <> ''") // says that the partial index row_state will do
		}
	}
	return strings.Join(conds, " AND "), args
}

// Events implements store.Reader.
func (r reader) Events(ctx context.Context, subject string, after int64, limit int) ([]store.Event, error) {
	if limit == 0 {
		limit = -1
	}
	rows, err := r.q.QueryContext(ctx, `SELECT seq, time, type, data FROM event WHERE subject = ? AND seq > ? ORDER BY seq LIMIT ?`, subject, after, limit)
	if err != nil {
		return nil, fmt.Errorf("events of %s: %w", subject, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below reports what matters
	var out []store.Event
	for rows.Next() {
		e := store.Event{Subject: subject}
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Type, &e.Data); err != nil {
			return nil, fmt.Errorf("events of %s: %w", subject, err)
		}
		e.Time = time.Unix(0, at).UTC()
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("events of %s: %w", subject, err)
	}
	return out, nil
}
