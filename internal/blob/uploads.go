package blob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// UploadLife is how long an unfinished upload is kept, as the cloud's.
const UploadLife = 7 * 24 * time.Hour

// Upload is a resumable upload: an object that comes in pieces, over several
// requests and restarts of the server.
type Upload struct {
	ID         string
	Object     Object // what it will become
	Conditions Conditions
	Total      int64 // bytes announced; -1 = not known yet
	Received   int64 // durable so far
	Created    time.Time
	Finished   bool // Object is what was published
	Hashes     hashState
}

// hashState carries the running hashes between pieces.
type hashState struct {
	MD5    []byte
	CRC32C uint32
}

// StartUpload opens a resumable upload of attrs; total is -1 when unknown.
func (s *Store) StartUpload(ctx context.Context, attrs Object, conds Conditions, total int64) (Upload, error) {
	if err := s.precheck(ctx, attrs, conds); err != nil {
		return Upload{}, err
	}
	attrs.Content = resource.RandomID()
	u := Upload{ID: resource.RandomID(), Object: attrs, Conditions: conds, Total: total, Created: s.now().UTC()}
	return u, s.rows.Update(ctx, func(tx store.Tx) error { return putUpload(ctx, tx, u) })
}

func putUpload(ctx context.Context, tx store.Tx, u Upload) error {
	data, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode upload %s: %w", u.ID, err)
	}
	row := store.Row{Kind: kindUpload, Key: u.ID, Data: data}
	if !u.Finished {
		row.State = u.Object.Content
	}
	return tx.Put(ctx, row)
}

// GetUpload gives an upload, also for a day or more after it finished.
func (s *Store) GetUpload(ctx context.Context, id string) (Upload, error) {
	return getUpload(ctx, s.rows, id)
}

func getUpload(ctx context.Context, r store.Reader, id string) (Upload, error) {
	row, err := r.Get(ctx, kindUpload, id)
	if resource.IsNotFound(err) {
		return Upload{}, resource.Errorf(codes.NotFound, "there is no upload %q: it was cancelled or has expired", id).
			WithHint("start the upload again")
	}
	if err != nil {
		return Upload{}, err
	}
	return rowUpload(row)
}

func rowUpload(row store.Row) (Upload, error) {
	var u Upload
	if err := json.Unmarshal(row.Data, &u); err != nil {
		return Upload{}, fmt.Errorf("decode upload %s: %w", row.Key, err)
	}
	return u, nil
}

// errOffset is wrapped when a piece does not start where the last one ended.
var errOffset = errors.New("not at the end of what was received")

// AppendUpload adds a piece that starts at offset. What came before a broken
// connection is kept and counted: the Upload returned is right also with an error.
func (s *Store) AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (Upload, error) {
	unlock, err := s.locks.lock(ctx, "upload-"+id)
	if err != nil {
		return Upload{}, err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, id)
	if err != nil || u.Finished {
		return u, err
	}
	if offset > u.Received {
		return u, resource.Errorf(codes.OutOfRange, "the piece starts at byte %d, and %d bytes have come: %w", offset, u.Received, errOffset)
	}
	if skip := u.Received - offset; skip > 0 { // a piece sent again, whole or in part
		if _, err := io.CopyN(io.Discard, r, skip); errors.Is(err, io.EOF) {
			return u, nil
		} else if err != nil {
			return u, fmt.Errorf("receive: %w", err)
		}
	}
	h, err := newHasher(r, u.Hashes)
	if err != nil {
		return u, err
	}
	defer h.Close()
	n, failure := s.content.Append(ctx, u.Object.Content, u.Received, h)
	if n != h.n { // the disk took less than was hashed: the piece has to come again
		return u, errors.Join(failure, fmt.Errorf("upload %s: %d bytes of %d kept", id, n, h.n))
	}
	if n > 0 {
		u.Received += n
		if u.Hashes, err = h.state(); err != nil {
			return u, err
		}
		// The client may be gone, but what came is kept.
		ctx = context.WithoutCancel(ctx)
		if err := s.rows.Update(ctx, func(tx store.Tx) error { return putUpload(ctx, tx, u) }); err != nil {
			return u, err
		}
	}
	return u, failure
}

// FinishUpload publishes what was received as the object. The hashes of given are
// checked besides those the upload started with. Once finished, the same call
// gives the same object again.
func (s *Store) FinishUpload(ctx context.Context, id string, given Conditions) (Object, error) {
	unlock, err := s.locks.lock(ctx, "upload-"+id)
	if err != nil {
		return Object{}, err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, id)
	if err != nil || u.Finished {
		return u.Object, err
	}
	h, err := newHasher(nil, u.Hashes)
	if err != nil {
		return Object{}, err
	}
	digest := h.Digest()
	digest.Size = u.Received
	for _, c := range []Conditions{given, u.Conditions} {
		if err := c.checkDigest(digest); err != nil {
			return Object{}, errors.Join(err, s.cancelUpload(ctx, u))
		}
	}
	if u.Received == 0 {
		if _, err := s.content.Append(ctx, u.Object.Content, 0, eof{}); err != nil {
			return Object{}, fmt.Errorf("finish upload %s: %w", id, err)
		}
	}
	o, err := s.publish(ctx, u.Object.with(u.Object.Content, digest), u.Conditions, func(tx store.Tx, o Object) error {
		u.Object, u.Finished = o, true
		return putUpload(ctx, tx, u)
	})
	return o, err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// CancelUpload forgets an unfinished upload and its bytes.
func (s *Store) CancelUpload(ctx context.Context, id string) error {
	unlock, err := s.locks.lock(ctx, "upload-"+id)
	if err != nil {
		return err
	}
	defer unlock()
	u, err := s.GetUpload(ctx, id)
	if err != nil {
		return err
	}
	return s.cancelUpload(ctx, u)
}

func (s *Store) cancelUpload(ctx context.Context, u Upload) error {
	err := s.rows.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, kindUpload, u.ID) })
	if err == nil && !u.Finished {
		s.discard(ctx, u.Object.Content)
	}
	return err
}
