package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// ParseURI cuts gs://BUCKET/NAME; the name may be empty (gs://BUCKET).
func ParseURI(uri string) (bucket, name string, err error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	if !ok {
		return "", "", resource.Invalid("uri", "%q is no object: want gs://BUCKET/NAME", uri)
	}
	bucket, name, _ = strings.Cut(rest, "/")
	if err := CheckBucketName(bucket); err != nil {
		return "", "", resource.Invalid("uri", "%q is no object: %w", uri, err)
	}
	return bucket, name, nil
}

func parseObject(uri string) (bucket, name string, err error) {
	bucket, name, err = ParseURI(uri)
	if err == nil && name == "" {
		err = resource.Invalid("uri", "%q names a bucket and no object", uri)
	}
	return bucket, name, err
}

// ReadObject opens the live generation.
func (s *Store) ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error) {
	_, r, err := s.OpenLive(ctx, bucket, name)
	return r, err
}

// ReadAll gives the content of gs://BUCKET/NAME; an object of more than limit
// bytes is refused (limit <= 0: none is).
func (s *Store) ReadAll(ctx context.Context, uri string, limit int64) (_ []byte, err error) {
	bucket, name, err := parseObject(uri)
	if err != nil {
		return nil, err
	}
	o, r, err := s.OpenLive(ctx, bucket, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if limit > 0 && o.Size > limit {
		return nil, resource.Errorf(codes.OutOfRange, "%s has %d bytes; at most %d are read here", uri, o.Size, limit).WithResource(uri)
	}
	data := make([]byte, o.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", uri, err)
	}
	return data, nil
}

// WriteObject makes data the content of gs://BUCKET/NAME.
func (s *Store) WriteObject(ctx context.Context, uri, contentType string, data []byte) error {
	bucket, name, err := parseObject(uri)
	if err != nil {
		return err
	}
	_, err = s.Put(ctx, Object{Bucket: bucket, Name: name, ContentType: contentType}, bytes.NewReader(data), Conditions{})
	return err
}

// Exists reports an object of that name, or any below it as a folder.
func (s *Store) Exists(ctx context.Context, uri string) (bool, error) {
	bucket, name, err := ParseURI(uri)
	if err != nil {
		return false, err
	}
	if name != "" && !strings.HasSuffix(name, "/") {
		_, err := s.Stat(ctx, bucket, name, 0, Conditions{})
		if err == nil {
			return true, nil
		}
		if !resource.IsNotFound(err) {
			return false, err
		}
		name += "/"
	}
	page, err := s.List(ctx, bucket, ListQuery{Prefix: name, Limit: 1})
	if resource.IsNotFound(err) {
		return false, nil
	}
	return err == nil && len(page.Objects) > 0, err
}
