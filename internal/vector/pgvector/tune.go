package pgvector

import (
	"context"
	"database/sql"

	"tategu/internal/vector"
)

// checked is how many datapoints a generation is checked on, and found how many neighbours of each.
const (
	checked = 50
	found   = 10
)

// beams are the settings of hnsw.ef_search that are tried, the least that finds enough is kept.
func beams() []int { return []int{40, 80, 160, 320, 640, maxBeam} }

// tune measures what share of the true neighbours the graph of a generation finds. Where not even
// the widest beam finds enough, all rows are compared.
func (b *Backend) tune(ctx context.Context, c vector.Config, gen *generation) error {
	return b.snapshot(ctx, func(tx *sql.Tx) error {
		points, err := pointsOf(tx.QueryContext(ctx, "SELECT point FROM "+b.quoted(gen.Relation)+" WHERE embedding IS NOT NULL ORDER BY hashtext(encode(id, 'hex')) LIMIT $1", checked))
		if err != nil {
			return err
		}
		gen.Recall = 1
		if formOf(c).class == "" {
			return nil
		}
		f := &finder{b: b, tx: tx, gen: *gen, cfg: c}
		var queries []vector.Query
		var truth [][]candidate
		for _, p := range points {
			q := vector.Query{Point: p, Neighbors: found}
			q.Point.Restricts, q.Point.NumericRestricts = nil, nil
			near, err := f.nearest(ctx, q, found, 0)
			if err != nil {
				return err
			}
			queries, truth = append(queries, q), append(truth, near)
		}
		for _, beam := range beams() {
			recall, err := f.recall(ctx, queries, truth, beam)
			if err != nil {
				return err
			}
			if recall >= c.Recall {
				gen.Beam, gen.Recall = beam, recall
				return nil
			}
		}
		return nil
	})
}

// recall is the share of the true neighbours that a beam finds.
func (f *finder) recall(ctx context.Context, queries []vector.Query, truth [][]candidate, beam int) (float64, error) {
	hit, all := 0, 0
	for i, q := range queries {
		near, err := f.nearest(ctx, q, found, beam)
		if err != nil {
			return 0, err
		}
		have := map[string]bool{}
		for _, c := range near {
			have[c.point.DatapointId] = true
		}
		for _, c := range truth[i] {
			all++
			if have[c.point.DatapointId] {
				hit++
			}
		}
	}
	if all == 0 {
		return 1, nil
	}
	return float64(hit) / float64(all), nil
}
