package blob_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestListVersionsAgainstTheRule walks random histories of overwrites and deletes
// in pages of all sizes: every generation once, by name and then by age.
func TestListVersionsAgainstTheRule(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	f.keepVersions(t)
	var all []blob.Object // in the order of lists, in the end
	names := []string{"a", "a\x00", "a\x01", "a/b", "a/b/c", "a/c", "ab", "é/x", "b"}
	live := map[string]blob.Object{}
	for range 150 {
		name := names[rnd.IntN(len(names))]
		if _, ok := live[name]; ok && rnd.IntN(3) == 0 {
			if err := f.Delete(t.Context(), "bucket", name, 0, blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
			delete(live, name)
			continue
		}
		f.clock.add(time.Duration(rnd.IntN(3)-1) * time.Second) // clocks go back too
		live[name] = f.put(t, name, "x")
		all = append(all, live[name])
	}
	slices.SortFunc(all, func(x, y blob.Object) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.Generation, y.Generation))
	})
	for range 150 {
		q := blob.ListQuery{Versions: true, Limit: 1 + rnd.IntN(9)}
		if rnd.IntN(2) == 0 {
			q.Prefix = []string{"a", "a/", "é", "a\x00"}[rnd.IntN(4)]
		}
		if rnd.IntN(3) == 0 {
			q.StartOffset = names[rnd.IntN(len(names))]
		}
		if rnd.IntN(3) == 0 {
			q.Delimiter = "/"
		}
		checkVersions(t, f.Store, all, live, q)
	}
}

func checkVersions(t *testing.T, s *blob.Store, all []blob.Object, live map[string]blob.Object, q blob.ListQuery) {
	t.Helper()
	var want, got, prefixes []string
	for _, o := range all {
		rest, ok := strings.CutPrefix(o.Name, q.Prefix)
		switch {
		case !ok || o.Name < q.StartOffset:
		case q.Delimiter != "" && strings.Contains(rest, q.Delimiter):
			i := strings.Index(rest, q.Delimiter)
			if p := q.Prefix + rest[:i+1]; !slices.Contains(prefixes, p) {
				prefixes = append(prefixes, p)
			}
		default:
			want = append(want, fmt.Sprintf("%q %d %t", o.Name, o.Generation, live[o.Name].Generation == o.Generation))
		}
	}
	asked := fmt.Sprintf("%+v", q)
	for {
		page, err := s.List(t.Context(), "bucket", q)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Objects {
			got = append(got, fmt.Sprintf("%q %d %t", o.Name, o.Generation, o.Live()))
		}
		for _, p := range page.Prefixes {
			i := slices.Index(prefixes, p)
			if i < 0 {
				t.Fatalf("%s: prefix %q is none, or was given twice", asked, p)
			}
			prefixes = slices.Delete(prefixes, i, i+1)
		}
		if page.Next == "" {
			break
		}
		if q.After == page.Next && q.AfterGeneration == page.NextGeneration {
			t.Fatalf("%s: stands still at %q", asked, page.Next)
		}
		q.After, q.AfterGeneration = page.Next, page.NextGeneration
	}
	if !slices.Equal(got, want) || len(prefixes) > 0 {
		t.Errorf("%s:\ngot  %s\nwant %s\nmissing prefixes %q", asked, got, want, prefixes)
	}
}

func TestListByGlob(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("d%d/%d.csv", i%4, i), fmt.Sprintf("d%d/%d.txt", i%4, i))
	}
	for _, n := range names {
		f.put(t, n, "")
	}
	slices.Sort(names)
	for pattern, want := range map[string]func(string) bool{
		"**.csv":     func(n string) bool { return strings.HasSuffix(n, ".csv") },
		"d[12]/*":    func(n string) bool { return n[1] == '1' || n[1] == '2' },
		"d3/1*.txt":  func(n string) bool { return strings.HasPrefix(n, "d3/1") && strings.HasSuffix(n, ".txt") },
		"none/*":     func(string) bool { return false },
		"d0/0.csv":   func(n string) bool { return n == "d0/0.csv" },
		"{d0,d1}/**": func(n string) bool { return n[1] == '0' || n[1] == '1' },
	} {
		var got, expected []string
		for _, n := range names {
			if want(n) {
				expected = append(expected, n)
			}
		}
		for q := (blob.ListQuery{MatchGlob: pattern, Limit: 7}); ; {
			page, err := f.List(t.Context(), "bucket", q)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Objects {
				got = append(got, o.Name)
			}
			if page.Next == "" {
				break
			}
			q.After = page.Next
		}
		if !slices.Equal(got, expected) {
			t.Errorf("%s = %q, want %q", pattern, got, expected)
		}
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
