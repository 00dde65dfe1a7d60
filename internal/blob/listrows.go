package blob

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"tategu/internal/store"
)

// listed is a row of a list with what orders it.
type listed struct {
	store.Row
	name       string
	generation int64 // 0 for live objects where only those are listed
}

func (a listed) compare(b listed) int {
	return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.generation, b.generation))
}

// read gives the next rows in the order of lists; more is false when there are
// none behind them.
func (w *lister) read(ctx context.Context, r store.Reader) (rows []listed, more bool, err error) {
	switch {
	case w.q.SoftDeleted:
		return w.readGenerations(ctx, r, kindSoft)
	case !w.q.Versions:
		return w.readLive(ctx, r)
	}
	live, moreLive, err := w.readLive(ctx, r)
	if err != nil {
		return nil, false, err
	}
	old, moreOld, err := w.readGenerations(ctx, r, kindVersion)
	if err != nil {
		return nil, false, err
	}
	rows = slices.Concat(live, old)
	slices.SortFunc(rows, listed.compare)
	// What lies behind the last row of a list that goes on may be out of order.
	cut := func(of []listed) {
		last := of[len(of)-1]
		i, _ := slices.BinarySearchFunc(rows, last, listed.compare)
		rows = rows[:min(i+1, len(rows))]
	}
	if moreLive {
		cut(live)
	}
	if moreOld {
		cut(old)
	}
	return rows, moreLive || moreOld, nil
}

func (w *lister) readLive(ctx context.Context, r store.Reader) ([]listed, bool, error) {
	q := store.Query{Kind: kindObject, Prefix: objectKey(w.bucket.Name, w.q.Prefix), Limit: w.batch}
	if w.at.after && w.at.generation == 0 {
		q.After = objectKey(w.bucket.Name, w.at.name)
	} else {
		q.From = objectKey(w.bucket.Name, w.at.name)
	}
	return w.query(ctx, r, q)
}

func (w *lister) readGenerations(ctx context.Context, r store.Reader, kind store.Kind) ([]listed, bool, error) {
	q := store.Query{Kind: kind, Prefix: w.bucket.Name + "/" + escapeName(w.q.Prefix), Limit: w.batch}
	switch {
	case !w.at.after:
		q.From = w.bucket.Name + "/" + escapeName(w.at.name)
	case w.at.generation == 0: // behind all generations of the name
		q.From = w.bucket.Name + "/" + escapeName(w.at.name) + store.PrefixEnd(endOfName)
	default:
		q.After = generationKey(w.bucket.Name, w.at.name, w.at.generation)
	}
	return w.query(ctx, r, q)
}

func (w *lister) query(ctx context.Context, r store.Reader, q store.Query) (out []listed, more bool, err error) {
	rows, err := r.List(ctx, q)
	if err != nil {
		return nil, false, err
	}
	out = make([]listed, 0, len(rows))
	for _, row := range rows {
		l := listed{Row: row}
		if _, l.name, err = rowName(row); err != nil {
			return nil, false, err
		}
		if w.q.Versions || w.q.SoftDeleted {
			o, err := rowObject(row)
			if err != nil {
				return nil, false, err
			}
			l.generation = o.Generation
		}
		if w.at.after && l.name == w.at.name && w.at.generation > 0 && l.generation <= w.at.generation {
			continue // a live object was given already
		}
		out = append(out, l)
	}
	return out, len(rows) == w.batch && len(out) > 0, nil
}
