package access

import (
	"context"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// List implements the ports of engines; it needs List.
func (v *View) List(ctx context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error) {
	if err := v.check(ctx, bucket, q.Prefix, List); err != nil {
		return blob.ListPage{}, err
	}
	return v.store.List(ctx, bucket, q)
}

// ReadObject opens the live generation; it needs Get.
func (v *View) ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error) {
	_, r, err := v.OpenLive(ctx, bucket, name)
	return r, err
}

// OpenLive opens the live generation and says which it is; it needs Get.
func (v *View) OpenLive(ctx context.Context, bucket, name string) (blob.Object, io.ReadCloser, error) {
	if err := v.check(ctx, bucket, name, Get); err != nil {
		return blob.Object{}, nil, err
	}
	return v.store.OpenLive(ctx, bucket, name)
}

// OpenURI opens the live generation of gs://BUCKET/NAME; it needs Get.
func (v *View) OpenURI(ctx context.Context, uri string) (io.ReadCloser, error) {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	return v.ReadObject(ctx, bucket, name)
}

// ReadAll gives the content of gs://BUCKET/NAME, an error when it is longer than
// limit bytes; it needs Get.
func (v *View) ReadAll(ctx context.Context, uri string, limit int64) ([]byte, error) {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if err := v.check(ctx, bucket, name, Get); err != nil {
		return nil, err
	}
	return v.store.ReadAll(ctx, uri, limit)
}

// Exists reports an object of that name, or any below it as a folder; it needs Get
// and List. In a bucket that does not exist there is none.
func (v *View) Exists(ctx context.Context, uri string) (bool, error) {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return false, err
	}
	switch err := v.check(ctx, bucket, name, Get, List); {
	case resource.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return v.store.Exists(ctx, uri)
}

// EnsureBucket makes a bucket that does not exist yet, for which the account needs
// storage.buckets.create in the project.
func (v *View) EnsureBucket(ctx context.Context, project, bucket string) error {
	_, err := v.store.GetBucket(ctx, bucket)
	if !resource.IsNotFound(err) {
		return err
	}
	p, err := v.auth.AccountPrincipal(ctx, v.account)
	if err != nil {
		return err
	}
	if err := v.auth.Authorize(ctx, p, project, createBuckets); err != nil {
		if resource.CodeOf(err) != codes.PermissionDenied {
			return err
		}
		return refuse("gs://"+bucket, "the bucket gs://%s does not exist, and permission %q denied to the service account %q on project %q", bucket, createBuckets, p.Email, project).
			WithHint("make the bucket and bind roles/storage.objectUser to serviceAccount:%s in its policy, or run as a service account of the project", p.Email)
	}
	return v.store.EnsureBucket(ctx, project, bucket)
}

// MayWrite asks for Create on the bucket of an object; a bucket that does not exist is NotFound.
func (v *View) MayWrite(ctx context.Context, uri string) error {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return err
	}
	return v.check(ctx, bucket, name, Create)
}

// Put makes the content of r the object attrs.Bucket/attrs.Name; it needs Create,
// and Delete to write over one.
func (v *View) Put(ctx context.Context, attrs blob.Object, r io.Reader, conds blob.Conditions) (blob.Object, error) {
	var written blob.Object
	err := v.write(ctx, attrs.Bucket, attrs.Name, conds, func(conds blob.Conditions) (err error) {
		written, err = v.store.Put(ctx, attrs, r, conds)
		return err
	})
	return written, err
}

// UploadFile makes a local file the content of the object uri; it needs what Put does.
func (v *View) UploadFile(ctx context.Context, path, uri string) error {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return err
	}
	return v.write(ctx, bucket, name, blob.Conditions{}, func(conds blob.Conditions) error {
		return v.store.UploadFile(ctx, path, uri, conds)
	})
}

// write keeps an account that may not delete from writing over an object: it gets
// the condition that there is none, which also holds against a race.
func (v *View) write(ctx context.Context, bucket, name string, conds blob.Conditions, write func(blob.Conditions) error) error {
	if err := v.check(ctx, bucket, name, Create); err != nil {
		return err
	}
	if conds.GenerationMatch != nil && *conds.GenerationMatch == 0 {
		return write(conds) // over nothing
	}
	overwrite := v.check(ctx, bucket, name, Delete)
	switch resource.CodeOf(overwrite) {
	case codes.OK:
		return write(conds)
	case codes.PermissionDenied:
		if conds.GenerationMatch != nil { // over just that one
			return overwrite
		}
	default:
		return overwrite
	}
	conds.GenerationMatch = new(int64)
	err := write(conds)
	if resource.CodeOf(err) == codes.FailedPrecondition {
		if _, is := v.store.Stat(ctx, bucket, name, 0, blob.Conditions{}); is == nil {
			return overwrite
		}
	}
	return err
}

// Download writes the object uri below dir as BUCKET/NAME; when there is no such
// object, every object below it as a folder. It needs Get, and List where what is
// meant is not one object. What does not exist is no error.
func (v *View) Download(ctx context.Context, uri, dir string) error {
	bucket, name, err := blob.ParseURI(uri)
	if err != nil {
		return err
	}
	switch err := v.check(ctx, bucket, name, Get); {
	case resource.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	list := v.check(ctx, bucket, name, List)
	if list == nil {
		return v.store.Download(ctx, uri, dir)
	}
	if resource.CodeOf(list) == codes.PermissionDenied && name != "" && !strings.HasSuffix(name, "/") {
		if err := v.store.DownloadObject(ctx, uri, dir); !resource.IsNotFound(err) {
			return err
		}
	}
	return list
}
