package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

func flat2() vector.Config {
	return vector.Config{Dimensions: 2, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95}
}

func upsertOne(t *testing.T, b *Backend, index vector.Index, id string) {
	t.Helper()
	if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{{DatapointId: id, FeatureVector: []float32{1, 1}}}, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
}

// fullStore has no room for what need not be written at once.
type fullStore struct{ store.Store }

func (fullStore) UpdateSoon(context.Context, func(store.Tx) error) error { return syscall.ENOSPC }

// TestReadWithoutRoom: an index comes into memory where the disk has no room to tidy its log.
func TestReadWithoutRoom(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	full := func(c *Config) { c.Store = fullStore{c.Store} }
	b := p.open(t, full)
	index := p.index(t, "full", flat2())
	upsertOne(t, b, index, "a")
	if err := b.table(index).merge(t.Context()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	rows, err := p.rows.List(t.Context(), store.Query{Kind: kindLog})
	if err != nil || len(rows) != 1 {
		t.Fatalf("the log has %d rows, %v: there is nothing to test", len(rows), err)
	}
	b = p.open(t, full)
	if found, err := b.Get(t.Context(), index, []string{"a"}); err != nil || found[0] == nil {
		t.Errorf("found %v, %v", found, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestCacheIsDeleted: the cache may go while the server runs.
func TestCacheIsDeleted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, nil)
	index := p.index(t, "i", flat2())
	for _, id := range []string{"a", "b"} {
		upsertOne(t, b, index, id)
		if err := os.RemoveAll(filepath.Join(p.dir, "cache")); err != nil {
			t.Fatal(err)
		}
		if err := b.table(index).merge(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	b.table(index).unload()
	if found, err := b.Get(t.Context(), index, []string{"a", "b"}); err != nil || found[0] == nil || found[1] == nil {
		t.Errorf("found %v, %v", found, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// brokenBuilder fails, or leaves rows out.
type brokenBuilder struct {
	err  error
	most int
}

func (f brokenBuilder) Build(ctx context.Context, path string, rows ann.Rows, o ann.Options, _ bool) (ann.Built, error) {
	if f.err != nil {
		return ann.Built{}, &fs.PathError{Op: "write", Path: path, Err: f.err}
	}
	some := func(yield func(ann.Row, error) bool) {
		n := 0
		for r, err := range rows {
			if n++; n <= f.most && !yield(r, err) {
				return
			}
		}
	}
	return ann.BuildFile(ctx, path, some, o)
}

// TestBuildsThatGoWrong: what a build says is not taken for granted, and a full disk is told
// as what it is; what was there stays.
func TestBuildsThatGoWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		builder brokenBuilder
		code    codes.Code
		cause   resource.Cause
	}{
		{"room", brokenBuilder{err: syscall.ENOSPC}, codes.ResourceExhausted, resource.CauseResource},
		{"quota", brokenBuilder{err: syscall.EDQUOT}, codes.ResourceExhausted, resource.CauseResource},
		{"rows", brokenBuilder{most: 1}, codes.Internal, resource.CausePlatform},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			b := p.open(t, func(cfg *Config) { cfg.Builder = c.builder })
			index := p.index(t, "i", flat2())
			for _, id := range []string{"a", "b"} {
				upsertOne(t, b, index, id)
			}
			err := b.table(index).merge(t.Context())
			if got := resource.Outcome(err); got == nil || got.Code != c.code || got.Cause != c.cause {
				t.Errorf("error %+v", got)
			}
			if found, err := b.Get(t.Context(), index, []string{"a", "b"}); err != nil || found[0] == nil || found[1] == nil {
				t.Errorf("found %v, %v", found, err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
