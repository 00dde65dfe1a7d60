package transfer

import (
	"context"
	"strings"
)

// Usage is what a bucket or a folder holds.
type Usage struct {
	URL            URL
	Objects, Bytes int64 // live
	// Old are noncurrent generations, which versioning keeps.
	Old, OldBytes int64
}

func (u *Usage) add(o Object) {
	if o.TimeDeleted.IsZero() {
		u.Objects, u.Bytes = u.Objects+1, u.Bytes+o.Size
		return
	}
	u.Old, u.OldBytes = u.Old+1, u.OldBytes+o.Size
}

// Usage sums up what is below a URL: one entry for each folder directly below it,
// and the sum of all at the end. It keeps one entry in memory at a time.
func (c *Client) Usage(ctx context.Context, u URL, each func(Usage) error) error {
	q := Query{Bucket: u.Bucket, Prefix: u.Name, Versions: true}
	if u.Name != "" && !strings.HasSuffix(u.Name, "/") {
		if o, err := c.Stat(ctx, u); err == nil {
			one := Usage{URL: u}
			one.add(o)
			return each(one)
		}
		q.Prefix += "/"
	}
	if isPattern(u.Name) {
		q.Glob, q.Prefix = u.Name, folderOf(literal(u.Name))
	}
	total := Usage{URL: URL{Bucket: u.Bucket, Name: q.Prefix}}
	var folder Usage
	found := false
	for e, err := range c.List(ctx, q) {
		if err != nil {
			return c.explain(ctx, u, err)
		}
		found = true
		total.add(e.Object)
		rest := strings.TrimPrefix(e.Name, q.Prefix)
		name := ""
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name = q.Prefix + rest[:i+1]
		}
		if folder.URL.Name != name {
			if folder.URL.Name != "" {
				if err := each(folder); err != nil {
					return err
				}
			}
			folder = Usage{URL: URL{Bucket: u.Bucket, Name: name}}
		}
		folder.add(e.Object)
	}
	if !found && u.Name != "" {
		return c.missing(ctx, u)
	}
	if folder.URL.Name != "" {
		if err := each(folder); err != nil {
			return err
		}
	}
	return each(total)
}

// Complete gives what a gs:// URL that is being typed may go on with: buckets of
// the project, then folders and objects.
func (c *Client) Complete(ctx context.Context, project, typed string) ([]string, error) {
	rest, ok := strings.CutPrefix(typed, scheme)
	if !ok {
		if strings.HasPrefix(scheme, typed) {
			return []string{scheme}, nil
		}
		return nil, nil
	}
	bucket, name, inBucket := strings.Cut(rest, "/")
	if !inBucket {
		buckets, err := c.Buckets(ctx, project)
		var urls []string
		for _, b := range buckets {
			if strings.HasPrefix(b.Name, bucket) {
				urls = append(urls, scheme+b.Name+"/")
			}
		}
		return urls, err
	}
	page, err := c.page(ctx, Query{Bucket: bucket, Prefix: name, Delimiter: "/", Limit: 100}, "")
	if err != nil {
		return nil, err
	}
	urls := make([]string, 0, len(page.Items)+len(page.Prefixes))
	for _, e := range page.entries() {
		if e.Prefix != "" {
			e.Name = e.Prefix
		}
		urls = append(urls, scheme+bucket+"/"+e.Name)
	}
	return urls, nil
}
