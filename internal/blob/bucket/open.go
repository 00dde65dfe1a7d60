package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/s3blob"

	"tategu/internal/resource"
)

// openTimeout bounds the first contact, so that a server says soon that it has no bucket.
const openTimeout = 30 * time.Second

// Address is where a bucket is: the URL without the parameters that say how to
// reach it, which may name accounts.
type Address struct {
	Scheme, Host, Path string
	Prefix             string // "" or ends with a slash
}

// String gives the address as a URL.
func (a Address) String() string {
	s := a.Scheme + "://" + a.Host + a.Path
	if a.Prefix != "" {
		s += "?prefix=" + a.Prefix
	}
	return s
}

func (a Address) credentials() string {
	switch a.Scheme {
	case "s3":
		return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile of ~/.aws, or the machine's role"
	case "gs":
		return "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the machine's service account"
	case "azure":
		return "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, or the machine's identity"
	}
	return "the file system's permissions"
}

// Parse takes a URL apart. The prefix is ours, the other parameters are the driver's.
func Parse(raw string) (Address, *url.URL, error) {
	refuse := func(format string, args ...any) error {
		return resource.Invalid("storage.objects", "bucket URL: "+format, args...).
			WithHint("write gs://BUCKET, s3://BUCKET?region=REGION, azure://CONTAINER?storage_account=NAME or file:///DIRECTORY; docs/guide/cloud-bucket.md has the parameters")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Address{}, nil, refuse("%v", err)
	}
	query := u.Query()
	prefix := query.Get("prefix")
	query.Del("prefix")
	u.RawQuery = query.Encode()
	a := Address{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	switch {
	case a.Scheme == "file":
		if a.Host != "" || !strings.HasPrefix(a.Path, "/") {
			return Address{}, nil, refuse("a directory is named by its full path, as in file:///srv/objects")
		}
	case a.Scheme != "gs" && a.Scheme != "s3" && a.Scheme != "azure":
		return Address{}, nil, refuse("the scheme %q is not supported", a.Scheme)
	case a.Host == "" || strings.Trim(a.Path, "/") != "":
		return Address{}, nil, refuse("%q names no bucket alone; folders go into ?prefix=", raw)
	default:
		a.Path = ""
	}
	for part := range strings.SplitSeq(strings.Trim(prefix, "/"), "/") {
		bad := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
		}
		if part == "." || part == ".." || strings.ContainsFunc(part, bad) || part == "" && strings.Trim(prefix, "/") != "" {
			return Address{}, nil, refuse("the prefix %q may have letters, digits, '.', '_' and '-' between slashes", prefix)
		}
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		a.Prefix = prefix + "/"
	}
	return a, u, nil
}

// Open opens the bucket of a URL and looks whether it answers; Claim comes next. It
// does not make buckets or directories.
func Open(ctx context.Context, raw string, log *slog.Logger, now func() time.Time) (*Content, error) {
	address, u, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	mux := &gcblob.URLMux{}
	mux.RegisterBucket("gs", gsOpener{})
	mux.RegisterBucket("s3", &s3blob.URLOpener{})
	mux.RegisterBucket("azure", azureOpener{})
	mux.RegisterBucket("file", fileOpener{})
	// The credentials that a driver keeps renew themselves with this context.
	b, err := mux.OpenBucketURL(context.WithoutCancel(ctx), u)
	if err != nil {
		return nil, address.failed("open", err)
	}
	if address.Prefix != "" {
		b = gcblob.PrefixedBucket(b, address.Prefix)
	}
	c := New(b, address, log, now)
	if address.Scheme == "file" {
		c.dirs = newDirs(address.Path, address.Prefix)
	}
	if err := c.answers(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return c, nil
}

func (c *Content) answers(ctx context.Context) error {
	first, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	_, _, err := c.bucket.ListPage(first, gcblob.FirstPageToken, 1, &gcblob.ListOptions{Prefix: contentFolder})
	if err != nil && ctx.Err() == nil && first.Err() != nil {
		err = fmt.Errorf("no answer within %s: %v", openTimeout, err) //nolint:errorlint // not to be taken for the caller's deadline
	}
	return c.failed("list", err)
}

type azureOpener struct{}

func (azureOpener) OpenBucketURL(ctx context.Context, u *url.URL) (*gcblob.Bucket, error) {
	opener := &azureblob.URLOpener{MakeClient: azureblob.NewDefaultClient, ServiceURLOptions: *azureblob.NewDefaultServiceURLOptions()}
	if opener.ServiceURLOptions.SASToken != "" && (u.Query().Has("domain") || u.Query().Has("storage_account")) {
		return nil, errors.New("AZURE_STORAGE_SAS_TOKEN goes with AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_DOMAIN, not with parameters of the URL")
	}
	return opener.OpenBucketURL(ctx, u)
}

// fileOpener keeps temporary files beside their targets, whose file system it may
// not share with others, and no attributes.
type fileOpener struct{}

func (fileOpener) OpenBucketURL(_ context.Context, u *url.URL) (*gcblob.Bucket, error) {
	for name := range u.Query() {
		return nil, fmt.Errorf("file has no parameter %q", name)
	}
	return fileblob.OpenBucket(filepath.FromSlash(u.Path), &fileblob.Options{DirFileMode: 0o700, NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
}
