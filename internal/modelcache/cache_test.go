package modelcache

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func TestPull(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	first := map[string]string{"model.onnx": "weights one", "vocabulary/words.txt": "a large file"}
	w.put(1, first)
	one := pull(t, l, "m@champion")
	defer closed(t, one)
	want(t, one.Path, first)
	if one.ID != "1" || !strings.HasPrefix(one.Digest, "sha256:") || len(one.Files) != 2 {
		t.Errorf("pulled %+v", one)
	}
	for _, name := range []string{"model.onnx", "vocabulary", "vocabulary/words.txt", "."} {
		info, err := os.Stat(filepath.Join(one.Path, name))
		if err != nil || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s is %v, %v", name, info.Mode(), err)
		}
	}
	if got := w.downloaded(); len(got) != 2 {
		t.Errorf("downloaded %q", got)
	}
	closed(t, pull(t, l, "m@1"))
	if got := w.downloaded(); len(got) != 0 {
		t.Errorf("downloaded %q again", got)
	}
	// A file that did not change is the same file on disk.
	second := map[string]string{"model.onnx": "weights two", "vocabulary/words.txt": "a large file"}
	w.put(2, second)
	two := pull(t, l, "m@champion")
	defer closed(t, two)
	want(t, two.Path, second)
	if got := w.downloaded(); !slices.Equal(got, []string{"m/2/model.onnx"}) {
		t.Errorf("downloaded %q", got)
	}
	a, aerr := os.Stat(filepath.Join(one.Path, "vocabulary/words.txt"))
	b, berr := os.Stat(filepath.Join(two.Path, "vocabulary/words.txt"))
	if err := errors.Join(aerr, berr); err != nil || !os.SameFile(a, b) {
		t.Errorf("equal files are kept twice; %v", err)
	}
}

func TestComposedObjectsAreNotShared(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.composed = true
	l := w.loader(t, tempDir(t))
	w.put(1, map[string]string{"f": "same"})
	closed(t, pull(t, l, "m@champion"))
	w.put(2, map[string]string{"f": "same"})
	closed(t, pull(t, l, "m@champion"))
	if got := w.downloaded(); len(got) != 2 {
		t.Errorf("downloaded %q", got)
	}
}

// TestOneDownload: pulls at the same time, of one cache by several loaders, bring
// each content once.
func TestOneDownload(t *testing.T) {
	t.Parallel()
	w := newWorld()
	dir := tempDir(t)
	w.put(1, map[string]string{"a": "text a", "b": "text b", "c": "text a"})
	const pulls = 8
	var begun sync.WaitGroup
	begun.Add(pulls)
	w.during = func(string) error { begun.Wait(); return nil } // all have begun while one downloads
	var all sync.WaitGroup
	paths := make([]string, pulls)
	for i := range pulls {
		l := w.loader(t, dir)
		all.Go(func() {
			begun.Done()
			local, err := l.Pull(t.Context(), "m@champion")
			if err != nil {
				t.Error(err)
				return
			}
			paths[i] = local.Path
			closed(t, local)
		})
	}
	all.Wait()
	if got := w.downloaded(); len(got) != 2 {
		t.Errorf("downloaded %q", got)
	}
	if slices.Sort(paths); paths[0] != paths[pulls-1] {
		t.Errorf("the directories are %q", paths)
	}
	want(t, paths[0], map[string]string{"a": "text a", "b": "text b", "c": "text a"})
	parts, err := os.ReadDir(filepath.Join(dir, partsDir))
	if err != nil || len(parts) != 0 {
		t.Errorf("%d parts are left; %v", len(parts), err)
	}
}

func TestFailedPull(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault func(w *world)
		code  codes.Code
	}{
		"broken off": {func(w *world) {
			w.during = func(name string) error {
				if strings.HasSuffix(name, "b") {
					return errAway()
				}
				return nil
			}
		}, codes.Unavailable},
		"damaged": {func(w *world) { w.damage = true }, codes.DataLoss},
		"removed": {func(w *world) {
			w.during = func(name string) error { return resource.NotFound(name) }
		}, codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			l := w.loader(t, tempDir(t))
			w.put(1, map[string]string{"a": "text a", "b": "text b"})
			c.fault(w)
			if _, err := l.Pull(t.Context(), "m@champion"); resource.CodeOf(err) != c.code {
				t.Errorf("the error is %v", err)
			}
			if all := whole(t, l); len(all) != 0 {
				t.Errorf("%+v looks whole", all)
			}
			if _, err := l.LastKnown(t.Context(), "m@champion"); !resource.IsNotFound(err) {
				t.Errorf("last known is %v", err)
			}
			w.set(func() { w.during, w.damage = nil, false })
			local := pull(t, l, "m@champion")
			defer closed(t, local)
			want(t, local.Path, map[string]string{"a": "text a", "b": "text b"})
		})
	}
}

// TestReplacedMeanwhile: an object that is replaced between list and download is
// listed again.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	w.put(1, map[string]string{"a": "old"})
	var once sync.Once
	w.during = func(name string) (err error) {
		once.Do(func() {
			w.put(1, map[string]string{"a": "new text"})
			err = resource.NotFound(name)
		})
		return err
	}
	local := pull(t, l, "m@champion")
	defer closed(t, local)
	want(t, local.Path, map[string]string{"a": "new text"})
}

func TestWrongModels(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	w.versions["image"] = Version{Model: "projects/p/locations/l/models/image", ID: "1"}
	w.versions["empty"] = Version{Model: "projects/p/locations/l/models/empty", ID: "1", ArtifactURI: "gs://b/nothing"}
	for name, code := range map[string]codes.Code{"image": codes.FailedPrecondition, "empty": codes.FailedPrecondition, "none": codes.NotFound, "a@b@c": codes.InvalidArgument} {
		if _, err := l.Pull(t.Context(), name); resource.CodeOf(err) != code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTruncatedCacheIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	w.put(1, map[string]string{"a": "text a"})
	local := pull(t, l, "m@champion")
	file := filepath.Join(local.Path, "a")
	closed(t, local)
	if err := errors.Join(os.Chmod(file, 0o600), os.Truncate(file, 2)); err != nil {
		t.Fatal(err)
	}
	_, err := l.Pull(t.Context(), "m@champion")
	if resource.CodeOf(err) != codes.DataLoss || !strings.Contains(err.Error(), "a has 2 bytes and not 6") {
		t.Fatalf("the error is %v", err)
	}
	done, err := l.Cache.Prune(Rule{Damaged: true})
	if err != nil || len(done.Models) != 1 {
		t.Fatalf("pruned %+v, %v", done, err)
	}
	w.downloaded()
	again := pull(t, l, "m@champion")
	defer closed(t, again)
	want(t, again.Path, map[string]string{"a": "text a"})
	if got := w.downloaded(); len(got) != 1 {
		t.Errorf("downloaded %q", got)
	}
}

const killedPull = "TATEGU_TEST_KILLED_PULL"

// pullForever pulls to the working directory, in a process of its own, and waits in the midst of file b.
func pullForever() {
	w := newWorld()
	w.put(1, map[string]string{"a": "text a", "b": "text b"})
	arrived := make(chan struct{})
	w.during = func(name string) error {
		if strings.HasSuffix(name, "a") {
			return nil
		}
		<-arrived
		_, _ = os.Stdout.WriteString("half\n")
		select {}
	}
	go func() {
		tick := time.NewTicker(time.Millisecond)
		for range tick.C { // until a is a content
			if files, err := os.ReadDir(contentDir); err == nil && len(files) == 1 {
				close(arrived)
				return
			}
		}
	}()
	cache, err := Open(".")
	if err == nil {
		_, err = (&Loader{Registry: w, Objects: w, Cache: cache, Origin: "test"}).Pull(context.Background(), "m@champion")
	}
	panic(err)
}

// TestKilledPull is not parallel: until its exec a child has the locks of others.
func TestKilledPull(t *testing.T) {
	dir := tempDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Dir, cmd.Env = dir, append(os.Environ(), killedPull+"=here")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "half\n" {
		t.Errorf("the pull says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	w := newWorld()
	l := w.loader(t, dir)
	if all := whole(t, l); len(all) != 0 {
		t.Errorf("%+v looks whole", all)
	}
	w.put(1, map[string]string{"a": "text a", "b": "text b"})
	local := pull(t, l, "m@champion")
	defer closed(t, local)
	want(t, local.Path, map[string]string{"a": "text a", "b": "text b"})
	if got := w.downloaded(); !slices.Equal(got, []string{"m/1/b"}) {
		t.Errorf("downloaded %q", got)
	}
	// What the killed pull left goes once it is old.
	old := time.Now().Add(-time.Hour)
	parts, err := filepath.Glob(filepath.Join(dir, partsDir, "*"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("parts are %q, %v", parts, err)
	}
	if err := os.Chtimes(parts[0], old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cache.Prune(Rule{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(parts[0]); err == nil {
		t.Errorf("%s is still there", parts[0])
	}
}
