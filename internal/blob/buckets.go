package blob

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// CreateBucket makes a bucket; AlreadyExists when the name is taken.
func (s *Store) CreateBucket(ctx context.Context, b Bucket) (Bucket, error) {
	if err := CheckBucketName(b.Name); err != nil {
		return Bucket{}, err
	}
	if b.Project == "" {
		return Bucket{}, resource.Invalid("project", "a bucket belongs to a project: none is named")
	}
	if b.Location == "" {
		b.Location = "US"
	}
	if b.StorageClass == "" {
		b.StorageClass = "STANDARD"
	}
	b.Created = s.now().UTC().Truncate(time.Microsecond)
	b.Updated, b.Metageneration = b.Created, 1
	if err := b.settle(Bucket{}, b.Created); err != nil {
		return Bucket{}, err
	}
	return b, s.rows.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Get(ctx, kindBucket, b.Name)
		if err == nil {
			return resource.Errorf(codes.AlreadyExists, "the bucket %s exists already", b.Name).WithResource("gs://" + b.Name)
		}
		if !resource.IsNotFound(err) {
			return err
		}
		return putBucket(ctx, tx, b)
	})
}

func putBucket(ctx context.Context, tx store.Tx, b Bucket) error {
	row, err := bucketRow(b)
	if err != nil {
		return err
	}
	return tx.Put(ctx, row)
}

// EnsureBucket makes the bucket unless it exists: every bucket that the platform
// is told to use is there.
func (s *Store) EnsureBucket(ctx context.Context, project, name string) error {
	_, err := s.GetBucket(ctx, name)
	if !resource.IsNotFound(err) {
		return err
	}
	if _, err = s.CreateBucket(ctx, Bucket{Name: name, Project: project}); resource.CodeOf(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

// GetBucket gives a bucket or NotFound.
func (s *Store) GetBucket(ctx context.Context, name string) (Bucket, error) {
	return getBucket(ctx, s.rows, name)
}

func getBucket(ctx context.Context, r store.Reader, name string) (Bucket, error) {
	row, err := r.Get(ctx, kindBucket, name)
	if resource.IsNotFound(err) {
		return Bucket{}, missingBucket(name)
	}
	if err != nil {
		return Bucket{}, err
	}
	return rowBucket(row)
}

// ListBuckets gives up to limit buckets of a project whose names start with
// prefix and come after the name after; "" and 0 select nothing away.
func (s *Store) ListBuckets(ctx context.Context, project, prefix, after string, limit int) ([]Bucket, error) {
	q := store.Query{Kind: kindBucket, Prefix: prefix, After: after, Limit: limit}
	if project != "" {
		q.Parent = projectParent(project)
	}
	rows, err := s.rows.List(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]Bucket, 0, len(rows))
	for _, row := range rows {
		b, err := rowBucket(row)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// UpdateBucket changes what fn changes and counts the metageneration up. Of conds
// the metageneration conditions are checked.
func (s *Store) UpdateBucket(ctx context.Context, name string, conds Conditions, fn func(*Bucket) error) (Bucket, error) {
	var b Bucket
	err := s.rows.Update(ctx, func(tx store.Tx) error {
		var err error
		if b, err = getBucket(ctx, tx, name); err != nil {
			return err
		}
		if err := conds.checkBucket(b); err != nil {
			return err
		}
		fixed := b
		if err := fn(&b); err != nil {
			return err
		}
		b.Name, b.Project, b.Location, b.Created = fixed.Name, fixed.Project, fixed.Location, fixed.Created
		b.Notifications, b.LastNotification = fixed.Notifications, fixed.LastNotification
		b.Metageneration, b.Updated = fixed.Metageneration+1, later(s.now().UTC().Truncate(time.Microsecond), fixed.Updated)
		if err := b.settle(fixed, b.Updated); err != nil {
			return err
		}
		return putBucket(ctx, tx, b)
	})
	return b, err
}

// settle checks the rules that changed from old and says since when they hold.
func (b *Bucket) settle(old Bucket, now time.Time) error {
	if err := CheckRetentionPolicy(old.Retention, b.Retention); err != nil {
		return err
	}
	b.Retention.Locked = old.Retention.Locked
	switch {
	case b.Retention.Period == 0:
		b.Retention = RetentionPolicy{}
	case b.Retention.Period != old.Retention.Period:
		b.Retention.Effective = now
	default:
		b.Retention.Effective = old.Retention.Effective
	}
	if b.SoftDelete.Period != old.SoftDelete.Period {
		b.SoftDelete.Effective = now
	}
	return CheckLifecycle(b.Lifecycle)
}

// LockRetention makes a bucket's retention policy permanent: from then on its
// period can only grow. The condition on the metageneration is required.
func (s *Store) LockRetention(ctx context.Context, name string, metageneration int64) (Bucket, error) {
	var b Bucket
	err := s.rows.Update(ctx, func(tx store.Tx) (err error) {
		if b, err = getBucket(ctx, tx, name); err != nil {
			return err
		}
		if err := (Conditions{MetagenerationMatch: &metageneration}).checkBucket(b); err != nil {
			return err
		}
		if b.Retention.Period == 0 {
			return resource.Invalid("retentionPolicy", "bucket %s has no retention policy to lock", name)
		}
		b.Retention.Locked = true
		b.Metageneration, b.Updated = b.Metageneration+1, later(s.now().UTC().Truncate(time.Microsecond), b.Updated)
		return putBucket(ctx, tx, b)
	})
	return b, err
}

// CheckBucket applies the metageneration conditions of a read of a bucket.
func (c Conditions) CheckBucket(b Bucket) error {
	return Conditions{MetagenerationMatch: c.MetagenerationMatch, MetagenerationNotMatch: c.MetagenerationNotMatch}.
		checkRead(b.Name, "", 0, b.Metageneration)
}

func (c Conditions) checkBucket(b Bucket) error {
	return Conditions{MetagenerationMatch: c.MetagenerationMatch, MetagenerationNotMatch: c.MetagenerationNotMatch}.
		check(b.Name, "", 0, b.Metageneration)
}

// DeleteBucket removes an empty bucket; FailedPrecondition wrapping ErrNotEmpty
// otherwise. What was soft-deleted in it goes for good: another bucket of that
// name must not give it back.
func (s *Store) DeleteBucket(ctx context.Context, name string, conds Conditions) error {
	for {
		var gone []string
		err := s.rows.Update(ctx, func(tx store.Tx) (err error) {
			gone, err = removeBucket(ctx, tx, name, conds)
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range gone {
			s.discard(ctx, id)
		}
		if len(gone) < purgeBatch {
			return nil
		}
	}
}

// purgeBatch bounds how many rows one transaction removes.
const purgeBatch = 500

// removeBucket deletes the bucket, or purgeBatch of its soft-deleted objects when
// there are more of them.
func removeBucket(ctx context.Context, tx store.Tx, name string, conds Conditions) (gone []string, err error) {
	b, err := getBucket(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	if err := conds.checkBucket(b); err != nil {
		return nil, err
	}
	for _, kind := range []store.Kind{kindObject, kindVersion} {
		rows, err := tx.List(ctx, store.Query{Kind: kind, Prefix: name + "/", Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			return nil, resource.Errorf(codes.FailedPrecondition, "The bucket you tried to delete is not empty: %s: %w", name, ErrNotEmpty).
				WithResource("gs://" + name).WithHint("delete its objects first, with all their generations")
		}
	}
	for _, kind := range []store.Kind{kindSoft, kindEvent} {
		rows, err := tx.List(ctx, store.Query{Kind: kind, Prefix: name + "/", Limit: purgeBatch - len(gone)})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if err := tx.Delete(ctx, kind, row.Key); err != nil {
				return nil, err
			}
			if kind != kindSoft {
				row.State = "" // no content
			}
			gone = append(gone, row.State)
		}
		if len(gone) == purgeBatch {
			return gone, nil
		}
	}
	if err := dropMultiparts(ctx, tx, name); err != nil {
		return nil, err
	}
	return gone, tx.Delete(ctx, kindBucket, name)
}
