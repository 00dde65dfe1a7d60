// Package pgvector keeps the datapoints of indexes in a PostgreSQL with the extension pgvector.
//
// A generation of an index is a relation (a table, and one of the terms of sparse embeddings).
// Which one answers is in the server's own store, in a manifest: it changes in the transaction
// that ends a batch update, and relations that no manifest names are dropped later. What is
// streamed is durable when PostgreSQL has committed it.
package pgvector

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
)

// DefaultSchema has the relations where a configuration names no other.
const DefaultSchema = "tategu"

// connections that there are at most where a configuration does not say.
const connections = 16

// Config names the ports of the backend.
type Config struct {
	Store store.Store
	// DSN is a URL or a list of settings (libpq's). It may have a password and is never told.
	DSN    string
	Schema string // "" = DefaultSchema; of this server alone
	// Connections to the database at most; 0 = 16.
	Connections int
	Log         *slog.Logger
	Now         func() time.Time
}

// Backend implements vector.Backend.
type Backend struct {
	cfg   Config
	db    *sql.DB
	sweep chan struct{} // asks for a sweep

	preparing sync.Mutex
	prepared  bool

	mu        sync.Mutex
	tables    map[string]*table    // by index
	relations map[string]*relation // by name
	making    map[string]bool      // relations that no manifest names yet
}

// table is what is shared by those who use one index.
type table struct {
	maintain sync.Mutex   // held by a batch update or a roll-back
	gate     sync.RWMutex // held by changes; alone, where the generation changes
	journal  *journal     // what changes while a generation is built; nil = none is. Set with the gate held alone
}

// relation is a generation's table; who reads holds use, who drops it holds it alone.
type relation struct {
	name string
	use  sync.RWMutex
	gone bool
}

// New makes a backend. Nothing is connected before it is needed, so that a server starts without
// its database; Close lets go of it.
func New(cfg Config) (*Backend, error) {
	if cfg.Schema == "" {
		cfg.Schema = DefaultSchema
	}
	settings, err := pq.NewConfig(cfg.DSN)
	if _, unread := errors.AsType[*url.Error](err); unread { // it quotes the address, and the password in it
		return nil, errors.New("the address of the pgvector backend is not a URL: want postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes for what else is in the password")
	}
	if err != nil {
		return nil, fmt.Errorf("the address of the pgvector backend: %w", err)
	}
	settings.BinaryParameters = true // one round trip a statement instead of two, and datapoints as they are instead of in hexadecimal digits
	connector, err := pq.NewConnectorConfig(settings)
	if err != nil {
		return nil, fmt.Errorf("the address of the pgvector backend: %w", err)
	}
	db := sql.OpenDB(durable{connector})
	most := cmp.Or(cfg.Connections, connections)
	db.SetMaxOpenConns(most)
	db.SetMaxIdleConns(most)
	db.SetConnMaxIdleTime(time.Minute)
	return &Backend{
		cfg: cfg, db: db, sweep: make(chan struct{}, 1),
		tables: map[string]*table{}, relations: map[string]*relation{}, making: map[string]bool{},
	}, nil
}

// Close ends the connections.
func (b *Backend) Close() error { return b.db.Close() }

// durable makes connections whose commits are on disk when they are answered, whatever the
// database's default is.
type durable struct{ driver.Connector }

// Connect implements driver.Connector.
func (d durable) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if e, ok := c.(driver.ExecerContext); ok {
		if _, err = e.ExecContext(ctx, "SET synchronous_commit = on", nil); err == nil {
			return c, nil
		}
	} else {
		err = errors.New("the driver takes no settings")
	}
	return nil, errors.Join(err, c.Close())
}

// kindOwner is the row with the name by which a schema knows its server.
const kindOwner store.Kind = "pgvectorOwner"

// ready makes what all indexes need, once: until then each request tries again.
func (b *Backend) ready(ctx context.Context) error {
	b.preparing.Lock()
	defer b.preparing.Unlock()
	if b.prepared {
		return nil
	}
	if err := b.extension(ctx); err != nil {
		return err
	}
	if err := b.own(ctx); err != nil {
		return err
	}
	b.prepared = true
	return nil
}

func (b *Backend) extension(ctx context.Context) error {
	// Another server may do the same at this moment, which IF NOT EXISTS does not see.
	if _, err := b.db.ExecContext(ctx, "CREATE EXTENSION IF NOT EXISTS vector"); err != nil && codeOf(err) != "23505" {
		if code := codeOf(err); code == "42501" || code == "0A000" || code == "58P01" || code == "22023" { // no right to; not installed there
			return resource.Errorf(codes.FailedPrecondition, "the database of the pgvector backend has no extension vector: %w", err).
				WithHint("install pgvector 0.8 or later there, and let an administrator run CREATE EXTENSION vector")
		}
		return unavailable(err)
	}
	var version string
	if err := b.db.QueryRowContext(ctx, "SELECT extversion FROM pg_extension WHERE extname = 'vector'").Scan(&version); err != nil {
		return unavailable(err)
	}
	if !recent(version) {
		return resource.Errorf(codes.FailedPrecondition, "the database of the pgvector backend has pgvector %s; 0.8 is the least", version).
			WithHint("install a newer one and run ALTER EXTENSION vector UPDATE")
	}
	return nil
}

// recent says that a version has iterative scans, without which filters lose neighbours.
func recent(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	n, err2 := strconv.Atoi(minor)
	return err == nil && err2 == nil && (a > 0 || n >= 8)
}

// own makes the schema this server's: sweeps drop what its manifests do not name.
func (b *Backend) own(ctx context.Context) error {
	var id string
	err := b.cfg.Store.Update(ctx, func(tx store.Tx) error {
		row, err := tx.Get(ctx, kindOwner, b.cfg.Schema)
		if resource.IsNotFound(err) {
			row = store.Row{Kind: kindOwner, Key: b.cfg.Schema, Data: []byte(resource.NewID())}
			err = tx.Put(ctx, row)
		}
		id = string(row.Data)
		return err
	})
	if err != nil {
		return err
	}
	owner := b.quoted("owner")
	for _, q := range []string{
		"CREATE SCHEMA IF NOT EXISTS " + pq.QuoteIdentifier(b.cfg.Schema),
		"CREATE TABLE IF NOT EXISTS " + owner + " (one boolean PRIMARY KEY DEFAULT true CHECK (one), id text NOT NULL)",
		"INSERT INTO " + owner + " (id) VALUES (" + pq.QuoteLiteral(id) + ") ON CONFLICT DO NOTHING",
	} {
		if _, err := b.db.ExecContext(ctx, q); err != nil {
			return unavailable(err)
		}
	}
	var has string
	if err := b.db.QueryRowContext(ctx, "SELECT id FROM "+owner).Scan(&has); err != nil {
		return unavailable(err)
	}
	if has != id {
		return resource.Errorf(codes.FailedPrecondition, "the schema %s of the pgvector backend belongs to another server", b.cfg.Schema).
			WithHint("set vectors.pgvector.schema to one of this server's own")
	}
	return nil
}

// quoted is the full name of a relation.
func (b *Backend) quoted(name string) string {
	return pq.QuoteIdentifier(b.cfg.Schema) + "." + pq.QuoteIdentifier(name)
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*pq.Error](err); ok {
		return string(e.Code)
	}
	return ""
}

// unavailable is an error of the database as callers see it.
func unavailable(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case codeOf(err) == "57014": // it was cancelled there because the caller is gone
		return fmt.Errorf("%w: %w", context.Canceled, err)
	}
	return resource.Errorf(codes.Unavailable, "the database of the pgvector backend: %w", err).WithCause(resource.CauseDependency).
		WithHint("see that it runs and that vectors.pgvector names it; a request may be sent again")
}

// table of an index.
func (b *Backend) table(index string) *table {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tables[index]
	if t == nil {
		t = &table{}
		b.tables[index] = t
	}
	return t
}

func (b *Backend) relation(name string) *relation {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.relations[name]
	if r == nil {
		r = &relation{name: name}
		b.relations[name] = r
	}
	return r
}

var _ vector.Backend = (*Backend)(nil)
