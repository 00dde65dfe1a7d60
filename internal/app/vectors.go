package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/vector"
	"tategu/internal/vector/builder"
	vectorlocal "tategu/internal/vector/local"
	"tategu/internal/vector/pgvector"
)

// Vectors is what holds for all indexes of vector search.
type Vectors struct {
	// Idle is how long an index without queries stays in memory; 0 = 15 minutes.
	Idle time.Duration `yaml:"idle"`
	// MemoryBytes bounds the memory and mapped files of all indexes; 0 = no bound.
	MemoryBytes int64 `yaml:"memoryBytes"`
	// MergeAt is how many streamed datapoints of an index begin a merge; 0 = 4096.
	MergeAt int `yaml:"mergeAt"`
	// Match is a second address, on loopback and without TLS, for clients of private
	// index endpoints: the SDK asks for port 10000. "" = there is none.
	Match string `yaml:"match"`
	// Backend keeps the datapoints: local (which "" is) or pgvector.
	Backend string `yaml:"backend"`
	// PGVector is the database of the backend pgvector.
	PGVector PGVector `yaml:"pgvector"`
}

// PGVector is a PostgreSQL with the extension pgvector. One of DSN and DSNFile is set.
type PGVector struct {
	DSN     string `yaml:"dsn"`     // URL, or settings as libpq takes them; a password may come from PGPASSWORD or a passfile
	DSNFile string `yaml:"dsnFile"` // path of a file with that in it
	Schema  string `yaml:"schema"`  // of this server alone; "" = tategu
	// Connections that there are at most; 0 = 16.
	Connections int `yaml:"connections"`
}

// Backends of vector search.
const (
	backendLocal    = "local"
	backendPGVector = "pgvector"
)

func (v Vectors) validateBackend() error {
	p := v.PGVector
	switch v.Backend {
	case "", backendLocal:
		if p != (PGVector{}) {
			return resource.Invalid("vectors.pgvector", "vectors.pgvector is set, and vectors.backend is not pgvector").WithHint("write backend: pgvector")
		}
		return nil
	case backendPGVector:
	default:
		return resource.Invalid("vectors.backend", "vectors.backend is %q", v.Backend).WithHint("write local or pgvector")
	}
	switch {
	case (p.DSN == "") == (p.DSNFile == ""):
		return resource.Invalid("vectors.pgvector", "vectors.pgvector has not one of dsn and dsnFile").
			WithHint("write pgvector: {dsnFile: FILE}, with postgres://USER:PASSWORD@HOST/DATABASE in the file")
	case p.Schema != "" && !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`).MatchString(p.Schema):
		return resource.Invalid("vectors.pgvector.schema", "%q is no name of a schema: want up to 63 lower-case letters, digits and _", p.Schema)
	case p.Connections < 0:
		return resource.Invalid("vectors.pgvector.connections", "vectors.pgvector.connections is %d", p.Connections).WithHint("leave it out for 16")
	}
	return nil
}

func (v Vectors) validate() error {
	if v.Idle < 0 || v.Idle > 0 && v.Idle < time.Second {
		return resource.Invalid("vectors.idle", "vectors.idle is %v", v.Idle).WithHint("write a duration such as 10m, of a second or more")
	}
	if v.MemoryBytes < 0 {
		return resource.Invalid("vectors.memoryBytes", "vectors.memoryBytes is %d", v.MemoryBytes).WithHint("leave it out for no bound")
	}
	if v.MergeAt < 0 {
		return resource.Invalid("vectors.mergeAt", "vectors.mergeAt is %d", v.MergeAt).WithHint("leave it out for 4096")
	}
	if err := v.validateBackend(); err != nil {
		return err
	}
	if v.Match == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(v.Match)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return resource.Invalid("vectors.match", "vectors.match is %q, which is not an address on loopback", v.Match).
			WithHint("write 127.0.0.1:10000; from beyond this machine requests need TLS, on the server's own port")
	}
	return nil
}

// listenMatch binds the address for clients of private index endpoints.
func (m *Main) listenMatch(ctx context.Context) (err error) {
	if m.cfg.Vectors.Match == "" {
		return nil
	}
	if m.match, err = (&net.ListenConfig{}).Listen(ctx, "tcp", m.cfg.Vectors.Match); err != nil {
		return resource.Errorf(codes.FailedPrecondition, "listen on %s for clients of private index endpoints: %w", m.cfg.Vectors.Match, err).
			WithHint("free the port, or leave out --match-listen")
	}
	return nil
}

// keptElsewhere refuses a backend where another one keeps indexes, which would seem to be empty.
func (m *Main) keptElsewhere(ctx context.Context) error {
	other, keeps := backendPGVector, pgvector.Keeps
	if m.cfg.Vectors.Backend == backendPGVector {
		other, keeps = backendLocal, vectorlocal.Keeps
	}
	index, err := keeps(ctx, m.store)
	if err != nil || index == "" {
		return err
	}
	return resource.Errorf(codes.FailedPrecondition, "vectors.backend is not %s, which keeps the datapoints of %s", other, index).WithResource(index).
		WithHint("write vectors: {backend: %s} again; `tategu index export` and a batch update move an index to another server", other)
}

// openBackend opens what keeps datapoints.
func (m *Main) openBackend(ctx context.Context) (vector.Backend, error) {
	if err := m.keptElsewhere(ctx); err != nil {
		return nil, err
	}
	if m.cfg.Vectors.Backend != backendPGVector {
		return m.openLocal(ctx)
	}
	p := m.cfg.Vectors.PGVector
	if p.DSNFile != "" {
		data, err := os.ReadFile(p.DSNFile)
		if err != nil {
			return nil, resource.Invalid("vectors.pgvector.dsnFile", "the address of the pgvector backend: %w", err)
		}
		p.DSN = strings.TrimSpace(string(data))
	}
	b, err := pgvector.New(pgvector.Config{Store: m.store, DSN: p.DSN, Schema: p.Schema, Connections: p.Connections, Log: m.log, Now: m.now})
	if err != nil {
		return nil, resource.Invalid("vectors.pgvector", "%w", err)
	}
	m.vectors = b
	return b, nil
}

// openLocal opens the backend that needs nothing else.
func (m *Main) openLocal(ctx context.Context) (vector.Backend, error) {
	self, err := builder.Self()
	if err != nil {
		return nil, fmt.Errorf("find our own binary: %w", err)
	}
	cache, err := vectorCache(filepath.Join(m.cfg.Cache, "vectors"), m.cfg.Data)
	if err != nil {
		return nil, fmt.Errorf("make the cache of indexes: %w", err)
	}
	return vectorlocal.New(ctx, vectorlocal.Config{
		Store: m.store, Contents: m.blobs.Contents(), Builder: builder.New(self, m.log), Cache: cache, Idle: m.cfg.Vectors.Idle,
		Memory: m.cfg.Vectors.MemoryBytes, MergeAt: m.cfg.Vectors.MergeAt, Log: m.log, Now: m.now,
	})
}

func (m *Main) openVectors(ctx context.Context) (*vector.Engine, error) {
	backend, err := m.openBackend(ctx)
	if err != nil {
		return nil, err
	}
	return vector.New(vector.EngineConfig{Store: m.store, Objects: func(as identity.Account) vector.Objects { return m.objects.As(as) }, Backend: backend, Log: m.log, Now: m.now}), nil
}

// cacheOwner names the file of a cache of indexes that says whose it is.
const cacheOwner = "data"

// vectorCache gives the directory below root where the server of a data directory keeps
// the files that it maps. Servers share root, and each removes what it does not know from
// its own. Those of data directories that are gone are removed, and what earlier versions
// kept in root itself.
func vectorCache(root, data string) (string, error) {
	sum := sha256.Sum256([]byte(data))
	own := hex.EncodeToString(sum[:8])
	dir := filepath.Join(root, own)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, cacheOwner), []byte(data), 0o600); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), ".segment"), strings.HasPrefix(e.Name(), "."): // the latter of builds and downloads that were interrupted
			errs = append(errs, os.RemoveAll(path))
		case e.Name() != own && e.IsDir():
			errs = append(errs, removeOrphan(path))
		}
	}
	return dir, errors.Join(errs...)
}

// removeOrphan removes a cache whose data directory is gone.
func removeOrphan(dir string) error {
	owner, err := os.ReadFile(filepath.Join(dir, cacheOwner))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(owner) == 0 {
		return nil // another server is making it
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(string(owner)); !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // it only looks whether a server of this user has its data there
		return nil
	}
	return os.RemoveAll(dir)
}
