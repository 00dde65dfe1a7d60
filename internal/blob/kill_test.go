package blob_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	for env, child := range map[string]func(dir string) error{"TATEGU_TEST_PUT": putForever, "TATEGU_TEST_PARTS": partsForever} {
		if dir := os.Getenv(env); dir != "" {
			if err := child(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

func crcOf(data string) uint32 {
	return crc32.Checksum([]byte(data), crc32.MakeTable(crc32.Castagnoli))
}

// putForever is the child of TestKill: four writers that put, overwrite, copy and
// delete, and print each change once it is acknowledged: "put NAME N" or "gone NAME".
func putForever(dir string) error {
	ctx := context.Background()
	rows, err := sqlite.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		return err
	}
	s := blob.New(rows, content, time.Now)
	if err := s.EnsureBucket(ctx, "p", "bucket"); err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 4 {
		go func() {
			for n := 0; ; n++ {
				if err := change(ctx, s, fmt.Sprintf("w%d-%d", w, n%5), n); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

func change(ctx context.Context, s *blob.Store, name string, n int) error {
	o, err := s.Put(ctx, blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(killData(name, n)), blob.Conditions{})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(os.Stdout, "put %s %d\n", name, n); err != nil {
		return err
	}
	if n%3 == 0 {
		if _, err := s.Copy(ctx, o, blob.Object{Bucket: "bucket", Name: name + "-copy"}, blob.Conditions{}); err != nil {
			return err
		}
	}
	if n%7 != 0 {
		return nil
	}
	// "going" tells the parent that either outcome is right until "gone".
	if _, err := fmt.Fprintf(os.Stdout, "going %s 0\n", name); err != nil {
		return err
	}
	return s.Delete(ctx, "bucket", name, 0, blob.Conditions{})
}

// killData is kept in a row for one half of the numbers, in a file for the other.
func killData(name string, n int) string {
	return strings.Repeat(name+strconv.Itoa(n)+";", 1000+n%100+n%2*4000)
}

// TestKill kills a process amid uploads: what it had acknowledged is there, every
// object is whole, and Sweep leaves nothing over.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 4 {
		last := killPutter(t, dir, 150+60*round)
		checkAfterKill(t, dir, last)
	}
}

// killPutter gives the last acknowledged number of each name; -1 when it may be gone.
func killPutter(t *testing.T, dir string, lines int) map[string]int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TATEGU_TEST_PUT="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, seen := map[string]int{}, 0
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil { // what follows the last line break was cut off
			break
		}
		var what, name string
		var n int
		if _, err := fmt.Sscan(line, &what, &name, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		last[name] = n
		if what == "going" {
			last[name] = -1
		}
		if seen++; seen == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if seen < lines {
		t.Fatalf("the writer ended by itself after %d lines", seen)
	}
	return last
}

func checkAfterKill(t *testing.T, dir string, last map[string]int) {
	t.Helper()
	f := &fixture{dir: dir, clock: &clock{at: time.Now().Add(time.Hour)}}
	f.open(t)
	defer func() {
		if err := f.rows.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, n := range last {
		if n < 0 {
			continue
		}
		got, err := f.ReadAll(t.Context(), "gs://bucket/"+name, 0)
		// A put that was not acknowledged any more may have come through as well.
		if err != nil || string(got) != killData(name, n) && string(got) != killData(name, n+5) {
			t.Errorf("%s: acknowledged with %d, read %d bytes, %v", name, n, len(got), err)
		}
	}
	page, err := f.List(t.Context(), "bucket", blob.ListQuery{})
	if err != nil || len(page.Objects) == 0 {
		t.Fatalf("%d objects, %v", len(page.Objects), err)
	}
	for _, o := range page.Objects {
		r, err := f.Open(t.Context(), o, 0, -1)
		if err != nil {
			t.Errorf("%s has no bytes: %v", o.Name, err)
			continue
		}
		data, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || crcOf(string(data)) != o.CRC32C {
			t.Errorf("%s is torn: %v", o.Name, err)
		}
	}
	if _, err := f.Sweep(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if n := f.contents(t); n != len(page.Objects) {
		t.Errorf("%d contents for %d objects after the sweep", n, len(page.Objects))
	}
}

// BenchmarkList reads one page of a bucket of 100,000 objects.
func BenchmarkList(b *testing.B) {
	rows, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	content, err := disk.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s := blob.New(rows, content, time.Now)
	if err := s.EnsureBucket(b.Context(), "p", "bucket"); err != nil {
		b.Fatal(err)
	}
	err = rows.Update(b.Context(), func(tx store.Tx) error {
		for i := range 100_000 {
			row := store.Row{
				Kind: "object", Key: fmt.Sprintf("bucket/d%03d/%06d", i%100, i), State: fmt.Sprintf("%032x", i),
				Data: []byte(`{"g":1795483700000000,"m":1,"s":10,"t":"text/plain","md5":"eB5eJF1ptWaXm4bijSPyxw==","crc":1,"c":1795483700000000,"u":1795483700000000,"id":"x"}`),
			}
			if err := tx.Put(b.Context(), row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, q := range map[string]blob.ListQuery{
		"page of 1000": {After: "d050/"}, "folders": {Delimiter: "/"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(b.Context(), "bucket", q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
