package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// querier is the part of sql.DB and sql.Tx that reading needs.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
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
	row, err := scan(r.q.QueryRowContext(ctx, `SELECT `+columns+` FROM row WHERE kind = ? AND key = ?`, kind, key))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Row{}, resource.NotFound(key)
	}
	if err != nil {
		return store.Row{}, fmt.Errorf("get %s %s: %w", kind, key, err)
	}
	return row, nil
}

// List implements store.Reader.
func (r reader) List(ctx context.Context, q store.Query) ([]store.Row, error) {
	where, args := conditions(q)
	order := map[store.Order]string{store.ByKey: "key", store.ByCreated: "created, key", store.ByNewest: "created DESC, key DESC"}[q.Order]
	limit := q.Limit
	if limit == 0 {
		limit = -1
	}
	query := `SELECT ` + columns + ` FROM row WHERE ` + where + ` ORDER BY ` + order + ` LIMIT ? OFFSET ?`
	rows, err := r.q.QueryContext(ctx, query, append(args, limit, q.Offset)...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", q.Kind, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below reports what matters
	var out []store.Row
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", q.Kind, err)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", q.Kind, err)
	}
	return out, nil
}

func conditions(q store.Query) (string, []any) {
	conds, args := []string{"kind = ?"}, []any{q.Kind}
	add := func(cond string, arg any) {
		conds, args = append(conds, cond), append(args, arg)
	}
	if q.Parent != "" {
		add("parent = ?", q.Parent)
	}
	if q.Prefix != "" {
		add("key >= ?", q.Prefix)
		if end := store.PrefixEnd(q.Prefix); end != "" {
			add("key < CAST(? AS TEXT)", []byte(end))
		}
	}
	if q.After != "" {
		add("key > ?", q.After)
	}
	if q.From != "" {
		add("key >= ?", q.From)
	}
	if q.Beyond != nil {
		cmp := map[store.Order]string{store.ByCreated: ">", store.ByNewest: "<"}[q.Order]
		conds = append(conds, "(created, key) "+cmp+" (?, ?)")
		args = append(args, q.Beyond.Created.UnixNano(), q.Beyond.Key)
	}
	if len(q.States) > 0 {
		conds = append(conds, "state IN (?"+strings.Repeat(", ?", len(q.States)-1)+")")
		for _, s := range q.States {
			args = append(args, s)
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
