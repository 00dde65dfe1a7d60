package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Store keeps images.
type Store struct {
	rows    store.Store
	content blob.Content
	lock    func(ctx context.Context, name string) (unlock func(), err error)
	now     func() time.Time
	machine machine
}

// New makes a Store whose layers are contents of blobs.
func New(rows store.Store, blobs *blob.Store, now func() time.Time) *Store {
	return &Store{rows: rows, content: blobs.Contents(), lock: blobs.Lock, now: now, machine: thisMachine()}
}

func key(parts ...string) string { return strings.Join(parts, "@") }

// Project gives the project of a repository that there is; "" when there is none.
func (s *Store) Project(ctx context.Context, repo string) (string, error) {
	row, err := s.rows.Get(ctx, kindRepo, repo)
	if resource.IsNotFound(err) {
		return "", nil
	}
	return row.Parent, err
}

// Repositories gives up to limit repositories after a name, in order; limit 0 = all.
func (s *Store) Repositories(ctx context.Context, after string, limit int) ([]Repo, error) {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindRepo, After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	repos := make([]Repo, 0, len(rows))
	for _, row := range rows {
		repos = append(repos, Repo{Name: row.Key, Project: row.Parent})
	}
	return repos, nil
}

// ensure makes the repository when there is none.
func ensure(ctx context.Context, tx store.Tx, repo Repo) error {
	_, err := tx.Get(ctx, kindRepo, repo.Name)
	if !resource.IsNotFound(err) {
		return err
	}
	if err := CheckName(repo.Name); err != nil {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: kindRepo, Key: repo.Name, Parent: repo.Project})
}

// HasRepository answers NAME_UNKNOWN when there is no such repository.
func (s *Store) HasRepository(ctx context.Context, repo string) error {
	_, err := s.rows.Get(ctx, kindRepo, repo)
	if resource.IsNotFound(err) {
		return Refuse(ErrNameUnknown, "there is no repository %q", repo).WithHint("`tategu image ls` lists those that there are")
	}
	return err
}

// touchAfter is how long a look at a blob that nothing names keeps it from being
// collected without a write.
const touchAfter = time.Hour

// Blob finds a blob of a repository. Who sees one may name it in a manifest soon,
// so that the look makes a blob that no manifest names young again.
func (s *Store) Blob(ctx context.Context, repo string, d Digest) (Blob, error) {
	link, err := s.rows.Get(ctx, kindLink, key(repo, string(d)))
	if resource.IsNotFound(err) {
		return Blob{}, Refuse(ErrBlobUnknown, "repository %s has no blob %s", repo, d)
	}
	if err != nil {
		return Blob{}, err
	}
	if s.now().Sub(link.Updated) > touchAfter {
		if err := s.touch(ctx, link); err != nil {
			return Blob{}, err
		}
	}
	return getBlob(ctx, s.rows, d)
}

func (s *Store) touch(ctx context.Context, link store.Row) error {
	used, err := s.rows.List(ctx, store.Query{Kind: kindUse, Prefix: link.Key + "@", Limit: 1})
	if err != nil || len(used) > 0 {
		return err
	}
	return s.rows.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get(ctx, kindLink, link.Key); resource.IsNotFound(err) {
			return Refuse(ErrBlobUnknown, "the blob %s was removed just now", link.State)
		} else if err != nil {
			return err
		}
		return tx.Put(ctx, link)
	})
}

func getBlob(ctx context.Context, r store.Reader, d Digest) (Blob, error) {
	row, err := r.Get(ctx, kindBlob, string(d))
	if resource.IsNotFound(err) {
		return Blob{}, Refuse(ErrBlobUnknown, "there is no blob %s", d)
	}
	if err != nil {
		return Blob{}, err
	}
	return decodeBlob(row)
}

func decodeBlob(row store.Row) (Blob, error) {
	var b Blob
	if err := json.Unmarshal(row.Data, &b); err != nil {
		return Blob{}, fmt.Errorf("decode blob %s: %w", row.Key, err)
	}
	b.Digest, b.Content, b.Created = Digest(row.Key), row.State, row.Created
	return b, nil
}

// OpenBlob reads a blob from offset; length < 0 means to the end.
func (s *Store) OpenBlob(ctx context.Context, b Blob, offset, length int64) (io.ReadCloser, error) {
	if b.Content == "" {
		data := b.Data[min(offset, int64(len(b.Data))):]
		if length >= 0 {
			data = data[:min(length, int64(len(data)))]
		}
		return newBytes(data), nil
	}
	r, err := s.content.Open(ctx, b.Content, offset, length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Refuse(ErrBlobUnknown, "the bytes of blob %s are gone", b.Digest)
	}
	return r, err
}

// intact reads a blob whole and compares it with its digest.
func (s *Store) intact(ctx context.Context, b Blob) (err error) {
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

// ReadBlob reads a small blob whole, such as a config.
func (s *Store) ReadBlob(ctx context.Context, b Blob) (_ []byte, err error) {
	if b.Size > MaxManifest {
		return nil, Refuse(ErrSizeInvalid, "blob %s has %d bytes, the most that is read into memory is %d", b.Digest, b.Size, MaxManifest)
	}
	r, err := s.OpenBlob(ctx, b, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return data, b.Digest.checkBytes(data)
}

// Holders gives up to limit repositories that have a blob.
func (s *Store) Holders(ctx context.Context, d Digest, limit int) ([]string, error) {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindLink, States: []string{string(d)}, Limit: limit})
	if err != nil {
		return nil, err
	}
	repos := make([]string, 0, len(rows))
	for _, row := range rows {
		repos = append(repos, row.Parent)
	}
	return repos, nil
}

// Mount gives a repository a blob that another one has.
func (s *Store) Mount(ctx context.Context, from string, to Repo, d Digest) (Blob, error) {
	b, err := s.Blob(ctx, from, d)
	if err != nil {
		return Blob{}, err
	}
	return b, s.rows.Update(ctx, func(tx store.Tx) error {
		if _, err := getBlob(ctx, tx, d); err != nil {
			return err
		}
		return link(ctx, tx, to, d)
	})
}

func link(ctx context.Context, tx store.Tx, repo Repo, d Digest) error {
	if err := ensure(ctx, tx, repo); err != nil {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: kindLink, Key: key(repo.Name, string(d)), Parent: repo.Name, State: string(d)})
}

// add puts a blob whose bytes are durable into a repository. extra content is what
// need not be kept since the blob was there already.
func (s *Store) add(ctx context.Context, tx store.Tx, repo Repo, b Blob) (extra string, err error) {
	old, err := getBlob(ctx, tx, b.Digest)
	switch {
	case err == nil:
		if old.Size != b.Size {
			return "", fmt.Errorf("blob %s has %d bytes and %d", b.Digest, old.Size, b.Size)
		}
		extra = b.Content
	case resource.IsNotFound(err):
		data, err := json.Marshal(b)
		if err != nil {
			return "", err
		}
		if err := tx.Put(ctx, store.Row{Kind: kindBlob, Key: string(b.Digest), State: b.Content, Data: data}); err != nil {
			return "", err
		}
	default:
		return "", err
	}
	return extra, link(ctx, tx, repo, b.Digest)
}

// DeleteBlob takes a blob out of a repository. One that a manifest names stays.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d Digest) error {
	return s.rows.Update(ctx, func(tx store.Tx) error {
		k := key(repo, string(d))
		if _, err := tx.Get(ctx, kindLink, k); resource.IsNotFound(err) {
			return Refuse(ErrBlobUnknown, "repository %s has no blob %s", repo, d)
		} else if err != nil {
			return err
		}
		if err := unused(ctx, tx, k); err != nil {
			return err
		}
		return tx.Delete(ctx, kindLink, k)
	})
}

// unused refuses what a manifest names.
func unused(ctx context.Context, r store.Reader, k string) error {
	rows, err := r.List(ctx, store.Query{Kind: kindUse, Prefix: k + "@", Limit: 1})
	if err != nil || len(rows) == 0 {
		return err
	}
	return Refuse(ErrUnsupported, "%s is used by the manifest %s", k, rows[0].Key[len(k)+1:]).WithHint("delete that manifest first")
}

// discard removes content that no row names; what is left behind goes by Sweep.
func (s *Store) discard(ctx context.Context, content string) {
	if content != "" {
		_ = s.content.Remove(context.WithoutCancel(ctx), content) // Sweep would do it later
	}
}
