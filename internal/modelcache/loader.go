package modelcache

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Loader gives models as directories of this machine.
type Loader struct {
	Registry Registry
	Objects  Objects
	Cache    *Cache
	// Origin names the server, since names mean something else at another one.
	Origin string
	// Interval is how often Follow asks what a name stands for.
	Interval time.Duration
	Progress Progress // of Pull; may be nil
}

// Local is a version whose files are here. They stay until it is closed.
type Local struct {
	Version
	Digest string `json:"digest"` // of names and contents
	Path   string `json:"path"`   // directory of the files
	Files  []File `json:"files"`

	entry *entry
}

// Close lets the files be removed by a later Prune.
func (l *Local) Close() error { return l.entry.Close() }

// Same reports the same version with the same files.
func (l *Local) Same(o *Local) bool {
	return l.Model == o.Model && l.ID == o.ID && l.Digest == o.Digest
}

// maxName is above any full name with an alias.
const maxName = 1024

// CheckName refuses what cannot name a model.
func CheckName(name string) error {
	model, version, at := strings.Cut(name, "@")
	switch {
	case model == "" || len(name) > maxName || strings.ContainsAny(name, "\x00\r\n") || at && (version == "" || strings.ContainsAny(version, "@/")):
		return resource.Invalid("model", "%.80q names no model", name).WithHint("write MODEL, MODEL@ALIAS or MODEL@VERSION; `tategu model ls` lists the models")
	case strings.Contains(model, "/"):
		n, err := resource.ParseName(model)
		if err != nil || n.Collection() != "models" {
			return resource.Invalid("model", "%.200q is not the full name of a model", model).WithHint("write projects/P/locations/L/models/ID, or the ID alone")
		}
	}
	return nil
}

// attempts is how often a pull begins again because files were replaced under it.
const attempts = 3

// Pull gives the version that a name stands for now, and brings what is missing.
func (l *Loader) Pull(ctx context.Context, name string) (*Local, error) {
	v, err := l.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return l.bring(ctx, name, v)
}

func (l *Loader) resolve(ctx context.Context, name string) (Version, error) {
	if err := CheckName(name); err != nil {
		return Version{}, err
	}
	v, err := l.Registry.Resolve(ctx, name)
	if err == nil && v.ArtifactURI == "" {
		err = resource.Errorf(codes.FailedPrecondition, "version %s of %s has no artifact_uri: it is an image alone", v.ID, v.Model).
			WithHint("`tategu image pull` and `tategu image export` bring images")
	}
	return v, err
}

func (l *Loader) bring(ctx context.Context, name string, v Version) (*Local, error) {
	var progress Progress = silent{}
	if l.Progress != nil {
		progress = l.Progress
	}
	for try := 1; ; try++ {
		files, err := list(ctx, l.Objects, l.Origin, v.ArtifactURI)
		if err != nil {
			return nil, err
		}
		e, err := l.Cache.ensure(ctx, l.Objects, files, v, progress)
		if resource.IsNotFound(err) && try < attempts {
			continue // an object was replaced since it was listed
		}
		if err != nil {
			return nil, err
		}
		local := newLocal(v, e)
		if err := l.Cache.remember(l.Origin, name, local); err != nil {
			return nil, errors.Join(err, local.Close())
		}
		return local, nil
	}
}

func newLocal(v Version, e *entry) *Local {
	return &Local{Version: v, Digest: "sha256:" + e.digest, Path: e.dir, Files: e.manifest.Files, entry: e}
}

// LastKnown gives the version that a name was when it was last pulled here, without
// asking anyone.
func (l *Loader) LastKnown(ctx context.Context, name string) (*Local, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	never := resource.NotFound(name).WithHint("it was never pulled from this server to this machine; pull it while the server can be reached")
	known, err := l.Cache.recall(l.Origin, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, never
	}
	if err != nil {
		return nil, err
	}
	e, err := l.Cache.open(ctx, known.Digest)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, never
	}
	return newLocal(known.Version, e), nil
}

// longestPause bounds how long Follow waits while the server is away.
const longestPause = 30 * time.Second

// Follow tells of the version that a name stands for, again each time that it was
// asked for, and of what was wrong then: local is the newest version that could be
// had, nil when there is none yet. When the server is away from the beginning it is
// the last known one. The newest and the one before it stay on disk while Follow
// runs, which is until ctx or tell ends it.
func (l *Loader) Follow(ctx context.Context, name string, tell func(local *Local, wrong error) error) (err error) {
	var current, before *Local
	defer func() {
		for _, held := range []*Local{current, before} {
			if held != nil {
				err = errors.Join(err, held.Close())
			}
		}
	}()
	for pause := l.Interval; ; {
		next, wrong := l.next(ctx, name, current)
		if ctx.Err() != nil {
			if next != nil {
				return next.Close()
			}
			return nil
		}
		if next != nil {
			drop := before
			if current != nil && current.Same(next) { // other words on the same version
				drop = current
			} else {
				before = current
			}
			current = next
			if drop != nil {
				if err := drop.Close(); err != nil {
					return err
				}
			}
		}
		if pause = min(2*pause, max(longestPause, l.Interval)); wrong == nil {
			pause = l.Interval
		}
		if err := tell(current, wrong); err != nil {
			return err
		}
		if !wait(ctx, pause) {
			return nil
		}
	}
}

// next gives the version that a name stands for if it is another than current, or
// is told otherwise.
func (l *Loader) next(ctx context.Context, name string, current *Local) (*Local, error) {
	v, err := l.resolve(ctx, name)
	if err == nil && current != nil && v.Model == current.Model && v.ID == current.ID && v.Etag == current.Etag && v.ArtifactURI == current.ArtifactURI {
		return nil, nil
	}
	var next *Local
	if err == nil {
		next, err = l.bring(ctx, name, v)
	}
	if current == nil && resource.CodeOf(err) == codes.Unavailable {
		if last, lerr := l.LastKnown(ctx, name); lerr == nil {
			return last, err
		}
	}
	return next, err
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
