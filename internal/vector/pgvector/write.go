package pgvector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/lib/pq"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
)

// journal has the ids of what is streamed while a generation is built.
type journal struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (j *journal) add(ids []string) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range ids {
		j.ids[id] = true
	}
}

// take empties the journal.
func (j *journal) take() [][]byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([][]byte, 0, len(j.ids))
	for id := range j.ids {
		out = append(out, []byte(id))
	}
	clear(j.ids)
	return out
}

// Upsert implements vector.Backend.
func (b *Backend) Upsert(ctx context.Context, index vector.Index, points []*pb.IndexDatapoint, mask vector.Mask) error {
	ids := make([]string, len(points))
	for i, p := range points {
		ids[i] = p.GetDatapointId()
	}
	return b.stream(ctx, index, ids, func(tx *sql.Tx, relation string) error {
		points := points
		if mask.Partial() {
			var err error
			if points, err = b.masked(ctx, tx, relation, index, points, mask); err != nil {
				return err
			}
		}
		return b.put(ctx, tx, relation, index.Config, points)
	})
}

// Remove implements vector.Backend.
func (b *Backend) Remove(ctx context.Context, index vector.Index, ids []string) error {
	return b.stream(ctx, index, ids, func(tx *sql.Tx, relation string) error {
		return b.erase(ctx, tx, relation, bytesOf(ids))
	})
}

// stream makes a change of some ids in the generation that answers.
func (b *Backend) stream(ctx context.Context, index vector.Index, ids []string, f func(tx *sql.Tx, relation string) error) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	t := b.table(index.Name)
	for {
		t.gate.RLock()
		if _, err := b.cfg.Store.Get(ctx, resource.KindIndexes, index.Name); err != nil {
			t.gate.RUnlock()
			return err
		}
		m, err := readManifest(ctx, b.cfg.Store, index.Name)
		if err == nil && m.Current.Relation != "" {
			err = b.change(ctx, func(tx *sql.Tx) error { return f(tx, m.Current.Relation) })
			t.journal.add(ids) // whatever came of it; before it, a build could take the old state for the new one
		}
		t.gate.RUnlock()
		if err != nil || m.Current.Relation != "" {
			return err
		}
		if err := b.begin(ctx, t, index); err != nil {
			return err
		}
	}
}

// begin gives an index its first relation, unless another caller just did.
func (b *Backend) begin(ctx context.Context, t *table, index vector.Index) error {
	t.gate.Lock()
	defer t.gate.Unlock()
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil || m.Current.Relation != "" {
		return err
	}
	name, err := b.create(ctx, index)
	if err != nil {
		return err
	}
	defer b.made(name)
	if err := b.graph(ctx, name, index.Config); err != nil {
		return err
	}
	m.Current.Relation = name
	if formOf(index.Config).class != "" {
		m.Current.Beam = firstBeam
	}
	return b.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get(ctx, resource.KindIndexes, index.Name); err != nil {
			return err
		}
		return m.write(ctx, tx, index.Name)
	})
}

// firstBeam is hnsw.ef_search of what no batch update has measured.
const firstBeam = 100

// masked gives the datapoints as they are, with what the mask names replaced.
func (b *Backend) masked(ctx context.Context, tx *sql.Tx, relation string, index vector.Index, given []*pb.IndexDatapoint, mask vector.Mask) ([]*pb.IndexDatapoint, error) {
	ids := make([]string, len(given))
	for i, p := range given {
		ids[i] = p.GetDatapointId()
	}
	old, err := b.points(ctx, tx, relation, ids, " FOR UPDATE")
	if err != nil {
		return nil, err
	}
	out := make([]*pb.IndexDatapoint, len(given))
	for i, p := range given {
		o := old[p.GetDatapointId()]
		if o == nil {
			return nil, resource.Errorf(codes.NotFound, "%s has no datapoint %q, of which an update mask could keep the rest", index.Name, p.GetDatapointId()).
				WithResource(index.Name).WithHint("upsert it without an update_mask")
		}
		out[i] = mask.Apply(o, p)
	}
	return out, nil
}

// put writes datapoints over those of the same ids, in the order of their ids, so that changes
// of the same ones wait for each other in one order.
func (b *Backend) put(ctx context.Context, tx *sql.Tx, relation string, c vector.Config, points []*pb.IndexDatapoint) error {
	points = slices.SortedFunc(slices.Values(points), func(x, y *pb.IndexDatapoint) int { return strings.Compare(x.DatapointId, y.DatapointId) })
	var ids, encoded [][]byte
	var vectors []sql.NullString
	var allow, deny, numbers []string
	var sparse []bool
	var terms termRows
	for _, p := range points {
		data, err := proto.Marshal(p)
		if err != nil {
			return fmt.Errorf("datapoint %s: %w", p.DatapointId, err)
		}
		n, err := numbersOf(p.GetNumericRestricts())
		if err != nil {
			return fmt.Errorf("datapoint %s: %w", p.DatapointId, err)
		}
		ids, encoded, numbers = append(ids, []byte(p.DatapointId)), append(encoded, data), append(numbers, n)
		vectors = append(vectors, sql.NullString{String: vectorText(p.GetFeatureVector(), c), Valid: len(p.GetFeatureVector()) > 0})
		a, d := tokensOf(p.GetRestricts())
		allow, deny = append(allow, arrayText(a)), append(deny, arrayText(d))
		sparse = append(sparse, p.GetSparseEmbedding() != nil)
		terms.add(p)
	}
	//nolint:gosec // names are quoted
	query := "INSERT INTO " + b.quoted(relation) + ` (id, point, embedding, allow, deny, numbers, sparse)
		SELECT x.id, x.point, x.embedding::vector, x.allow::uuid[], x.deny::uuid[], x.numbers::jsonb, x.sparse
		FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[]) AS x (id, point, embedding, allow, deny, numbers, sparse)
		ON CONFLICT (id) DO UPDATE SET point = excluded.point, embedding = excluded.embedding, allow = excluded.allow, deny = excluded.deny, numbers = excluded.numbers, sparse = excluded.sparse`
	_, err := tx.ExecContext(ctx, query,
		pq.ByteaArray(ids), pq.ByteaArray(encoded), pq.Array(vectors), pq.Array(allow), pq.Array(deny), pq.Array(numbers), pq.Array(sparse))
	if err != nil {
		return err
	}
	query = "DELETE FROM " + b.quoted(termsOf(relation)) + " WHERE id = ANY($1)"
	if _, err := tx.ExecContext(ctx, query, pq.ByteaArray(ids)); err != nil || len(terms.ids) == 0 {
		return err
	}
	query = "INSERT INTO " + b.quoted(termsOf(relation)) + " (dim, id, value) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::real[])"
	_, err = tx.ExecContext(ctx, query, pq.Array(terms.dims), pq.ByteaArray(terms.ids), pq.Array(terms.values))
	return err
}

// termRows are the values of sparse embeddings.
type termRows struct {
	dims   []int64
	ids    [][]byte
	values []float32
}

func (r *termRows) add(p *pb.IndexDatapoint) {
	for i, d := range p.GetSparseEmbedding().GetDimensions() {
		r.dims, r.ids, r.values = append(r.dims, d), append(r.ids, []byte(p.GetDatapointId())), append(r.values, p.GetSparseEmbedding().GetValues()[i])
	}
}

func (b *Backend) erase(ctx context.Context, tx *sql.Tx, relation string, ids [][]byte) error {
	slices.SortFunc(ids, bytes.Compare)
	for _, name := range []string{relation, termsOf(relation)} {
		query := "DELETE FROM " + b.quoted(name) + " WHERE id = ANY($1)" //nolint:gosec // names are quoted
		if _, err := tx.ExecContext(ctx, query, pq.ByteaArray(ids)); err != nil {
			return err
		}
	}
	return nil
}

func bytesOf(ids []string) [][]byte {
	out := make([][]byte, len(ids))
	for i, id := range ids {
		out[i] = []byte(id)
	}
	return out
}

// vectorText is a vector as pgvector reads it, at length 1 where vectors are compared so.
func vectorText(v []float32, c vector.Config) string {
	f := 1.0
	if c.Measure.UnitNorm || cosine(c) {
		var squares float64
		for _, x := range v {
			squares += float64(x) * float64(x)
		}
		if n := 1 / math.Sqrt(squares); squares > 0 && !math.IsInf(n, 0) {
			f = n
		}
	}
	out := []byte{'['}
	for i, x := range v {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendFloat(out, float64(float32(float64(x)*f)), 'g', -1, 32)
	}
	return string(append(out, ']'))
}

// tokensOf gives what a datapoint allows and denies, as the digests that are kept.
func tokensOf(restricts []*pb.IndexDatapoint_Restriction) (allow, deny []string) {
	for _, r := range restricts {
		allow = append(allow, digests(r.GetNamespace(), r.GetAllowList())...)
		deny = append(deny, digests(r.GetNamespace(), r.GetDenyList())...)
	}
	return allow, deny
}

// digests stand for tokens, which may be longer than what PostgreSQL indexes, and have bytes
// that its texts cannot. They are UUIDs for it.
func digests(namespace string, tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = digest(namespace, t)
	}
	return out
}

func digest(namespace, token string) string {
	h := sha256.New()
	h.Write(binary.AppendUvarint(nil, uint64(len(namespace))))
	h.Write([]byte(namespace + token))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// arrayText is an array of digests as PostgreSQL reads it.
func arrayText(digests []string) string { return "{" + strings.Join(digests, ",") + "}" }

// numbersOf are the numbers of a datapoint, each under its kind and the digest of its namespace.
func numbersOf(restricts []*pb.IndexDatapoint_NumericRestriction) (string, error) {
	m := make(map[string]json.Number, len(restricts))
	for _, r := range restricts {
		key, value, _ := number(r)
		m[key] = json.Number(value)
	}
	data, err := json.Marshal(m)
	return string(data), err
}

// number gives the key of a number, its text, and the type by which SQL compares it. Numbers of
// different kinds are never compared.
func number(r *pb.IndexDatapoint_NumericRestriction) (key, value, kind string) {
	name := digest(r.GetNamespace(), "")
	switch v := r.GetValue().(type) {
	case *pb.IndexDatapoint_NumericRestriction_ValueFloat:
		return "f" + name, strconv.FormatFloat(float64(v.ValueFloat), 'g', -1, 64), "double precision"
	case *pb.IndexDatapoint_NumericRestriction_ValueDouble:
		return "d" + name, strconv.FormatFloat(v.ValueDouble, 'g', -1, 64), "double precision"
	default:
		return "i" + name, strconv.FormatInt(r.GetValueInt(), 10), "bigint"
	}
}
