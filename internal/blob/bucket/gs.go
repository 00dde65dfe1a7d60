package bucket

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
	"gocloud.dev/gcp"
)

// gsService is where the API is unless a URL says endpoint=.
const gsService = "https://storage.googleapis.com"

// gsOpener opens gs://BUCKET with the parameters endpoint (another server that
// speaks the API) and anonymous.
type gsOpener struct{}

func (gsOpener) OpenBucketURL(ctx context.Context, u *url.URL) (*gcblob.Bucket, error) {
	b, err := openGS(ctx, u)
	if err != nil {
		return nil, err
	}
	return gcblob.NewBucket(b), nil
}

func openGS(ctx context.Context, u *url.URL) (*gsBucket, error) {
	query := u.Query()
	endpoint, anonymous := query.Get("endpoint"), query.Get("anonymous") == "true"
	query.Del("endpoint")
	query.Del("anonymous")
	for name := range query {
		return nil, fmt.Errorf("gs has no parameter %q", name)
	}
	if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" && endpoint == "" {
		return nil, fmt.Errorf("STORAGE_EMULATOR_HOST is set to %s, which may be this server itself: unset it, or say endpoint=URL in the bucket URL", host)
	}
	if endpoint == "" {
		endpoint = gsService
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: stall,
	}
	client := gcp.NewAnonymousHTTPClient(transport)
	if !anonymous {
		found, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, err
		}
		if client, err = gcp.NewHTTPClient(transport, gcp.CredentialsTokenSource(found)); err != nil {
			return nil, err
		}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &gsBucket{
		http: &client.Client, idle: transport.CloseIdleConnections,
		endpoint: strings.TrimSuffix(endpoint, "/"), bucket: "/b/" + url.PathEscape(u.Host) + "/o",
		pause: firstPause,
	}, nil
}

// gsBucket is a driver over the JSON API of Cloud Storage. Google's own client would
// do the same and bring gRPC's load balancers and telemetry: 7 MB of the binary.
type gsBucket struct {
	http     *http.Client
	idle     func() // closes idle connections
	endpoint string
	bucket   string // path of the bucket's objects, below storage/v1
	pause    time.Duration
}

// gsObject is what we read and write of an object resource,
// https://docs.cloud.google.com/storage/docs/json_api/v1/objects.
type gsObject struct {
	Name               string            `json:"name,omitempty"`
	Size               int64             `json:"size,omitempty,string"`
	Created            time.Time         `json:"timeCreated,omitzero"`
	Updated            time.Time         `json:"updated,omitzero"`
	MD5                string            `json:"md5Hash,omitempty"` // base64
	CRC32C             string            `json:"crc32c,omitempty"`  // base64, big-endian
	ETag               string            `json:"etag,omitempty"`
	ContentType        string            `json:"contentType,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
}

func (o gsObject) md5() []byte {
	sum, err := base64.StdEncoding.DecodeString(o.MD5)
	if err != nil || len(sum) == 0 {
		return nil // composed objects have none
	}
	return sum
}

func (b *gsBucket) objects(query url.Values) string {
	return b.endpoint + "/storage/v1" + b.bucket + "?" + query.Encode()
}

func (b *gsBucket) object(key, rest string, query url.Values) string {
	return b.endpoint + "/storage/v1" + b.bucket + "/" + url.PathEscape(key) + rest + "?" + query.Encode()
}

// As and ErrorAs implement driver.Bucket: there are no types of a client to give.
func (b *gsBucket) As(any) bool             { return false }
func (b *gsBucket) ErrorAs(error, any) bool { return false }

// Close implements driver.Bucket.
func (b *gsBucket) Close() error {
	b.idle()
	return nil
}

// ErrorCode implements driver.Bucket.
func (b *gsBucket) ErrorCode(err error) gcerrors.ErrorCode {
	if errors.Is(err, errors.ErrUnsupported) {
		return gcerrors.Unimplemented
	}
	switch httpStatus(err) {
	case http.StatusNotFound:
		return gcerrors.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return gcerrors.PermissionDenied
	case http.StatusPreconditionFailed:
		return gcerrors.FailedPrecondition
	case http.StatusBadRequest:
		return gcerrors.InvalidArgument
	case http.StatusTooManyRequests, http.StatusInsufficientStorage:
		return gcerrors.ResourceExhausted
	}
	return gcerrors.Unknown
}

// Attributes implements driver.Bucket.
func (b *gsBucket) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	var o gsObject
	if err := b.call(ctx, gsRequest{method: http.MethodGet, url: b.object(key, "", nil)}, &o); err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl: o.CacheControl, ContentDisposition: o.ContentDisposition, ContentEncoding: o.ContentEncoding,
		ContentLanguage: o.ContentLanguage, ContentType: o.ContentType, Metadata: o.Metadata,
		CreateTime: o.Created, ModTime: o.Updated, Size: o.Size, MD5: o.md5(), ETag: strconv.Quote(o.ETag),
	}, nil
}

// ListPaged implements driver.Bucket.
func (b *gsBucket) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if opts.BeforeList != nil {
		if err := opts.BeforeList(b.As); err != nil {
			return nil, err
		}
	}
	query := url.Values{"fields": {"nextPageToken,prefixes,items(name,size,updated,md5Hash)"}}
	for name, value := range map[string]string{"prefix": opts.Prefix, "delimiter": opts.Delimiter, "pageToken": string(opts.PageToken)} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if opts.PageSize > 0 {
		query.Set("maxResults", strconv.Itoa(opts.PageSize))
	}
	var answer struct {
		NextPageToken string     `json:"nextPageToken"`
		Prefixes      []string   `json:"prefixes"`
		Items         []gsObject `json:"items"`
	}
	if err := b.call(ctx, gsRequest{method: http.MethodGet, url: b.objects(query)}, &answer); err != nil {
		return nil, err
	}
	page := &driver.ListPage{NextPageToken: []byte(answer.NextPageToken)}
	for _, o := range answer.Items {
		page.Objects = append(page.Objects, &driver.ListObject{Key: o.Name, ModTime: o.Updated, Size: o.Size, MD5: o.md5()})
	}
	for _, prefix := range answer.Prefixes {
		page.Objects = append(page.Objects, &driver.ListObject{Key: prefix, IsDir: true})
	}
	slices.SortFunc(page.Objects, func(x, y *driver.ListObject) int { return strings.Compare(x.Key, y.Key) })
	return page, nil
}

// Copy implements driver.Bucket. The service copies a part at a time where it cannot
// do it at once, and gives a token to go on with.
func (b *gsBucket) Copy(ctx context.Context, to, from string, opts *driver.CopyOptions) error {
	if opts.BeforeCopy != nil {
		if err := opts.BeforeCopy(b.As); err != nil {
			return err
		}
	}
	query := url.Values{"fields": {"done,rewriteToken"}}
	for {
		var answer struct {
			Done  bool   `json:"done"`
			Token string `json:"rewriteToken"`
		}
		if err := b.call(ctx, gsRequest{method: http.MethodPost, url: b.object(from, "/rewriteTo"+b.bucket+"/"+url.PathEscape(to), query)}, &answer); err != nil {
			return err
		}
		if answer.Done {
			return nil
		}
		if answer.Token == "" {
			return fmt.Errorf("copy %s: the service gave neither an end nor a token to go on with", from)
		}
		query.Set("rewriteToken", answer.Token)
	}
}

// Delete implements driver.Bucket.
func (b *gsBucket) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if opts.BeforeDelete != nil {
		if err := opts.BeforeDelete(b.As); err != nil {
			return err
		}
	}
	return b.call(ctx, gsRequest{method: http.MethodDelete, url: b.object(key, "", nil)}, nil)
}

// SignedURL implements driver.Bucket; nothing here hands out URLs of the bucket.
func (b *gsBucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}

// call makes a request whose answer is JSON, which goes into answer unless that is nil.
func (b *gsBucket) call(ctx context.Context, r gsRequest, answer any) error {
	response, err := b.do(ctx, r)
	if err != nil {
		return err
	}
	if answer != nil {
		if err = json.NewDecoder(response.Body).Decode(answer); err != nil {
			err = fmt.Errorf("decode the answer of %s: %w", response.Request.URL.Host, err)
		}
	}
	_, _ = io.CopyN(io.Discard, response.Body, 4096) // so that the connection can be used again
	return errors.Join(err, response.Body.Close())
}
