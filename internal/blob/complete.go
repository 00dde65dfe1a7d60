package blob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// PartRef names a part as its uploader knows it.
type PartRef struct {
	Number int
	ETag   string // with or without quotes
}

func (r PartRef) etag() string { return strings.ToLower(strings.Trim(r.ETag, `"`)) }

// CompleteMultipart joins the parts of refs to the object, which is published
// whole or not at all; parts that refs leave out are dropped. conds are checked
// besides those that the upload started with. A join that has begun is ended even
// when its caller leaves, and the same call gives the same object again for as
// long as an upload lives.
func (s *Store) CompleteMultipart(ctx context.Context, bucket, name, id string, refs []PartRef, conds Conditions) (Object, error) {
	unlock, err := s.locks.lock(ctx, "multipart-"+id)
	if err != nil {
		return Object{}, err
	}
	defer unlock()
	u, err := s.GetMultipart(ctx, bucket, name, id)
	if errors.Is(err, ErrNoUpload) {
		return s.completed(ctx, bucket, name, id, refs, err)
	}
	if err != nil {
		return Object{}, err
	}
	parts, used, err := s.chooseParts(ctx, u, refs)
	if err != nil {
		return Object{}, err
	}
	for _, c := range []Conditions{u.Conditions, conds} {
		if err := s.precheck(ctx, u.Object, c); err != nil {
			return Object{}, err
		}
	}
	return s.join(context.WithoutCancel(ctx), u, parts, used, conds)
}

// completed answers the end of an upload that has ended: the object, if it was
// made of the same parts.
func (s *Store) completed(ctx context.Context, bucket, name, id string, refs []PartRef, missing error) (Object, error) {
	u, err := getMultipart(ctx, s.rows, kindMultipartDone, bucket, name, id)
	if err != nil {
		return Object{}, missing
	}
	same := slices.EqualFunc(refs, u.Used, func(r PartRef, used string) bool { return usedPart(r.Number, r.etag()) == used })
	if !same {
		return Object{}, missing
	}
	return u.Object, nil
}

func usedPart(number int, etag string) string { return fmt.Sprintf("%d-%s", number, etag) }

// chooseParts finds the parts of refs, which must ascend and match.
func (s *Store) chooseParts(ctx context.Context, u Multipart, refs []PartRef) (parts []Object, used []string, err error) {
	if len(refs) == 0 || len(refs) > MaxPart {
		return nil, nil, resource.Invalid("Part", "the list has %d parts: want 1 to %d", len(refs), MaxPart)
	}
	all, err := listParts(ctx, s.rows, u.ID, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	have := make(map[int]Part, len(all))
	for _, p := range all {
		have[p.Number] = p
	}
	var total int64
	for i, ref := range refs {
		p, ok := have[ref.Number]
		switch {
		case i > 0 && ref.Number <= refs[i-1].Number:
			return nil, nil, resource.Invalid("Part", "part %d is listed behind part %d: %w", ref.Number, refs[i-1].Number, ErrPartOrder)
		case !ok:
			return nil, nil, resource.Invalid("Part", "part %d was never uploaded: %w", ref.Number, ErrPartMissing)
		case p.ETag() != ref.etag():
			return nil, nil, resource.Invalid("Part", "part %d has the ETag %q, not %q: %w", ref.Number, p.ETag(), ref.etag(), ErrPartMissing)
		case p.Size < MinPartSize && i < len(refs)-1:
			return nil, nil, resource.Invalid("Part", "part %d has %d bytes, and all but the last part need %d: %w", p.Number, p.Size, MinPartSize, ErrPartTooSmall)
		}
		total += p.Size
		parts = append(parts, Object{Bucket: u.Object.Bucket, Name: u.Object.Name, Content: p.Content, Size: p.Size, CRC32C: p.CRC32C})
		used = append(used, usedPart(p.Number, p.ETag()))
	}
	if total > MaxObjectSize {
		return nil, nil, resource.Invalid("Part", "the parts have %d bytes together, an object at most %d", total, int64(MaxObjectSize))
	}
	return parts, used, nil
}

// join writes the bytes of parts once, one after the other, and publishes them.
func (s *Store) join(ctx context.Context, u Multipart, parts []Object, used []string, conds Conditions) (Object, error) {
	r := &chain{ctx: ctx, store: s, rest: parts}
	content, digest, err := s.content.Create(ctx, r)
	if err = errors.Join(err, r.Close()); err != nil {
		if content != "" {
			s.discard(ctx, content)
		}
		if resource.IsNotFound(err) {
			return Object{}, resource.Invalid("Part", "a part was replaced while the upload was completed: %w", ErrPartMissing)
		}
		return Object{}, fmt.Errorf("complete gs://%s/%s: %w", u.Object.Bucket, u.Object.Name, err)
	}
	digest.MD5 = nil // as the cloud's: an object of parts has no MD5
	if err := conds.checkDigest(digest); err != nil {
		s.discard(ctx, content)
		return Object{}, err
	}
	var dropped []string
	o, err := s.publish(ctx, u.Object.with(content, digest), conds, func(tx store.Tx, o Object) error {
		if _, err := getMultipart(ctx, tx, kindMultipart, o.Bucket, o.Name, u.ID); err != nil {
			return err // aborted meanwhile
		}
		var err error
		if dropped, err = dropMultipart(ctx, tx, u); err != nil {
			return err
		}
		u.Object, u.Used = o, used
		return putMultipart(ctx, tx, kindMultipartDone, u)
	})
	if err != nil {
		return Object{}, err
	}
	for _, id := range dropped {
		s.discard(ctx, id)
	}
	return o, nil
}

// dropMultipart deletes the rows of an upload and its parts, and gives the bytes
// that no row names then.
func dropMultipart(ctx context.Context, tx store.Tx, u Multipart) (contents []string, err error) {
	parts, err := listParts(ctx, tx, u.ID, 0, 0)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := tx.Delete(ctx, kindPart, partKey(u.ID, p.Number)); err != nil {
			return nil, err
		}
		contents = append(contents, p.Content)
	}
	return contents, tx.Delete(ctx, kindMultipart, multipartKey(u.Object.Bucket, u.Object.Name, u.ID))
}

// AbortMultipart forgets an unfinished upload and its parts.
func (s *Store) AbortMultipart(ctx context.Context, bucket, name, id string) error {
	var dropped []string
	err := s.rows.Update(ctx, func(tx store.Tx) error {
		u, err := getMultipart(ctx, tx, kindMultipart, bucket, name, id)
		if err != nil {
			return err
		}
		dropped, err = dropMultipart(ctx, tx, u)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range dropped {
		s.discard(ctx, id)
	}
	return nil
}

// AbortOldMultipart aborts the unfinished uploads of a bucket that began before a
// time and whose object's name matches (nil: all do). It gives their number.
func (s *Store) AbortOldMultipart(ctx context.Context, bucket string, before time.Time, match func(name string) bool) (int, error) {
	return s.abortMultiparts(ctx, bucket+"/", func(u Multipart) (bool, error) {
		return u.Created.Before(before) && (match == nil || match(u.Object.Name)), nil
	})
}

// abortMultiparts walks the unfinished uploads whose key starts with prefix.
func (s *Store) abortMultiparts(ctx context.Context, prefix string, old func(Multipart) (bool, error)) (aborted int, err error) {
	q := store.Query{Kind: kindMultipart, Prefix: prefix, Limit: sweepBatch}
	for {
		rows, err := s.rows.List(ctx, q)
		if err != nil {
			return aborted, err
		}
		for _, row := range rows {
			q.After = row.Key
			u, err := rowMultipart(row)
			if err != nil {
				return aborted, err
			}
			yes, err := old(u)
			if err != nil {
				return aborted, err
			}
			if !yes {
				continue
			}
			err = s.AbortMultipart(ctx, u.Object.Bucket, u.Object.Name, u.ID)
			if err != nil && !resource.IsNotFound(err) { // somebody else was faster
				return aborted, err
			}
			if err == nil {
				aborted++
			}
		}
		if len(rows) < q.Limit {
			return aborted, nil
		}
	}
}

// sweepMultiparts aborts uploads to which nothing came for UploadLife, and forgets
// those that ended as long ago.
func (s *Store) sweepMultiparts(ctx context.Context, done *Swept, dry bool) error {
	old := s.now().Add(-UploadLife)
	aborted, err := s.abortMultiparts(ctx, "", func(u Multipart) (bool, error) {
		if !u.Created.Before(old) {
			return false, nil
		}
		parts, err := listParts(ctx, s.rows, u.ID, 0, 0)
		fresh := slices.ContainsFunc(parts, func(p Part) bool { return !p.Updated.Before(old) })
		if err != nil || fresh {
			return false, err
		}
		for _, p := range parts {
			done.Bytes += p.Size
		}
		if dry {
			done.Uploads++
		}
		return !dry, nil
	})
	done.Uploads += aborted
	if err != nil || dry {
		return err
	}
	return s.scan(ctx, kindMultipartDone, func(rows []store.Row) error {
		rows = slices.DeleteFunc(rows, func(row store.Row) bool { return !row.Created.Before(old) })
		if len(rows) == 0 {
			return nil
		}
		done.Uploads += len(rows)
		return s.rows.Update(ctx, func(tx store.Tx) error {
			for _, row := range rows {
				if err := tx.Delete(ctx, kindMultipartDone, row.Key); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// dropMultiparts deletes the rows of all uploads of a bucket that is being
// deleted; Sweep finds their bytes.
func dropMultiparts(ctx context.Context, tx store.Tx, bucket string) error {
	rows, err := tx.List(ctx, store.Query{Kind: kindMultipart, Prefix: bucket + "/"})
	if err != nil {
		return err
	}
	for _, row := range rows {
		u, err := rowMultipart(row)
		if err != nil {
			return err
		}
		if _, err := dropMultipart(ctx, tx, u); err != nil {
			return err
		}
	}
	rows, err = tx.List(ctx, store.Query{Kind: kindMultipartDone, Prefix: bucket + "/"})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := tx.Delete(ctx, kindMultipartDone, row.Key); err != nil {
			return err
		}
	}
	return nil
}
