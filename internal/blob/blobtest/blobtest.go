// Package blobtest is the contract of a blob.Content: every adapter passes Run.
package blobtest

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the API's checksum
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tategu/internal/blob"
)

// Run runs the contract on empty contents that open gives.
func Run(t *testing.T, open func(t *testing.T) blob.Content) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, blob.Content){
		"create and read":              testCreate,
		"a failing reader":             testFailingReader,
		"append":                       testAppend,
		"append keeps what came":       testAppendKeeps,
		"link":                         testLink,
		"remove":                       testRemove,
		"walk":                         testWalk,
		"ids that are not well formed": testIDs,
		"many at once":                 testMany,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func create(t *testing.T, c blob.Content, data []byte) string {
	t.Helper()
	id, _, err := c.Create(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func read(ctx context.Context, c blob.Content, id string, offset, length int64) (_ []byte, err error) {
	r, err := c.Open(ctx, id, offset, length)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

func check(t *testing.T, c blob.Content, id string, offset, length int64, want string) {
	t.Helper()
	got, err := read(t.Context(), c, id, offset, length)
	if err != nil || string(got) != want {
		t.Errorf("read %d+%d = %.40q, %v, want %.40q", offset, length, got, err, want)
	}
}

func missing(t *testing.T, c blob.Content, id string) {
	t.Helper()
	if _, err := read(t.Context(), c, id, 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what is not there = %v, want fs.ErrNotExist", err)
	}
	if _, err := c.Size(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Size of what is not there = %v, want fs.ErrNotExist", err)
	}
}

func testCreate(t *testing.T, c blob.Content) {
	t.Helper()
	for _, data := range [][]byte{nil, []byte("0123456789"), bytes.Repeat([]byte("tategu"), 200_000)} {
		id, d, err := c.Create(t.Context(), struct{ io.Reader }{bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(data) //nolint:gosec // as above
		crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
		if d.Size != int64(len(data)) || !bytes.Equal(d.MD5, sum[:]) || d.CRC32C != crc {
			t.Errorf("digest of %d bytes = %+v", len(data), d)
		}
		check(t, c, id, 0, -1, string(data))
		if size, err := c.Size(t.Context(), id); err != nil || size != int64(len(data)) {
			t.Errorf("Size = %d, %v", size, err)
		}
	}
	id := create(t, c, []byte("0123456789"))
	check(t, c, id, 2, 3, "234")
	check(t, c, id, 7, -1, "789")
	check(t, c, id, 8, 100, "89")
	check(t, c, id, 10, -1, "")
	check(t, c, id, 0, 0, "")
}

var errBroken = errors.New("broken")

// broken gives some bytes and then fails.
func broken(data string) io.Reader {
	return io.MultiReader(strings.NewReader(data), iotestErr{})
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errBroken }

func testFailingReader(t *testing.T, c blob.Content) {
	t.Helper()
	if _, _, err := c.Create(t.Context(), broken("half")); !errors.Is(err, errBroken) {
		t.Errorf("Create = %v, want the reader's error", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Create(gone, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Create for a caller that left = %v", err)
	}
	if ids := walk(t, c); len(ids) > 0 {
		t.Errorf("failed creates left %v", ids)
	}
}

func testAppend(t *testing.T, c blob.Content) {
	t.Helper()
	const id = "draft-0123"
	missing(t, c, id)
	for _, step := range []struct {
		offset     int64
		data, want string
	}{{0, "abc", "abc"}, {3, "def", "abcdef"}, {2, "X", "abX"}, {3, "", "abX"}, {1, "", "a"}} {
		n, err := c.Append(t.Context(), id, step.offset, strings.NewReader(step.data))
		if err != nil || n != int64(len(step.data)) {
			t.Fatalf("Append(%d, %q) = %d, %v", step.offset, step.data, n, err)
		}
		check(t, c, id, 0, -1, step.want)
	}
	if _, err := c.Append(t.Context(), id, 5, strings.NewReader("gap")); err == nil {
		t.Error("a gap was accepted")
	}
	check(t, c, id, 0, -1, "a")
	if _, err := c.Append(t.Context(), "empty-0123", 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	check(t, c, "empty-0123", 0, -1, "")
}

func testAppendKeeps(t *testing.T, c blob.Content) {
	t.Helper()
	n, err := c.Append(t.Context(), "draft-0123", 0, broken("kept"))
	if n != 4 || !errors.Is(err, errBroken) {
		t.Errorf("Append = %d, %v, want 4 and the reader's error", n, err)
	}
	check(t, c, "draft-0123", 0, -1, "kept")
}

func testLink(t *testing.T, c blob.Content) {
	t.Helper()
	id := create(t, c, []byte("shared"))
	second, err := c.Link(t.Context(), id)
	if err != nil || second == id {
		t.Fatalf("Link = %q, %v", second, err)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	missing(t, c, id)
	check(t, c, second, 0, -1, "shared")
	if _, err := c.Link(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Link of what is not there = %v", err)
	}
}

func testRemove(t *testing.T, c blob.Content) {
	t.Helper()
	id := create(t, c, []byte("going"))
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	missing(t, c, id)
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(got) != "going" {
		t.Errorf("what was open reads %q, %v", got, err)
	}
}

func walk(t *testing.T, c blob.Content) map[string]time.Time {
	t.Helper()
	ids := map[string]time.Time{}
	err := c.Walk(t.Context(), func(id string, written time.Time) error { ids[id] = written; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func testWalk(t *testing.T, c blob.Content) {
	t.Helper()
	want := map[string]bool{}
	for i := range 20 {
		want[create(t, c, []byte{byte(i)})] = true
	}
	if _, err := c.Append(t.Context(), "draft-0123", 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	want["draft-0123"] = true
	ids := walk(t, c)
	for id := range want {
		if written, ok := ids[id]; !ok || written.IsZero() {
			t.Errorf("%s is missing or has no time: %v", id, written)
		}
	}
	if len(ids) != len(want) {
		t.Errorf("%d ids, want %d", len(ids), len(want))
	}
	if err := c.Walk(t.Context(), func(string, time.Time) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("Walk = %v, want the function's error", err)
	}
}

func testIDs(t *testing.T, c blob.Content) {
	t.Helper()
	for _, id := range []string{"", "short", "../../../etc/passwd", "UPPERCASE-1", "with/slash", "nul\x00nul12", strings.Repeat("a", 81)} {
		_, openErr := c.Open(t.Context(), id, 0, -1)
		_, appendErr := c.Append(t.Context(), id, 0, strings.NewReader("x"))
		_, linkErr := c.Link(t.Context(), id)
		for op, err := range map[string]error{"Open": openErr, "Append": appendErr, "Link": linkErr, "Remove": c.Remove(t.Context(), id)} {
			if err == nil {
				t.Errorf("%s took the id %q", op, id)
			}
		}
	}
}

func testMany(t *testing.T, c blob.Content) {
	t.Helper()
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error {
			want := bytes.Repeat([]byte{byte(i)}, 100_000)
			id, _, err := c.Create(t.Context(), bytes.NewReader(want))
			if err != nil {
				return err
			}
			got, err := read(t.Context(), c, id, 0, -1)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("content %d is mixed up", i)
			}
			return errors.Join(err, c.Remove(t.Context(), id))
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
