package modelcache

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tategu/internal/resource"
)

func TestListing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		objects []string
		uri     string
		want    string // names, or the error
	}{
		{"a folder", []string{"d/a", "d/sub/b", "d2/c", "d.txt"}, "gs://b/d", "a sub/b"},
		{"with a slash", []string{"d/a", "d/sub/b", "d2/c"}, "gs://b/d/", "a sub/b"},
		{"a bucket", []string{"a", "b/c"}, "gs://b", "a b/c"},
		{"one object", []string{"d/m.onnx", "d/m.onnx.old"}, "gs://b/d/m.onnx", "m.onnx"},
		{"an object wins over a folder of its name", []string{"d", "d/a"}, "gs://b/d", "d"},
		{"markers of folders", []string{"d/", "d/a", "d/sub/"}, "gs://b/d", "a"},
		{"nothing", []string{"dd/a"}, "gs://b/d", "no object is at or below gs://b/d"},
		{"another scheme", nil, "s3://b/d", "is not gs://"},
		{"up", []string{"d/../x"}, "gs://b/d", `it has the segment ".."`},
		{"an empty segment", []string{"d//x"}, "gs://b/d", "it has an empty segment"},
		{"a NUL", []string{"d/a\x00b"}, "gs://b/d", "it holds a NUL"},
		{"too long", []string{"d/" + strings.Repeat("n", 256)}, "gs://b/d", "the most is 255"},
		{"object and folder", []string{"d/a", "d/a/b"}, "gs://b/d", `"a" is an object and a folder`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			for _, name := range c.objects {
				w.objects[name] = []byte("text")
				if strings.HasSuffix(name, "/") {
					w.objects[name] = nil
				}
			}
			l, err := list(t.Context(), w, "test", c.uri)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v, want %q", err, c.want)
				}
				return
			}
			names := make([]string, len(l.files))
			for i, f := range l.files {
				names[i] = f.Name
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("files are %q, want %q", got, c.want)
			}
		})
	}
}

// TestDigest: equal names and contents are one digest, wherever they are; forged
// checksums cannot make other files equal.
func TestDigest(t *testing.T) {
	t.Parallel()
	digest := func(origin, folder string, objects ...Object) string {
		l, err := newListing(origin, folder, objects)
		if err != nil {
			t.Fatal(err)
		}
		return l.digest
	}
	a := Object{Bucket: "b", Name: "x/a", Size: 1, CRC32C: "AAAAAA==", MD5: "m", Generation: 1}
	moved, renamed, changed, resized := a, a, a, a
	moved.Bucket, moved.Name, moved.Generation = "c", "y/a", 2
	renamed.Name, changed.MD5, resized.Size = "x/b", "n", 2
	if digest("s", "x/", a) != digest("other", "y/", moved) {
		t.Error("the same file at another place has another digest")
	}
	for _, o := range []Object{renamed, changed, resized} {
		if digest("s", "x/", a) == digest("s", "x/", o) {
			t.Errorf("%+v has the digest of %+v", o, a)
		}
	}
	a.MD5, moved.MD5 = "", ""
	later := a
	later.Generation++
	if one, two := digest("s", "x/", a), digest("s", "x/", a); one != two {
		t.Error("the same generation has two digests")
	}
	if digest("s", "x/", a) == digest("s", "y/", moved) || digest("s", "x/", a) == digest("t", "x/", a) || digest("s", "x/", a) == digest("s", "x/", later) {
		t.Error("a CRC32C alone makes files equal")
	}
}

func FuzzListing(f *testing.F) {
	for _, s := range []string{"a", "a\na/b", "../up", "a/../../b", "/abs", "C:\\x", "a\x00", "..", "a//b", "a/./b", "a\na"} {
		f.Add(s, "d/")
	}
	f.Fuzz(func(t *testing.T, names, folder string) {
		var objects []Object
		for name := range strings.SplitSeq(names, "\n") {
			objects = append(objects, Object{Bucket: "b", Name: folder + name, CRC32C: "AAAAAA=="})
		}
		l, err := newListing("s", folder, objects)
		if err != nil {
			return
		}
		root := string(filepath.Separator) + "cache"
		paths := map[string]bool{}
		for _, file := range l.files {
			at := filepath.Join(root, file.path)
			if !filepath.IsLocal(file.path) || !strings.HasPrefix(at, root+string(filepath.Separator)) || paths[at] {
				t.Errorf("%q of %q is at %q", file.Name, names, at)
			}
			paths[at] = true
		}
		if len(paths) != len(objects) || !slices.IsSortedFunc(l.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%q gives %d files", names, len(paths))
		}
	})
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"m", "m@champion", "123@4", "my model@default", "projects/p/locations/l/models/m", "projects/p/locations/l/models/m@a"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "@a", "m@", "m@a@b", "m@a/b", "a/b", "projects/p/locations/l/endpoints/m", "m\n", "m\x00", strings.Repeat("m", 2000)} {
		if err := CheckName(name); resource.CodeOf(err).String() != "InvalidArgument" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzRecall(f *testing.F) {
	f.Add([]byte(`{"name":"m","version":{"model":"x","version":"1"},"digest":"../../etc"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWorld()
		l := w.loader(t, tempDir(t))
		if err := writeFile(l.Cache.nameFile("test", "m"), text); err != nil {
			t.Fatal(err)
		}
		if local, err := l.LastKnown(context.Background(), "m"); err == nil {
			t.Errorf("%q gives %+v", text, local)
		}
	})
}
