package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Upload is a blob that comes in pieces, over several requests and restarts.
type Upload struct {
	ID       string    `json:"-"`
	Repo     Repo      `json:"repo"`
	Received int64     `json:"size"`   // bytes, durable; with CRC32C: blob.Extent
	CRC32C   uint32    `json:"crc32c"` // Castagnoli, of the bytes so far
	SHA256   []byte    `json:"sha256"` // state of the running hash
	Content  string    `json:"-"`
	Created  time.Time `json:"-"`
}

// hashed reads with a hash on the way.
type hashed struct {
	r     io.Reader
	h     hash.Hash
	crc   uint32
	table *crc32.Table
	n     int64
}

func newHashed(r io.Reader, h hash.Hash, crc uint32) *hashed {
	return &hashed{r: r, h: h, crc: crc, table: crc32.MakeTable(crc32.Castagnoli)}
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	_, _ = h.h.Write(p[:n]) // never fails
	h.crc = crc32.Update(h.crc, h.table, p[:n])
	h.n += int64(n)
	return n, err
}

func newBytes(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

// PutBlob stores what r reads, which must have the digest d.
func (s *Store) PutBlob(ctx context.Context, repo Repo, d Digest, r io.Reader) (Blob, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInline+1))
	if err != nil {
		return Blob{}, fmt.Errorf("receive blob %s: %w", d, err)
	}
	b := Blob{Digest: d}
	if len(data) <= maxInline {
		b.Size, b.Data = int64(len(data)), data
		if err := d.checkBytes(data); err != nil {
			return Blob{}, err
		}
	} else {
		b.Content = resource.RandomID()
		h := newHashed(io.MultiReader(bytes.NewReader(data), r), d.hash(), 0)
		b.Size, err = s.content.Append(ctx, b.Content, 0, h)
		b.CRC32C = h.crc
		if err == nil && b.Size != h.n {
			err = fmt.Errorf("store blob %s: %d bytes of %d kept", d, b.Size, h.n)
		}
		if err == nil {
			err = d.check(h.h)
		}
		if err != nil {
			s.discard(ctx, b.Content)
			return Blob{}, err
		}
	}
	return b, s.finish(ctx, repo, b, nil)
}

// finish makes a blob known whose bytes are durable; also runs in the transaction.
func (s *Store) finish(ctx context.Context, repo Repo, b Blob, also func(store.Tx) error) error {
	var extra string
	var refused error
	err := s.rows.Update(ctx, func(tx store.Tx) error {
		if extra, refused = s.add(ctx, tx, repo, b); refused == nil && also != nil {
			refused = also(tx)
		}
		return refused
	})
	// Without a refusal the outcome of a failed commit is unknown: the bytes stay
	// until Sweep knows.
	if err == nil {
		s.discard(ctx, extra)
	}
	return err
}

// StartUpload opens an upload.
func (s *Store) StartUpload(ctx context.Context, repo Repo) (Upload, error) {
	u := Upload{ID: resource.RandomID(), Repo: repo, Content: resource.RandomID(), Created: s.now().UTC()}
	return u, s.rows.Update(ctx, func(tx store.Tx) error {
		if err := ensure(ctx, tx, repo); err != nil {
			return err
		}
		return putUpload(ctx, tx, u)
	})
}

func putUpload(ctx context.Context, tx store.Tx, u Upload) error {
	data, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode upload %s: %w", u.ID, err)
	}
	return tx.Put(ctx, store.Row{Kind: kindUpload, Key: u.ID, Parent: u.Repo.Name, State: u.Content, Data: data})
}

// GetUpload finds an unfinished upload of a repository.
func (s *Store) GetUpload(ctx context.Context, repo, id string) (Upload, error) {
	row, err := s.rows.Get(ctx, kindUpload, id)
	if resource.IsNotFound(err) || err == nil && row.Parent != repo {
		return Upload{}, Refuse(ErrBlobUploadUnknown, "repository %s has no upload %.80q: it ended or has expired", repo, id).WithHint("start the upload again")
	}
	if err != nil {
		return Upload{}, err
	}
	u := Upload{}
	if err := json.Unmarshal(row.Data, &u); err != nil {
		return Upload{}, fmt.Errorf("decode upload %s: %w", id, err)
	}
	u.ID, u.Content, u.Created = id, row.State, row.Created
	return u, nil
}

// AtEnd as an offset means: where the upload stands.
const AtEnd = -1

// AppendUpload adds a piece that starts at offset and has length bytes (-1 =
// unknown). What came before a broken connection is kept and counted: the Upload
// given back is right also with an error.
func (s *Store) AppendUpload(ctx context.Context, repo, id string, offset, length int64, r io.Reader) (Upload, error) {
	unlock, err := s.lock(ctx, id)
	if err != nil {
		return Upload{}, err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, repo, id)
	if err != nil {
		return u, err
	}
	if offset != AtEnd && offset != u.Received {
		e := Refuse(ErrBlobUploadInvalid, "the piece starts at byte %d, and %d bytes have come", offset, u.Received).WithHint("go on at byte %d", u.Received)
		e.Code = codes.OutOfRange
		return u, e
	}
	return s.appendTo(ctx, u, length, r)
}

func (s *Store) appendTo(ctx context.Context, u Upload, length int64, r io.Reader) (Upload, error) {
	sum, err := resumed(u.SHA256)
	if err != nil {
		return u, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	h := newHashed(r, sum, u.CRC32C)
	n, failure := s.content.Append(ctx, u.Content, u.Received, h)
	if n != h.n { // the disk took less than was hashed: the piece has to come again
		return u, errors.Join(failure, fmt.Errorf("upload %s: %d bytes of %d kept", u.ID, n, h.n))
	}
	if failure == nil && length >= 0 && n != length {
		failure = Refuse(ErrSizeInvalid, "the piece has %d bytes and was announced with %d", n, length)
		if n > length {
			return u, failure // not counted, and overwritten by the next piece
		}
	}
	if n == 0 {
		return u, failure
	}
	u.Received, u.CRC32C = u.Received+n, h.crc
	state, ok := h.h.(encoding.BinaryMarshaler)
	if !ok {
		return u, errors.New("the SHA-256 implementation cannot be saved")
	}
	if u.SHA256, err = state.MarshalBinary(); err != nil {
		return u, fmt.Errorf("save SHA-256: %w", err)
	}
	// The client may be gone, but what came is kept.
	ctx = context.WithoutCancel(ctx)
	if err := s.rows.Update(ctx, func(tx store.Tx) error { return putUpload(ctx, tx, u) }); err != nil {
		return u, err
	}
	return u, failure
}

// resumed gives a SHA-256 that goes on from a state.
func resumed(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if len(state) == 0 {
		return h, nil
	}
	resume, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, errors.New("the SHA-256 implementation cannot be resumed")
	}
	return h, resume.UnmarshalBinary(state)
}

// FinishUpload makes the blob d of what was received.
func (s *Store) FinishUpload(ctx context.Context, repo, id string, d Digest) (Blob, error) {
	unlock, err := s.lock(ctx, id)
	if err != nil {
		return Blob{}, err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, repo, id)
	if err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: d, Size: u.Received, CRC32C: u.CRC32C, Content: u.Content}
	if err := s.verify(ctx, u, d); err != nil {
		return Blob{}, err
	}
	if b.Size <= maxInline {
		if b.Data, err = s.readContent(ctx, u); err != nil {
			return Blob{}, err
		}
		b.Content = ""
	}
	err = s.finish(ctx, u.Repo, b, func(tx store.Tx) error { return tx.Delete(ctx, kindUpload, u.ID) })
	if err == nil && b.Content == "" {
		s.discard(ctx, u.Content)
	}
	return b, err
}

func (s *Store) readContent(ctx context.Context, u Upload) (_ []byte, err error) {
	if u.Received == 0 {
		return nil, nil
	}
	r, err := s.content.Open(ctx, u.Content, 0, u.Received)
	if err != nil {
		return nil, fmt.Errorf("read upload %s: %w", u.ID, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// verify compares an upload with a digest. The running hash is SHA-256; bytes that
// are named by another hash are read again.
func (s *Store) verify(ctx context.Context, u Upload, d Digest) (err error) {
	if d.algorithm() == "sha256" || u.Received == 0 {
		h, err := resumed(u.SHA256)
		if err != nil {
			return err
		}
		if u.Received == 0 {
			h = d.hash()
		}
		return d.check(h)
	}
	r, err := s.content.Open(ctx, u.Content, 0, u.Received)
	if err != nil {
		return fmt.Errorf("read upload %s: %w", u.ID, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := d.hash()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	return d.check(h)
}

// CancelUpload forgets an upload and its bytes.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, repo, id)
	if err != nil {
		return err
	}
	if err := s.rows.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, kindUpload, id) }); err != nil {
		return err
	}
	s.discard(ctx, u.Content)
	return nil
}
