package app

import (
	"context"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/vector"
	vectorlocal "tategu/internal/vector/local"
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

func (m *Main) openVectors(ctx context.Context) (*vector.Engine, error) {
	backend, err := vectorlocal.New(ctx, vectorlocal.Config{
		Store: m.store, Contents: m.blobs.Contents(), Cache: filepath.Join(m.cfg.Cache, "vectors"), Idle: m.cfg.Vectors.Idle,
		Memory: m.cfg.Vectors.MemoryBytes, MergeAt: m.cfg.Vectors.MergeAt, Log: m.log, Now: m.now,
	})
	if err != nil {
		return nil, err
	}
	return vector.New(vector.EngineConfig{Store: m.store, Objects: func(as identity.Account) vector.Objects { return m.objects.As(as) }, Backend: backend, Log: m.log, Now: m.now}), nil
}
