// Package local is the backend of vector search that needs nothing but the server's
// own store and objects. An index is immutable segments (package ann), mapped into
// memory from a cache, and what was streamed since: rows of the store, which make an
// upsert durable with the store's group commit, and a table in memory that is
// scanned. A merge in the background turns streamed datapoints into segments; a batch
// update builds a segment aside and puts it in the place of all others at once.
// docs/adr/0028 has the reasons.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tategu/internal/blob"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Contents keeps the bytes of segments; blob.Store.Contents() is one.
type Contents interface {
	Create(ctx context.Context, r io.Reader) (id string, d blob.Digest, err error)
	Open(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error)
	Remove(ctx context.Context, id string) error
}

// Builder makes segments; vector/builder has one that does so in processes of their own.
type Builder interface {
	// Build writes a segment of rows into a file that appears whole or not at all.
	// awaited says that somebody waits for it.
	Build(ctx context.Context, path string, rows ann.Rows, o ann.Options, awaited bool) (ann.Built, error)
}

// here builds in this process.
type here struct{}

func (here) Build(ctx context.Context, path string, rows ann.Rows, o ann.Options, _ bool) (ann.Built, error) {
	return ann.BuildFile(ctx, path, rows, o)
}

// Config of the backend.
type Config struct {
	Store    store.Store
	Contents Contents
	Builder  Builder // nil builds in this process
	Cache    string  // directory of mapped files; it is made again where it was deleted
	// Idle is how long an index without queries stays in memory; 0 = 15 minutes.
	Idle time.Duration
	// Memory bounds the bytes of all indexes in memory: beyond it, those whose last
	// query is longest ago leave; 0 = no bound.
	Memory int64
	// MergeAt is how many streamed datapoints begin a merge; 0 = 4096.
	MergeAt int
	Log     *slog.Logger
	Now     func() time.Time
}

// Defaults of Config.
const (
	defaultIdle    = 15 * time.Minute
	defaultMergeAt = 4096
)

// Backend implements vector.Backend.
type Backend struct {
	cfg Config

	mu     sync.Mutex
	tables map[string]*table
	merges chan *table // that have enough to merge
}

var _ vector.Backend = (*Backend)(nil)

// New makes a backend, and removes what an earlier one left in the cache. Merges and
// the end of idle indexes wait for Run.
func New(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.Builder == nil {
		cfg.Builder = here{}
	}
	if cfg.MergeAt == 0 {
		cfg.MergeAt = defaultMergeAt
	}
	b := &Backend{cfg: cfg, tables: map[string]*table{}, merges: make(chan *table, 64)}
	if err := b.makeCache(); err != nil {
		return nil, fmt.Errorf("make the cache of indexes: %w", err)
	}
	if err := b.sweep(ctx); err != nil {
		return nil, fmt.Errorf("tidy the cache of indexes: %w", err)
	}
	return b, nil
}

// table gives the one table of an index, which need not be in memory.
func (b *Backend) table(index vector.Index) *table {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tables[index.Name]
	if t == nil {
		t = newTable(b, index)
		b.tables[index.Name] = t
	}
	t.want(index.Config.Recall)
	return t
}

func (b *Backend) all() []*table {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*table, 0, len(b.tables))
	for _, t := range b.tables {
		out = append(out, t)
	}
	return out
}

// Close takes every index out of memory. No other method may be at work.
func (b *Backend) Close() error {
	var errs []error
	for _, t := range b.all() {
		t.unload()
	}
	return errors.Join(errs...)
}

// Warm implements vector.Backend: it reads the index and asks it.
func (b *Backend) Warm(ctx context.Context, index vector.Index) error {
	v, err := b.table(index).use(ctx)
	if err != nil {
		return err
	}
	defer v.leave()
	for _, s := range v.segments {
		if s.Len() == 0 {
			continue
		}
		for n := range min(warmProbes, s.Len()) {
			if err := s.probe(uint32(n * s.Len() / warmProbes)); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

const warmProbes = 100

// makeCache makes the directory of the cache, which somebody may have deleted.
func (b *Backend) makeCache() error { return os.MkdirAll(b.cfg.Cache, 0o700) }

// cachePath is where the file of a content is mapped from.
func (b *Backend) cachePath(content string) string {
	return filepath.Join(b.cfg.Cache, content+".segment")
}
