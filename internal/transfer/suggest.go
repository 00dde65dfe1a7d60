package transfer

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// candidates bounds what is looked through for a name that was meant.
const candidates = 1000

// missing says that nothing is at u, and what is there instead.
func (c *Client) missing(ctx context.Context, u URL) error {
	if isPattern(u.Name) {
		return resource.Errorf(codes.NotFound, "no object matches %s", u)
	}
	below := u.Name
	if below != "" {
		below = strings.TrimSuffix(below, "/") + "/"
	}
	err := resource.Errorf(codes.NotFound, "there is no object %s", u)
	page, lerr := c.page(ctx, Query{Bucket: u.Bucket, Prefix: below, Limit: 1}, "")
	switch {
	case lerr != nil:
		return c.explain(ctx, u, lerr)
	case len(page.Items) > 0:
		return resource.Invalid("url", "%s is a folder", URL{Bucket: u.Bucket, Name: below}).WithHint("add -r for all that is below")
	case u.Name == "":
		return resource.Errorf(codes.NotFound, "there is nothing in %s", u)
	}
	page, lerr = c.page(ctx, Query{Bucket: u.Bucket, Prefix: folderOf(u.Name), Delimiter: "/", Limit: candidates}, "")
	if lerr != nil {
		return err
	}
	names := page.Prefixes
	for _, o := range page.Items {
		names = append(names, o.Name)
	}
	if near := nearest(u.Name, names); near != "" {
		return err.WithHint("did you mean %s?", URL{Bucket: u.Bucket, Name: near})
	}
	return err
}

// explain turns the server's "no such bucket" into a suggestion where it can.
func (c *Client) explain(_ context.Context, u URL, err error) error {
	if !resource.IsNotFound(err) {
		return err
	}
	return resource.Errorf(codes.NotFound, "there is no bucket %s", scheme+u.Bucket).WithHint("`tategu ls` lists the buckets; a new one is made by a GCS client, or at the start by `buckets: [%s]` in tategu.yaml", u.Bucket)
}

// nearest gives the name that is at most a third away from the one given, "" if
// there is none.
func nearest(name string, names []string) string {
	best, distance := "", len(name)/3+1
	for _, n := range names {
		if d := editDistance(name, n, distance); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// editDistance counts insertions, deletions and replacements of bytes; limit when
// there are at least as many.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
