package modelcache

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func TestMain(m *testing.M) {
	if os.Getenv(killedPull) != "" {
		pullForever()
	}
	goleak.VerifyTestMain(m)
}

// world is a registry and a storage in memory, with faults.
type world struct {
	mu         sync.Mutex
	versions   map[string]Version // by what is asked for
	objects    map[string][]byte  // by name in bucket b
	generation int64
	composed   bool // objects have no MD5
	away       bool // nothing is answered
	asked      int  // questions to the registry
	downloads  []string
	// during, when set, comes between the halves of a download.
	during func(name string) error
	// damage changes bytes on their way.
	damage bool
}

func newWorld() *world {
	return &world{versions: map[string]Version{}, objects: map[string][]byte{}, generation: 1}
}

// put sets the files of version n of the model m and moves an alias there.
func (w *world) put(n int, files map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.generation++
	uri := fmt.Sprintf("gs://b/m/%d", n)
	for name, text := range files {
		w.objects[fmt.Sprintf("m/%d/%s", n, name)] = []byte(text)
	}
	v := Version{Model: "projects/p/locations/l/models/m", ID: strconv.Itoa(n), Aliases: []string{"champion"}, ArtifactURI: uri, Etag: fmt.Sprint("e", n)}
	w.versions["m@champion"] = v
	w.versions[fmt.Sprintf("m@%d", n)] = v
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func errAway() error { return resource.Errorf(codes.Unavailable, "no answer") }

func (w *world) Resolve(_ context.Context, name string) (Version, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.away {
		return Version{}, errAway()
	}
	v, ok := w.versions[name]
	if !ok {
		return v, resource.NotFound(name)
	}
	return v, nil
}

func (w *world) List(_ context.Context, bucket, prefix string) iter.Seq2[Object, error] {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []Object
	for _, name := range slices.Sorted(maps.Keys(w.objects)) {
		if bucket != "b" || !strings.HasPrefix(name, prefix) {
			continue
		}
		text := w.objects[name]
		sum := md5.Sum(text)
		o := Object{
			Bucket: bucket, Name: name, Generation: w.generation, Size: int64(len(text)), MD5: base64.StdEncoding.EncodeToString(sum[:]),
			CRC32C: base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)))),
		}
		if w.composed {
			o.MD5 = ""
		}
		found = append(found, o)
	}
	away := w.away
	return func(yield func(Object, error) bool) {
		if away {
			yield(Object{}, errAway())
			return
		}
		for _, o := range found {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (w *world) Download(_ context.Context, o Object, to io.Writer, count func(int64)) error {
	w.mu.Lock()
	text, ok := w.objects[o.Name]
	w.downloads = append(w.downloads, o.Name)
	during, damage := w.during, w.damage
	w.mu.Unlock()
	if !ok {
		return resource.NotFound(o.Name)
	}
	text = slices.Clone(text)
	if damage {
		text[0] ^= 1
	}
	half := len(text) / 2
	if _, err := to.Write(text[:half]); err != nil {
		return err
	}
	if during != nil {
		if err := during(o.Name); err != nil {
			return err
		}
	}
	_, err := to.Write(text[half:])
	count(int64(len(text)))
	return err
}

func (w *world) downloaded() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := slices.Sorted(slices.Values(w.downloads))
	w.downloads = nil
	return got
}

func (w *world) loader(tb testing.TB, dir string) *Loader {
	tb.Helper()
	cache, err := Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return &Loader{Registry: w, Objects: w, Cache: cache, Origin: "test", Interval: 2 * time.Second}
}

// tempDir is one that can be removed although it holds read-only directories.
func tempDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	tb.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func pull(tb testing.TB, l *Loader, name string) *Local {
	tb.Helper()
	local, err := l.Pull(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return local
}

func closed(tb testing.TB, l *Local) {
	tb.Helper()
	if err := l.Close(); err != nil {
		tb.Error(err)
	}
}

// want checks the files below a directory, marks apart.
func want(tb testing.TB, dir string, files map[string]string) {
	tb.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == Mark {
			return err
		}
		text, err := os.ReadFile(path)
		rel, rerr := filepath.Rel(dir, path)
		got[filepath.ToSlash(rel)] = string(text)
		if err != nil {
			return err
		}
		return rerr
	})
	if err != nil || !maps.Equal(got, files) {
		tb.Errorf("%s holds %q, want %q; %v", dir, got, files, err)
	}
}

// whole lists what looks like a model in a cache.
func whole(tb testing.TB, l *Loader) []Kept {
	tb.Helper()
	all, err := l.Cache.Kept()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}
