package pgvector

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/lib/pq"
	"google.golang.org/protobuf/proto"

	"tategu/internal/store"
	"tategu/internal/vector"
)

// Replace implements vector.Backend.
func (b *Backend) Replace(ctx context.Context, index vector.Index, overwrite bool, src vector.Source, commit vector.Commit) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	t := b.table(index.Name)
	t.maintain.Lock()
	defer t.maintain.Unlock()
	name, err := b.create(ctx, index)
	if err != nil {
		return err
	}
	t.record(&journal{ids: map[string]bool{}})
	old, err := b.build(ctx, t, index, name, overwrite, src, commit)
	if err != nil {
		t.record(nil)
		b.made(name)
		b.clear() // not dropped here: who cannot tell whether its transaction was written may not undo it
		return err
	}
	b.made(name)
	if old != "" {
		if err := b.drop(ctx, old); err != nil {
			b.cfg.Log.WarnContext(ctx, "cannot drop a generation that is not needed any more; it is tried again", slog.String("index", index.Name), slog.Any("error", err))
		}
	}
	return nil
}

// record begins or ends the journal.
func (t *table) record(j *journal) {
	t.gate.Lock()
	defer t.gate.Unlock()
	t.journal = j
}

// build fills a relation, and makes it the generation that answers. It gives the relation that
// nothing needs any more, "" for none.
func (b *Backend) build(ctx context.Context, t *table, index vector.Index, name string, overwrite bool, src vector.Source, commit vector.Commit) (old string, err error) {
	if err := b.load(ctx, index, name, src); err != nil {
		return "", err
	}
	if !overwrite {
		if err := b.stay(ctx, index, name, src.Removed()); err != nil {
			return "", err
		}
	}
	if err := b.graph(ctx, name, index.Config); err != nil {
		return "", err
	}
	if err := b.catchUp(ctx, t, index, name); err != nil { // most of it, while changes go on
		return "", err
	}
	gen := generation{Relation: name, Created: b.cfg.Now().UTC()}
	if err := b.tune(ctx, index.Config, &gen); err != nil {
		return "", err
	}
	t.gate.Lock()
	defer t.gate.Unlock()
	if err := b.catchUp(ctx, t, index, name); err != nil {
		return "", err
	}
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil {
		return "", err
	}
	if m.Previous != nil {
		old = m.Previous.Relation
	}
	m.Last++
	gen.Number = m.Last
	was := m.Current
	m.Previous, m.Current = &was, gen
	if err := b.install(ctx, index, m, commit); err != nil {
		return "", err
	}
	t.journal = nil
	return old, nil
}

// install makes a manifest that of an index, in the transaction of whoever asked for it.
func (b *Backend) install(ctx context.Context, index vector.Index, m manifest, commit vector.Commit) error {
	now, err := b.stats(ctx, m)
	if err != nil {
		return err
	}
	return b.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := m.write(ctx, tx, index.Name); err != nil {
			return err
		}
		return commit(ctx, tx, now)
	})
}

// Bounds of what is sent to the database at once.
const (
	batchRows  = 500
	batchBytes = 4 << 20
)

// load writes a source's datapoints.
func (b *Backend) load(ctx context.Context, index vector.Index, name string, src vector.Source) error {
	var batch []*pb.IndexDatapoint
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := b.change(ctx, func(tx *sql.Tx) error { return b.put(ctx, tx, name, index.Config, batch) })
		batch, size = batch[:0], 0
		return err
	}
	err := src.Datapoints(ctx, func(p *pb.IndexDatapoint) error {
		batch, size = append(batch, p), size+proto.Size(p)
		if len(batch) < batchRows && size < batchBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

const columns = "id, point, embedding, allow, deny, numbers, sparse"

// stay copies what the generation that answers has and the source neither replaced nor removed.
func (b *Backend) stay(ctx context.Context, index vector.Index, name string, removed []string) error {
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil || m.Current.Relation == "" {
		return err
	}
	return b.change(ctx, func(tx *sql.Tx) error {
		return b.copy(ctx, tx, m.Current.Relation, name, "NOT o.id = ANY($1)", bytesOf(removed))
	})
}

// copy takes the rows over that a condition names and the new relation has not.
func (b *Backend) copy(ctx context.Context, tx *sql.Tx, from, to, condition string, ids [][]byte) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`WITH taken AS (INSERT INTO %s (%s) SELECT %s FROM %s o WHERE %s ON CONFLICT (id) DO NOTHING RETURNING id)
		INSERT INTO %s (dim, id, value) SELECT t.dim, t.id, t.value FROM %s t JOIN taken USING (id)`,
		b.quoted(to), columns, columns, b.quoted(from), condition, b.quoted(termsOf(to)), b.quoted(termsOf(from))), pq.ByteaArray(ids))
	return err
}

// catchUp does to the new relation what was done to the one that answers since the journal was
// last taken.
func (b *Backend) catchUp(ctx context.Context, t *table, index vector.Index, name string) error {
	ids := t.journal.take()
	if len(ids) == 0 {
		return nil
	}
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil {
		return err
	}
	return b.change(ctx, func(tx *sql.Tx) error {
		if err := b.erase(ctx, tx, name, ids); err != nil {
			return err
		}
		return b.copy(ctx, tx, m.Current.Relation, name, "o.id = ANY($1)", ids)
	})
}

// Rollback implements vector.Backend: current and previous change places.
func (b *Backend) Rollback(ctx context.Context, index vector.Index, commit vector.Commit) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	t := b.table(index.Name)
	t.maintain.Lock()
	defer t.maintain.Unlock()
	t.gate.Lock()
	defer t.gate.Unlock()
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil {
		return err
	}
	if m.Previous == nil {
		return vector.NoEarlier(index)
	}
	was := m.Current
	m.Current, m.Previous = *m.Previous, &was
	return b.install(ctx, index, m, commit)
}
