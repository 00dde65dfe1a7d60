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
const minBatch = 2

// maxScan bounds the rows that one page may look at: a pattern that matches
// little gives short pages with a token instead of one endless request.
const maxScan = 20_000

// List gives one page of a bucket's objects. With a delimiter, names that share a
// prefix up to it are given as that prefix, once; the rows behind are skipped by
// seeking, so that a page costs what it shows and not what it hides.
func (s *Store) List(ctx context.Context, bucket string, q ListQuery) (ListPage, error) {
	b, err := s.GetBucket(ctx, bucket)
	if err != nil {
		return ListPage{}, err
	}
	if q.Limit <= 0 || q.Limit > defaultPage {
		q.Limit = defaultPage
	}
	w := lister{bucket: b, q: q, batch: minBatch}
	if q.MatchGlob != "" {
		if w.glob, err = ParseGlob(q.MatchGlob); err != nil {
			return ListPage{}, err
		}
	}
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

// position is a place between generations in the order of lists.
type position struct {
	name       string // the least name that may come next
	after      bool   // name itself may not come, beyond generation
	generation int64  // with after: generations of name greater than this may come; 0 = none
}

// lister walks rows from a position.
type lister struct {
	bucket Bucket
	q      ListQuery
	glob   *Glob
	batch  int
	seen   int

	at   position
	done bool
	page ListPage
	last position // what was given last: the token of the next page
}

// seek sets the position of the first row.
func (w *lister) seek() {
	w.at.name = max(w.q.Prefix, w.q.StartOffset)
	if w.glob != nil {
		w.at.name = max(w.at.name, w.glob.prefix)
	}
	if w.q.After == "" || w.q.After < w.at.name {
		return
	}
	if p := w.commonPrefix(w.q.After); p != "" {
		w.skip(p)
		return
	}
	w.at = position{name: w.q.After, after: true, generation: w.q.AfterGeneration}
}

// skip moves behind all names that start with p.
func (w *lister) skip(p string) {
	end := store.PrefixEnd(p)
	if end == "" || w.q.Prefix != "" && !strings.HasPrefix(end, w.q.Prefix) {
		w.done = true
		return
	}
	w.at = position{name: end}
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
	rows, more, err := w.read(ctx, r)
	if err != nil {
		return err
	}
	used, skipped := 0, ""
	for _, row := range rows {
		if skipped != "" && strings.HasPrefix(row.name, skipped) {
			continue
		}
		skipped = ""
		if w.full(row.name) {
			return nil
		}
		w.at = position{name: row.name, after: true, generation: row.generation}
		if w.glob != nil && !w.glob.Match(row.name) {
			continue
		}
		used++
		if err := w.take(row); err != nil {
			return err
		}
		skipped = w.commonPrefix(row.name)
	}
	if skipped != "" {
		w.skip(skipped)
	}
	if !more {
		w.done = true
	}
	// With a delimiter no token says "amid a prefix": such a page ends by its limit alone.
	if w.seen += len(rows); w.seen >= maxScan && !w.done && w.q.Delimiter == "" {
		w.page.Next, w.page.NextGeneration, w.done = w.at.name, w.at.generation, true
	}
	if w.glob == nil {
		w.batch = min(max(2*used, minBatch), w.q.Limit+1)
	}
	return nil
}

// full ends the page before name when name is beyond it or the page is full.
func (w *lister) full(name string) bool {
	if w.beyond(name) {
		w.done = true
		return true
	}
	if len(w.page.Objects)+len(w.page.Prefixes) >= w.q.Limit {
		w.page.Next, w.page.NextGeneration, w.done = w.last.name, w.last.generation, true
		return true
	}
	return false
}

// beyond reports a name behind everything that is asked for.
func (w *lister) beyond(name string) bool {
	if w.q.EndOffset != "" && name >= w.q.EndOffset {
		return true
	}
	return w.glob != nil && name > w.glob.prefix && !strings.HasPrefix(name, w.glob.prefix)
}

func (w *lister) take(row listed) error {
	if p := w.commonPrefix(row.name); p != "" {
		w.last = position{name: p}
		if n := len(w.page.Prefixes); n == 0 || w.page.Prefixes[n-1] != p {
			w.page.Prefixes = append(w.page.Prefixes, p)
		}
		if !w.q.IncludeTrailingDelimiter || p != row.name {
			return nil
		}
	} else {
		w.last = position{name: row.name, generation: row.generation}
	}
	o, err := rowObject(row.Row)
	if err != nil {
		return err
	}
	w.page.Objects = append(w.page.Objects, w.bucket.see(o))
	return nil
}
