package blob_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store/sqlite"
)

// parts of each upload: two that may be followed, and an end.
const killParts = 3

func partData(name string, n, part int) []byte {
	if part == killParts {
		return fmt.Appendf(nil, "end of %s %d", name, n)
	}
	unit := fmt.Appendf(nil, "%s %d %d;", name, n, part)
	return []byte(strings.Repeat(string(unit), blob.MinPartSize/len(unit)+1))
}

// partsForever is the child of TestKillMultipart: two uploaders that print what is
// acknowledged: "start NAME N ID", "part NAME N NUMBER", "done NAME N".
func partsForever(dir string) error {
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
	first := os.Getpid() // no two rounds write the same bytes
	var uploaders errgroup.Group
	for w := range 2 {
		uploaders.Go(func() error {
			for n := first; ; n++ {
				if err := uploadOnce(ctx, s, fmt.Sprintf("w%d", w), n); err != nil {
					return err
				}
			}
		})
	}
	return uploaders.Wait()
}

func say(format string, args ...any) error {
	_, err := fmt.Fprintf(os.Stdout, format+"\n", args...)
	return err
}

func uploadOnce(ctx context.Context, s *blob.Store, name string, n int) error {
	u, err := s.StartMultipart(ctx, blob.Object{Bucket: "bucket", Name: name}, blob.Conditions{})
	if err != nil {
		return err
	}
	if err := say("start %s %d %s", name, n, u.ID); err != nil {
		return err
	}
	refs := make([]blob.PartRef, killParts)
	var together errgroup.Group
	for i := range refs {
		together.Go(func() error {
			p, err := s.PutPart(ctx, "bucket", name, u.ID, i+1, strings.NewReader(string(partData(name, n, i+1))), blob.Conditions{})
			if err != nil {
				return err
			}
			refs[i] = blob.PartRef{Number: i + 1, ETag: p.ETag()}
			return say("part %s %d %d", name, n, i+1)
		})
	}
	if err := together.Wait(); err != nil {
		return err
	}
	if _, err := s.CompleteMultipart(ctx, "bucket", name, u.ID, refs, blob.Conditions{}); err != nil {
		return err
	}
	return say("done %s %d", name, n)
}

// killed is what a child of partsForever had acknowledged.
type killed struct {
	id    map[string]string // by "NAME N"
	parts map[string][]int
	done  map[string]int // by NAME
}

func killUploader(t *testing.T, dir string, lines int) killed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TATEGU_TEST_PARTS="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k := killed{map[string]string{}, map[string][]int{}, map[string]int{}}
	seen := 0
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if err != nil { // what follows the last line break was cut off
			break
		}
		words := strings.Fields(line)
		key, n, part := words[1]+" "+words[2], 0, 0
		_, _ = fmt.Sscan(words[2], &n)
		switch words[0] {
		case "start":
			k.id[key] = words[3]
		case "part":
			_, _ = fmt.Sscan(words[3], &part)
			k.parts[key] = append(k.parts[key], part)
		case "done":
			k.done[words[1]] = n
		}
		if seen++; seen == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if seen < lines {
		t.Fatalf("the uploader ended by itself after %d lines", seen)
	}
	return k
}

// TestKillMultipart kills a process amid multipart uploads: every part that was
// acknowledged is there, an upload can be gone on with, an object is whole, and
// Sweep leaves nothing over.
func TestKillMultipart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 4 {
		k := killUploader(t, dir, 7+5*round)
		f := &fixture{dir: dir, clock: &clock{at: time.Now()}}
		f.open(t)
		checkKilledUploads(t, f, k)
		if err := f.rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkKilledUploads(t *testing.T, f *fixture, k killed) {
	t.Helper()
	ended := map[string]int{}
	for key, id := range k.id {
		var name string
		var n int
		_, _ = fmt.Sscan(key, &name, &n)
		u, err := f.GetMultipart(t.Context(), "bucket", name, id)
		if err != nil { // it was completed, acknowledged or not
			ended[name] = max(ended[name], n)
			continue
		}
		if k.done[name] >= n {
			t.Errorf("%s: completed, and still open", key)
		}
		have, _, err := f.ListParts(t.Context(), u, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		kept := map[int]blob.Part{}
		for _, p := range have {
			kept[p.Number] = p
		}
		for _, part := range k.parts[key] {
			if kept[part].CRC32C != crcOf(string(partData(name, n, part))) {
				t.Errorf("%s: part %d was acknowledged and is %+v", key, part, kept[part])
			}
		}
	}
	for name, n := range k.done {
		if ended[name] < n {
			t.Errorf("%s %d: acknowledged, and open again", name, n)
		}
	}
	for name, n := range ended {
		f.checkData(t, name, string(partData(name, n, 1))+string(partData(name, n, 2))+string(partData(name, n, 3)))
	}
	goOn(t, f, k)
	f.clock.add(time.Hour)
	if _, err := f.Sweep(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	page, err := f.List(t.Context(), "bucket", blob.ListQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if n := f.contents(t); n != len(page.Objects) {
		t.Errorf("%d contents for %d objects after the sweep", n, len(page.Objects))
	}
}

// goOn ends the uploads that the kill left open.
func goOn(t *testing.T, f *fixture, k killed) {
	t.Helper()
	for key, id := range k.id {
		var name string
		var n int
		_, _ = fmt.Sscan(key, &name, &n)
		u, err := f.GetMultipart(t.Context(), "bucket", name, id)
		if err != nil {
			continue
		}
		refs := make([]blob.PartRef, killParts)
		for i := range refs {
			refs[i] = f.mustPart(t, u, i+1, partData(name, n, i+1))
		}
		if _, err := f.complete(t, u, refs...); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		f.checkData(t, name, string(partData(name, n, 1))+string(partData(name, n, 2))+string(partData(name, n, 3)))
	}
}
