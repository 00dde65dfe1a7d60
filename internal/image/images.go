package image

import (
	"context"
	"errors"
	"io"
	"path"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// Images finds images for runtimes.
type Images struct {
	store *Store
	own   func(host string) bool
}

var _ runtime.Images = (*Images)(nil)

// NewImages makes the finder; own reports a host of this server, whose images are
// kept without it.
func NewImages(s *Store, own func(host string) bool) *Images { return &Images{store: s, own: own} }

// Image implements runtime.Images.
func (i *Images) Image(ctx context.Context, reference string) (runtime.Image, error) {
	repo, st, err := i.find(ctx, reference)
	if err != nil {
		return runtime.Image{}, err
	}
	if err := i.store.started(ctx, repo, st); err != nil {
		return runtime.Image{}, err
	}
	st, m, err := i.store.forMachine(ctx, repo, st, 0)
	if err != nil {
		return runtime.Image{}, about(reference, err)
	}
	img, err := i.store.assemble(ctx, repo, st, m)
	img.Reference = reference
	if err != nil {
		return runtime.Image{}, about(reference, err)
	}
	return img, nil
}

// started makes what was packed for a run young again.
func (s *Store) started(ctx context.Context, repo string, st Stored) error {
	if path.Base(repo) != PackedName {
		return nil
	}
	k := key(repo, string(st.Digest))
	row, err := s.rows.Get(ctx, kindManifest, k)
	if err != nil || s.now().Sub(row.Updated) < touchAfter {
		return ignoreGone(err)
	}
	return s.rows.Update(ctx, func(tx store.Tx) error {
		row, err := tx.Get(ctx, kindManifest, k)
		if err != nil {
			return ignoreGone(err) // whoever goes on finds out
		}
		return tx.Put(ctx, row)
	})
}

// about names the image in an error.
func about(reference string, err error) error {
	e, ok := errors.AsType[*resource.Error](err)
	if !ok {
		return err
	}
	e = e.WithResource(reference)
	e.Message = "image " + reference + ": " + e.Message
	return e
}

// Holders gives the repositories that have what a reference names: one, or for a
// bare digest all of them. It is NotFound when none has.
func (i *Images) Holders(ctx context.Context, reference string) ([]Repo, error) {
	var names []string
	if d, err := ParseDigest(reference); err == nil {
		rows, err := i.store.rows.List(ctx, store.Query{Kind: kindManifest, States: []string{string(d)}})
		if err != nil || len(rows) == 0 {
			return nil, noImage(reference, err)
		}
		for _, row := range rows {
			names = append(names, row.Parent)
		}
	} else {
		name, _, err := i.find(ctx, reference)
		if err != nil {
			return nil, err
		}
		names = []string{name}
	}
	repos := make([]Repo, len(names))
	for n, name := range names {
		project, err := i.store.Project(ctx, name)
		if err != nil {
			return nil, err
		}
		repos[n] = Repo{Name: name, Project: project}
	}
	return repos, nil
}

// Awaited gives the names of the repositories that a reference may be found in once
// something is pushed, with the projects of those that there are.
func (i *Images) Awaited(ctx context.Context, reference string) ([]Repo, error) {
	ref, err := ParseReference(reference)
	if err != nil {
		return nil, err
	}
	var repos []Repo
	for _, name := range i.candidates(ref) {
		project, err := i.store.Project(ctx, name)
		if err != nil {
			return nil, err
		}
		repos = append(repos, Repo{Name: name, Project: project})
	}
	return repos, nil
}

// Keep makes an image young that something which is not over will start: what was
// packed for a run is collected by its age. One that is not kept is nobody's loss.
func (i *Images) Keep(ctx context.Context, reference string) error {
	repo, st, err := i.find(ctx, reference)
	if code := resource.CodeOf(err); code == codes.NotFound || code == codes.InvalidArgument {
		return nil
	}
	if err != nil {
		return err
	}
	return i.store.started(ctx, repo, st)
}

// find gives the manifest that a reference names. A bare digest is an image of any
// repository.
func (i *Images) find(ctx context.Context, reference string) (repo string, st Stored, err error) {
	if d, err := ParseDigest(reference); err == nil {
		rows, err := i.store.rows.List(ctx, store.Query{Kind: kindManifest, States: []string{string(d)}, Limit: 1})
		if err != nil || len(rows) == 0 {
			return "", st, noImage(reference, err)
		}
		st, err = decodeManifest(rows[0])
		return rows[0].Parent, st, err
	}
	ref, err := ParseReference(reference)
	if err != nil {
		return "", st, err
	}
	for _, repo := range i.candidates(ref) {
		st, err := i.store.Manifest(ctx, repo, ref.Version())
		if !resource.IsNotFound(err) {
			return repo, st, err
		}
	}
	return "", st, noImage(reference, nil)
}

func (i *Images) candidates(ref Reference) []string {
	if i.own(ref.Host) {
		return []string{ref.Path}
	}
	return ref.Candidates()
}

func noImage(reference string, err error) error {
	if err != nil {
		return err
	}
	return resource.Errorf(codes.NotFound, "image %s is not on this machine", reference).WithResource(reference).
		WithHint("bring it with `tategu image pull %s`, or from a file with `tategu image import FILE`", reference).WithCause(resource.CauseInput)
}

// forMachine follows indexes down to the manifest of an image that runs here.
func (s *Store) forMachine(ctx context.Context, repo string, st Stored, depth int) (Stored, Manifest, error) {
	m, err := ParseManifest(st.MediaType, st.Raw)
	if err != nil || !m.IsIndex() {
		return st, m, err
	}
	if depth == maxDepth {
		return st, m, Refuse(ErrManifestInvalid, "it has indexes in indexes, more than %d deep", maxDepth)
	}
	fit, err := s.machine.choose(m)
	if err != nil {
		return st, m, err
	}
	var failure error
	for n, d := range fit {
		if n == maxDepth { // hostile: a tree of indexes that all fit
			break
		}
		child, err := s.Manifest(ctx, repo, string(d.Digest))
		if err == nil {
			var cm Manifest
			if child, cm, err = s.forMachine(ctx, repo, child, depth+1); err == nil {
				if d.Platform != nil {
					return child, cm, nil
				}
				if child.Platform == nil || s.machine.rank(*child.Platform) >= 0 {
					return child, cm, nil
				}
				err = s.machine.refuse([]string{child.Platform.String()})
			}
		}
		if failure == nil {
			failure = err
		}
	}
	return st, m, failure
}

func (s *Store) assemble(ctx context.Context, repo string, st Stored, m Manifest) (runtime.Image, error) {
	if !m.isImage() {
		return runtime.Image{}, Refuse(ErrUnsupported, "it is not a container image: its config is of type %.100q", m.Config.MediaType)
	}
	if len(m.Layers) > maxLayers {
		return runtime.Image{}, Refuse(ErrUnsupported, "it has %d layers, the most is %d", len(m.Layers), maxLayers).WithHint("squash it")
	}
	b, err := s.Blob(ctx, repo, m.Config.Digest)
	if err != nil {
		return runtime.Image{}, err
	}
	data, err := s.ReadBlob(ctx, b)
	if err != nil {
		return runtime.Image{}, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return runtime.Image{}, err
	}
	if c.OS != "" && s.machine.rank(c.Platform) < 0 {
		return runtime.Image{}, s.machine.refuse([]string{c.String()})
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return runtime.Image{}, Refuse(ErrManifestInvalid, "its manifest has %d layers and its config %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	img := runtime.Image{Digest: string(st.Digest), Config: c.process()}
	for n, d := range m.Layers {
		if err := d.runnable(); err != nil {
			return img, err
		}
		l, err := s.Blob(ctx, repo, d.Digest)
		if err != nil {
			return img, err
		}
		diffID := c.RootFS.DiffIDs[n]
		img.Layers = append(img.Layers, runtime.Layer{DiffID: string(diffID), Size: l.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return s.openLayer(ctx, l, diffID)
		}})
	}
	return img, nil
}
