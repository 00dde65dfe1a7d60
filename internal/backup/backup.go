// Package backup keeps a copy of a server in a directory: its state as of one
// moment, every content that the state names, its certificate authority and keys.
// A backup is made while the server runs, and again into the same directory it
// copies what is new only. The manifest is replaced last and in one step, and what
// an earlier manifest names is removed after that, so that a backup that is cut
// off anywhere leaves the earlier one whole.
//
//	tategu-backup         what this is, for people; locked while a backup is made
//	backup.json           the manifest
//	state-ID.db           the state, a SQLite file
//	contents-ID.jsonl     one line a content: file, size, CRC32C
//	secrets-ID/...        the directories ca and identity
//	objects/XX/CONTENT    contents that never change
//	objects/XX/CONTENT@N  the first N bytes of one that grows: a log, an upload
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

const (
	format       = 1
	fileManifest = "backup.json"
	fileMarker   = "tategu-backup"
	dirObjects   = "objects"
	parallel     = 8 // contents at a time
)

const markerText = `This directory is a backup made by "tategu backup". It holds secrets: the keys of the
server's certificate authority and of its tokens. Keep it as you keep the server's data
directory. Check it with "tategu backup --verify DIR", use it with "tategu restore DIR --data NEW".
`

// Snapshot is the state as of one moment.
type Snapshot interface {
	store.Reader
	Schema(ctx context.Context) (int64, error)
	Check(ctx context.Context) error
	Close() error
}

// OpenSnapshot opens the state in a file.
type OpenSnapshot func(path string) (Snapshot, error)

// File is one file of a backup, by its path below the directory.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	CRC32C uint32 `json:"crc32c"`
}

// Entry is one content.
type Entry struct {
	ID     string `json:"id"`
	File   string `json:"file"` // below objects/
	Size   int64  `json:"size"`
	CRC32C uint32 `json:"crc32c"`
}

// Manifest says what a backup holds.
type Manifest struct {
	Format   int       `json:"format"`
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Version  string    `json:"version"` // of the server
	Schema   int64     `json:"schema"`  // of the state
	State    File      `json:"state"`
	List     File      `json:"contents"`
	Secrets  []File    `json:"secrets"`
	Contents int       `json:"contentCount"`
	Bytes    int64     `json:"contentBytes"`
	// Damaged are contents that could not be read as they were written, by the rows
	// that name them; everything else is whole.
	Damaged []string `json:"damaged,omitempty"`
}

// Progress is how far a backup, a check or a restore is.
type Progress struct {
	Phase    string `json:"phase"` // state, contents, done
	Done     int64  `json:"done"`  // bytes
	Total    int64  `json:"total"`
	Contents int    `json:"contents"`
	Copied   int    `json:"copied"` // not there before
	Linked   int    `json:"linked"` // of the copied ones, those that took no room
}

func table() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// ReadManifest reads the manifest of the backup in dir.
func ReadManifest(dir string) (Manifest, error) {
	var m Manifest
	b, err := os.ReadFile(filepath.Join(dir, fileManifest))
	if errors.Is(err, fs.ErrNotExist) {
		return m, resource.NotFound(dir).WithHint("there is no finished backup in %s", dir)
	}
	if err != nil {
		return m, fmt.Errorf("read the backup: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("read the backup's manifest: %w", err)
	}
	if m.Format != format {
		return m, resource.Errorf(codes.FailedPrecondition, "the backup in %s has format %d; this tategu knows %d", dir, m.Format, format).
			WithHint("use the tategu that made it: %s", m.Version)
	}
	return m, nil
}

// name is where a content lies below objects/.
func name(id string, size int64, grows bool) string {
	n := filepath.Join(id[max(0, len(id)-2):], id)
	if grows {
		n += "@" + strconv.FormatInt(size, 10)
	}
	return n
}

// each calls fn for the entries of the manifest's list, in its order, some at a time.
func (m Manifest) each(dir string, fn func([]Entry) error) (err error) {
	f, err := os.Open(filepath.Join(dir, m.List.Path))
	if err != nil {
		return fmt.Errorf("read the list of contents: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := crc32.New(table())
	in := json.NewDecoder(io.TeeReader(f, sum))
	var batch []Entry
	for {
		var e Entry
		err := in.Decode(&e)
		if err == nil {
			batch = append(batch, e)
		}
		if len(batch) == 256 || errors.Is(err, io.EOF) {
			if ferr := fn(batch); ferr != nil {
				return ferr
			}
			batch = batch[:0]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the list of contents: %w", err)
		}
	}
	if sum.Sum32() != m.List.CRC32C {
		return damaged(m.List.Path)
	}
	return nil
}

func damaged(what string) error {
	return resource.Errorf(codes.DataLoss, "the backup is damaged: %s is not what was written", what).WithHint("use another backup")
}

// copyFile writes r into a new file at path, durably, and gives what was written.
func copyFile(ctx context.Context, path string, r io.Reader) (f File, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return f, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close() // a second Close after an error is harmless
			_ = os.Remove(tmp.Name())
		}
	}()
	sum := crc32.New(table())
	if f.Size, err = io.Copy(io.MultiWriter(tmp, sum), until(ctx, r)); err != nil {
		return f, err
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return f, err
	}
	f.CRC32C = sum.Sum32()
	return f, os.Rename(tmp.Name(), path)
}

// contextReader ends with its context.
type contextReader struct {
	done func() error
	r    io.Reader
}

func until(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx.Err, r} }

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.done(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// sumFile reads a file.
func sumFile(ctx context.Context, path string) (size int64, crc uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := crc32.New(table())
	size, err = io.Copy(sum, until(ctx, f))
	return size, sum.Sum32(), err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes the names of everything below dir durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}
