package image

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// batch is how many rows are read at once.
const batch = 200

// Policy says what may be collected.
type Policy struct {
	// Age keeps blobs that no manifest names yet, and uploads for UploadLife at least.
	Age time.Duration
	// Untagged, unless 0, removes manifests that no tag leads to once they are older.
	Untagged time.Duration
	// Packed, unless 0, is the same for what was packed for a run: see PackedName.
	Packed time.Duration
	DryRun bool
}

// PackedName is the last part of the names of repositories whose images were packed
// for one run and have no name of their own. Each start makes theirs young again.
const PackedName = "tategu-run"

// untagged is how long a repository keeps a manifest without a tag; 0 = for good.
func (p Policy) untagged(repo string) time.Duration {
	if path.Base(repo) != PackedName || p.Packed == 0 {
		return p.Untagged
	}
	if p.Untagged == 0 {
		return p.Packed
	}
	return min(p.Packed, p.Untagged)
}

// Collected says what Collect removed.
type Collected struct {
	Manifests    int   `json:"manifests"`    // untagged
	Blobs        int   `json:"blobs"`        // that no manifest names
	Uploads      int   `json:"uploads"`      // that nobody went on with
	Repositories int   `json:"repositories"` // that were empty
	Bytes        int64 `json:"bytes"`        // of the blobs and uploads
}

// Collect removes what nothing needs. A dry run does not foresee the blobs that
// come free by the manifests that would go.
func (s *Store) Collect(ctx context.Context, p Policy) (Collected, error) {
	c := &collector{Store: s, policy: p}
	for _, step := range []func(context.Context) error{c.uploads, c.untagged, c.links, c.blobs, c.repositories} {
		if err := step(ctx); err != nil {
			return c.done, err
		}
	}
	return c.done, nil
}

type collector struct {
	*Store
	policy Policy
	done   Collected
}

func (c *collector) old(t time.Time, age time.Duration) bool { return t.Before(c.now().Add(-age)) }

// scan calls fn for the rows of a kind whose keys begin with prefix.
func (s *Store) scan(ctx context.Context, kind store.Kind, prefix string, fn func(store.Row) error) error {
	for after := ""; ; {
		rows, err := s.rows.List(ctx, store.Query{Kind: kind, Prefix: prefix, After: after, Limit: batch})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if err := fn(row); err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Key
	}
}

func (c *collector) uploads(ctx context.Context) error {
	return c.scan(ctx, kindUpload, "", func(row store.Row) error {
		if !c.old(row.Updated, max(UploadLife, c.policy.Age)) {
			return nil
		}
		u, err := c.GetUpload(ctx, row.Parent, row.Key)
		if err != nil {
			return ignoreGone(err)
		}
		c.done.Uploads, c.done.Bytes = c.done.Uploads+1, c.done.Bytes+u.Received
		if c.policy.DryRun {
			return nil
		}
		return ignoreGone(c.CancelUpload(ctx, row.Parent, row.Key))
	})
}

func ignoreGone(err error) error {
	if resource.IsNotFound(err) {
		return nil
	}
	return err
}

// untagged removes the manifests that neither a tag nor a referrer's subject keeps.
func (c *collector) untagged(ctx context.Context) error {
	return c.scan(ctx, kindRepo, "", func(repo store.Row) error {
		age := c.policy.untagged(repo.Key)
		if age == 0 {
			return nil
		}
		kept, err := c.reachable(ctx, repo.Key)
		if err != nil {
			return err
		}
		var gone []Digest
		err = c.scan(ctx, kindManifest, repo.Key+"@", func(row store.Row) error {
			if d := Digest(row.State); !kept[d] && c.old(row.Updated, age) {
				gone = append(gone, d)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return c.remove(ctx, repo.Key, gone)
	})
}

// remove deletes manifests, indexes before what they name.
func (c *collector) remove(ctx context.Context, repo string, gone []Digest) error {
	if c.policy.DryRun {
		c.done.Manifests += len(gone)
		return nil
	}
	for range maxDepth + 1 {
		var kept []Digest
		for _, d := range gone {
			err := c.rows.Update(ctx, func(tx store.Tx) error {
				if row, err := tx.Get(ctx, kindManifest, key(repo, string(d))); err != nil || !c.old(row.Updated, c.policy.untagged(repo)) {
					return err // pushed again or started meanwhile
				}
				tags, err := tx.List(ctx, store.Query{Kind: kindTag, Parent: repo, States: []string{string(d)}, Limit: 1})
				if err != nil || len(tags) > 0 {
					return err // tagged meanwhile
				}
				if err := deleteManifest(ctx, tx, repo, d); err != nil {
					return err
				}
				c.done.Manifests++
				return nil
			})
			if isCode(err, ErrUnsupported) {
				kept = append(kept, d)
				continue
			}
			if err := ignoreGone(err); err != nil {
				return err
			}
		}
		if gone = kept; len(gone) == 0 {
			break
		}
	}
	return nil
}

// ignoreUsed passes all errors but that of unused.
func ignoreUsed(err error) error {
	if isCode(err, ErrUnsupported) {
		return nil
	}
	return err
}

func isCode(err error, c Code) bool {
	got, ok := errors.AsType[Code](err)
	return ok && got == c
}

// reachable finds what tags lead to, through indexes and to referrers.
func (c *collector) reachable(ctx context.Context, repo string) (map[Digest]bool, error) {
	kept := map[Digest]bool{}
	var queue []Digest
	add := func(d Digest) {
		if !kept[d] {
			kept[d] = true
			queue = append(queue, d)
		}
	}
	err := c.scan(ctx, kindTag, repo+"@", func(row store.Row) error { add(Digest(row.State)); return nil })
	if err != nil {
		return nil, err
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		err := c.scan(ctx, kindReferrer, key(repo, string(d))+"@", func(row store.Row) error {
			add(Digest(row.Key[strings.LastIndexByte(row.Key, '@')+1:]))
			return nil
		})
		if err != nil {
			return nil, err
		}
		row, err := c.rows.Get(ctx, kindManifest, key(repo, string(d)))
		if resource.IsNotFound(err) {
			continue // of an index that is not whole
		}
		if err != nil {
			return nil, err
		}
		st, err := decodeManifest(row)
		if err != nil {
			return nil, err
		}
		m, err := ParseManifest(st.MediaType, st.Raw)
		if err != nil {
			return nil, err
		}
		for _, child := range m.Manifests {
			add(child.Digest)
		}
	}
	return kept, nil
}

// links takes blobs out of repositories that have no manifest with them.
func (c *collector) links(ctx context.Context) error {
	return c.scan(ctx, kindLink, "", func(row store.Row) error {
		if !c.old(row.Updated, c.policy.Age) || c.policy.DryRun {
			return nil
		}
		if err := unused(ctx, c.rows, row.Key); err != nil {
			return ignoreUsed(err)
		}
		return c.rows.Update(ctx, func(tx store.Tx) error {
			now, err := tx.Get(ctx, kindLink, row.Key)
			if err != nil {
				return ignoreGone(err)
			}
			err = unused(ctx, tx, row.Key)
			if err != nil || !c.old(now.Updated, c.policy.Age) {
				return ignoreUsed(err) // named or touched meanwhile
			}
			return tx.Delete(ctx, kindLink, row.Key)
		})
	})
}

// blobs removes those that are in no repository.
func (c *collector) blobs(ctx context.Context) error {
	return c.scan(ctx, kindBlob, "", func(row store.Row) error {
		b, err := decodeBlob(row)
		if err != nil || !c.old(row.Updated, c.policy.Age) {
			return err
		}
		free, err := c.free(ctx, c.rows, row.Key)
		if err != nil || !free {
			return err
		}
		if !c.policy.DryRun {
			err := c.rows.Update(ctx, func(tx store.Tx) error {
				if free, err = c.free(ctx, tx, row.Key); err != nil || !free {
					return err
				}
				return tx.Delete(ctx, kindBlob, row.Key)
			})
			if err != nil || !free {
				return err
			}
			c.discard(ctx, b.Content)
		}
		c.done.Blobs, c.done.Bytes = c.done.Blobs+1, c.done.Bytes+b.Size
		return nil
	})
}

// free reports a blob that no repository has, or in a dry run none that would keep it.
func (c *collector) free(ctx context.Context, r store.Reader, d string) (bool, error) {
	links, err := r.List(ctx, store.Query{Kind: kindLink, States: []string{d}})
	if err != nil || !c.policy.DryRun {
		return len(links) == 0, err
	}
	for _, l := range links {
		if !c.old(l.Updated, c.policy.Age) {
			return false, nil
		}
		if err := unused(ctx, r, l.Key); err != nil {
			return false, ignoreUsed(err)
		}
	}
	return true, nil
}

func (c *collector) repositories(ctx context.Context) error {
	return c.scan(ctx, kindRepo, "", func(row store.Row) error {
		if !c.old(row.Updated, c.policy.Age) {
			return nil
		}
		empty, err := isEmpty(ctx, c.rows, row.Key)
		if err != nil || !empty {
			return err
		}
		if !c.policy.DryRun {
			err := c.rows.Update(ctx, func(tx store.Tx) error {
				if empty, err = isEmpty(ctx, tx, row.Key); err != nil || !empty {
					return err
				}
				return tx.Delete(ctx, kindRepo, row.Key)
			})
			if err != nil || !empty {
				return err
			}
		}
		c.done.Repositories++
		return nil
	})
}

func isEmpty(ctx context.Context, r store.Reader, repo string) (bool, error) {
	for _, kind := range []store.Kind{kindManifest, kindLink} {
		rows, err := r.List(ctx, store.Query{Kind: kind, Prefix: repo + "@", Limit: 1})
		if err != nil || len(rows) > 0 {
			return false, err
		}
	}
	rows, err := r.List(ctx, store.Query{Kind: kindUpload, Parent: repo, Limit: 1})
	return len(rows) == 0, err
}

// Checked says what Check read.
type Checked struct {
	Blobs   int
	Bytes   int64
	Damaged int
}

// Check reads every blob against its digest and tells damaged of those that are not
// as they were written, or not there.
func (s *Store) Check(ctx context.Context, damaged func(Digest, error)) (Checked, error) {
	var done Checked
	err := s.scan(ctx, kindBlob, "", func(row store.Row) error {
		b, err := decodeBlob(row)
		if err != nil {
			return err
		}
		err = s.checkBlob(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, gone := s.rows.Get(ctx, kindBlob, row.Key); err != nil && resource.IsNotFound(gone) {
			return nil // removed while it was read
		}
		done.Blobs, done.Bytes = done.Blobs+1, done.Bytes+b.Size
		if err != nil {
			done.Damaged++
			damaged(b.Digest, err)
		}
		return nil
	})
	return done, err
}

func (s *Store) checkBlob(ctx context.Context, b Blob) (err error) {
	r, err := s.OpenBlob(ctx, b, 0, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := b.Digest.hash()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	return b.Digest.check(h)
}
