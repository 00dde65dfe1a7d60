package pgvector

import (
	"context"
	"time"

	"tategu/internal/store"
	"tategu/internal/vector"
)

// kindTable is the row of an index's manifest.
const kindTable store.Kind = "pgvectorTable"

// manifest says which relations an index has.
type manifest struct {
	Last     int         `json:"last"` // the greatest number that a generation has
	Current  generation  `json:"current"`
	Previous *generation `json:"previous,omitempty"`
}

// generation is what a batch update made, and what was streamed into it since.
type generation struct {
	Number   int       `json:"number"` // 0 = there was no batch update
	Relation string    `json:"relation,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Recall   float64   `json:"recall,omitempty"` // of its check
	Beam     int       `json:"beam,omitempty"`   // hnsw.ef_search; 0 = all rows are compared
}

// Keeps names an index that the backend keeps, "" for none.
func Keeps(ctx context.Context, r store.Reader) (string, error) {
	rows, err := r.List(ctx, store.Query{Kind: kindTable, Limit: 1})
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0].Key, nil
}

func readManifest(ctx context.Context, r store.Reader, index string) (manifest, error) {
	var m manifest
	err := vector.ReadManifest(ctx, r, kindTable, index, &m)
	return m, err
}

func (m manifest) write(ctx context.Context, tx store.Tx, index string) error {
	return vector.WriteManifest(ctx, tx, kindTable, index, m)
}

// relations that the manifest names.
func (m manifest) relations() []string {
	out := []string{m.Current.Relation}
	if m.Previous != nil {
		out = append(out, m.Previous.Relation)
	}
	return out
}

// method names how the vectors of a generation are searched.
func (g generation) method() string {
	if g.Beam == 0 {
		return "exact"
	}
	return "hnsw"
}

// read gives the manifest, with the relation that answers held until release is called;
// without a relation there are no datapoints.
func (b *Backend) read(ctx context.Context, index string) (m manifest, release func(), err error) {
	if err := b.ready(ctx); err != nil {
		return m, nil, err
	}
	for {
		m, err := readManifest(ctx, b.cfg.Store, index)
		if err != nil || m.Current.Relation == "" {
			return m, func() {}, err
		}
		r := b.relation(m.Current.Relation)
		r.use.RLock()
		if !r.gone {
			return m, r.use.RUnlock, nil
		}
		r.use.RUnlock() // two batch updates have ended since the manifest was read
	}
}

// stats of a generation as it is now; m is the manifest with it.
func (b *Backend) stats(ctx context.Context, m manifest) (vector.Stats, error) {
	g := m.Current
	s := vector.Stats{Generation: g.Number, Created: g.Created, Recall: g.Recall, CanRollback: m.Previous != nil}
	if m.Previous != nil {
		s.Previous = m.Previous.Number
	}
	if g.Relation == "" {
		return s, nil
	}
	s.Method, s.Segments = g.method(), 1
	err := b.db.QueryRowContext(ctx, "SELECT count(*), count(embedding), count(*) FILTER (WHERE sparse), pg_total_relation_size($1::regclass) + pg_total_relation_size($2::regclass) FROM "+
		b.quoted(g.Relation), b.quoted(g.Relation), b.quoted(termsOf(g.Relation))).Scan(&s.Count, &s.Vectors, &s.Sparse, &s.Bytes)
	return s, unavailable(err)
}
