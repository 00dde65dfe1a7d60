package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Stored is a manifest as it is kept.
type Stored struct {
	Digest       Digest    `json:"-"`
	MediaType    string    `json:"mediaType"`
	ArtifactType string    `json:"artifactType,omitempty"`
	Platform     *Platform `json:"platform,omitempty"` // of an image
	Blobs        int64     `json:"blobs"`              // bytes of config and layers, as kept
	Created      time.Time `json:"created,omitzero"`   // as the config says
	Raw          []byte    `json:"raw"`
	Pushed       time.Time `json:"-"`
}

func decodeManifest(row store.Row) (Stored, error) {
	var m Stored
	if err := json.Unmarshal(row.Data, &m); err != nil {
		return m, fmt.Errorf("decode manifest %s: %w", row.Key, err)
	}
	m.Digest, m.Pushed = Digest(row.State), row.Created
	return m, nil
}

// PutManifest stores a manifest under a tag or its digest. All that it names must
// be in the repository already; a subject need not.
func (s *Store) PutManifest(ctx context.Context, repo Repo, version, contentType string, raw []byte) (Stored, Manifest, error) {
	tag, d, err := ParseVersion(version)
	if err != nil {
		return Stored{}, Manifest{}, err
	}
	if d == "" {
		d = DigestOf(raw)
	} else if err := d.checkBytes(raw); err != nil {
		return Stored{}, Manifest{}, err
	}
	m, err := ParseManifest(contentType, raw)
	if err != nil {
		return Stored{}, m, err
	}
	st := Stored{Digest: d, MediaType: m.MediaType, ArtifactType: m.ArtifactType, Blobs: m.total(), Raw: raw, Pushed: s.now().UTC()}
	if st.ArtifactType == "" && m.Config != nil {
		st.ArtifactType = m.Config.MediaType
	}
	if m.isImage() {
		if err := s.describe(ctx, repo.Name, *m.Config, &st); err != nil {
			return st, m, err
		}
	}
	data, err := json.Marshal(st)
	if err != nil {
		return st, m, err
	}
	return st, m, s.rows.Update(ctx, func(tx store.Tx) error {
		if err := ensure(ctx, tx, repo); err != nil {
			return err
		}
		if err := use(ctx, tx, repo.Name, d, m); err != nil {
			return err
		}
		if err := putReferrer(ctx, tx, repo.Name, st, m); err != nil {
			return err
		}
		if err := tx.Put(ctx, store.Row{Kind: kindManifest, Key: key(repo.Name, string(d)), Parent: repo.Name, State: string(d), Data: data}); err != nil || tag == "" {
			return err
		}
		return tx.Put(ctx, store.Row{Kind: kindTag, Key: key(repo.Name, tag), Parent: repo.Name, State: string(d)})
	})
}

// describe reads of the config what lists show. A config that cannot be read is
// stored all the same: only who runs the image needs it.
func (s *Store) describe(ctx context.Context, repo string, config Descriptor, st *Stored) error {
	b, err := s.Blob(ctx, repo, config.Digest)
	if resource.IsNotFound(err) {
		return missing("config", repo, config.Digest)
	}
	if err != nil || b.Size > MaxManifest {
		return err
	}
	data, err := s.ReadBlob(ctx, b)
	if err != nil {
		return err
	}
	if c, err := parseConfig(data); err == nil {
		st.Created = c.Created
		if c.OS != "" {
			st.Platform = &c.Platform
		}
	}
	return nil
}

func missing(what, repo string, d Digest) error {
	return Refuse(ErrManifestBlobUnknown, "the manifest names the %s %s, which repository %s does not have", what, d, repo).WithHint("push it first")
}

// use writes down what a manifest needs, and refuses what is not there.
func use(ctx context.Context, tx store.Tx, repo string, d Digest, m Manifest) error {
	for _, need := range m.blobs() {
		if _, err := tx.Get(ctx, kindLink, key(repo, string(need.Digest))); resource.IsNotFound(err) {
			if need.isForeign() {
				continue
			}
			return missing("blob", repo, need.Digest)
		} else if err != nil {
			return err
		}
		b, err := getBlob(ctx, tx, need.Digest)
		if err != nil {
			return err
		}
		if b.Size != need.Size {
			return Refuse(ErrManifestInvalid, "blob %s has %d bytes, and the manifest says %d", need.Digest, b.Size, need.Size)
		}
	}
	for _, need := range m.Manifests {
		if need.Digest == d {
			return Refuse(ErrManifestInvalid, "the index names itself")
		}
		if _, err := tx.Get(ctx, kindManifest, key(repo, string(need.Digest))); resource.IsNotFound(err) {
			return missing("manifest", repo, need.Digest)
		} else if err != nil {
			return err
		}
	}
	for _, need := range append(m.blobs(), m.Manifests...) {
		if err := tx.Put(ctx, store.Row{Kind: kindUse, Key: key(repo, string(need.Digest), string(d))}); err != nil {
			return err
		}
	}
	return nil
}

func putReferrer(ctx context.Context, tx store.Tx, repo string, st Stored, m Manifest) error {
	if m.Subject == nil {
		return nil
	}
	data, err := json.Marshal(Descriptor{
		MediaType: st.MediaType, Digest: st.Digest, Size: int64(len(st.Raw)), ArtifactType: st.ArtifactType, Annotations: m.Annotations,
	})
	if err != nil {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: kindReferrer, Key: key(repo, string(m.Subject.Digest), string(st.Digest)), Data: data})
}

// Manifest finds a manifest by tag or digest.
func (s *Store) Manifest(ctx context.Context, repo, version string) (Stored, error) {
	tag, d, err := ParseVersion(version)
	if err != nil {
		return Stored{}, err
	}
	unknown := Refuse(ErrManifestUnknown, "repository %s has no manifest %s", repo, version)
	for range 10 { // a tag may move between the two reads
		if tag != "" {
			row, err := s.rows.Get(ctx, kindTag, key(repo, tag))
			if resource.IsNotFound(err) {
				return Stored{}, unknown
			}
			if err != nil {
				return Stored{}, err
			}
			d = Digest(row.State)
		}
		row, err := s.rows.Get(ctx, kindManifest, key(repo, string(d)))
		if resource.IsNotFound(err) && tag != "" {
			continue
		}
		if resource.IsNotFound(err) {
			return Stored{}, unknown
		}
		if err != nil {
			return Stored{}, err
		}
		return decodeManifest(row)
	}
	return Stored{}, unknown
}

// Tag makes a tag name a manifest of the repository.
func (s *Store) Tag(ctx context.Context, repo, version, tag string) error {
	if !validTag(tag) {
		return Refuse(ErrNameInvalid, "%.150q is not a tag", tag)
	}
	m, err := s.Manifest(ctx, repo, version)
	if err != nil {
		return err
	}
	return s.rows.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get(ctx, kindManifest, key(repo, string(m.Digest))); err != nil {
			return err
		}
		return tx.Put(ctx, store.Row{Kind: kindTag, Key: key(repo, tag), Parent: repo, State: string(m.Digest)})
	})
}

// DeleteManifest removes a tag, or a manifest with all its tags. A manifest that an
// index names stays.
func (s *Store) DeleteManifest(ctx context.Context, repo, version string) error {
	tag, d, err := ParseVersion(version)
	if err != nil {
		return err
	}
	return s.rows.Update(ctx, func(tx store.Tx) error {
		if tag == "" {
			return deleteManifest(ctx, tx, repo, d)
		}
		if _, err := tx.Get(ctx, kindTag, key(repo, tag)); resource.IsNotFound(err) {
			return Refuse(ErrManifestUnknown, "repository %s has no tag %s", repo, tag)
		} else if err != nil {
			return err
		}
		return tx.Delete(ctx, kindTag, key(repo, tag))
	})
}

func deleteManifest(ctx context.Context, tx store.Tx, repo string, d Digest) error {
	k := key(repo, string(d))
	row, err := tx.Get(ctx, kindManifest, k)
	if resource.IsNotFound(err) {
		return Refuse(ErrManifestUnknown, "repository %s has no manifest %s", repo, d)
	}
	if err != nil {
		return err
	}
	if err := unused(ctx, tx, k); err != nil {
		return err
	}
	st, err := decodeManifest(row)
	if err != nil {
		return err
	}
	m, err := ParseManifest(st.MediaType, st.Raw)
	if err != nil {
		return err
	}
	for _, need := range append(m.blobs(), m.Manifests...) {
		if err := tx.Delete(ctx, kindUse, key(repo, string(need.Digest), string(d))); err != nil {
			return err
		}
		// What it needed is young again, so that the next push finds it.
		if err := renew(ctx, tx, key(repo, string(need.Digest))); err != nil {
			return err
		}
	}
	if m.Subject != nil {
		if err := tx.Delete(ctx, kindReferrer, key(repo, string(m.Subject.Digest), string(d))); err != nil {
			return err
		}
	}
	tags, err := tx.List(ctx, store.Query{Kind: kindTag, Parent: repo, States: []string{string(d)}})
	if err != nil {
		return err
	}
	for _, t := range tags {
		if err := tx.Delete(ctx, kindTag, t.Key); err != nil {
			return err
		}
	}
	return tx.Delete(ctx, kindManifest, k)
}

func renew(ctx context.Context, tx store.Tx, link string) error {
	row, err := tx.Get(ctx, kindLink, link)
	if resource.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.Put(ctx, row)
}

// Tags lists up to limit tags after one, in order; limit 0 = all.
func (s *Store) Tags(ctx context.Context, repo, after string, limit int) ([]string, error) {
	if err := s.HasRepository(ctx, repo); err != nil {
		return nil, err
	}
	q := store.Query{Kind: kindTag, Prefix: repo + "@", Limit: limit}
	if after != "" {
		q.After = key(repo, after)
	}
	rows, err := s.rows.List(ctx, q)
	if err != nil {
		return nil, err
	}
	tags := make([]string, 0, len(rows))
	for _, row := range rows {
		tags = append(tags, strings.TrimPrefix(row.Key, repo+"@"))
	}
	return tags, nil
}

// Referrers lists the manifests whose subject is d, of one artifact type if it is
// not "".
func (s *Store) Referrers(ctx context.Context, repo string, d Digest, artifactType string) ([]Descriptor, error) {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindReferrer, Prefix: key(repo, string(d)) + "@"})
	if err != nil {
		return nil, err
	}
	found := make([]Descriptor, 0, len(rows))
	for _, row := range rows {
		var desc Descriptor
		if err := json.Unmarshal(row.Data, &desc); err != nil {
			return nil, fmt.Errorf("decode referrer %s: %w", row.Key, err)
		}
		if artifactType == "" || desc.ArtifactType == artifactType {
			found = append(found, desc)
		}
	}
	return found, nil
}

// Entry is a line of a list of images.
type Entry struct {
	Repository string     `json:"repository"`
	Project    string     `json:"project"`
	Tags       []string   `json:"tags,omitempty"`
	Digest     Digest     `json:"digest"`
	MediaType  string     `json:"mediaType"`
	Artifact   string     `json:"artifactType,omitempty"`
	Platforms  []Platform `json:"platforms,omitempty"`
	Size       int64      `json:"size"` // bytes of all that it needs, as kept; what images share counts for each
	Pushed     time.Time  `json:"pushed"`
	Created    time.Time  `json:"created,omitzero"`
}

// Entries lists the manifests of a repository; those that are only parts of an
// index are in its line.
func (s *Store) Entries(ctx context.Context, repo Repo) ([]Entry, error) {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindManifest, Prefix: repo.Name + "@"})
	if err != nil {
		return nil, err
	}
	tagRows, err := s.rows.List(ctx, store.Query{Kind: kindTag, Prefix: repo.Name + "@"})
	if err != nil {
		return nil, err
	}
	tags := map[Digest][]string{}
	for _, row := range tagRows {
		tags[Digest(row.State)] = append(tags[Digest(row.State)], strings.TrimPrefix(row.Key, repo.Name+"@"))
	}
	all, children := map[Digest]Stored{}, map[Digest][]Digest{}
	part := map[Digest]bool{}
	for _, row := range rows {
		st, err := decodeManifest(row)
		if err != nil {
			return nil, err
		}
		m, err := ParseManifest(st.MediaType, st.Raw)
		if err != nil {
			return nil, err
		}
		for _, c := range m.Manifests {
			children[st.Digest], part[c.Digest] = append(children[st.Digest], c.Digest), true
		}
		all[st.Digest] = st
	}
	entries := make([]Entry, 0, len(all))
	for _, row := range rows {
		st := all[Digest(row.State)]
		if part[st.Digest] && len(tags[st.Digest]) == 0 {
			continue
		}
		e := Entry{
			Repository: repo.Name, Project: repo.Project, Tags: tags[st.Digest], Digest: st.Digest, MediaType: st.MediaType,
			Artifact: st.ArtifactType, Pushed: st.Pushed, Created: st.Created,
		}
		e.add(st, all, children, map[Digest]bool{})
		entries = append(entries, e)
	}
	return entries, nil
}

func (e *Entry) add(st Stored, all map[Digest]Stored, children map[Digest][]Digest, seen map[Digest]bool) {
	if seen[st.Digest] {
		return
	}
	seen[st.Digest] = true
	e.Size += st.Blobs + int64(len(st.Raw))
	if st.Platform != nil {
		e.Platforms = append(e.Platforms, *st.Platform)
	}
	for _, d := range children[st.Digest] {
		if c, ok := all[d]; ok {
			e.add(c, all, children, seen)
		}
	}
}
