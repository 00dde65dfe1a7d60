package blob_test

import (
	"fmt"
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

// TestClockSteps: the wall clock jumps both ways, as after a boot without a
// battery or a correction by an operator. Generations of a name grow, nothing is
// lost or swept, lists by time give each row once, and an upload goes on.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	c := &clock{at: time.Now()}
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"), sqlite.WithClock(c.now))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}()
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	s := blob.New(rows, content, c.now)
	if err := s.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	last := map[string]int64{} // generations
	put := func(name, data string) {
		t.Helper()
		o, err := s.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(data), blob.Conditions{})
		if err != nil || o.Generation <= last[name] {
			t.Fatalf("put %s: generation %d after %d, %v", name, o.Generation, last[name], err)
		}
		last[name] = o.Generation
	}
	big := strings.Repeat("large ", 10_000) // a file of its own
	upload, err := s.StartUpload(t.Context(), blob.Object{Bucket: "bucket", Name: "upload"}, blob.Conditions{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	sent := ""
	steps := []time.Duration{0, -time.Hour, 2 * time.Hour, -30 * 24 * time.Hour, 6 * 24 * time.Hour, -50 * 365 * 24 * time.Hour, time.Minute, 50 * 365 * 24 * time.Hour, -time.Second}
	for i, step := range steps {
		c.add(step)
		put("overwritten", strconv.Itoa(i)+big)
		put("remade", strconv.Itoa(i))
		if err := s.Delete(t.Context(), "bucket", "remade", 0, blob.Conditions{}); err != nil {
			t.Fatal(err)
		}
		put("remade", strconv.Itoa(i)+" again")
		put(fmt.Sprintf("new-%d", i), big)
		if o, err := s.Update(t.Context(), "bucket", "new-0", 0, blob.Conditions{}, func(o *blob.Object) error {
			o.ContentType = fmt.Sprint("type/", i)
			return nil
		}); err != nil || o.Metageneration != int64(i+2) || o.Updated.Before(o.Created) {
			t.Errorf("update after step %d: %+v, %v", i, o, err)
		}
		// The upload lives: no step forward is as long as its life but the fifty years.
		if step < blob.UploadLife {
			piece := fmt.Sprintf("piece %d;", i)
			if upload, err = s.AppendUpload(t.Context(), upload.ID, int64(len(sent)), strings.NewReader(piece)); err != nil {
				t.Fatalf("upload after step %d: %v", i, err)
			}
			sent += piece
		}
		if i == 6 {
			if o, err := s.FinishUpload(t.Context(), upload.ID, blob.Conditions{}); err != nil || o.Size != int64(len(sent)) {
				t.Fatalf("finish the upload: %+v, %v", o, err)
			}
		}
		if _, err := s.Sweep(t.Context(), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.List(t.Context(), "bucket", blob.ListQuery{})
	if err != nil || len(page.Objects) != len(steps)+3 {
		t.Fatalf("%d objects, %v", len(page.Objects), err)
	}
	for _, o := range page.Objects {
		if _, err := s.ReadAll(t.Context(), "gs://bucket/"+o.Name, 1<<20); err != nil {
			t.Error(err)
		}
	}
	for _, order := range []store.Order{store.ByCreated, store.ByNewest} {
		eachOnce(t, rows, order, len(page.Objects))
	}
}

// eachOnce pages through the objects by time.
func eachOnce(t *testing.T, rows store.Store, order store.Order, want int) {
	t.Helper()
	seen := map[string]bool{}
	var beyond *store.Row
	for {
		got, err := rows.List(t.Context(), store.Query{Kind: "object", Order: order, Beyond: beyond, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range got {
			if seen[row.Key] {
				t.Errorf("%s is listed twice", row.Key)
			}
			seen[row.Key] = true
			beyond = &row
		}
		if len(got) == 0 {
			break
		}
	}
	if len(seen) != want {
		t.Errorf("%d rows are listed by time, want %d", len(seen), want)
	}
}
