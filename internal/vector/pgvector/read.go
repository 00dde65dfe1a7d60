package pgvector

import (
	"context"
	"database/sql"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/lib/pq"

	"tategu/internal/vector"
)

// querier is a transaction, or the database itself.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// points gives datapoints by their ids; how locks them.
func (b *Backend) points(ctx context.Context, q querier, relation string, ids []string, how string) (map[string]*pb.IndexDatapoint, error) {
	found, err := pointsOf(q.QueryContext(ctx, "SELECT point FROM "+b.quoted(relation)+" WHERE id = ANY($1) ORDER BY id"+how, pq.ByteaArray(bytesOf(ids))))
	if err != nil {
		return nil, err
	}
	out := make(map[string]*pb.IndexDatapoint, len(found))
	for _, p := range found {
		out[p.DatapointId] = p
	}
	return out, nil
}

// Get implements vector.Backend.
func (b *Backend) Get(ctx context.Context, index vector.Index, ids []string) ([]*pb.IndexDatapoint, error) {
	out := make([]*pb.IndexDatapoint, len(ids))
	m, release, err := b.read(ctx, index.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	if m.Current.Relation == "" {
		return out, nil
	}
	found, err := b.points(ctx, b.db, m.Current.Relation, ids, "")
	if err != nil {
		return nil, asOwn(err)
	}
	size := vector.NewBudget("ids")
	for i, id := range ids {
		if out[i] = found[id]; out[i] == nil {
			continue
		}
		if err := size.Take(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Scan implements vector.Backend.
func (b *Backend) Scan(ctx context.Context, index vector.Index, after string, limit int) ([]*pb.IndexDatapoint, error) {
	m, release, err := b.read(ctx, index.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	if m.Current.Relation == "" || limit <= 0 {
		return nil, nil
	}
	out, err := pointsOf(b.db.QueryContext(ctx, "SELECT point FROM "+b.quoted(m.Current.Relation)+" WHERE id > $1 ORDER BY id LIMIT $2", []byte(after), limit))
	if err != nil {
		return nil, asOwn(err)
	}
	size := vector.NewBudget("limit")
	for _, p := range out {
		if err := size.Take(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Stats implements vector.Backend.
func (b *Backend) Stats(ctx context.Context, index vector.Index) (vector.Stats, error) {
	m, release, err := b.read(ctx, index.Name)
	if err != nil {
		return vector.Stats{}, err
	}
	defer release()
	return b.stats(ctx, m)
}

// Warm implements vector.Backend: connections and the cache of the database are its own.
func (b *Backend) Warm(ctx context.Context, index vector.Index) error {
	_, release, err := b.read(ctx, index.Name)
	if err == nil {
		release()
	}
	return err
}
