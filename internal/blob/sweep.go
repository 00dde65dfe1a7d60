package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"tategu/internal/store"
)

// Swept says what Sweep removed.
type Swept struct {
	Contents int   // byte strings that no row named
	Uploads  int   // uploads that expired
	Objects  int   // soft-deleted objects whose time to be restored ended
	Events   int   // events that nobody took
	Bytes    int64 // of all these contents; what copies share is counted for each
}

// sweepBatch is how many ids are looked up at once.
const sweepBatch = 200

// Sweep removes uploads that began longer than UploadLife ago, and content older
// than age that no row names: what a kill between writing bytes and writing their
// row, or between removing a row and removing its bytes, left behind. age must
// exceed the longest upload request. Soft-deleted objects go when their time has
// come, events after EventLife.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (Swept, error) {
	return s.sweep(ctx, age, false)
}

// SweepDry tells what Sweep would remove. Contents that come free only because an
// expired upload or object goes are not among its Contents.
func (s *Store) SweepDry(ctx context.Context, age time.Duration) (Swept, error) {
	return s.sweep(ctx, age, true)
}

func (s *Store) sweep(ctx context.Context, age time.Duration, dry bool) (Swept, error) {
	var done Swept
	if err := s.sweepUploads(ctx, &done, dry); err != nil {
		return done, err
	}
	if err := s.sweepMultiparts(ctx, &done, dry); err != nil {
		return done, err
	}
	if err := s.sweepSoftDeleted(ctx, &done, dry); err != nil {
		return done, err
	}
	if err := s.sweepEvents(ctx, &done, dry); err != nil {
		return done, err
	}
	old := s.now().Add(-age)
	batch := make([]string, 0, sweepBatch)
	flush := func() error {
		err := s.sweepContents(ctx, batch, &done, dry)
		batch = batch[:0]
		return err
	}
	err := s.content.Walk(ctx, func(id string, written time.Time) error {
		if strings.HasPrefix(id, LogPrefix) || !written.Before(old) {
			return nil
		}
		if batch = append(batch, id); len(batch) < sweepBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return done, fmt.Errorf("sweep: %w", err)
	}
	return done, flush()
}

func (s *Store) sweepUploads(ctx context.Context, done *Swept, dry bool) error {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindUpload})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Created.After(s.now().Add(-UploadLife)) {
			continue
		}
		u, err := s.GetUpload(ctx, row.Key)
		if err != nil {
			return err
		}
		if !u.Finished {
			done.Bytes += u.Received
		}
		done.Uploads++
		if dry {
			continue
		}
		if err := s.cancelUpload(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// scan calls fn for the rows of a kind, a batch at a time.
func (s *Store) scan(ctx context.Context, kind store.Kind, fn func([]store.Row) error) error {
	for after := ""; ; {
		rows, err := s.rows.List(ctx, store.Query{Kind: kind, After: after, Limit: sweepBatch})
		if err != nil || len(rows) == 0 {
			return err
		}
		after = rows[len(rows)-1].Key
		if err := fn(rows); err != nil {
			return err
		}
	}
}

func (s *Store) sweepSoftDeleted(ctx context.Context, done *Swept, dry bool) error {
	return s.scan(ctx, kindSoft, func(rows []store.Row) error {
		for _, row := range rows {
			o, err := rowObject(row)
			if err != nil {
				return err
			}
			if o.HardDelete.After(s.now()) {
				continue
			}
			done.Objects, done.Bytes = done.Objects+1, done.Bytes+o.Size
			if dry {
				continue
			}
			if err := s.rows.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, kindSoft, row.Key) }); err != nil {
				return err
			}
			s.discard(ctx, o.Content)
		}
		return nil
	})
}

func (s *Store) sweepEvents(ctx context.Context, done *Swept, dry bool) error {
	return s.scan(ctx, kindEvent, func(rows []store.Row) error {
		rows = slices.DeleteFunc(rows, func(row store.Row) bool { return row.Created.After(s.now().Add(-EventLife)) })
		if len(rows) == 0 {
			return nil
		}
		if done.Events += len(rows); dry {
			return nil
		}
		return s.rows.Update(ctx, func(tx store.Tx) error {
			for _, row := range rows {
				if err := tx.Delete(ctx, kindEvent, row.Key); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// sweepContents removes those of ids that are in no row's state.
func (s *Store) sweepContents(ctx context.Context, ids []string, done *Swept, dry bool) error {
	if len(ids) == 0 || !dry && s.held.any() {
		return nil
	}
	named := map[string]bool{}
	for _, kind := range contentKinds() {
		rows, err := s.rows.List(ctx, store.Query{Kind: kind, States: ids})
		if err != nil {
			return err
		}
		for _, row := range rows {
			named[row.State] = true
		}
	}
	for _, id := range ids {
		if named[id] {
			continue
		}
		size, err := s.content.Size(ctx, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err == nil && !dry {
			err = s.content.Remove(ctx, id)
		}
		if err != nil {
			return err
		}
		done.Contents, done.Bytes = done.Contents+1, done.Bytes+size
	}
	return nil
}
