// Package oci keeps the file systems of container images unpacked, one directory a
// digest; package box runs programs in them.
package oci

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/record"
)

// Store keeps unpacked images. Below its directory are, for a digest sha256:HEX,
//
//	HEX/rootfs         the file system
//	HEX/complete.json  written last: the image is whole; its time is that of the last use
//	HEX.new            one that is being unpacked, or was when its server was killed
//	HEX.lock           held shared by whoever uses the image, exclusively by who makes or removes it
//
// Several servers may share the directory: all that they agree by is these files.
type Store struct {
	dir    string
	limits Limits
	ids    box.Mapping
	log    *slog.Logger
	now    func() time.Time
}

// Limits bound what an image may unpack to, and what the store may hold.
type Limits struct {
	Entries   int64 // files, directories and links of one image
	Bytes     int64 // of one image's files
	Ratio     int64 // how many times a layer may be larger than it is as kept; small ones may always
	KeepBytes int64 // unpacked images that nothing uses go beyond this, the least recently used first
	// KeepSetuid keeps setuid and setgid bits. They have no effect where a program
	// cannot gain privileges, so they are dropped unless asked for.
	KeepSetuid bool
}

// DefaultLimits are those of a development machine.
func DefaultLimits() Limits {
	return Limits{Entries: 2_000_000, Bytes: 64 << 30, Ratio: 200, KeepBytes: 20 << 30}
}

// freeRatio is what a layer may unpack to whatever its ratio is.
const freeRatio = 64 << 20

const (
	markerName = "complete.json"
	rootfsName = "rootfs"
	newSuffix  = ".new"
	oldSuffix  = ".old"
	lockSuffix = ".lock"
)

// marker is complete.json.
type marker struct {
	Digest  string
	Base    int // first host id of the owners; see box.Mapping
	Entries int64
	Bytes   int64
	Skipped int64 // device nodes, pipes and sockets that were left out
	Made    time.Time
}

// Tree is an unpacked image, kept as long as its lock is held.
type Tree struct {
	Dir  string // the root file system
	Lock string // path of the lock file: whoever uses Dir holds it shared
	held *os.File
}

// Close gives the image up.
func (t *Tree) Close() error {
	if t == nil || t.held == nil {
		return nil
	}
	return t.held.Close()
}

// NewStore keeps images below dir, which need not exist. Files get the owners
// that ids maps the image's to.
func NewStore(dir string, limits Limits, ids box.Mapping, log *slog.Logger, now func() time.Time) *Store {
	return &Store{dir: dir, limits: limits, ids: ids, log: log, now: now}
}

// Get unpacks the image unless it is here. Concurrent calls, of other servers
// too, share one unpacking. say tells what is going on.
func (s *Store) Get(ctx context.Context, image runtime.Image, say func(string)) (*Tree, error) {
	hexDigest, err := s.name(image.Digest)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", image.Reference, err)
	}
	dir := filepath.Join(s.dir, hexDigest)
	for {
		held, err := box.Lock(ctx, dir+lockSuffix, syscall.LOCK_SH)
		if err != nil {
			return nil, fmt.Errorf("use image %s: %w", image.Reference, err)
		}
		if s.complete(dir) {
			now := s.now()
			_ = os.Chtimes(filepath.Join(dir, markerName), now, now) // only the order of removal hangs on it
			return &Tree{Dir: filepath.Join(dir, rootfsName), Lock: dir + lockSuffix, held: held}, nil
		}
		if err := held.Close(); err != nil {
			return nil, err
		}
		if err := s.make(ctx, dir, image, say); err != nil {
			return nil, err
		}
	}
}

// name checks a digest, which becomes a file name.
func (s *Store) name(digest string) (string, error) {
	hexDigest, ok := strings.CutPrefix(digest, "sha256:")
	if b, err := hex.DecodeString(hexDigest); !ok || err != nil || len(b) != 32 {
		return "", resource.Invalid("image", "%q is not a digest of the form sha256:HEX", digest)
	}
	if s.ids.Base != 0 {
		// Owners are part of what is on disk: a server of another mapping has its own.
		return fmt.Sprintf("%s-%d", strings.ToLower(hexDigest), s.ids.Base), nil
	}
	return strings.ToLower(hexDigest), nil
}

func (s *Store) complete(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, markerName))
	return err == nil
}

// make unpacks beside the final place and renames when all is on the disk.
func (s *Store) make(ctx context.Context, dir string, image runtime.Image, say func(string)) error {
	say("waiting for image " + image.Reference)
	held, err := box.Lock(ctx, dir+lockSuffix, syscall.LOCK_EX)
	if err != nil {
		return fmt.Errorf("unpack image %s: %w", image.Reference, err)
	}
	defer func() { _ = held.Close() }() // ends the lock
	if s.complete(dir) {
		return nil // somebody else did it meanwhile
	}
	start := s.now()
	fresh := dir + newSuffix
	for _, left := range []string{fresh, dir} {
		if err := record.RemoveAll(left); err != nil {
			return fmt.Errorf("remove what a killed server left of image %s: %w", image.Reference, err)
		}
	}
	m, err := s.unpack(ctx, fresh, image, say)
	if err != nil {
		_ = record.RemoveAll(fresh) // the first error is the one to tell; the next try removes it, too
		return fmt.Errorf("unpack image %s: %w", image.Reference, err)
	}
	if err := s.seal(fresh, dir, m); err != nil {
		return fmt.Errorf("unpack image %s: %w", image.Reference, err)
	}
	s.log.InfoContext(ctx, "unpacked an image", slog.String("image", image.Reference), slog.String("digest", image.Digest),
		slog.Int64("entries", m.Entries), slog.Int64("bytes", m.Bytes), slog.Int64("skipped", m.Skipped), slog.Duration("took", s.now().Sub(start)))
	return nil
}

// seal makes a whole tree visible in one step that survives a power loss.
func (s *Store) seal(fresh, dir string, m marker) error {
	if err := syncTree(fresh); err != nil {
		return err
	}
	m.Made = s.now()
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(fresh, markerName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Collect removes unpacked images that nothing uses until the rest fits in
// KeepBytes, and what killed servers left. It gives the bytes that it freed.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for unpacked images: %w", err)
	}
	type kept struct {
		dir  string
		m    marker
		used time.Time
	}
	var all []kept
	var total int64
	for _, e := range entries {
		dir := filepath.Join(s.dir, e.Name())
		if base, ok := strings.CutSuffix(dir, newSuffix); ok {
			s.remove(ctx, base, dir)
		}
		if base, ok := strings.CutSuffix(dir, oldSuffix); ok {
			s.remove(ctx, base, dir)
		}
		var m marker
		b, err := os.ReadFile(filepath.Join(dir, markerName))
		if err != nil || json.Unmarshal(b, &m) != nil {
			continue
		}
		st, err := os.Stat(filepath.Join(dir, markerName))
		if err != nil {
			continue // removed meanwhile
		}
		all = append(all, kept{dir, m, st.ModTime()})
		total += m.Bytes
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	for _, k := range all {
		if total <= s.limits.KeepBytes {
			break
		}
		if s.remove(ctx, k.dir, k.dir) {
			total -= k.m.Bytes
			freed += k.m.Bytes
		}
	}
	return freed, nil
}

// remove takes a directory away if nobody holds the lock of its image.
func (s *Store) remove(ctx context.Context, image, dir string) bool {
	f, err := os.OpenFile(image+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // ends the lock
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false // in use
	}
	gone := image + oldSuffix
	if dir == image {
		// The marker must not outlive the files if we are killed on the way.
		if err := errors.Join(record.RemoveAll(gone), os.Rename(dir, gone)); err != nil {
			s.log.WarnContext(ctx, "remove an unpacked image", slog.String("dir", dir), slog.Any("error", err))
			return false
		}
		dir = gone
	}
	if err := record.RemoveAll(dir); err != nil {
		s.log.WarnContext(ctx, "remove an unpacked image", slog.String("dir", dir), slog.Any("error", err))
	}
	return true
}
