package blob

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Put streams r into the object attrs.Bucket/attrs.Name. The object is seen whole
// or not at all, and is durable when Put returns. Of attrs the fields that a
// client may set are read.
func (s *Store) Put(ctx context.Context, attrs Object, r io.Reader, conds Conditions) (Object, error) {
	return s.put(ctx, attrs, r, conds, false)
}

// put is Put; soon leaves it to a later write of the store to make the object durable.
func (s *Store) put(ctx context.Context, attrs Object, r io.Reader, conds Conditions, soon bool) (Object, error) {
	if err := s.precheck(ctx, attrs, conds); err != nil {
		return Object{}, err
	}
	id, digest, save, err := s.content.take(ctx, r)
	if err != nil {
		return Object{}, fmt.Errorf("store gs://%s/%s: %w", attrs.Bucket, attrs.Name, err)
	}
	if err := conds.checkDigest(digest); err != nil {
		return Object{}, errors.Join(err, s.content.Remove(ctx, id))
	}
	return s.publishWhen(ctx, soon, attrs.with(id, digest), conds, func(tx store.Tx, _ Object) error { return save(tx) })
}

func (o Object) with(id string, d Digest) Object {
	o.Content, o.Size, o.MD5, o.CRC32C, o.Components = id, d.Size, d.MD5, d.CRC32C, 0
	return o
}

// precheck refuses early what publish would refuse after all bytes have come.
func (s *Store) precheck(ctx context.Context, o Object, conds Conditions) error {
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if _, err := s.GetBucket(ctx, o.Bucket); err != nil {
		return err
	}
	old, err := getObject(ctx, s.rows, o.Bucket, o.Name)
	if err != nil && !resource.IsNotFound(err) {
		return err
	}
	return conds.check(o.Bucket, o.Name, old.Generation, old.Metageneration)
}

// publish makes o, whose bytes are durable, the live generation; also runs in the
// same transaction. Bytes that no row names any more are removed afterwards: a
// kill in between leaves garbage for Sweep and never an object without its bytes.
func (s *Store) publish(ctx context.Context, o Object, conds Conditions, also func(store.Tx, Object) error) (Object, error) {
	return s.publishWhen(ctx, false, o, conds, also)
}

func (s *Store) publishWhen(ctx context.Context, soon bool, o Object, conds Conditions, also func(store.Tx, Object) error) (Object, error) {
	update := s.rows.Update
	if soon {
		update = s.rows.UpdateSoon
	}
	var gone string
	var refused error
	var committed func()
	err := update(ctx, func(tx store.Tx) error {
		gone, refused = s.replace(ctx, tx, &o, conds)
		if refused == nil && also != nil {
			refused = also(tx, o)
		}
		if refused == nil {
			committed, refused = identity.RecordSuccess(ctx, tx)
		}
		return refused
	})
	switch {
	case refused != nil:
		s.discard(ctx, o.Content)
	case err == nil:
		committed()
		if soon && gone != "" { // until the row is durable a power loss would bring back the one that names these
			err = s.rows.Update(ctx, func(store.Tx) error { return nil })
		}
		if err == nil {
			s.discard(ctx, gone)
		}
	}
	if err != nil {
		// Without a refusal the outcome of the commit is unknown: the bytes stay
		// until Sweep knows.
		return Object{}, err
	}
	return o, nil
}

// replace puts o in the place of what is live; gone is the content that nothing
// names any more.
func (s *Store) replace(ctx context.Context, tx store.Tx, o *Object, conds Conditions) (gone string, err error) {
	b, err := getBucket(ctx, tx, o.Bucket)
	if err != nil {
		return "", err
	}
	old, err := getObject(ctx, tx, o.Bucket, o.Name)
	if err != nil && !resource.IsNotFound(err) {
		return "", err
	}
	if err := conds.check(o.Bucket, o.Name, old.Generation, old.Metageneration); err != nil {
		return "", err
	}
	floor := old.Generation
	if floor == 0 {
		if floor, err = readFloor(ctx, tx, o.Bucket); err != nil {
			return "", err
		}
	}
	now := s.now().UTC().Truncate(time.Microsecond)
	o.begin(b, now, max(now.UnixMicro(), floor+1))
	if err := CheckRetention(ObjectRetention{}, o.Retention, now, false); err != nil {
		return "", err
	}
	if gone, err = s.retire(ctx, tx, b, old, now, o.Generation); err != nil {
		return "", err
	}
	if err := putObject(ctx, tx, *o); err != nil {
		return "", err
	}
	o.RetentionExpires = b.retainedUntil(*o)
	return gone, s.notify(ctx, tx, b, Event{Type: EventFinalize, Object: *o, Overwrote: old.Generation})
}

// begin fills in what the server says of a new generation.
func (o *Object) begin(b Bucket, now time.Time, generation int64) {
	o.Generation, o.Metageneration = generation, 1
	o.Created, o.Updated, o.ClassUpdated = now, now, now
	if o.StorageClass == "" {
		o.StorageClass = cmp.Or(b.StorageClass, "STANDARD")
	}
	o.EventBasedHold = o.EventBasedHold || b.DefaultEventBasedHold
	o.Deleted, o.SoftDeleted, o.HardDelete, o.HoldReleased = time.Time{}, time.Time{}, time.Time{}, time.Time{}
}

// readFloor gives the generation that new names of a bucket must exceed, so that
// a deleted and remade object still grows when the clock was set back.
func readFloor(ctx context.Context, tx store.Tx, bucket string) (int64, error) {
	row, err := tx.Get(ctx, kindFloor, bucket)
	if resource.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(row.Data) != 8 {
		return 0, fmt.Errorf("generation floor of bucket %s has %d bytes", bucket, len(row.Data))
	}
	return int64(binary.BigEndian.Uint64(row.Data)), nil
}

func raiseFloor(ctx context.Context, tx store.Tx, bucket string, generation int64) error {
	floor, err := readFloor(ctx, tx, bucket)
	if err != nil || floor >= generation {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: kindFloor, Key: bucket, Data: binary.BigEndian.AppendUint64(nil, uint64(generation))})
}

// discard removes bytes that no row names; what fails is left to Sweep.
func (s *Store) discard(ctx context.Context, id string) {
	if id == "" {
		return
	}
	if s.held.keep(id) {
		return
	}
	_ = s.content.Remove(context.WithoutCancel(ctx), id)
}

func getObject(ctx context.Context, r store.Reader, bucket, name string) (Object, error) {
	row, err := r.Get(ctx, kindObject, objectKey(bucket, name))
	if resource.IsNotFound(err) {
		return Object{}, missingObject(bucket, name)
	}
	if err != nil {
		return Object{}, err
	}
	return rowObject(row)
}

// Stat gives one object; generation 0 means the live one. Conditions are those of
// a read: ErrNotModified when a *NotMatch condition does not hold.
func (s *Store) Stat(ctx context.Context, bucket, name string, generation int64, conds Conditions) (Object, error) {
	b, err := s.GetBucket(ctx, bucket)
	if err != nil {
		return Object{}, err
	}
	o, err := find(ctx, s.rows, bucket, name, generation)
	if err != nil {
		return Object{}, err
	}
	return b.see(o), conds.checkRead(bucket, name, o.Generation, o.Metageneration)
}

// Open reads the bytes of o from offset; length < 0 means to the end. NotFound
// means that o was overwritten or deleted since it was read. A whole object is
// checked against its CRC32C while it is read: its last bytes are given only when
// all were right, DataLoss otherwise.
func (s *Store) Open(ctx context.Context, o Object, offset, length int64) (io.ReadCloser, error) {
	if left := max(o.Size-offset, 0); length < 0 || length > left {
		length = left
	}
	r, err := s.content.Open(ctx, o.Content, offset, length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingObject(o.Bucket, fmt.Sprintf("%s#%d", o.Name, o.Generation))
	}
	if err != nil {
		return nil, fmt.Errorf("read gs://%s/%s: %w", o.Bucket, o.Name, err)
	}
	if offset == 0 && length == o.Size {
		return newVerifier(o, r), nil
	}
	return r, nil
}

// OpenLive is Stat and Open in one; an object overwritten in between is tried
// again, so that a reader always gets one whole generation.
func (s *Store) OpenLive(ctx context.Context, bucket, name string) (Object, io.ReadCloser, error) {
	for {
		o, err := s.Stat(ctx, bucket, name, 0, Conditions{})
		if err != nil {
			return Object{}, nil, err
		}
		r, err := s.Open(ctx, o, 0, -1)
		if !resource.IsNotFound(err) {
			return o, r, err
		}
		again, serr := s.Stat(ctx, bucket, name, 0, Conditions{})
		if serr == nil && again.Content == o.Content {
			return Object{}, nil, lost(o)
		}
	}
}

// lost says that a row names bytes that are not there.
func lost(o Object) error {
	return resource.Errorf(codes.DataLoss, "the content of gs://%s/%s is missing from the data directory", o.Bucket, o.Name).
		WithCause(resource.CausePlatform)
}

// Update changes an object's metadata in fn and counts the metageneration up.
func (s *Store) Update(ctx context.Context, bucket, name string, generation int64, conds Conditions, fn func(*Object) error) (Object, error) {
	var o Object
	err := s.rows.Update(ctx, func(tx store.Tx) error {
		b, err := getBucket(ctx, tx, bucket)
		if err != nil {
			return err
		}
		old, err := find(ctx, tx, bucket, name, generation)
		if err != nil {
			return err
		}
		if err := conds.check(bucket, name, old.Generation, old.Metageneration); err != nil {
			return err
		}
		o = old
		if err := fn(&o); err != nil {
			return err
		}
		o = old.changed(o, s.now().UTC().Truncate(time.Microsecond))
		if err := putObject(ctx, tx, o); err != nil {
			return err
		}
		o = b.see(o)
		return s.notify(ctx, tx, b, Event{Type: EventMetadata, Object: o})
	})
	return o, err
}

// changed takes the fields that a client may set from a.
func (o Object) changed(a Object, now time.Time) Object {
	if a.StorageClass != o.StorageClass {
		o.ClassUpdated = now
	}
	if o.EventBasedHold && !a.EventBasedHold {
		o.HoldReleased = now
	}
	o.ContentType, o.ContentEncoding, o.ContentDisposition = a.ContentType, a.ContentEncoding, a.ContentDisposition
	o.ContentLanguage, o.CacheControl, o.StorageClass = a.ContentLanguage, a.CacheControl, a.StorageClass
	o.Metadata, o.CustomTime = a.Metadata, a.CustomTime
	o.TemporaryHold, o.EventBasedHold, o.Retention = a.TemporaryHold, a.EventBasedHold, a.Retention
	o.Metageneration, o.Updated = o.Metageneration+1, later(now, o.Updated)
	return o
}

// Delete removes an object. Generation 0 means the live one, which stays as a
// noncurrent generation where the bucket keeps versions; a generation that is
// named goes for good.
func (s *Store) Delete(ctx context.Context, bucket, name string, generation int64, conds Conditions) error {
	var gone string
	var committed func()
	err := s.rows.Update(ctx, func(tx store.Tx) (err error) {
		if gone, err = s.remove(ctx, tx, bucket, name, generation, conds); err != nil {
			return err
		}
		committed, err = identity.RecordSuccess(ctx, tx)
		return err
	})
	if err == nil {
		committed()
		s.discard(ctx, gone)
	}
	return err
}

func (s *Store) remove(ctx context.Context, tx store.Tx, bucket, name string, generation int64, conds Conditions) (gone string, err error) {
	b, err := getBucket(ctx, tx, bucket)
	if err != nil {
		return "", err
	}
	o, err := find(ctx, tx, bucket, name, generation)
	if err != nil {
		return "", err
	}
	if err := conds.check(bucket, name, o.Generation, o.Metageneration); err != nil {
		return "", err
	}
	now := s.now().UTC().Truncate(time.Microsecond)
	if generation == 0 {
		gone, err = s.retire(ctx, tx, b, o, now, 0)
	} else {
		gone, err = s.destroy(ctx, tx, b, o, now, 0)
	}
	if err != nil {
		return "", err
	}
	return gone, deleteRow(ctx, tx, o)
}
