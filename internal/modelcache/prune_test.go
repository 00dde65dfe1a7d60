package modelcache

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func ids(kept []Kept) string {
	var text strings.Builder
	for _, k := range kept {
		text.WriteString(k.Version)
	}
	return text.String()
}

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld()
	dir := tempDir(t)
	l := w.loader(t, dir)
	for n, own := range []string{"", "own file 1", "own file 2", "own file 3", "own file 4"} {
		if n == 0 {
			continue
		}
		w.put(n, map[string]string{"own": own, "shared": "of all"})
		local := pull(t, l, "m@champion")
		if n == 2 {
			defer closed(t, local)
		} else {
			closed(t, local)
		}
		used := time.Now().Add(time.Duration(n-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(filepath.Dir(local.Path), manifestName), used, used); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(whole(t, l)); got != "4321" {
		t.Errorf("kept in the order of use: %s", got)
	}
	other := w.loader(t, dir).Cache // as another process
	rule := Rule{Before: time.Now().Add(-6*time.Hour - 30*time.Minute), Keep: 1, DryRun: true}
	would, err := other.Prune(rule)
	if err != nil || ids(would.Models) != "31" || ids(would.Busy) != "2" || would.Bytes != 20 {
		t.Errorf("would remove %+v, %v", would, err)
	}
	rule.DryRun = false
	done, err := other.Prune(rule)
	if err != nil || ids(done.Models) != "31" || ids(done.Busy) != "2" || done.Bytes != 20 {
		t.Errorf("removed %+v, %v", done, err)
	}
	if got := ids(whole(t, l)); got != "42" {
		t.Errorf("left: %s", got)
	}
	if done, err = other.Prune(Rule{Before: time.Now().Add(time.Hour), Keep: 5}); err != nil || len(done.Models) != 0 {
		t.Errorf("removed %+v of those to keep, %v", done, err)
	}
	w.downloaded()
	closed(t, pull(t, l, "m@1"))
	if got := w.downloaded(); len(got) != 1 {
		t.Errorf("downloaded %q", got)
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	to := filepath.Join(tempDir(t), "deep", "model")
	files := func(n string) map[string]string { return map[string]string{"model.onnx": "weights " + n, "sub/x": "x"} }
	for n, text := range []string{"one", "two"} {
		w.put(n+1, files(text))
		local := pull(t, l, "m@champion")
		at, err := local.Place(to)
		if err != nil || at != to {
			t.Fatalf("placed at %q, %v", at, err)
		}
		closed(t, local)
		want(t, to, files(text))
	}
	if _, err := l.Cache.Prune(Rule{Before: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	want(t, to, files("two"))
	if left, err := os.ReadDir(filepath.Dir(to)); err != nil || len(left) != 1 {
		t.Errorf("beside it is %v, %v", left, err)
	}
	foreign := tempDir(t)
	if err := os.WriteFile(filepath.Join(foreign, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	local := pull(t, l, "m@champion")
	defer closed(t, local)
	if _, err := local.Place(foreign); err == nil {
		t.Error("a directory of other files was replaced")
	}
	if _, err := os.Stat(filepath.Join(foreign, "mine")); err != nil {
		t.Error(err)
	}
	empty := tempDir(t)
	if _, err := local.Place(empty); err != nil {
		t.Error(err)
	}
	want(t, empty, files("two"))
}

func TestCopyFile(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("text"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	text, rerr := os.ReadFile(to)
	if err != nil || rerr != nil || info.Mode().Perm()&0o222 != 0 || string(text) != "text" {
		t.Errorf("%v %q, %v, %v", info, text, err, rerr)
	}
}

// TestPruneBesidePulls: what a pull gave is whole until it is closed, whatever is
// removed at the same time.
func TestPruneBesidePulls(t *testing.T) {
	t.Parallel()
	w := newWorld()
	dir := tempDir(t)
	files := func(n int) map[string]string {
		return map[string]string{"own/file": strings.Repeat("x", n), "shared": "of all"}
	}
	for n := 1; n <= 2; n++ {
		w.put(n, files(n))
	}
	var pulls, prunes sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		l := w.loader(t, dir)
		pulls.Go(func() {
			for k := range 20 {
				n := 1 + (i+k)%2
				local, err := l.Pull(t.Context(), "m@"+strconv.Itoa(n))
				if err != nil {
					t.Error(err)
					return
				}
				want(t, local.Path, files(n))
				closed(t, local)
			}
		})
	}
	removed := 0
	for range 2 {
		cache := w.loader(t, dir).Cache
		prunes.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := cache.Prune(Rule{Before: time.Now().Add(time.Hour)})
				if err != nil {
					t.Error(err)
					return
				}
				w.set(func() { removed += len(got.Models) })
			}
		})
	}
	pulls.Wait()
	close(done)
	prunes.Wait()
	if removed == 0 {
		t.Error("nothing was removed: the test tries nothing")
	}
}
