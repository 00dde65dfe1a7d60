package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
	"gocloud.dev/gcerrors"

	"tategu/internal/resource"
)

// Read opens an object of a cloud bucket that is not ours, with the credentials of the
// environment. The URI is gs://BUCKET/NAME or s3://BUCKET/NAME; parameters behind a ?
// are the driver's (?region=, ?endpoint= ...). A missing one is resource.IsNotFound's.
func Read(ctx context.Context, uri string) (io.ReadCloser, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, resource.Invalid("url", "%q is no URL of an object: %v", uri, err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if u.Scheme != "gs" && u.Scheme != "s3" || u.Host == "" || name == "" {
		return nil, resource.Invalid("url", "%q names no object: want gs://BUCKET/NAME or s3://BUCKET/NAME", uri)
	}
	address := Address{Scheme: u.Scheme, Host: u.Host}
	mux := &gcblob.URLMux{}
	mux.RegisterBucket("gs", gsOpener{})
	mux.RegisterBucket("s3", &s3blob.URLOpener{})
	b, err := mux.OpenBucketURL(context.WithoutCancel(ctx), &url.URL{Scheme: u.Scheme, Host: u.Host, RawQuery: u.RawQuery})
	if err != nil {
		return nil, address.failed("open", err)
	}
	r, err := b.NewReader(ctx, name, nil)
	if err != nil {
		err := errors.Join(err, b.Close())
		if gcerrors.Code(err) == gcerrors.NotFound {
			return nil, resource.NotFound(fmt.Sprintf("%s://%s/%s", u.Scheme, u.Host, name))
		}
		return nil, address.failed("read", err)
	}
	return &foreign{r, b}, nil
}

// foreign closes its bucket with it.
type foreign struct {
	*gcblob.Reader
	bucket *gcblob.Bucket
}

func (o *foreign) Close() error { return errors.Join(o.Reader.Close(), o.bucket.Close()) }
