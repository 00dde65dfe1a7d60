package blob_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// clock is set by tests; it starts somewhere and stands still.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fixture is a store on disk that can be opened again.
type fixture struct {
	*blob.Store
	rows    *sqlite.Store
	content *disk.Content
	clock   *clock
	dir     string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), clock: &clock{at: time.Now().Truncate(time.Second)}}
	f.open(t)
	t.Cleanup(func() {
		if err := f.rows.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) open(t *testing.T) {
	t.Helper()
	var err error
	if f.rows, err = sqlite.Open(t.Context(), filepath.Join(f.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	if f.content, err = disk.Open(filepath.Join(f.dir, "content")); err != nil {
		t.Fatal(err)
	}
	f.Store = blob.New(f.rows, f.content, f.clock.now)
}

func (f *fixture) reopen(t *testing.T) {
	t.Helper()
	if err := f.rows.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

func (f *fixture) put(t *testing.T, name, data string) blob.Object {
	t.Helper()
	o, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(data), blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (f *fixture) checkData(t *testing.T, name, want string) {
	t.Helper()
	got, err := f.ReadAll(t.Context(), "gs://bucket/"+name, 0)
	if err != nil || string(got) != want {
		t.Errorf("%s = %.40q, %v, want %.40q", name, got, err, want)
	}
}

// contents counts the byte strings, in files and in rows.
func (f *fixture) contents(t *testing.T) int {
	t.Helper()
	rows, err := f.rows.List(t.Context(), store.Query{Kind: "content"})
	if err != nil {
		t.Fatal(err)
	}
	return f.files(t) + len(rows)
}

func checkCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if resource.CodeOf(err) != want {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

func TestPutAndStat(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	data := []byte("0123456789")
	attrs := blob.Object{
		Bucket: "bucket", Name: "日本/a b", ContentType: "text/csv", ContentEncoding: "x", ContentDisposition: "d", ContentLanguage: "ja",
		CacheControl: "no-store", StorageClass: "NEARLINE", Metadata: map[string]string{"k": "v"}, CustomTime: time.Unix(5, 0).UTC(),
	}
	put, err := f.Put(t.Context(), attrs, bytes.NewReader(data), blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	got, err := f.Stat(t.Context(), "bucket", "日本/a b", put.Generation, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", put) {
		t.Errorf("after a restart: %+v, want %+v", got, put)
	}
	sum := md5.Sum(data)
	if got.Size != 10 || !bytes.Equal(got.MD5, sum[:]) || got.CRC32C != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) ||
		got.Metageneration != 1 || got.Generation != f.clock.now().UnixMicro() || got.ContentLanguage != "ja" || got.Metadata["k"] != "v" {
		t.Errorf("%+v", got)
	}
}

func TestGenerationsGrowWhateverTheClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	last := int64(0)
	check := func(o blob.Object) {
		t.Helper()
		if o.Generation <= last {
			t.Errorf("generation %d after %d", o.Generation, last)
		}
		last = o.Generation
	}
	check(f.put(t, "x", "1"))
	check(f.put(t, "x", "2")) // the clock stands still
	f.clock.add(-time.Hour)
	check(f.put(t, "x", "3"))
	if err := f.Delete(t.Context(), "bucket", "x", 0, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	check(f.put(t, "x", "4"))
	f.checkData(t, "x", "4")
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents on disk, want the live one", n)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.put(t, "x", "1")
	if _, err := f.Update(t.Context(), "bucket", "x", 0, blob.Conditions{}, func(o *blob.Object) error { o.ContentType = "a/b"; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		conds   blob.Conditions
		missing bool // the outcome for an object that is not there
		there   bool // and for x, whose metageneration is 2
	}{
		{"none", blob.Conditions{}, true, true},
		{"generation 0", blob.Conditions{GenerationMatch: new(int64(0))}, true, false},
		{"right generation", blob.Conditions{GenerationMatch: &o.Generation}, false, true},
		{"stale generation", blob.Conditions{GenerationMatch: new(o.Generation - 1)}, false, false},
		{"not generation 0", blob.Conditions{GenerationNotMatch: new(int64(0))}, false, true},
		{"not this generation", blob.Conditions{GenerationNotMatch: &o.Generation}, true, false},
		{"right metageneration", blob.Conditions{MetagenerationMatch: new(int64(2))}, false, true},
		{"stale metageneration", blob.Conditions{MetagenerationMatch: new(int64(1))}, false, false},
		{"not this metageneration", blob.Conditions{MetagenerationNotMatch: new(int64(2))}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, holds := range map[string]bool{"none": tt.missing, "x": tt.there} {
				if !holds { // a write whose condition holds would change what the next case sees
					_, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader("2"), tt.conds)
					checkCode(t, "Put of "+name, err, codes.FailedPrecondition)
					_, err = f.Copy(t.Context(), o, blob.Object{Bucket: "bucket", Name: name}, tt.conds)
					checkCode(t, "Copy to "+name, err, codes.FailedPrecondition)
					_, err = f.StartUpload(t.Context(), blob.Object{Bucket: "bucket", Name: name}, tt.conds, -1)
					checkCode(t, "StartUpload of "+name, err, codes.FailedPrecondition)
				}
			}
			_, statErr := f.Stat(t.Context(), "bucket", "x", 0, tt.conds)
			refused := resource.CodeOf(statErr) == codes.FailedPrecondition || errors.Is(statErr, blob.ErrNotModified)
			if refused == tt.there {
				t.Errorf("Stat = %v", statErr)
			}
			if !tt.there {
				checkCode(t, "Delete", f.Delete(t.Context(), "bucket", "x", 0, tt.conds), codes.FailedPrecondition)
				_, err := f.Update(t.Context(), "bucket", "x", 0, tt.conds, func(*blob.Object) error { return nil })
				checkCode(t, "Update", err, codes.FailedPrecondition)
			}
		})
	}
	f.checkData(t, "x", "1")
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents: a refused write left its bytes", n)
	}
}

// TestOneOfManyWins: writers that all expect no object; one gets it.
func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var group errgroup.Group
	won := make(chan string, 20)
	for i := range 20 {
		group.Go(func() error {
			data := strconv.Itoa(i)
			_, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "x"}, strings.NewReader(data), blob.Conditions{GenerationMatch: new(int64(0))})
			if err == nil {
				won <- data
			} else if resource.CodeOf(err) != codes.FailedPrecondition {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Fatalf("%d writers won", len(won))
	}
	f.checkData(t, "x", <-won)
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents on disk", n)
	}
}

// TestReadersSeeWholeObjects while the object is overwritten all the time.
func TestReadersSeeWholeObjects(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "x", strings.Repeat("a", 1000))
	var group errgroup.Group
	for w := range 2 {
		group.Go(func() error {
			for i := range 30 {
				data := strings.Repeat(string(rune('a'+(w+i)%26)), 1000+i)
				if _, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "x"}, strings.NewReader(data), blob.Conditions{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 4 {
		group.Go(func() error {
			for range 60 {
				o, r, err := f.OpenLive(t.Context(), "bucket", "x")
				if err != nil {
					return err
				}
				data, err := io.ReadAll(r)
				if err = errors.Join(err, r.Close()); err != nil {
					return err
				}
				if crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) != o.CRC32C {
					return errors.New("the bytes are not those of the row")
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestGivenHashesAreChecked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, conds := range []blob.Conditions{{CRC32C: new(uint32(1))}, {MD5: make([]byte, 16)}} {
		_, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "x"}, strings.NewReader("abc"), conds)
		checkCode(t, "Put with a wrong hash", err, codes.InvalidArgument)
	}
	_, err := f.Stat(t.Context(), "bucket", "x", 0, blob.Conditions{})
	checkCode(t, "Stat", err, codes.NotFound)
	if n := f.contents(t); n != 0 {
		t.Errorf("%d contents left", n)
	}
}

func TestCopyAndCompose(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.put(t, "a", "A"), f.put(t, "b", "BB")
	copied, err := f.Copy(t.Context(), a, blob.Object{Bucket: "bucket", Name: "c", ContentType: "t/x"}, blob.Conditions{})
	if err != nil || copied.ContentType != "t/x" || !bytes.Equal(copied.MD5, a.MD5) {
		t.Fatalf("%+v, %v", copied, err)
	}
	joined, err := f.Compose(t.Context(), blob.Object{Bucket: "bucket", Name: "a"}, []blob.Object{a, b, a}, blob.Conditions{}, false)
	if err != nil || joined.Components != 3 || len(joined.MD5) != 0 || joined.CRC32C != crc32.Checksum([]byte("ABBA"), crc32.MakeTable(crc32.Castagnoli)) {
		t.Fatalf("%+v, %v", joined, err)
	}
	f.checkData(t, "a", "ABBA")
	f.checkData(t, "c", "A")
	_, err = f.Copy(t.Context(), a, blob.Object{Bucket: "bucket", Name: "d"}, blob.Conditions{})
	checkCode(t, "Copy of an overwritten generation", err, codes.NotFound)
	_, err = f.Compose(t.Context(), blob.Object{Bucket: "bucket", Name: "d"}, []blob.Object{a}, blob.Conditions{}, false)
	checkCode(t, "Compose of an overwritten generation", err, codes.NotFound)
	_, err = f.Compose(t.Context(), blob.Object{Bucket: "bucket", Name: "d"}, nil, blob.Conditions{}, false)
	checkCode(t, "Compose of nothing", err, codes.InvalidArgument)
}

func TestNames(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"a", strings.Repeat("n", 1024), "../up", "/lead", "d//e", "a\x00b", " ", "日本", ".well-known/x", "..."} {
		f.put(t, name, name)
		f.checkData(t, name, name)
	}
	for _, name := range []string{"", strings.Repeat("n", 1025), "a\nb", "a\rb", ".", "..", "\xff", ".well-known/acme-challenge/x"} {
		_, err := f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(""), blob.Conditions{})
		checkCode(t, fmt.Sprintf("Put of %.20q", name), err, codes.InvalidArgument)
	}
	for name, good := range map[string]bool{
		"abc": true, "a-b_c.d": true, "0bucket9": true, "ab": false, "Abc": false, "a/b": false, "-abc": false, "abc-": false,
		"a b": false, "日本語": false, strings.Repeat("a", 223): false, "": false,
	} {
		if err := blob.CheckBucketName(name); (err == nil) != good {
			t.Errorf("CheckBucketName(%q) = %v", name, err)
		}
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.CreateBucket(t.Context(), blob.Bucket{Name: "bucket", Project: "p"})
	checkCode(t, "CreateBucket of an existing one", err, codes.AlreadyExists)
	for _, name := range []string{"b-2", "b-1", "c-1"} {
		if err := f.EnsureBucket(t.Context(), "q", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.EnsureBucket(t.Context(), "other", "bucket"); err != nil { // exists, whoever asks
		t.Fatal(err)
	}
	buckets, err := f.ListBuckets(t.Context(), "q", "b-", "", 0)
	if err != nil || len(buckets) != 2 || buckets[0].Name != "b-1" {
		t.Errorf("ListBuckets = %+v, %v", buckets, err)
	}
	f.put(t, "x", "1")
	err = f.DeleteBucket(t.Context(), "bucket", blob.Conditions{})
	if !errors.Is(err, blob.ErrNotEmpty) {
		t.Errorf("DeleteBucket of one that holds objects = %v", err)
	}
	if err := f.Delete(t.Context(), "bucket", "x", 0, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	checkCode(t, "DeleteBucket, stale", f.DeleteBucket(t.Context(), "bucket", blob.Conditions{MetagenerationMatch: new(int64(9))}), codes.FailedPrecondition)
	if err := f.DeleteBucket(t.Context(), "bucket", blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "x"}, strings.NewReader(""), blob.Conditions{})
	checkCode(t, "Put into a deleted bucket", err, codes.NotFound)
	_, err = f.List(t.Context(), "bucket", blob.ListQuery{})
	checkCode(t, "List of a deleted bucket", err, codes.NotFound)
}

func TestExistsAndReadAll(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "dir/file", "0123456789")
	for uri, want := range map[string]bool{
		"gs://bucket": true, "gs://bucket/dir": true, "gs://bucket/dir/": true, "gs://bucket/dir/file": true,
		"gs://bucket/di": false, "gs://bucket/dir/fil": false, "gs://none": false, "gs://none/x": false,
	} {
		if got, err := f.Exists(t.Context(), uri); err != nil || got != want {
			t.Errorf("Exists(%s) = %t, %v", uri, got, err)
		}
	}
	_, err := f.ReadAll(t.Context(), "gs://bucket/dir/file", 9)
	checkCode(t, "ReadAll above the limit", err, codes.OutOfRange)
	_, err = f.ReadAll(t.Context(), "gs://bucket", 0)
	checkCode(t, "ReadAll of a bucket", err, codes.InvalidArgument)
	_, err = f.ReadAll(t.Context(), "s3://bucket/x", 0)
	checkCode(t, "ReadAll of another scheme", err, codes.InvalidArgument)
	if err := f.WriteObject(t.Context(), "gs://bucket/new", "text/plain", []byte("n")); err != nil {
		t.Fatal(err)
	}
	f.checkData(t, "new", "n")
	o, err := f.Stat(context.WithoutCancel(t.Context()), "bucket", "new", 0, blob.Conditions{})
	if err != nil || o.ContentType != "text/plain" {
		t.Errorf("%+v, %v", o, err)
	}
}
