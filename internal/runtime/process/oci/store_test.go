package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"

	"google.golang.org/grpc/codes"
)

// h is one entry of a layer; content makes it a file.
type h struct {
	name, link, content string
	typ                 byte
	mode                int64
}

func pack(tb testing.TB, entries ...h) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.typ == 0 {
			e.typ = tar.TypeReg
		}
		if e.mode == 0 {
			e.mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Size: int64(len(e.content)), Format: tar.FormatPAX}); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(b []byte) runtime.Layer {
	sum := sha256.Sum256(b)
	return runtime.Layer{DiffID: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

func imageOf(layers ...runtime.Layer) runtime.Image {
	sum := sha256.New()
	for _, l := range layers {
		io.WriteString(sum, l.DiffID)
	}
	return runtime.Image{Reference: "img:1", Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Layers: layers}
}

// newStore keeps images of our own ids in a directory that has a neighbour.
func newStore(tb testing.TB, change func(*Limits)) *Store {
	tb.Helper()
	limits := DefaultLimits()
	if change != nil {
		change(&limits)
	}
	return NewStore(filepath.Join(tb.TempDir(), "images"), limits, box.Mapping{User: true, Count: 1}, slog.New(slog.DiscardHandler), time.Now)
}

func quiet(string) {}

// list describes a tree, one line an entry.
func list(tb testing.TB, dir string) string {
	tb.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			out = append(out, rel+"/")
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			out = append(out, rel+"->"+target)
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out = append(out, rel+"="+string(b))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Join(out, " ")
}

// TestLayers: what layers make of each other.
func TestLayers(t *testing.T) {
	t.Parallel()
	lower := []h{{name: "d/", typ: tar.TypeDir}, {name: "d/a", content: "1"}, {name: "d/b", content: "1"}, {name: "d/sub/c", content: "1"}, {name: "f", content: "1"}}
	tests := map[string]struct {
		upper []h
		want  string
	}{
		"nothing":                       {nil, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 f=1"},
		"replace":                       {[]h{{name: "d/a", content: "2"}}, "d/ d/a=2 d/b=1 d/sub/ d/sub/c=1 f=1"},
		"file by directory":             {[]h{{name: "f/", typ: tar.TypeDir}, {name: "f/x", content: "2"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 f/ f/x=2"},
		"directory by file":             {[]h{{name: "d", content: "2"}}, "d=2 f=1"},
		"directory by link":             {[]h{{name: "d", link: "f", typ: tar.TypeSymlink}}, "d->f f=1"},
		"whiteout of a file":            {[]h{{name: "d/.wh.a"}}, "d/ d/b=1 d/sub/ d/sub/c=1 f=1"},
		"whiteout of a directory":       {[]h{{name: ".wh.d"}}, "f=1"},
		"whiteout of nothing":           {[]h{{name: ".wh.none"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 f=1"},
		"whiteout, then anew":           {[]h{{name: "d/.wh.sub"}, {name: "d/sub/", typ: tar.TypeDir}, {name: "d/sub/n", content: "2"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/n=2 f=1"},
		"anew, then whiteout":           {[]h{{name: "d/sub/n", content: "2"}, {name: "d/.wh.sub"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/n=2 f=1"},
		"opaque":                        {[]h{{name: "d/.wh..wh..opq"}, {name: "d/n", content: "2"}}, "d/ d/n=2 f=1"},
		"opaque at the end":             {[]h{{name: "d/n", content: "2"}, {name: "d/.wh..wh..opq"}}, "d/ d/n=2 f=1"},
		"opaque keeps its own below":    {[]h{{name: "d/sub/n", content: "2"}, {name: "d/.wh..wh..opq"}}, "d/ d/sub/ d/sub/n=2 f=1"},
		"hard link":                     {[]h{{name: "l", link: "d/a", typ: tar.TypeLink}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 f=1 l=1"},
		"dots and slashes":              {[]h{{name: "./d//x", content: "2"}, {name: "/abs", content: "2"}}, "abs=2 d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 d/x=2 f=1"},
		"through a link of the image":   {[]h{{name: "to", link: "/d", typ: tar.TypeSymlink}, {name: "to/x", content: "2"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 d/x=2 f=1 to->/d"},
		"a link up stays in the image":  {[]h{{name: "up", link: "../../../../d", typ: tar.TypeSymlink}, {name: "up/x", content: "2"}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 d/x=2 f=1 up->../../../../d"},
		"devices, pipes are left out":   {[]h{{name: "dev/null", typ: tar.TypeChar}, {name: "dev/sda", typ: tar.TypeBlock}, {name: "p", typ: tar.TypeFifo}}, "d/ d/a=1 d/b=1 d/sub/ d/sub/c=1 dev/ f=1"},
		"a name that only looks hidden": {[]h{{name: "d/.whx", content: "2"}}, "d/ d/.whx=2 d/a=1 d/b=1 d/sub/ d/sub/c=1 f=1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, nil)
			tree, err := s.Get(t.Context(), imageOf(layerOf(pack(t, lower...)), layerOf(pack(t, tc.upper...))), quiet)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if got := list(t, tree.Dir); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestRefused: layers that try to get out, or to fill the disk. Nothing of them is kept.
func TestRefused(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 3000)
	tests := map[string]struct {
		layer []h
		code  codes.Code
		say   string
	}{
		"dots":                   {[]h{{name: "../../escaped", content: "x"}}, codes.InvalidArgument, "out of the image"},
		"dots inside":            {[]h{{name: "a/../../escaped", content: "x"}}, codes.InvalidArgument, "out of the image"},
		"absolute dots":          {[]h{{name: "/../escaped", content: "x"}}, codes.InvalidArgument, "out of the image"},
		"hard link by dots":      {[]h{{name: "l", link: "../../victim", typ: tar.TypeLink}}, codes.InvalidArgument, "out of the image"},
		"hard link to the host":  {[]h{{name: "l", link: "/etc/passwd", typ: tar.TypeLink}}, codes.InvalidArgument, "does not have"},
		"hard link by a link":    {[]h{{name: "s", link: "/etc", typ: tar.TypeSymlink}, {name: "l", link: "s/passwd", typ: tar.TypeLink}}, codes.InvalidArgument, "does not have"},
		"hard link to directory": {[]h{{name: "d/", typ: tar.TypeDir}, {name: "l", link: "d", typ: tar.TypeLink}}, codes.InvalidArgument, "directory"},
		"below a file":           {[]h{{name: "f", content: "x"}, {name: "f/x", content: "x"}}, codes.InvalidArgument, "not a directory"},
		"circle of links":        {[]h{{name: "a", link: "b", typ: tar.TypeSymlink}, {name: "b", link: "a", typ: tar.TypeSymlink}, {name: "a/x", content: "x"}}, codes.InvalidArgument, "too many links"},
		"whiteout of dots":       {[]h{{name: "d/.wh..."}, {name: "d/.wh..", content: ""}}, codes.InvalidArgument, "hides nothing"},
		"bare whiteout":          {[]h{{name: "d/.wh."}}, codes.InvalidArgument, "hides nothing"},
		"too many entries":       {[]h{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}, {name: "f"}}, codes.ResourceExhausted, "entries"},
		"too many bytes":         {[]h{{name: "a", content: big}, {name: "b", content: big}}, codes.ResourceExhausted, "MB of files"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, func(l *Limits) { l.Entries, l.Bytes = 5, 5000 })
			outside := filepath.Dir(s.dir)
			if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Get(t.Context(), imageOf(layerOf(pack(t, tc.layer...))), quiet)
			if resource.CodeOf(err) != tc.code || !strings.Contains(fmt.Sprint(err), tc.say) {
				t.Fatalf("Get = %v, want %v with %q", err, tc.code, tc.say)
			}
			e, ok := errors.AsType[*resource.Error](err)
			if !ok || e.Cause != resource.CauseInput || e.Hint == "" {
				t.Errorf("the error has no cause or hint: %#v", err)
			}
			got := list(t, outside)
			if strings.Contains(got, "escaped") || strings.Contains(got, rootfsName) {
				t.Errorf("left: %s", got)
			}
			if st, err := os.Stat(filepath.Join(outside, "victim")); err != nil || nlink(st) != 1 {
				t.Errorf("the neighbour was linked: %v", err)
			}
		})
	}
}

// TestBomb: a layer kept small that unpacks to much.
func TestBomb(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(l *Limits) { l.Ratio = 10 })
	b := pack(t, h{name: "zeros", content: strings.Repeat("\x00", freeRatio+1<<20)})
	layer := layerOf(b)
	layer.Size = 4096 // compressed
	if _, err := s.Get(t.Context(), imageOf(layer), quiet); resource.CodeOf(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "far more") {
		t.Fatalf("Get = %v", err)
	}
}

// TestDamaged: a layer that cannot be read to its end, or is no tar, is not
// believed; whose turn it is hangs on whether the bytes are those that came.
func TestDamaged(t *testing.T) {
	t.Parallel()
	whole := pack(t, h{name: "a", content: strings.Repeat("a", 2000)}, h{name: "b", content: "b"})
	failing := layerOf(whole)
	failing.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(whole), failingReader{})), nil
	}
	changed := layerOf(nil)
	changed.Open = func(context.Context) (io.ReadCloser, error) {
		lost := resource.Errorf(codes.DataLoss, "lost").WithCause(resource.CausePlatform)
		return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("no tar at all ", 100)), iotest.ErrReader(lost))), nil
	}
	for name, tc := range map[string]struct {
		layer runtime.Layer
		cause resource.Cause
	}{
		"breaks off": {layerOf(whole[:1500]), resource.CauseInput},
		"no tar":     {layerOf([]byte(strings.Repeat("no tar at all ", 100))), resource.CauseInput},
		"disk":       {failing, resource.CausePlatform},
		"changed":    {changed, resource.CausePlatform},
	} {
		s := newStore(t, nil)
		_, err := s.Get(t.Context(), imageOf(tc.layer), quiet)
		if e, ok := errors.AsType[*resource.Error](err); !ok || e.Cause != tc.cause {
			t.Errorf("%s: Get = %v", name, err)
		}
		if got := list(t, s.dir); strings.Contains(got, rootfsName) {
			t.Errorf("%s: left %s", name, got)
		}
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("wrong digest") }

func TestModes(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		s := newStore(t, func(l *Limits) { l.KeepSetuid = keep })
		tree, err := s.Get(t.Context(), imageOf(layerOf(pack(t, h{name: "su", content: "x", mode: 0o4755}, h{name: "d/", typ: tar.TypeDir, mode: 0o1755}, h{name: "closed/", typ: tar.TypeDir, mode: 0o100}))), quiet)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		for name, want := range map[string]fs.FileMode{"su": 0o755, "d": 0o755 | fs.ModeDir | fs.ModeSticky, "closed": 0o700 | fs.ModeDir} {
			if keep && name == "su" {
				want |= fs.ModeSetuid
			}
			st, err := os.Lstat(filepath.Join(tree.Dir, name))
			if err != nil || st.Mode() != want {
				t.Errorf("keep %v: %s has mode %v, want %v (%v)", keep, name, st.Mode(), want, err)
			}
		}
	}
}

// TestOnce: callers at the same time share one unpacking.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	var opened atomic.Int32
	layer := layerOf(pack(t, h{name: "a", content: "x"}))
	inner := layer.Open
	layer.Open = func(ctx context.Context) (io.ReadCloser, error) {
		opened.Add(1)
		return inner(ctx)
	}
	other := NewStore(s.dir, s.limits, s.ids, s.log, s.now) // another server
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			tree, err := []*Store{s, other}[i%2].Get(t.Context(), imageOf(layer), quiet)
			if err != nil {
				t.Error(err)
				return
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := opened.Load(); got != 1 {
		t.Fatalf("unpacked %d times", got)
	}
}

// TestKilled: what a server leaves that is killed in the middle is never believed.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	img := imageOf(layerOf(pack(t, h{name: "a", content: "whole"})))
	name, err := s.name(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{name + newSuffix, name} { // unpacking, and without its marker
		if err := os.MkdirAll(filepath.Join(s.dir, left, rootfsName), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, left, rootfsName, "half"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := s.Get(t.Context(), img, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got := list(t, tree.Dir); got != "a=whole" {
		t.Fatalf("got %s", got)
	}
}

// TestCollect: the least recently used goes first, and nothing that is used.
func TestCollect(t *testing.T) {
	t.Parallel()
	clock := time.Unix(1_000_000, 0)
	s := newStore(t, func(l *Limits) { l.KeepBytes = 2500 })
	s.now = func() time.Time { return clock }
	var images []runtime.Image
	for i := range 4 {
		images = append(images, imageOf(layerOf(pack(t, h{name: "a", content: strings.Repeat(string(rune('a'+i)), 1000)}))))
	}
	var held *Tree
	for i, order := range []int{0, 1, 2, 3, 1} { // 1 is used again
		clock = clock.Add(time.Minute)
		tree, err := s.Get(t.Context(), images[order], quiet)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			held = tree
			continue
		}
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "rubbish"+newSuffix), 0o700); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Collect(t.Context())
	if err != nil || freed != 2000 {
		t.Fatalf("Collect = %d, %v; want 2000", freed, err)
	}
	for i, want := range []bool{true, true, false, false} {
		name, _ := s.name(images[i].Digest)
		if got := s.complete(filepath.Join(s.dir, name)); got != want {
			t.Errorf("image %d is kept: %v, want %v", i, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "rubbish"+newSuffix)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rubbish is left: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDigestIsAName(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	for _, digest := range []string{"", "sha256:", "sha256:../../x", "sha256:" + strings.Repeat("z", 64), "sha512:" + strings.Repeat("a", 64)} {
		if _, err := s.Get(t.Context(), runtime.Image{Digest: digest}, quiet); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", digest, err)
		}
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, imageOf(layerOf(pack(t, h{name: "a", content: "x"}))), quiet); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// FuzzLayer: whatever a layer is, nothing appears beside the image and nothing panics.
func FuzzLayer(f *testing.F) {
	f.Add(pack(f, h{name: "a/b", content: "x"}, h{name: "a/.wh.b"}, h{name: "l", link: "/etc/passwd", typ: tar.TypeSymlink}, h{name: "l/x", content: "y"}))
	f.Add(pack(f, h{name: "../x", content: "x"}))
	f.Add(pack(f, h{name: "x", link: "../../y", typ: tar.TypeLink}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newStore(t, func(l *Limits) { l.Entries, l.Bytes = 100, 1<<20 })
		tree, err := s.Get(t.Context(), imageOf(layerOf(b)), quiet)
		if err == nil {
			err = tree.Close()
		}
		_ = err // any error will do
		entries, err := os.ReadDir(filepath.Dir(s.dir))
		if err != nil || len(entries) != 1 {
			t.Fatalf("beside the store: %v, %v", entries, err)
		}
	})
}
