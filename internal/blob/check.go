package blob

import (
	"context"
	"errors"
	"io"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Checked says what CheckContents read.
type Checked struct {
	Objects int   // generations of every kind
	Bytes   int64 // of them
	Damaged int
}

// CheckContents reads the content of every generation, live, noncurrent and
// soft-deleted, against its size and CRC32C, and tells damaged of those that are
// not as they were written, or not there.
func (s *Store) CheckContents(ctx context.Context, damaged func(Object, error)) (Checked, error) {
	var done Checked
	for _, kind := range []store.Kind{kindObject, kindVersion, kindSoft} {
		err := s.scan(ctx, kind, func(rows []store.Row) error {
			for _, row := range rows {
				o, err := rowObject(row)
				if err != nil {
					return err
				}
				err = s.checkContent(ctx, o)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil && s.changed(ctx, row) {
					continue // overwritten or deleted while it was read
				}
				done.Objects, done.Bytes = done.Objects+1, done.Bytes+o.Size
				if err != nil {
					done.Damaged++
					damaged(o, err)
				}
			}
			return nil
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *Store) checkContent(ctx context.Context, o Object) error {
	r, err := s.Open(ctx, o, 0, -1)
	if resource.IsNotFound(err) {
		return lost(o)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// changed reports that a row is not what it was.
func (s *Store) changed(ctx context.Context, was store.Row) bool {
	row, err := s.rows.Get(ctx, was.Kind, was.Key)
	return resource.IsNotFound(err) || err == nil && row.State != was.State
}
