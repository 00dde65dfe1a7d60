package pgvector

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/lib/pq"
	"google.golang.org/protobuf/proto"

	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

func cosine(c vector.Config) bool { return c.Measure.Distance == ann.Cosine }

// finder answers the queries of one request from one snapshot.
type finder struct {
	b    *Backend
	tx   *sql.Tx
	gen  generation
	cfg  vector.Config
	full bool
	size *vector.Budget
	set  int // the beam that the transaction has, and 1; 0 = none yet
}

// candidate is a datapoint on its way into an answer.
type candidate struct {
	point            *pb.IndexDatapoint
	distance, sparse float32 // the distance as package ann has it
}

// Find implements vector.Backend.
func (b *Backend) Find(ctx context.Context, index vector.Index, queries []vector.Query, full bool) ([][]vector.Neighbor, error) {
	m, release, err := b.read(ctx, index.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	out := make([][]vector.Neighbor, len(queries))
	if m.Current.Relation == "" {
		return out, nil
	}
	err = b.snapshot(ctx, func(tx *sql.Tx) error {
		f := &finder{b: b, tx: tx, gen: m.Current, cfg: index.Config, full: full, size: vector.NewBudget("queries")}
		for i, q := range queries {
			if out[i], err = f.find(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// snapshot runs f over one state of the database.
func (b *Backend) snapshot(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := b.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return unavailable(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return asOwn(f(tx))
}

func (f *finder) find(ctx context.Context, q vector.Query) ([]vector.Neighbor, error) {
	dense, sparse := len(q.Point.GetFeatureVector()) > 0, len(q.Point.GetSparseEmbedding().GetValues()) > 0
	depth := q.Neighbors
	if dense && sparse {
		depth = max(2*q.Neighbors, 50)
	}
	for limit := depth; ; limit *= 4 {
		var near, like []candidate
		var err error
		if dense {
			if near, err = f.dense(ctx, q, limit); err != nil {
				return nil, err
			}
		}
		if sparse {
			if like, err = f.sparse(ctx, q, limit); err != nil {
				return nil, err
			}
		}
		more := len(near) >= limit || len(like) >= limit
		ranked := near
		switch {
		case dense && sparse:
			ranked = vector.Fuse(near, like, q.Alpha, limit, func(c candidate) string { return c.point.GetDatapointId() })
		case sparse:
			ranked = like
		}
		// Crowding takes some away: what is left is of more candidates then.
		if kept := crowded(ranked, q); len(kept) >= q.Neighbors || !more || q.PerCrowding == 0 {
			return f.answer(kept[:min(len(kept), q.Neighbors)], q, dense, sparse)
		}
	}
}

// dense gives the nearest by their vectors, all of them where there are fewer than the limit.
func (f *finder) dense(ctx context.Context, q vector.Query, limit int) ([]candidate, error) {
	beam := f.gen.Beam
	if beam > 0 {
		beam = min(max(beam, q.Approximate, limit), maxBeam)
	}
	out, err := f.nearest(ctx, q, limit, beam)
	if err == nil && beam > 0 && len(out) < limit { // there may be more that the walk did not come to
		out, err = f.nearest(ctx, q, limit, 0)
	}
	return out, err
}

// maxBeam is the most that hnsw.ef_search may be.
const maxBeam = 1000

// nearest is one search: by the graph with a beam, or over all rows with none.
func (f *finder) nearest(ctx context.Context, q vector.Query, limit, beam int) ([]candidate, error) {
	form := formOf(f.cfg)
	if f.set != beam+1 {
		settings := fmt.Sprintf("SET LOCAL hnsw.ef_search = %d; SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL enable_indexscan = %t", max(beam, 1), beam > 0)
		if _, err := f.tx.ExecContext(ctx, settings); err != nil {
			return nil, err
		}
		f.set = beam + 1
	}
	if form.halves { // their order is not quite the vectors' own
		limit *= 2
	}
	s := selection{where: []string{"embedding IS NOT NULL"}}
	s.filter(q.Point)
	query := "SELECT point FROM " + f.b.quoted(f.gen.Relation) + s.condition() + " ORDER BY " + form.column + " " + form.operator + " " + s.arg(vectorText(q.Point.GetFeatureVector(), f.cfg)) + "::" + form.cast + " LIMIT " + s.arg(limit)
	points, err := pointsOf(f.tx.QueryContext(ctx, query, s.args...))
	if err != nil {
		return nil, err
	}
	out := make([]candidate, len(points))
	for i, p := range points {
		out[i] = candidate{point: p, distance: f.cfg.Measure.Between(q.Point.GetFeatureVector(), p.GetFeatureVector())}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.point.DatapointId, b.point.DatapointId))
	})
	if form.halves {
		out = out[:min(len(out), limit/2)]
	}
	return out, nil
}

// sparse gives those with the greatest dot products of their sparse embeddings.
func (f *finder) sparse(ctx context.Context, q vector.Query, limit int) ([]candidate, error) {
	own := q.Point.GetSparseEmbedding()
	s := selection{}
	dims, values := s.arg(pq.Array(own.GetDimensions())), s.arg(pq.Array(own.GetValues()))
	s.filter(q.Point)
	query := "SELECT r.point FROM (SELECT t.id, sum(t.value::double precision * w.value) AS score FROM " + f.b.quoted(termsOf(f.gen.Relation)) + " t JOIN unnest(" + dims + "::bigint[], " + values +
		"::real[]) AS w (dim, value) USING (dim) GROUP BY t.id) x JOIN " + f.b.quoted(f.gen.Relation) + " r USING (id)" + s.condition() + " ORDER BY x.score DESC, x.id LIMIT " + s.arg(limit)
	points, err := pointsOf(f.tx.QueryContext(ctx, query, s.args...))
	if err != nil {
		return nil, err
	}
	out := make([]candidate, len(points))
	for i, p := range points {
		out[i] = candidate{point: p, sparse: dot(own, p.GetSparseEmbedding())}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.sparse, a.sparse), strings.Compare(a.point.DatapointId, b.point.DatapointId))
	})
	return out, nil
}

// dot is the dot product of two sparse embeddings.
func dot(a, b *pb.IndexDatapoint_SparseEmbedding) (sum float32) {
	weights := make(map[int64]float32, len(a.GetDimensions()))
	for i, d := range a.GetDimensions() {
		weights[d] = a.GetValues()[i]
	}
	for i, d := range b.GetDimensions() {
		sum += weights[d] * b.GetValues()[i]
	}
	return sum
}

// crowded leaves out what is beyond the limit of its crowding tag.
func crowded(ranked []candidate, q vector.Query) []candidate {
	if q.PerCrowding == 0 {
		return ranked
	}
	seen := map[string]int{}
	return slices.DeleteFunc(slices.Clone(ranked), func(c candidate) bool {
		tag := c.point.GetCrowdingTag().GetCrowdingAttribute()
		if tag != "" {
			seen[tag]++
		}
		return seen[tag] > q.PerCrowding
	})
}

// answer makes neighbours. In a query of both kinds each has both distances, by whichever
// ranking it was found.
func (f *finder) answer(ranked []candidate, q vector.Query, dense, sparse bool) ([]vector.Neighbor, error) {
	out := make([]vector.Neighbor, 0, len(ranked))
	for _, c := range ranked {
		if dense && sparse {
			c.distance, c.sparse = 0, dot(q.Point.GetSparseEmbedding(), c.point.GetSparseEmbedding())
			if len(c.point.GetFeatureVector()) > 0 {
				c.distance = f.cfg.Measure.Between(q.Point.GetFeatureVector(), c.point.GetFeatureVector())
			}
		}
		n := vector.Neighbor{Datapoint: c.point, Distance: float64(c.distance), SparseDistance: float64(c.sparse)}
		if !f.full {
			n.Datapoint = &pb.IndexDatapoint{DatapointId: c.point.DatapointId, CrowdingTag: c.point.CrowdingTag}
		}
		if f.cfg.Measure.Distance == ann.DotProduct && c.distance != 0 {
			n.Distance = -n.Distance
		}
		if err := f.size.Take(n.Datapoint); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// selection builds a condition and its arguments.
type selection struct {
	where []string
	args  []any
}

func (s *selection) arg(v any) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

func (s *selection) condition() string {
	if len(s.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(s.where, " AND ")
}

// filter adds what a query restricts; ann.Filter says what that means.
func (s *selection) filter(p *pb.IndexDatapoint) {
	for _, r := range p.GetRestricts() {
		if len(r.GetAllowList()) > 0 {
			allow := s.arg(arrayText(digests(r.GetNamespace(), r.GetAllowList()))) + "::uuid[]"
			s.where = append(s.where, "allow && "+allow, "NOT deny && "+allow)
		}
		if len(r.GetDenyList()) > 0 {
			s.where = append(s.where, "NOT allow && "+s.arg(arrayText(digests(r.GetNamespace(), r.GetDenyList())))+"::uuid[]")
		}
	}
	for _, r := range p.GetNumericRestricts() {
		key, value, kind := number(r)
		s.where = append(s.where, fmt.Sprintf("(numbers ->> %s::text)::%s %s %s::%s", s.arg(key), kind, operator(r.GetOp()), s.arg(value), kind))
	}
}

func operator(op pb.IndexDatapoint_NumericRestriction_Operator) string {
	switch op {
	case pb.IndexDatapoint_NumericRestriction_LESS:
		return "<"
	case pb.IndexDatapoint_NumericRestriction_LESS_EQUAL:
		return "<="
	case pb.IndexDatapoint_NumericRestriction_EQUAL:
		return "="
	case pb.IndexDatapoint_NumericRestriction_GREATER_EQUAL:
		return ">="
	case pb.IndexDatapoint_NumericRestriction_GREATER:
		return ">"
	default:
		return "<>"
	}
}

// pointsOf reads the datapoints of a query's rows.
func pointsOf(rows *sql.Rows, err error) (points []*pb.IndexDatapoint, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells what went wrong
	for rows.Next() {
		var data sql.RawBytes
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		p := &pb.IndexDatapoint{}
		if err := proto.Unmarshal(data, p); err != nil {
			return nil, fmt.Errorf("a datapoint is damaged: %w", err)
		}
		points = append(points, p)
	}
	return points, rows.Err()
}
