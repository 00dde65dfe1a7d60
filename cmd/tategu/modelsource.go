package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/modelcache"
	"tategu/internal/resource"
	"tategu/internal/transfer"
)

// modelSource is the server as the loader of models sees it. It connects anew once
// the server was away: one of this machine may come back at another port.
type modelSource struct {
	cmd *cobra.Command

	mu   sync.Mutex
	last *models // nil = to be connected
}

// resolveTimeout bounds one question for a model.
const resolveTimeout = 15 * time.Second

func (s *modelSource) models() (*models, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		return s.last, nil
	}
	m, err := modelsOf(s.cmd)
	if resource.IsNotFound(err) && s.cmd.Flag("server").Value.String() == "" { // no server runs here
		e, _ := errors.AsType[*resource.Error](err)
		return nil, resource.Errorf(14, "no server runs on data directory %s: %w", e.Resource, err).WithHint("start it with `tategu serve`, or name another with --data or --server")
	}
	if err != nil {
		return nil, err
	}
	s.last = m
	return m, nil
}

// seen forgets the connection after an error that says that the server is away.
func (s *modelSource) seen(err error) error {
	if resource.CodeOf(err) == 14 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = nil
	}
	return err
}

// Resolve implements modelcache.Registry.
func (s *modelSource) Resolve(ctx context.Context, name string) (modelcache.Version, error) {
	m, err := s.models()
	if err != nil {
		return modelcache.Version{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	v, err := m.find(ctx, name)
	return v.version(), s.seen(err)
}

// List implements modelcache.Objects.
func (s *modelSource) List(ctx context.Context, bucket, prefix string) iter.Seq2[modelcache.Object, error] {
	return func(yield func(modelcache.Object, error) bool) {
		c, err := s.storage()
		if err != nil {
			yield(modelcache.Object{}, err)
			return
		}
		for e, err := range c.List(ctx, transfer.Query{Bucket: bucket, Prefix: prefix}) {
			o := modelcache.Object{Bucket: bucket, Name: e.Name, Generation: e.Generation, Size: e.Size, CRC32C: e.CRC32C, MD5: e.MD5}
			if !yield(o, s.seen(err)) || err != nil {
				return
			}
		}
	}
}

// Download implements modelcache.Objects.
func (s *modelSource) Download(ctx context.Context, o modelcache.Object, w io.Writer, count func(int64)) error {
	c, err := s.storage()
	if err != nil {
		return err
	}
	of := transfer.Object{Bucket: o.Bucket, Name: o.Name, Generation: o.Generation, Size: o.Size, CRC32C: o.CRC32C}
	return s.seen(c.Download(ctx, of, w, count))
}

func (s *modelSource) storage() (*transfer.Client, error) {
	m, err := s.models()
	if err != nil {
		return nil, err
	}
	return &transfer.Client{Base: m.base, HTTP: m.http, Token: m.token}, nil
}

// modelLoader makes the loader of a command.
func modelLoader(cmd *cobra.Command, interval time.Duration) (*modelcache.Loader, error) {
	if interval < leastInterval {
		return nil, resource.Invalid("interval", "--interval %v is below %v", interval, leastInterval)
	}
	cfg, err := configure(cmd)
	if err != nil {
		return nil, err
	}
	cache, err := modelCache(cmd)
	if err != nil {
		return nil, err
	}
	origin := "data " + cfg.Data
	if server := cmd.Flag("server").Value.String(); server != "" {
		origin = "server " + server
	}
	origin += " " + cmd.Flag("project").Value.String() + " " + cmd.Flag("location").Value.String()
	source := &modelSource{cmd: cmd}
	return &modelcache.Loader{Registry: source, Objects: source, Cache: cache, Origin: origin, Interval: interval}, nil
}

const (
	defaultInterval = 2 * time.Second
	leastInterval   = 100 * time.Millisecond
)

func intervalFlag(cmd *cobra.Command, interval *time.Duration) {
	cmd.Flags().DurationVar(interval, "interval", defaultInterval, "how often to ask which version a name is")
}
