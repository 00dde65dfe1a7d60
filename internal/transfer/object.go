package transfer

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
)

// Object is what the API says of one generation
// (cloud.google.com/storage/docs/json_api/v1/objects).
type Object struct {
	Bucket      string    `json:"bucket"`
	Name        string    `json:"name"`
	Size        int64     `json:"size,string"`
	Generation  int64     `json:"generation,string"`
	CRC32C      string    `json:"crc32c"`
	MD5         string    `json:"md5Hash"` // composed objects have none
	ContentType string    `json:"contentType"`
	Updated     time.Time `json:"updated"`
	TimeDeleted time.Time `json:"timeDeleted"` // of a noncurrent generation
}

// URL of the object, whatever its generation.
func (o Object) URL() URL { return URL{Bucket: o.Bucket, Name: o.Name} }

// crc gives the checksum of the whole object.
func (o Object) crc() (uint32, error) {
	b, err := base64.StdEncoding.DecodeString(o.CRC32C)
	if err != nil || len(b) != 4 {
		return 0, fmt.Errorf("%s has no CRC32C that can be read: %q", o.URL(), o.CRC32C)
	}
	return binary.BigEndian.Uint32(b), nil
}

func crcText(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// Bucket is what the API says of a bucket.
type Bucket struct {
	Name        string    `json:"name"`
	Location    string    `json:"location"`
	TimeCreated time.Time `json:"timeCreated"`
}

// Buckets lists the buckets of a project.
func (c *Client) Buckets(ctx context.Context, project string) ([]Bucket, error) {
	var all []Bucket
	q := url.Values{"project": {project}}
	for {
		var page struct {
			Items         []Bucket `json:"items"`
			NextPageToken string   `json:"nextPageToken"`
		}
		if err := c.call(ctx, request{method: http.MethodGet, path: "/storage/v1/b", query: q}, &page); err != nil {
			return nil, err
		}
		if all = append(all, page.Items...); page.NextPageToken == "" {
			return all, nil
		}
		q.Set("pageToken", page.NextPageToken)
	}
}

// Query selects objects of a bucket.
type Query struct {
	Bucket, Prefix, Delimiter string
	Glob                      string // with *, ** and ?
	Versions                  bool   // noncurrent generations too
	Limit                     int    // of one page; 0 = the server's
}

// Entry is an object, or a prefix that objects share.
type Entry struct {
	Object
	Prefix string // then there is no object
}

// List goes over what a query selects, in pages as they are needed: objects and
// prefixes in the order of their names.
func (c *Client) List(ctx context.Context, q Query) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for token, more := "", true; more; {
			page, err := c.page(ctx, q, token)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page.entries() {
				if !yield(e, nil) {
					return
				}
			}
			token = page.NextPageToken
			more = token != ""
		}
	}
}

type listPage struct {
	Items         []Object `json:"items"`
	Prefixes      []string `json:"prefixes"`
	NextPageToken string   `json:"nextPageToken"`
}

// entries merges objects and prefixes by name.
func (p listPage) entries() []Entry {
	all := make([]Entry, 0, len(p.Items)+len(p.Prefixes))
	prefixes := p.Prefixes
	for _, o := range p.Items {
		for len(prefixes) > 0 && prefixes[0] <= o.Name {
			all, prefixes = append(all, Entry{Prefix: prefixes[0]}), prefixes[1:]
		}
		all = append(all, Entry{Object: o})
	}
	for _, prefix := range prefixes {
		all = append(all, Entry{Prefix: prefix})
	}
	return all
}

func (c *Client) page(ctx context.Context, q Query, token string) (listPage, error) {
	v := url.Values{}
	for name, value := range map[string]string{"prefix": q.Prefix, "delimiter": q.Delimiter, "pageToken": token} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Glob != "" {
		v.Set("matchGlob", serverGlob(q.Glob))
		v.Set("prefix", literal(q.Glob))
	}
	if q.Versions {
		v.Set("versions", "true")
	}
	if q.Limit > 0 {
		v.Set("maxResults", strconv.Itoa(q.Limit))
	}
	var page listPage
	err := c.call(ctx, request{method: http.MethodGet, path: "/storage/v1/b/" + url.PathEscape(q.Bucket) + "/o", query: v}, &page)
	return page, err
}

func objectPath(u URL) string {
	return "/storage/v1/b/" + url.PathEscape(u.Bucket) + "/o/" + url.PathEscape(u.Name)
}

func generationQuery(u URL) url.Values {
	q := url.Values{}
	if u.Generation != 0 {
		q.Set("generation", strconv.FormatInt(u.Generation, 10))
	}
	return q
}

// Stat gives one object.
func (c *Client) Stat(ctx context.Context, u URL) (Object, error) {
	var o Object
	err := c.call(ctx, request{method: http.MethodGet, path: objectPath(u), query: generationQuery(u)}, &o)
	return o, err
}

// Remove deletes an object, if it still is the generation given (0 = whichever).
func (c *Client) Remove(ctx context.Context, u URL, ifGeneration int64) error {
	q := generationQuery(u)
	if ifGeneration != 0 {
		q.Set("ifGenerationMatch", strconv.FormatInt(ifGeneration, 10))
	}
	return c.call(ctx, request{method: http.MethodDelete, path: objectPath(u), query: q}, nil)
}

// rewrite copies on the server; the object's bytes do not travel.
func (c *Client) rewrite(ctx context.Context, src Object, dst URL, noClobber bool) error {
	q := url.Values{"sourceGeneration": {strconv.FormatInt(src.Generation, 10)}}
	if noClobber {
		q.Set("ifGenerationMatch", "0")
	}
	path := objectPath(src.URL()) + "/rewriteTo/b/" + url.PathEscape(dst.Bucket) + "/o/" + url.PathEscape(dst.Name)
	for {
		var answer struct {
			Done         bool   `json:"done"`
			RewriteToken string `json:"rewriteToken"`
			Resource     Object `json:"resource"`
		}
		if err := c.call(ctx, request{method: http.MethodPost, path: path, query: q}, &answer); err != nil {
			return err
		}
		if answer.Done {
			if answer.Resource.CRC32C != src.CRC32C {
				return damaged(dst.String(), src.CRC32C, answer.Resource.CRC32C)
			}
			return nil
		}
		q.Set("rewriteToken", answer.RewriteToken)
	}
}

// Select gives the objects that a URL stands for: one object, those of a pattern,
// or, when recursive, all below a folder. relative is what of an object's name
// belongs into a copy of the selection. An exact name wins over a pattern.
func (c *Client) Select(ctx context.Context, u URL, recursive, versions bool) iter.Seq2[Selected, error] {
	return func(yield func(Selected, error) bool) {
		if u.Name != "" && !versions && (!recursive || !strings.HasSuffix(u.Name, "/")) {
			o, err := c.Stat(ctx, u)
			if err == nil {
				yield(Selected{Object: o, Relative: baseOf(o.Name), Single: true}, nil)
				return
			}
			if !resource.IsNotFound(err) {
				yield(Selected{}, err)
				return
			}
		}
		q := Query{Bucket: u.Bucket, Versions: versions}
		cut := "" // what of the names does not belong into a copy
		switch {
		case isPattern(u.Name):
			q.Glob, cut = u.Name, folderOf(literal(u.Name))
		case u.Generation != 0:
			yield(Selected{}, c.missing(ctx, u))
			return
		case recursive:
			q.Prefix = u.Name
			if q.Prefix != "" && !strings.HasSuffix(q.Prefix, "/") {
				q.Prefix += "/"
			}
			cut = q.Prefix
		case versions:
			q.Prefix = u.Name
		default:
			yield(Selected{}, c.missing(ctx, u))
			return
		}
		found := false
		for e, err := range c.List(ctx, q) {
			if err != nil {
				yield(Selected{}, c.explain(ctx, u, err))
				return
			}
			if versions && !recursive && q.Glob == "" && e.Name != u.Name {
				continue
			}
			found = true
			if !yield(Selected{Object: e.Object, Relative: strings.TrimPrefix(e.Name, cut)}, nil) {
				return
			}
		}
		if !found {
			yield(Selected{}, c.missing(ctx, u))
		}
	}
}

// Selected is one object of a selection.
type Selected struct {
	Object
	Relative string
	Single   bool // the URL named this object and no other
}
