package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tategu/internal/backup"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// world is a store on disk.
type world struct {
	*blob.Store
	dir  string
	rows *sqlite.Store
}

func open(t *testing.T, dir string) *world {
	t.Helper()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Store: blob.New(rows, content, time.Now), dir: dir, rows: rows}
	if err := w.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca", "ca.pem"), []byte("a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) put(t *testing.T, name string, size int) {
	t.Helper()
	if _, err := w.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(strings.Repeat(name+";", size)), blob.Conditions{}); err != nil {
		t.Error(err)
	}
}

func (w *world) source() backup.Source {
	return backup.Source{
		Version: "test", Now: time.Now, Hold: w.Hold, State: w.rows.Snapshot, Open: openSnapshot, Read: w.ReadContent, Link: w.LinkContent,
		Logs: func(context.Context, store.Reader) ([]string, error) {
			return []string{blob.LogContent("log"), blob.LogContent("none")}, nil
		},
		Secrets: map[string]string{"ca": filepath.Join(w.dir, "ca")},
		Lock:    func(string) (io.Closer, error) { return io.NopCloser(nil), nil },
	}
}

func openSnapshot(path string) (backup.Snapshot, error) { return sqlite.OpenSnapshot(path) }

func restore(t *testing.T, dir string) *world {
	t.Helper()
	data := filepath.Join(t.TempDir(), "restored")
	schema, err := sqlite.NewestSchema()
	if err != nil {
		t.Fatal(err)
	}
	_, err = backup.Restore(t.Context(), dir, backup.Target{
		Data: data, Open: openSnapshot, Schema: schema,
		Contents: func(data string) (backup.Content, error) { return disk.Open(filepath.Join(data, "objects")) },
	}, func(backup.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	return open(t, data)
}

// objects reads all objects, which checks them against their CRC32C.
func (w *world) objects(t *testing.T) map[string]string {
	t.Helper()
	page, err := w.List(t.Context(), "bucket", blob.ListQuery{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, o := range page.Objects {
		data, err := w.ReadAll(t.Context(), "gs://bucket/"+o.Name, 1<<20)
		if err != nil {
			t.Error(err)
		}
		all[o.Name] = string(data)
	}
	return all
}

func quiet(backup.Progress) {}

// TestUnderLoad: whatever clients do meanwhile, the backup is of one moment.
func TestUnderLoad(t *testing.T) {
	t.Parallel()
	w := open(t, t.TempDir())
	for n := range 30 {
		w.put(t, fmt.Sprintf("still-%d", n), rand.IntN(20_000))
	}
	done := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				// Two objects change one after the other: never is a newer second one
				// seen with an older first one.
				w.put(t, fmt.Sprintf("pair-%d-a", c), 3000+n)
				w.put(t, fmt.Sprintf("pair-%d-b", c), 3000+n)
				if n%7 == 0 {
					w.put(t, "gone", 10_000)
					_ = w.Delete(t.Context(), "bucket", "gone", 0, blob.Conditions{}) // another may be quicker
				}
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "backup")
	for range 3 {
		if m, err := backup.Create(t.Context(), dir, w.source(), quiet); err != nil || len(m.Damaged) > 0 {
			t.Errorf("%v, damaged %q", err, m.Damaged)
		}
		if _, err := backup.Verify(t.Context(), dir, openSnapshot, quiet); err != nil {
			t.Error(err)
		}
	}
	close(done)
	clients.Wait()
	got := restore(t, dir).objects(t)
	for name, data := range w.objects(t) {
		if strings.HasPrefix(name, "still-") && got[name] != data {
			t.Errorf("%s: %d bytes restored, want %d", name, len(got[name]), len(data))
		}
	}
	for c := range 4 {
		if a, b := len(got[fmt.Sprintf("pair-%d-a", c)]), len(got[fmt.Sprintf("pair-%d-b", c)]); b > a || a == 0 {
			t.Errorf("pair %d was torn: %d, %d bytes", c, a, b)
		}
	}
}

// TestCutOff: a backup that ends at any step leaves the one before whole, and the
// next one succeeds.
func TestCutOff(t *testing.T) {
	t.Parallel()
	w := open(t, t.TempDir())
	for n := range 12 {
		w.put(t, fmt.Sprintf("o-%d", n), 4000)
	}
	if err := w.AppendLog(t.Context(), "log", 0, []byte("first line\n")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	if _, err := backup.Create(t.Context(), dir, w.source(), quiet); err != nil {
		t.Fatal(err)
	}
	want := w.objects(t)
	finished := false
	for step := int64(1); !finished; step++ {
		w.put(t, fmt.Sprintf("new-%d", step), 5000)
		_ = w.Delete(t.Context(), "bucket", fmt.Sprintf("o-%d", step), 0, blob.Conditions{}) // there are fewer
		finished = cutOff(t, w, dir, step)
		if _, err := backup.Verify(t.Context(), dir, openSnapshot, quiet); err != nil {
			t.Fatalf("after a cut at step %d: %v", step, err)
		}
		if finished {
			want = w.objects(t)
		}
		if got := restore(t, dir).objects(t); len(got) != len(want) {
			t.Fatalf("after a cut at step %d: %d objects, want %d", step, len(got), len(want))
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 6 {
		t.Errorf("the directory holds %q, %v", left, err)
	}
}

// cutOff lets the nth call of what a backup asks for fail, and reports that there
// was none.
func cutOff(t *testing.T, w *world, dir string, nth int64) (finished bool) {
	t.Helper()
	var calls atomic.Int64
	cut := errors.New("cut off")
	fail := func() error {
		if calls.Add(1) == nth {
			return cut
		}
		return nil
	}
	s := w.source()
	state, read, snapshot := s.State, s.Read, s.Open
	s.State = func(ctx context.Context, path string, progress func(done, total int)) error {
		return errors.Join(fail(), state(ctx, path, progress), fail())
	}
	s.Open = func(path string) (backup.Snapshot, error) {
		if err := fail(); err != nil {
			return nil, err
		}
		return snapshot(path)
	}
	s.Link = func(context.Context, string, string) error { return errors.New("another disk") }
	s.Read = func(ctx context.Context, id string, length int64) (io.ReadCloser, error) {
		if err := fail(); err != nil {
			return nil, err
		}
		return read(ctx, id, length)
	}
	_, err := backup.Create(t.Context(), dir, s, quiet)
	if err != nil && !errors.Is(err, cut) {
		t.Fatal(err)
	}
	return err == nil
}

// TestDamagedContent: one that cannot be read as it was written is named, and does
// not keep the others from being saved.
func TestDamagedContent(t *testing.T) {
	t.Parallel()
	w := open(t, t.TempDir())
	for _, name := range []string{"good", "lost", "short"} {
		w.put(t, name, 10_000)
	}
	for _, name := range []string{"lost", "short"} {
		o, err := w.Stat(t.Context(), "bucket", name, 0, blob.Conditions{})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(w.dir, "objects", o.Content[len(o.Content)-2:], o.Content)
		if name == "lost" {
			err = os.Remove(path)
		} else {
			err = os.Truncate(path, 100)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "backup")
	m, err := backup.Create(t.Context(), dir, w.source(), quiet)
	slices.Sort(m.Damaged)
	if err != nil || !slices.Equal(m.Damaged, []string{"object bucket/lost", "object bucket/short"}) {
		t.Errorf("damaged %q, %v", m.Damaged, err)
	}
	if _, err := backup.Verify(t.Context(), dir, openSnapshot, quiet); err != nil {
		t.Error(err)
	}
	if data, err := restore(t, dir).ReadAll(t.Context(), "gs://bucket/good", 1<<20); err != nil || len(data) != len("good;")*10_000 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}
