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
		b.Metageneration, b.Updated = fixed.Metageneration+1, s.now().UTC().Truncate(time.Microsecond)
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

// DeleteBucket removes an empty bucket; FailedPrecondition wrapping ErrNotEmpty otherwise.
func (s *Store) DeleteBucket(ctx context.Context, name string, conds Conditions) error {
	return s.rows.Update(ctx, func(tx store.Tx) error {
		b, err := getBucket(ctx, tx, name)
		if err != nil {
			return err
		}
		if err := conds.checkBucket(b); err != nil {
			return err
		}
		rows, err := tx.List(ctx, store.Query{Kind: kindObject, Prefix: objectKey(name, ""), Limit: 1})
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return resource.Errorf(codes.FailedPrecondition, "The bucket you tried to delete is not empty: %s: %w", name, ErrNotEmpty).
				WithResource("gs://" + name).WithHint("delete its objects first")
		}
		if err := dropMultiparts(ctx, tx, name); err != nil {
			return err
		}
		return tx.Delete(ctx, kindBucket, name)
	})
}
