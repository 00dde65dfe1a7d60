package blob

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Keys of generations that are not live: BUCKET/NAME, an end mark and the
// generation. The name is escaped so that keys sort by name first and generation
// second whatever bytes a name holds, and no key holds a NUL.
const (
	endOfName        = "\x01\x01"
	generationDigits = 16
)

func escapeName(name string) string {
	if !strings.ContainsAny(name, "\x00\x01") {
		return name
	}
	return strings.NewReplacer("\x00", "\x01\x02", "\x01", "\x01\x03").Replace(name)
}

func unescapeName(s string) string {
	if !strings.Contains(s, "\x01") {
		return s
	}
	return strings.NewReplacer("\x01\x02", "\x00", "\x01\x03", "\x01").Replace(s)
}

func generationKey(bucket, name string, generation int64) string {
	return fmt.Sprintf("%s/%s%s%0*x", bucket, escapeName(name), endOfName, generationDigits, generation)
}

// parseGenerationKey is the inverse of generationKey but for the generation,
// which the row's data has.
func parseGenerationKey(key string) (bucket, name string, err error) {
	bucket, rest, ok := strings.Cut(key, "/")
	if !ok || len(rest) < len(endOfName)+generationDigits {
		return "", "", fmt.Errorf("row key %q names no generation", key)
	}
	return bucket, unescapeName(rest[:len(rest)-len(endOfName)-generationDigits]), nil
}

// find gives a generation that is live or noncurrent; 0 is the live one.
func find(ctx context.Context, r store.Reader, bucket, name string, generation int64) (Object, error) {
	o, err := getObject(ctx, r, bucket, name)
	if generation == 0 || err == nil && o.Generation == generation || err != nil && !resource.IsNotFound(err) {
		return o, err
	}
	return getGeneration(ctx, r, kindVersion, bucket, name, generation)
}

func getGeneration(ctx context.Context, r store.Reader, kind store.Kind, bucket, name string, generation int64) (Object, error) {
	row, err := r.Get(ctx, kind, generationKey(bucket, name, generation))
	if resource.IsNotFound(err) {
		return Object{}, missingObject(bucket, fmt.Sprintf("%s#%d", name, generation))
	}
	if err != nil {
		return Object{}, err
	}
	return rowObject(row)
}

// kindOf says which table an object's row is in.
func (o Object) kindOf() store.Kind {
	switch {
	case !o.SoftDeleted.IsZero():
		return kindSoft
	case !o.Deleted.IsZero():
		return kindVersion
	default:
		return kindObject
	}
}

// Live reports the generation that a name stands for.
func (o Object) Live() bool { return o.kindOf() == kindObject }

func deleteRow(ctx context.Context, tx store.Tx, o Object) error {
	kind := o.kindOf()
	if kind != kindObject {
		return tx.Delete(ctx, kind, generationKey(o.Bucket, o.Name, o.Generation))
	}
	if err := raiseFloor(ctx, tx, o.Bucket, o.Generation); err != nil {
		return err
	}
	return tx.Delete(ctx, kind, objectKey(o.Bucket, o.Name))
}

// retire ends the live generation o, whose row the caller replaces or deletes: it
// stays as a noncurrent one where the bucket keeps versions and is destroyed
// elsewhere. by is the generation that took its place; 0 is none. gone is the
// content that nothing names any more.
func (s *Store) retire(ctx context.Context, tx store.Tx, b Bucket, o Object, now time.Time, by int64) (gone string, err error) {
	if o.Generation == 0 {
		return "", nil
	}
	if !b.Versioning {
		return s.destroy(ctx, tx, b, o, now, by)
	}
	o.Deleted = now
	if err := putObject(ctx, tx, o); err != nil {
		return "", err
	}
	return "", s.notify(ctx, tx, b, Event{Type: EventArchive, Object: o, OverwrittenBy: by})
}

// destroy ends a generation for good, or until it is restored where the bucket
// says so. The caller removes its row.
func (s *Store) destroy(ctx context.Context, tx store.Tx, b Bucket, o Object, now time.Time, by int64) (gone string, err error) {
	if err := b.protects(o, now); err != nil {
		return "", err
	}
	if err := s.notify(ctx, tx, b, Event{Type: EventDelete, Object: o, OverwrittenBy: by}); err != nil {
		return "", err
	}
	if b.SoftDelete.Period <= 0 {
		if isSmall(o.Content) { // its row goes by the same commit
			return "", tx.Delete(ctx, kindSmall, o.Content)
		}
		return o.Content, nil
	}
	o.SoftDeleted, o.HardDelete = now, now.Add(b.SoftDelete.Period)
	return "", putObject(ctx, tx, o)
}

// StatSoftDeleted gives a generation that can still be restored.
func (s *Store) StatSoftDeleted(ctx context.Context, bucket, name string, generation int64, conds Conditions) (Object, error) {
	b, err := s.GetBucket(ctx, bucket)
	if err != nil {
		return Object{}, err
	}
	o, err := getGeneration(ctx, s.rows, kindSoft, bucket, name, generation)
	if err != nil {
		return Object{}, err
	}
	return b.see(o), conds.checkRead(bucket, name, o.Generation, o.Metageneration)
}

// Restore makes a soft-deleted generation live again, as a new generation with
// the same bytes. The conditions are on what is live now.
func (s *Store) Restore(ctx context.Context, bucket, name string, generation int64, conds Conditions) (Object, error) {
	var o Object
	var gone string
	err := s.rows.Update(ctx, func(tx store.Tx) error {
		soft, err := getGeneration(ctx, tx, kindSoft, bucket, name, generation)
		if err != nil {
			return err
		}
		if err := deleteRow(ctx, tx, soft); err != nil {
			return err
		}
		o = soft
		gone, err = s.replace(ctx, tx, &o, conds)
		return err
	})
	if err != nil {
		return Object{}, err
	}
	s.discard(ctx, gone)
	return o, nil
}
