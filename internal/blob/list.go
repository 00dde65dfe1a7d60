package blob

import (
	"context"
	"strings"

	"tategu/internal/store"
)

// defaultPage is the page size when none is asked, as the cloud's.
const defaultPage = 1000

// minBatch is how many rows are read at first. Where names share prefixes, rows
// behind the first of a prefix are useless, so that batches grow only while the
// rows that they bring are used.
const minBatch = 8

// List gives one page of a bucket's live objects. With a delimiter, names that
// share a prefix up to it are given as that prefix, once; the rows behind are
// skipped by seeking, so that a page costs what it shows and not what it hides.
func (s *Store) List(ctx context.Context, bucket string, q ListQuery) (ListPage, error) {
	if _, err := s.GetBucket(ctx, bucket); err != nil {
		return ListPage{}, err
	}
	if q.Limit <= 0 || q.Limit > defaultPage {
		q.Limit = defaultPage
	}
	w := lister{bucket: bucket, q: q, batch: minBatch}
	if q.Delimiter == "" {
		w.batch = q.Limit + 1
	}
	w.seek()
	for !w.done {
		if err := w.step(ctx, s.rows); err != nil {
			return ListPage{}, err
		}
	}
	return w.page, nil
}

// lister walks rows from a position: either at a name, or after it.
type lister struct {
	bucket string
	q      ListQuery
	batch  int

	from  string // the least name that may come next
	after bool   // from itself may not come
	done  bool
	page  ListPage
	last  string // last name or prefix given: the token of the next page
}

// seek sets the position of the first row.
func (w *lister) seek() {
	w.from = max(w.q.Prefix, w.q.StartOffset)
	if w.q.After == "" || w.q.After < w.from {
		return
	}
	if p := w.commonPrefix(w.q.After); p != "" {
		w.skip(p)
		return
	}
	w.from, w.after = w.q.After, true
}

// skip moves behind all names that start with p.
func (w *lister) skip(p string) {
	end := store.PrefixEnd(p)
	if end == "" || w.q.Prefix != "" && !strings.HasPrefix(end, w.q.Prefix) {
		w.done = true
		return
	}
	w.from, w.after = end, false
}

// commonPrefix is the name up to the first delimiter after the query's prefix,
// or "" when the name stands for itself.
func (w *lister) commonPrefix(name string) string {
	if w.q.Delimiter == "" || !strings.HasPrefix(name, w.q.Prefix) {
		return ""
	}
	i := strings.Index(name[len(w.q.Prefix):], w.q.Delimiter)
	if i < 0 {
		return ""
	}
	return name[:len(w.q.Prefix)+i+len(w.q.Delimiter)]
}

// step reads one batch of rows and takes from it what it can.
func (w *lister) step(ctx context.Context, r store.Reader) error {
	q := store.Query{Kind: kindObject, Prefix: objectKey(w.bucket, w.q.Prefix), Limit: w.batch}
	if w.after {
		q.After = objectKey(w.bucket, w.from)
	} else {
		q.From = objectKey(w.bucket, w.from)
	}
	rows, err := r.List(ctx, q)
	if err != nil {
		return err
	}
	used, skipped := 0, ""
	for _, row := range rows {
		name := row.Key[len(w.bucket)+1:]
		if skipped != "" && strings.HasPrefix(name, skipped) {
			continue
		}
		skipped = ""
		if w.full(name) {
			return nil
		}
		used++
		if err := w.take(name, row); err != nil {
			return err
		}
		if p := w.commonPrefix(name); p != "" {
			skipped = p
		} else {
			w.from, w.after = name, true
		}
	}
	if skipped != "" {
		w.skip(skipped)
	}
	if len(rows) < w.batch {
		w.done = true
	}
	w.batch = min(max(2*used, minBatch), w.q.Limit+1)
	return nil
}

// full ends the page before name when name is beyond it or the page is full.
func (w *lister) full(name string) bool {
	if w.q.EndOffset != "" && name >= w.q.EndOffset {
		w.done = true
		return true
	}
	if len(w.page.Objects)+len(w.page.Prefixes) >= w.q.Limit {
		w.page.Next, w.done = w.last, true
		return true
	}
	return false
}

func (w *lister) take(name string, row store.Row) error {
	if p := w.commonPrefix(name); p != "" {
		w.last = p
		w.page.Prefixes = append(w.page.Prefixes, p)
		if !w.q.IncludeTrailingDelimiter || p != name {
			return nil
		}
	} else {
		w.last = name
	}
	o, err := rowObject(row)
	if err != nil {
		return err
	}
	w.page.Objects = append(w.page.Objects, o)
	return nil
}
