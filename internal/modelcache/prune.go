package modelcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Kept is a model of the cache.
type Kept struct {
	Digest  string    `json:"digest"`
	Model   string    `json:"model"` // that its files came for first
	Version string    `json:"version"`
	Bytes   int64     `json:"bytes"` // of its files; equal files of several models count for each
	Used    time.Time `json:"used"`
	Busy    bool      `json:"in_use,omitempty"`
	Damaged string    `json:"damaged,omitempty"` // why it cannot be used
}

// Kept lists the models of the cache, the last used first.
func (c *Cache) Kept() ([]Kept, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	var all []Kept
	for _, d := range entries {
		if !d.IsDir() || !isDigest(d.Name()) {
			continue
		}
		k, err := c.kept(d.Name())
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	slices.SortStableFunc(all, func(a, b Kept) int { return b.Used.Compare(a.Used) })
	return all, nil
}

func (c *Cache) kept(digest string) (k Kept, err error) {
	f, err := os.Open(c.path(digest))
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	k.Digest = "sha256:" + digest
	e := &entry{digest: digest, dir: c.path(digest, filesDir)}
	if err := e.read(); err != nil {
		k.Damaged = err.Error()
	}
	k.Model, k.Version = e.manifest.Model, e.manifest.Version
	for _, file := range e.manifest.Files {
		k.Bytes += file.Size
	}
	used, err := os.Stat(c.path(digest, manifestName))
	if err != nil {
		used, err = f.Stat()
	}
	if err != nil {
		return k, err
	}
	k.Used = used.ModTime()
	switch err := tryLock(f, false); {
	case errors.Is(err, errBusy):
		k.Busy = true
	case err != nil:
		return k, err
	}
	return k, nil
}

// Rule says what Prune removes: what was not used since Before and is not among the
// Keep that were used last; damaged models always. What is in use stays.
type Rule struct {
	Before  time.Time
	Keep    int
	Damaged bool // these alone
	DryRun  bool
}

// Pruned is what Prune did.
type Pruned struct {
	Models []Kept `json:"removed"`
	Busy   []Kept `json:"in_use"` // would have been removed
	Bytes  int64  `json:"bytes"`  // that the disk has again, or would have
}

// Prune removes models, contents that no model has, and what killed pulls left.
func (c *Cache) Prune(rule Rule) (Pruned, error) {
	done := Pruned{Models: []Kept{}, Busy: []Kept{}}
	all, err := c.Kept()
	if err != nil {
		return done, err
	}
	going := map[string]bool{}
	for i, k := range all {
		if k.Damaged == "" && (rule.Damaged || i < rule.Keep || !k.Used.Before(rule.Before)) {
			continue
		}
		removed := !k.Busy
		if removed && !rule.DryRun {
			if removed, err = c.remove(k); err != nil {
				return done, err
			}
		}
		if !removed {
			done.Busy = append(done.Busy, k)
			continue
		}
		done.Models, going[k.Digest] = append(done.Models, k), true
	}
	if done.Bytes, err = c.sweep(rule.DryRun, going); err != nil || rule.DryRun {
		return done, err
	}
	return done, c.clearParts()
}

// remove takes a model's directory away, unless it is in use.
func (c *Cache) remove(k Kept) (removed bool, err error) {
	dir := c.path(k.Digest[len("sha256:"):])
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := tryLock(f, false); errors.Is(err, errBusy) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if !isAt(f, dir) {
		return true, nil // someone else did
	}
	return true, c.discard(dir)
}

// discard moves a directory out of the way, so that it is never there in part, and
// removes it.
func (c *Cache) discard(dir string) (err error) {
	away, err := os.MkdirTemp(c.path(partsDir), "removed-")
	if err != nil {
		return err
	}
	lock, err := os.Open(away)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := tryLock(lock, false); err != nil { // no one looks into what is this new
		return err
	}
	if err := os.Rename(dir, filepath.Join(away, filepath.Base(dir))); err != nil {
		return fmt.Errorf("remove %s: %w", dir, errors.Join(err, os.Remove(away)))
	}
	return removeAll(away)
}

// sweep removes contents that no model has. On a dry run it counts what the models
// that would go have for themselves.
func (c *Cache) sweep(dry bool, going map[string]bool) (freed int64, err error) {
	gone := map[string]uint64{} // links of contents by models that would go
	if dry {
		for digest := range going {
			e := &entry{dir: c.path(digest[len("sha256:"):], filesDir)}
			if e.read() != nil {
				continue // what is damaged cannot be counted
			}
			for _, f := range e.manifest.Files {
				if info, err := os.Lstat(filepath.Join(e.dir, filepath.FromSlash(f.Name))); err == nil {
					inode, _ := links(info)
					gone[inode]++
				}
			}
		}
	}
	entries, err := os.ReadDir(c.path(contentDir))
	if err != nil {
		return 0, err
	}
	for _, d := range entries {
		n, err := c.sweepOne(c.path(contentDir, d.Name()), dry, gone)
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, nil
}

func (c *Cache) sweepOne(content string, dry bool, gone map[string]uint64) (freed int64, err error) {
	f, err := os.Open(content)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := tryLock(f, false); errors.Is(err, errBusy) {
		return 0, nil // it came this moment
	} else if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if inode, n := links(info); n != 1+gone[inode] {
		return 0, nil
	}
	if !dry {
		err = os.Remove(content)
	}
	return info.Size(), err
}

// clearParts removes what killed pulls and prunes left: parts that no one locks.
func (c *Cache) clearParts() error {
	entries, err := os.ReadDir(c.path(partsDir))
	if err != nil {
		return err
	}
	for _, d := range entries {
		if err := clearPart(c.path(partsDir, d.Name())); err != nil {
			return err
		}
	}
	return nil
}

func clearPart(part string) (err error) {
	info, err := os.Lstat(part)
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < partAge {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.Open(part)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := tryLock(f, false); errors.Is(err, errBusy) {
		return nil
	} else if err != nil {
		return err
	}
	if !isAt(f, part) {
		return nil // it has got its place
	}
	return removeAll(part)
}

// partAge is how old a part is before it is looked at: a new one is made an instant
// before it is locked.
const partAge = time.Minute
