package blob_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
)

// bigPart is a part that may be followed by others.
func bigPart(fill byte) []byte { return bytes.Repeat([]byte{fill}, blob.MinPartSize) }

func (f *fixture) startMultipart(t *testing.T, name string) blob.Multipart {
	t.Helper()
	u, err := f.StartMultipart(t.Context(), blob.Object{Bucket: "bucket", Name: name, ContentType: "a/b"}, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (f *fixture) putPart(ctx context.Context, u blob.Multipart, n int, data []byte) (blob.PartRef, error) {
	p, err := f.PutPart(ctx, u.Object.Bucket, u.Object.Name, u.ID, n, bytes.NewReader(data), blob.Conditions{})
	return blob.PartRef{Number: n, ETag: p.ETag()}, err
}

func (f *fixture) mustPart(t *testing.T, u blob.Multipart, n int, data []byte) blob.PartRef {
	t.Helper()
	ref, err := f.putPart(t.Context(), u, n, data)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (f *fixture) complete(t *testing.T, u blob.Multipart, refs ...blob.PartRef) (blob.Object, error) {
	t.Helper()
	return f.CompleteMultipart(t.Context(), u.Object.Bucket, u.Object.Name, u.ID, refs, blob.Conditions{})
}

// TestMultipart: parts in any order and at once, over restarts, replaced and
// repeated; the object is the list's parts, and nothing else is left on disk.
func TestMultipart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "x", "old")
	u := f.startMultipart(t, "x")
	f.mustPart(t, u, 9, []byte("not used"))
	f.mustPart(t, u, 2, bigPart('?'))
	refs := make([]blob.PartRef, 4)
	var together errgroup.Group
	for i := range refs {
		together.Go(func() (err error) {
			refs[i], err = f.putPart(t.Context(), u, i+1, append(bigPart(byte('a'+i)), byte(i)))
			return err
		})
	}
	if err := together.Wait(); err != nil {
		t.Fatal(err)
	}
	before := f.contents(t)
	if again := f.mustPart(t, u, 3, append(bigPart('c'), 2)); again != refs[2] || f.contents(t) != before {
		t.Errorf("the same part again: %v, %d contents, were %d", again, f.contents(t), before)
	}
	f.reopen(t)
	refs = append(refs, f.mustPart(t, u, 10_000, []byte("end")))
	f.checkData(t, "x", "old")
	want := slices.Concat(append(bigPart('a'), 0), append(bigPart('b'), 1), append(bigPart('c'), 2), append(bigPart('d'), 3), []byte("end"))
	o, err := f.complete(t, u, refs...)
	if err != nil {
		t.Fatal(err)
	}
	if o.CRC32C != crcOf(string(want)) || len(o.MD5) > 0 || o.Components != 0 || o.ContentType != "a/b" || o.Size != int64(len(want)) {
		t.Errorf("%+v", o)
	}
	f.checkData(t, "x", string(want))
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents of one object", n)
	}
	f.reopen(t)
	again, err := f.complete(t, u, refs...)
	if err != nil || again.Generation != o.Generation || again.CRC32C != o.CRC32C {
		t.Errorf("completed twice: %+v, %v", again, err)
	}
	_, err = f.complete(t, u, refs[:1]...)
	checkCode(t, "completed with other parts", err, codes.NotFound)
	_, err = f.putPart(t.Context(), u, 1, nil)
	checkCode(t, "a part after the end", err, codes.NotFound)
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents after the refusals", n)
	}
}

func TestMultipartRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := f.startMultipart(t, "x")
	one, two, small := f.mustPart(t, u, 1, bigPart('1')), f.mustPart(t, u, 2, bigPart('2')), f.mustPart(t, u, 3, []byte("3"))
	last := f.mustPart(t, u, 4, []byte("4"))
	for name, tt := range map[string]struct {
		refs []blob.PartRef
		want error
	}{
		"no part":         {nil, nil},
		"order":           {[]blob.PartRef{two, one}, blob.ErrPartOrder},
		"twice":           {[]blob.PartRef{one, one}, blob.ErrPartOrder},
		"never came":      {[]blob.PartRef{one, {Number: 7, ETag: one.ETag}}, blob.ErrPartMissing},
		"another etag":    {[]blob.PartRef{{Number: 1, ETag: two.ETag}}, blob.ErrPartMissing},
		"small in middle": {[]blob.PartRef{one, small, last}, blob.ErrPartTooSmall},
		"too many":        {slices.Repeat([]blob.PartRef{one}, blob.MaxPart+1), nil},
	} {
		_, err := f.complete(t, u, tt.refs...)
		checkCode(t, name, err, codes.InvalidArgument)
		if tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	for _, n := range []int{-1, 0, 10_001} {
		_, err := f.putPart(t.Context(), u, n, nil)
		checkCode(t, "part number", err, codes.InvalidArgument)
	}
	sum := md5.Sum([]byte("other"))
	n := f.contents(t)
	_, err := f.PutPart(t.Context(), "bucket", "x", u.ID, 1, strings.NewReader("data"), blob.Conditions{MD5: sum[:]})
	checkCode(t, "a wrong MD5", err, codes.InvalidArgument)
	_, err = f.PutPart(t.Context(), "bucket", "x", u.ID, 1, io.MultiReader(strings.NewReader("data"), failing{}), blob.Conditions{})
	if !errors.Is(err, errBroken) {
		t.Errorf("a broken part: %v", err)
	}
	if f.contents(t) != n {
		t.Errorf("refused parts left %d contents, were %d", f.contents(t), n)
	}
	for _, other := range [][3]string{{"bucket", "y", u.ID}, {"bucket", "x", strings.Repeat("0", 32)}, {"bucket", "x", ""}, {"none", "x", u.ID}} {
		_, err = f.PutPart(t.Context(), other[0], other[1], other[2], 1, nil, blob.Conditions{})
		checkCode(t, fmt.Sprint(other), err, codes.NotFound)
	}
	if _, err := f.complete(t, u, blob.PartRef{Number: 1, ETag: `"` + strings.ToUpper(one.ETag) + `"`}, small); err != nil {
		t.Errorf("etags in quotes: %v", err)
	}
}

// TestMultipartConditions: of the start and of the end, checked as the object is published.
func TestMultipartConditions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	zero := int64(0)
	attrs := blob.Object{Bucket: "bucket", Name: "x"}
	u, err := f.StartMultipart(t.Context(), attrs, blob.Conditions{GenerationMatch: &zero})
	if err != nil {
		t.Fatal(err)
	}
	ref := f.mustPart(t, u, 1, []byte("new"))
	o := f.put(t, "x", "meanwhile")
	_, err = f.complete(t, u, ref)
	checkCode(t, "the start's condition", err, codes.FailedPrecondition)
	_, err = f.StartMultipart(t.Context(), attrs, blob.Conditions{GenerationMatch: &zero})
	checkCode(t, "at the start", err, codes.FailedPrecondition)
	u = f.startMultipart(t, "x")
	f.mustPart(t, u, 1, []byte("new"))
	_, err = f.CompleteMultipart(t.Context(), "bucket", "x", u.ID, []blob.PartRef{ref}, blob.Conditions{GenerationMatch: &zero})
	checkCode(t, "the end's condition", err, codes.FailedPrecondition)
	crc := uint32(1)
	_, err = f.CompleteMultipart(t.Context(), "bucket", "x", u.ID, []blob.PartRef{ref}, blob.Conditions{CRC32C: &crc})
	checkCode(t, "the end's hash", err, codes.InvalidArgument)
	f.checkData(t, "x", "meanwhile")
	_, err = f.CompleteMultipart(t.Context(), "bucket", "x", u.ID, []blob.PartRef{ref}, blob.Conditions{GenerationMatch: &o.Generation})
	if err != nil {
		t.Error(err)
	}
	f.checkData(t, "x", "new")
}

// TestCompleteTogether: many callers end one upload: one object, one generation.
func TestCompleteTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := f.startMultipart(t, "x")
	refs := []blob.PartRef{f.mustPart(t, u, 1, bigPart('1')), f.mustPart(t, u, 2, []byte("2"))}
	var mu sync.Mutex
	generations := map[int64]bool{}
	var together errgroup.Group
	for range 8 {
		together.Go(func() error {
			o, err := f.CompleteMultipart(t.Context(), "bucket", "x", u.ID, refs, blob.Conditions{})
			mu.Lock()
			defer mu.Unlock()
			generations[o.Generation] = true
			return err
		})
	}
	if err := together.Wait(); err != nil || len(generations) != 1 {
		t.Errorf("%v, %v", generations, err)
	}
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents", n)
	}
}

func TestListMultipart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	names := []string{"a", "a", "b/1", "b/2", "b/2", "c/x/1", "d", "日"}
	for _, name := range names {
		f.clock.add(time.Millisecond)
		f.startMultipart(t, name)
	}
	done := f.startMultipart(t, "a")
	if _, err := f.complete(t, done, f.mustPart(t, done, 1, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		query blob.MultipartQuery
		want  string
	}{
		{blob.MultipartQuery{}, "a a b/1 b/2 b/2 c/x/1 d 日"},
		{blob.MultipartQuery{Prefix: "b/"}, "b/1 b/2 b/2"},
		{blob.MultipartQuery{Delimiter: "/"}, "a a b/* c/* d 日"},
		{blob.MultipartQuery{Prefix: "c/", Delimiter: "/"}, "c/x/*"},
		{blob.MultipartQuery{After: "a"}, "b/1 b/2 b/2 c/x/1 d 日"},
		{blob.MultipartQuery{After: "b/", Delimiter: "/"}, "c/* d 日"},
		{blob.MultipartQuery{After: "b/1"}, "b/2 b/2 c/x/1 d 日"},
		{blob.MultipartQuery{After: "日"}, ""},
	} {
		for limit := range 4 {
			query, got := tt.query, []string(nil)
			query.Limit = limit
			for {
				page, err := f.ListMultipart(t.Context(), "bucket", query)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(page.Uploads) + len(page.Prefixes); limit > 0 && n > limit || page.Next != "" && n == 0 {
					t.Errorf("a page of %d, %+v", n, query)
				}
				part := append([]string(nil), page.Prefixes...)
				for i := range part {
					part[i] += "*"
				}
				for _, u := range page.Uploads {
					part = append(part, u.Object.Name)
				}
				slices.Sort(part)
				got = append(got, part...)
				if page.Next == "" {
					break
				}
				query.After, query.AfterID = page.Next, page.NextID
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%+v by %d: %v, want %s", tt.query, limit, got, tt.want)
			}
		}
	}
}

func TestListParts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := f.startMultipart(t, "x")
	for _, n := range []int{10_000, 2, 1, 30} {
		f.mustPart(t, u, n, []byte{byte(n)})
	}
	var got []int
	for after := 0; ; after = got[len(got)-1] {
		parts, more, err := f.ListParts(t.Context(), u, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			got = append(got, p.Number)
			if sum := md5.Sum([]byte{byte(p.Number)}); p.ETag() != hex.EncodeToString(sum[:]) || p.Size != 1 {
				t.Errorf("%+v", p)
			}
		}
		if !more {
			break
		}
	}
	if fmt.Sprint(got) != "[1 2 30 10000]" {
		t.Errorf("%v", got)
	}
}

// TestMultipartEnds: what is aborted, expires or goes with its bucket leaves
// nothing on disk; what is being used stays.
func TestMultipartEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sweep := func() {
		t.Helper()
		if _, err := f.Sweep(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	old, used := f.startMultipart(t, "dir/old"), f.startMultipart(t, "used")
	done := f.startMultipart(t, "done")
	ref := f.mustPart(t, done, 1, []byte("done"))
	if _, err := f.complete(t, done, ref); err != nil {
		t.Fatal(err)
	}
	f.mustPart(t, old, 1, []byte("old"))
	aborted := f.startMultipart(t, "aborted")
	f.mustPart(t, aborted, 1, []byte("aborted"))
	if err := f.AbortMultipart(t.Context(), "bucket", "aborted", aborted.ID); err != nil {
		t.Fatal(err)
	}
	checkCode(t, "aborted twice", f.AbortMultipart(t.Context(), "bucket", "aborted", aborted.ID), codes.NotFound)
	f.clock.add(blob.UploadLife - time.Hour)
	part := f.mustPart(t, used, 1, []byte("used"))
	sweep()
	if n := f.contents(t); n != 3 {
		t.Errorf("%d contents before anything expires, want 3", n)
	}
	f.clock.add(2 * time.Hour)
	sweep()
	if n := f.contents(t); n != 2 {
		t.Errorf("%d contents after one expired, want 2", n)
	}
	_, err := f.complete(t, done, ref)
	checkCode(t, "an end that is forgotten", err, codes.NotFound)
	f.checkData(t, "done", "done")
	if _, err := f.complete(t, used, part); err != nil {
		t.Errorf("the one in use: %v", err)
	}

	f.startMultipart(t, "dir/1")
	f.clock.add(time.Hour)
	for _, tt := range []struct {
		before time.Time
		match  func(string) bool
		want   int
	}{
		{f.clock.now().Add(-2 * time.Hour), nil, 0},
		{f.clock.now(), func(name string) bool { return strings.HasPrefix(name, "x/") }, 0},
		{f.clock.now(), func(name string) bool { return strings.HasPrefix(name, "dir/") }, 1},
	} {
		if n, err := f.AbortOldMultipart(t.Context(), "bucket", tt.before, tt.match); n != tt.want || err != nil {
			t.Errorf("aborted %d, %v, want %d", n, err, tt.want)
		}
	}

	if err := f.EnsureBucket(t.Context(), "p", "other"); err != nil {
		t.Fatal(err)
	}
	gone, err := f.StartMultipart(t.Context(), blob.Object{Bucket: "other", Name: "x"}, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	f.mustPart(t, gone, 1, []byte("gone"))
	if err := f.DeleteBucket(t.Context(), "other", blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	f.clock.add(time.Hour)
	sweep()
	if err := f.EnsureBucket(t.Context(), "q", "other"); err != nil {
		t.Fatal(err)
	}
	if page, err := f.ListMultipart(t.Context(), "other", blob.MultipartQuery{}); err != nil || len(page.Uploads) > 0 {
		t.Errorf("uploads of a deleted bucket: %v, %v", page, err)
	}
	if n := f.contents(t); n != 2 {
		t.Errorf("%d contents at the end, want 2", n)
	}
}
