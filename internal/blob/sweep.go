package blob

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tategu/internal/store"
)

// Swept says what Sweep removed.
type Swept struct {
	Contents int // byte strings that no row named
	Uploads  int // uploads that expired
}

// sweepBatch is how many ids are looked up at once.
const sweepBatch = 200

// Sweep removes uploads that began longer than UploadLife ago, and content older
// than age that no row names: what a kill between writing bytes and writing their
// row, or between removing a row and removing its bytes, left behind. age must
// exceed the longest upload request.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (Swept, error) {
	var done Swept
	if err := s.sweepUploads(ctx, &done); err != nil {
		return done, err
	}
	if err := s.sweepMultiparts(ctx, &done); err != nil {
		return done, err
	}
	old := s.now().Add(-age)
	batch := make([]string, 0, sweepBatch)
	flush := func() error {
		n, err := s.sweepContents(ctx, batch)
		done.Contents += n
		batch = batch[:0]
		return err
	}
	err := s.content.Walk(ctx, func(id string, written time.Time) error {
		if strings.HasPrefix(id, logPrefix) || !written.Before(old) {
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

func (s *Store) sweepUploads(ctx context.Context, done *Swept) error {
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
		if err := s.cancelUpload(ctx, u); err != nil {
			return err
		}
		done.Uploads++
	}
	return nil
}

// sweepContents removes those of ids that are in no row's state.
func (s *Store) sweepContents(ctx context.Context, ids []string) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	named := map[string]bool{}
	for _, kind := range []store.Kind{kindObject, kindUpload, kindPart} {
		rows, err := s.rows.List(ctx, store.Query{Kind: kind, States: ids})
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			named[row.State] = true
		}
	}
	removed := 0
	for _, id := range ids {
		if named[id] {
			continue
		}
		if err := s.content.Remove(ctx, id); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
