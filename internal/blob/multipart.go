package blob

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Bounds of a multipart upload (cloud.google.com/storage/quotas#requests).
const (
	MaxPart         = 10_000  // the greatest part number, and the most parts
	MinPartSize     = 5 << 20 // of every part but the last one
	MaxObjectSize   = 5 << 40
	maxMultipartGet = 1000 // of one page of a list
)

// Refusals of multipart uploads that callers tell apart.
var (
	ErrNoUpload     = errors.New("no such multipart upload")
	ErrPartMissing  = errors.New("a part is missing or is another one")
	ErrPartOrder    = errors.New("the parts are not in ascending order")
	ErrPartTooSmall = errors.New("a part is too small")
)

// Multipart is an upload whose parts come in any order and at the same time, each
// one whole, until a list of them is joined to the object. It is named by bucket,
// object and id; ids of later uploads are greater.
type Multipart struct {
	ID         string
	Object     Object // what it will become; after the end, what was published
	Conditions Conditions
	Created    time.Time
	Used       []string // etags of the parts it became, in order; set at its end
}

// Part is one part that has come.
type Part struct {
	Number  int
	Size    int64
	MD5     []byte
	CRC32C  uint32
	Content string
	Updated time.Time
}

// ETag is what names the part's bytes: their MD5 in hex, as the cloud's.
func (p Part) ETag() string { return hex.EncodeToString(p.MD5) }

// multipartKey orders uploads by object, then by age. The id is of fixed length,
// so that it can be told from the name.
func multipartKey(bucket, name, id string) string { return objectKey(bucket, name) + "\x00" + id }

const multipartIDLen = 32

func partPrefix(id string) string          { return id + "/" }
func partKey(id string, number int) string { return fmt.Sprintf("%s%05d", partPrefix(id), number) }

// StartMultipart opens an upload of attrs. conds are checked now and when the
// object is published; their hashes are not read.
func (s *Store) StartMultipart(ctx context.Context, attrs Object, conds Conditions) (Multipart, error) {
	conds.MD5, conds.CRC32C = nil, nil
	if err := s.precheck(ctx, attrs, conds); err != nil {
		return Multipart{}, err
	}
	now := s.now().UTC()
	id := fmt.Sprintf("%016x%s", now.UnixMicro(), resource.RandomID()[:multipartIDLen-16])
	u := Multipart{ID: id, Object: attrs, Conditions: conds, Created: now}
	return u, s.rows.Update(ctx, func(tx store.Tx) error {
		if _, err := getBucket(ctx, tx, attrs.Bucket); err != nil {
			return err
		}
		return putMultipart(ctx, tx, kindMultipart, u)
	})
}

func putMultipart(ctx context.Context, tx store.Tx, kind store.Kind, u Multipart) error {
	data, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode multipart upload %s: %w", u.ID, err)
	}
	return tx.Put(ctx, store.Row{Kind: kind, Key: multipartKey(u.Object.Bucket, u.Object.Name, u.ID), Data: data})
}

// GetMultipart gives an upload that is not finished.
func (s *Store) GetMultipart(ctx context.Context, bucket, name, id string) (Multipart, error) {
	return getMultipart(ctx, s.rows, kindMultipart, bucket, name, id)
}

func getMultipart(ctx context.Context, r store.Reader, kind store.Kind, bucket, name, id string) (Multipart, error) {
	if len(id) != multipartIDLen {
		return Multipart{}, noMultipart(bucket, name, id)
	}
	row, err := r.Get(ctx, kind, multipartKey(bucket, name, id))
	if resource.IsNotFound(err) {
		if _, err := getBucket(ctx, r, bucket); err != nil {
			return Multipart{}, err
		}
		return Multipart{}, noMultipart(bucket, name, id)
	}
	if err != nil {
		return Multipart{}, err
	}
	return rowMultipart(row)
}

func noMultipart(bucket, name, id string) error {
	return resource.Errorf(codes.NotFound, "there is no multipart upload %q of %s/%s: %w", id, bucket, name, ErrNoUpload).
		WithHint("it was completed, aborted or has expired: start it again")
}

func rowMultipart(row store.Row) (Multipart, error) {
	var u Multipart
	if err := json.Unmarshal(row.Data, &u); err != nil {
		return Multipart{}, fmt.Errorf("decode multipart upload %s: %w", row.Key, err)
	}
	return u, nil
}

// PutPart streams r into a part, which is durable when PutPart returns. A part of
// the same number is replaced, and the same bytes once more change nothing. Parts
// come in parallel. Of conds the hashes are read.
func (s *Store) PutPart(ctx context.Context, bucket, name, id string, number int, r io.Reader, conds Conditions) (Part, error) {
	if number < 1 || number > MaxPart {
		return Part{}, resource.Invalid("partNumber", "partNumber=%d: want 1 to %d", number, MaxPart)
	}
	if _, err := s.GetMultipart(ctx, bucket, name, id); err != nil {
		return Part{}, err
	}
	content, digest, err := s.content.Create(ctx, r)
	if err != nil {
		return Part{}, fmt.Errorf("store part %d of gs://%s/%s: %w", number, bucket, name, err)
	}
	if err := conds.checkDigest(digest); err != nil {
		return Part{}, errors.Join(err, s.content.Remove(ctx, content))
	}
	p := Part{Number: number, Size: digest.Size, MD5: digest.MD5, CRC32C: digest.CRC32C, Content: content, Updated: s.now().UTC()}
	var unused string
	var refused error
	err = s.rows.Update(ctx, func(tx store.Tx) error {
		unused, refused = replacePart(ctx, tx, bucket, name, id, &p)
		return refused
	})
	if refused != nil {
		unused = content
	} else if err != nil {
		return Part{}, err // the outcome of the commit is unknown: Sweep will tell
	}
	if unused != "" {
		s.discard(ctx, unused)
	}
	return p, refused
}

// replacePart makes p the part of its number, and tells which bytes are of no use
// any more: those it replaces, or its own where the same are there already, so
// that a part that is sent again never disturbs the end of the upload.
func replacePart(ctx context.Context, tx store.Tx, bucket, name, id string, p *Part) (unused string, err error) {
	if _, err := getMultipart(ctx, tx, kindMultipart, bucket, name, id); err != nil {
		return "", err
	}
	row, err := tx.Get(ctx, kindPart, partKey(id, p.Number))
	if err != nil && !resource.IsNotFound(err) {
		return "", err
	}
	if err == nil {
		old, err := rowPart(row)
		if err != nil {
			return "", err
		}
		unused = old.Content
		if old.Size == p.Size && old.CRC32C == p.CRC32C && old.ETag() == p.ETag() {
			unused, p.Content = p.Content, old.Content
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode part %d of %s: %w", p.Number, id, err)
	}
	return unused, tx.Put(ctx, store.Row{Kind: kindPart, Key: partKey(id, p.Number), State: p.Content, Data: data})
}

func rowPart(row store.Row) (Part, error) {
	var p Part
	if err := json.Unmarshal(row.Data, &p); err != nil {
		return Part{}, fmt.Errorf("decode part %s: %w", row.Key, err)
	}
	return p, nil
}

func listParts(ctx context.Context, r store.Reader, id string, after, limit int) ([]Part, error) {
	q := store.Query{Kind: kindPart, Prefix: partPrefix(id), Limit: limit}
	if after > 0 {
		q.After = partKey(id, after)
	}
	rows, err := r.List(ctx, q)
	if err != nil {
		return nil, err
	}
	parts := make([]Part, 0, len(rows))
	for _, row := range rows {
		p, err := rowPart(row)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// ListParts gives up to limit (0 = 1000) parts of an upload whose numbers are
// greater than after; more tells that there are further ones.
func (s *Store) ListParts(ctx context.Context, u Multipart, after, limit int) (parts []Part, more bool, err error) {
	if limit <= 0 || limit > maxMultipartGet {
		limit = maxMultipartGet
	}
	if parts, err = listParts(ctx, s.rows, u.ID, min(after, MaxPart), limit+1); err != nil {
		return nil, false, err
	}
	if len(parts) > limit {
		return parts[:limit], true, nil
	}
	return parts, false, nil
}

// MultipartQuery selects unfinished uploads of a bucket, in the order of their
// objects' names and, within one, of their age.
type MultipartQuery struct {
	Prefix, Delimiter string
	// After and AfterID continue a list: behind the upload AfterID of the object
	// After, or behind all uploads of After where AfterID is "". After may be a
	// prefix that was given.
	After, AfterID string
	Limit          int // uploads plus prefixes; 0 = 1000
}

// MultipartPage is one page; Next is "" on the last one.
type MultipartPage struct {
	Uploads      []Multipart
	Prefixes     []string
	Next, NextID string
}

// ListMultipart gives one page of the unfinished uploads of a bucket.
func (s *Store) ListMultipart(ctx context.Context, bucket string, q MultipartQuery) (MultipartPage, error) {
	if _, err := s.GetBucket(ctx, bucket); err != nil {
		return MultipartPage{}, err
	}
	if q.Limit <= 0 || q.Limit > maxMultipartGet {
		q.Limit = maxMultipartGet
	}
	var page MultipartPage
	seek := q.seek(bucket)
	for {
		rows, err := s.rows.List(ctx, seek)
		if err != nil {
			return MultipartPage{}, err
		}
		for _, row := range rows {
			seek.After = row.Key
			u, err := rowMultipart(row)
			if err != nil {
				return MultipartPage{}, err
			}
			if page.has(q.prefixOf(u.Object.Name)) || q.AfterID == "" && u.Object.Name == q.After {
				continue
			}
			if len(page.Uploads)+len(page.Prefixes) == q.Limit {
				return page, nil
			}
			page.take(q.prefixOf(u.Object.Name), u)
		}
		if len(rows) < seek.Limit {
			page.Next, page.NextID = "", ""
			return page, nil
		}
	}
}

// seek is where the page starts.
func (q MultipartQuery) seek(bucket string) store.Query {
	rows := store.Query{Kind: kindMultipart, Prefix: objectKey(bucket, q.Prefix), Limit: q.Limit + 1}
	switch {
	case q.After == "":
	case q.AfterID != "":
		rows.After = multipartKey(bucket, q.After, q.AfterID)
	case q.prefixOf(q.After) == q.After && q.Delimiter != "": // all that it stands for was given
		rows.From = store.PrefixEnd(objectKey(bucket, q.After))
	default:
		rows.From = objectKey(bucket, q.After)
	}
	return rows
}

// prefixOf is the name up to the first delimiter behind the query's prefix, or "".
func (q MultipartQuery) prefixOf(name string) string {
	if q.Delimiter == "" || !strings.HasPrefix(name, q.Prefix) {
		return ""
	}
	i := strings.Index(name[len(q.Prefix):], q.Delimiter)
	if i < 0 {
		return ""
	}
	return name[:len(q.Prefix)+i+len(q.Delimiter)]
}

func (p *MultipartPage) has(prefix string) bool {
	return prefix != "" && len(p.Prefixes) > 0 && p.Prefixes[len(p.Prefixes)-1] == prefix
}

// take adds an upload, or the prefix it is behind, and makes it the page's end.
func (p *MultipartPage) take(prefix string, u Multipart) {
	if prefix != "" {
		p.Prefixes = append(p.Prefixes, prefix)
		p.Next, p.NextID = prefix, ""
		return
	}
	p.Uploads = append(p.Uploads, u)
	p.Next, p.NextID = u.Object.Name, u.ID
}
