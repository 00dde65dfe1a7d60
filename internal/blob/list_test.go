package blob_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tategu/internal/blob"
	"tategu/internal/store"
)

// wantList is the rule of the API, written down plainly over all names.
func wantList(names []string, q blob.ListQuery) (objects, prefixes []string) {
	for _, n := range names {
		if !strings.HasPrefix(n, q.Prefix) || n < q.StartOffset || q.EndOffset != "" && n >= q.EndOffset {
			continue
		}
		if i := strings.Index(n[len(q.Prefix):], q.Delimiter); q.Delimiter != "" && i >= 0 {
			p := n[:len(q.Prefix)+i+len(q.Delimiter)]
			if !slices.Contains(prefixes, p) {
				prefixes = append(prefixes, p)
			}
			if p != n || !q.IncludeTrailingDelimiter {
				continue
			}
		}
		objects = append(objects, n)
	}
	return objects, prefixes
}

// TestListAgainstTheRule walks random buckets in pages of all sizes.
func TestListAgainstTheRule(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func() string {
		parts := make([]string, 1+rnd.IntN(4))
		for i := range parts {
			parts[i] = []string{"a", "b", "", "é", "zz", "\U0010ffff"}[rnd.IntN(6)]
		}
		return strings.Join(parts, "/")
	}
	var names []string
	for range 120 {
		if n := pick(); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
			f.put(t, n, "")
		}
	}
	f2 := f.EnsureBucket(t.Context(), "p", "bucket-2") // a neighbour in the index
	if f2 != nil {
		t.Fatal(f2)
	}
	if err := f.WriteObject(t.Context(), "gs://bucket-2/a", "", nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for range 150 {
		q := blob.ListQuery{Limit: 1 + rnd.IntN(9), IncludeTrailingDelimiter: rnd.IntN(2) == 0}
		if rnd.IntN(3) > 0 {
			q.Delimiter = []string{"/", "//", "a", "/a"}[rnd.IntN(4)]
		}
		if rnd.IntN(2) == 0 {
			q.Prefix = pick()
		}
		if rnd.IntN(3) == 0 {
			q.StartOffset = pick()
		}
		if rnd.IntN(3) == 0 {
			q.EndOffset = pick()
		}
		checkList(t, f.Store, names, q)
	}
}

func checkList(t *testing.T, s *blob.Store, names []string, q blob.ListQuery) {
	t.Helper()
	wantObjects, wantPrefixes := wantList(names, q)
	asked := fmt.Sprintf("%+q", []any{q.Prefix, q.Delimiter, q.StartOffset, q.EndOffset, q.Limit, q.IncludeTrailingDelimiter})
	var objects, prefixes []string
	for {
		page, err := s.List(t.Context(), "bucket", q)
		if err != nil {
			t.Fatalf("%s: %v", asked, err)
		}
		n := len(page.Objects) + len(page.Prefixes)
		if n > q.Limit+1 || n > q.Limit && !q.IncludeTrailingDelimiter {
			t.Errorf("%s: a page of %d", asked, n)
		}
		for _, o := range page.Objects {
			objects = append(objects, o.Name)
		}
		prefixes = append(prefixes, page.Prefixes...)
		if page.Next == "" {
			break
		}
		if n == 0 {
			t.Fatalf("%s: an empty page that is not the last", asked)
		}
		q.After = page.Next
	}
	if !slices.Equal(objects, wantObjects) || !slices.Equal(prefixes, wantPrefixes) {
		t.Errorf("%s:\ngot  %q %q\nwant %q %q", asked, objects, prefixes, wantObjects, wantPrefixes)
	}
}

// counting counts the rows that a list reads.
type counting struct {
	store.Store
	rows int
}

func (c *counting) List(ctx context.Context, q store.Query) ([]store.Row, error) {
	rows, err := c.Store.List(ctx, q)
	c.rows += len(rows)
	return rows, err
}

// TestListCostsWhatItShows: folders of many objects are skipped and not read.
func TestListCostsWhatItShows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const folders, each = 5, 300
	err := f.rows.Update(t.Context(), func(tx store.Tx) error {
		for i := range folders {
			for j := range each {
				key := fmt.Sprintf("bucket/d%d/%04d", i, j)
				if err := tx.Put(t.Context(), store.Row{Kind: "object", Key: key, Data: []byte(`{"g":1}`)}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Store: f.rows}
	s := blob.New(c, f.content, f.clock.now)
	page, err := s.List(t.Context(), "bucket", blob.ListQuery{Delimiter: "/"})
	if err != nil || len(page.Prefixes) != folders || page.Next != "" {
		t.Fatalf("%d prefixes, next %q, %v", len(page.Prefixes), page.Next, err)
	}
	if c.rows > 20*folders {
		t.Errorf("%d rows were read to show %d folders", c.rows, folders)
	}
	c.rows = 0
	page, err = s.List(t.Context(), "bucket", blob.ListQuery{Prefix: "d3/", Delimiter: "/", Limit: 10})
	if err != nil || len(page.Objects) != 10 || page.Next != "d3/0009" {
		t.Fatalf("%d objects, next %q, %v", len(page.Objects), page.Next, err)
	}
	if c.rows > 40 {
		t.Errorf("%d rows were read to show 10 objects", c.rows)
	}
}
