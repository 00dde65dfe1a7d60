//go:build linux

package durability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestBackup: a backup of a busy server, made again, and cut off by a kill,
// restores byte for byte into another directory, and what ran goes on there.
func TestBackup(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	data, dir, flag := filepath.Join(base, "data"), filepath.Join(base, "backup"), filepath.Join(base, "go")
	s := start(t, data, options{config: waitConfig})
	makeBucket(t, s)
	l := newLedger() // of what is not touched any more
	for n := range 40 {
		uploadOnce(t, s, l, "simple", simple, fmt.Sprintf("still-%d", n))
	}
	pipeline := created(t, s, "pipelineJobs?pipelineJobId=run", waitPipeline(flag, 2))
	job := created(t, s, "customJobs", waitJob(flag))
	reaches(t, s, pipeline, "RUNNING")
	reaches(t, s, job, "RUNNING")
	draft := startDraft(t, s)
	token, err := command(t, "token", "create", "--data", data, "--email", "ann@example.com", "--project", "*", "--role", "admin")
	if err != nil {
		t.Fatal(token, err)
	}
	token, _, _ = strings.Cut(token, "\n")

	if a, err := simple(s, "goes", content("goes", 50_000)); err != nil || a.status != http.StatusOK {
		t.Fatal(a, err)
	}
	stop := load(t, s)
	run(t, "backup", dir, "--data", data)
	first := files(t, dir)
	if a := s.do(http.MethodDelete, objectPath(bucket, "goes"), ""); a.status != http.StatusNoContent {
		t.Errorf("delete: %s", a)
	}
	run(t, "backup", dir, "--data", data) // what is new only
	stop()
	checkIncremental(t, first, files(t, dir))
	run(t, "backup", "--verify", dir)
	state := manifestState(t, dir)
	cutOff(t, s, dir)
	killPrograms(data)
	run(t, "backup", "--verify", dir) // the one before the cut is whole

	restored := filepath.Join(base, "restored")
	run(t, "restore", dir, "--data", restored)
	if got, err := os.ReadFile(filepath.Join(restored, "state.db")); err != nil || !bytes.Equal(got, state) {
		t.Errorf("the restored state is not the backup's: %d bytes, want %d, %v", len(got), len(state), err)
	}
	for _, secret := range []string{"ca/ca.key", "identity/identity.key"} {
		if info, err := os.Stat(filepath.Join(restored, secret)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info, err)
		}
	}
	s = start(t, restored, options{config: waitConfig})
	if n := checkWhole(t, s); n < len(l.objects) {
		t.Errorf("%d objects were restored, want more than %d", n, len(l.objects))
	}
	l.check(t, s)
	finishDraft(t, s, draft)
	if a := s.do(http.MethodGet, "/storage/v1/b?project=p", "", "Authorization", "Bearer "+token); a.status != http.StatusOK {
		t.Errorf("a token from before: %s", a)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reaches(t, s, pipeline, "SUCCEEDED")
	reaches(t, s, job, "SUCCEEDED")
}

// run runs the command line and wants success.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatalf("tategu %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// load uploads, overwrites and deletes until it is stopped.
func load(t *testing.T, s *server) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var clients sync.WaitGroup
	for w := range 6 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				name := fmt.Sprintf("busy-%d-%d", w, rand.IntN(20))
				a, err := []upload{simple, multipart, resumable}[n%3](s, name, content(name, rand.IntN(100_000)))
				if n%4 == 3 {
					a, err = s.try(http.MethodDelete, objectPath(bucket, name), http.NoBody)
				}
				if err != nil || a.status != http.StatusOK && a.status != http.StatusNoContent {
					t.Errorf("under load: %s, %v", a, err)
					return
				}
			}
		})
	}
	return func() {
		close(done)
		clients.Wait()
	}
}

// files lists a backup's contents.
func files(t *testing.T, dir string) map[string]fs.FileInfo {
	t.Helper()
	found := map[string]fs.FileInfo{}
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found[path], err = d.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkIncremental: what was there already was not written again, and what is of
// no use any more is gone.
func checkIncremental(t *testing.T, first, second map[string]fs.FileInfo) {
	t.Helper()
	same, gone := 0, 0
	for path, was := range first {
		is, ok := second[path]
		switch {
		case !ok:
			gone++
		case !strings.Contains(path, "@") && !os.SameFile(was, is):
			t.Errorf("%s was written again", path)
		default:
			same++
		}
	}
	if same == 0 || gone == 0 || len(second) <= same {
		t.Errorf("of %d contents %d stayed and %d went; now there are %d", len(first), same, gone, len(second))
	}
}

func manifestState(t *testing.T, dir string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "backup.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ State struct{ Path string } }
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(filepath.Join(dir, m.State.Path))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// cutOff kills the server once a backup has begun.
func cutOff(t *testing.T, s *server, dir string) {
	t.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"directory":%q}`, dir))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+"/tategu/v1/backup", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is cut off
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the backup does not begin: %d, %v", resp.StatusCode, err)
	}
	s.kill()
}

const draftSize = 256<<10 + 1000

// startDraft gives the path of an upload whose first piece has come.
func startDraft(t *testing.T, s *server) string {
	t.Helper()
	a := s.do(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=resumable&name=draft", "{}")
	_, path, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Location"), "http://"), "/")
	data := content("draft", draftSize)
	a = s.do(http.MethodPut, "/"+path, string(data[:256<<10]), "Content-Range", fmt.Sprintf("bytes 0-%d/%d", 256<<10-1, draftSize))
	if a.status != http.StatusPermanentRedirect {
		t.Fatalf("first piece: %s", a)
	}
	return "/" + path
}

func finishDraft(t *testing.T, s *server, path string) {
	t.Helper()
	data := content("draft", draftSize)
	a := s.do(http.MethodPut, path, string(data[256<<10:]), "Content-Range", fmt.Sprintf("bytes %d-%d/%d", 256<<10, draftSize-1, draftSize))
	if a.status != http.StatusOK {
		t.Errorf("the last piece of an upload from before: %s", a)
		return
	}
	if got := s.do(http.MethodGet, objectPath(bucket, "draft")+"?alt=media", ""); !bytes.Equal(got.body, data) {
		t.Errorf("the upload reads %d bytes, want %d", len(got.body), draftSize)
	}
}

// TestBackupRefusals: nothing of somebody else is overwritten, a damaged backup is
// found out, and only an administrator of everything may make one.
func TestBackupRefusals(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	data, dir, foreign := filepath.Join(base, "data"), filepath.Join(base, "backup"), filepath.Join(base, "foreign")
	s := start(t, data, options{})
	makeBucket(t, s)
	for n := range 5 {
		name := fmt.Sprintf("o-%d", n)
		if a, err := simple(s, name, content(name, 50_000)); err != nil || a.status != http.StatusOK {
			t.Fatal(a, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(foreign, "photos"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, "holds something else than a backup", "backup", foreign, "--data", data)
	refused(t, "inside the data directory", "backup", filepath.Join(data, "b"), "--data", data)
	refused(t, "no finished backup", "restore", foreign, "--data", filepath.Join(base, "new"))
	run(t, "backup", dir, "--data", data)
	refused(t, "is not empty", "restore", dir, "--data", data)
	refused(t, "is not empty", "restore", dir, "--data", foreign)
	token, _, _ := strings.Cut(run(t, "token", "create", "--data", data, "--email", "ann@example.com", "--project", "p", "--role", "admin"), "\n")
	if a := s.do(http.MethodPost, "/tategu/v1/backup", fmt.Sprintf(`{"directory":%q}`, dir), "Authorization", "Bearer "+token); a.status != http.StatusForbidden {
		t.Errorf("an administrator of one project: %s", a)
	}
	var trail struct {
		Entries []struct{ Method, Code string }
	}
	s.get("/tategu/v1/audit", &trail)
	codes := map[string]int{}
	for _, e := range trail.Entries {
		if e.Method == "tategu.v1.Backup/Create" {
			codes[e.Code]++
		}
	}
	if codes["OK"] == 0 || codes["PERMISSION_DENIED"] == 0 {
		t.Errorf("the audit trail has %v of backups", codes)
	}
	s.stop()

	for path := range files(t, dir) {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			continue
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, filepath.Base(path)+" is not what was written", "backup", "--verify", dir)
		refused(t, filepath.Base(path)+" is not what was written", "restore", dir, "--data", filepath.Join(base, "new"))
		break
	}
	if left, err := filepath.Glob(filepath.Join(base, "*new*")); err != nil || len(left) != 0 {
		t.Errorf("a failed restore left %v, %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(base, ".new-restore-*")); err != nil || len(left) != 0 {
		t.Errorf("a failed restore left %v, %v", left, err)
	}
}

func refused(t *testing.T, why string, args ...string) {
	t.Helper()
	if out, err := command(t, args...); err == nil || !strings.Contains(out, why) {
		t.Errorf("tategu %s: %v: %s; want a refusal that says %q", strings.Join(args, " "), err, out, why)
	}
}

// TestBackupOfBucket: where contents are in a bucket they are read through it; the
// restored server has them in its data directory.
func TestBackupOfBucket(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	data, dir, restored := filepath.Join(base, "data"), filepath.Join(base, "backup"), filepath.Join(base, "restored")
	if err := os.Mkdir(filepath.Join(base, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "storage:\n  objects: file://" + filepath.Join(base, "bucket") + "\n"
	s := start(t, data, options{config: config})
	makeBucket(t, s)
	l := newLedger()
	for n := range 10 {
		uploadOnce(t, s, l, "simple", simple, fmt.Sprintf("o-%d", n))
	}
	draft := startDraft(t, s)
	run(t, "backup", dir, "--data", data)
	s.stop()
	run(t, "backup", "--verify", dir)
	run(t, "restore", dir, "--data", restored)
	s = start(t, restored, options{})
	l.check(t, s)
	checkWhole(t, s)
	finishDraft(t, s, draft)
}
