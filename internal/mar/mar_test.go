package mar_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/mar"
	"tategu/internal/resource"
)

const manifest = `{"createdOn": "01/02/2026 03:04:05", "runtime": "python", "archiverVersion": "0.12.0",
 "model": {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0", "serializedFile": "m.pt", "configFile": "model-config.yaml"}}`

// entry of an archive that is made.
type entry struct {
	name string
	text string
	mode fs.FileMode // of zip
	kind byte        // of tar
	link string
}

func goodEntries() []entry {
	return []entry{
		{name: "MAR-INF/MANIFEST.json", text: manifest},
		{name: "handler.py", text: "def handle(data, context): pass\n"},
		{name: "m.pt", text: "weights"},
		{name: "model-config.yaml", text: "batchSize: 4\nmaxBatchDelay: 7\n"},
		{name: "lib/deep/a.txt", text: "a"},
	}
}

func zipOf(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(0o644 | e.mode)
		w, err := z.CreateHeader(h)
		if err == nil && !strings.HasSuffix(e.name, "/") {
			_, err = w.Write([]byte(e.text))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	t := tar.NewWriter(g)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: e.kind, Linkname: e.link}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		err := t.WriteHeader(h)
		if err == nil {
			_, err = t.Write([]byte(e.text))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(t.Close(), g.Close()); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// place is a store in a folder that everything in it can be seen.
type place struct {
	mar.Store
	root string
}

func newPlace(tb testing.TB) *place {
	tb.Helper()
	root := tb.TempDir()
	p := &place{root: root}
	p.Models, p.Work = filepath.Join(root, "models"), filepath.Join(root, "work")
	for _, dir := range []string{p.Models, p.Work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

func (p *place) put(tb testing.TB, name string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(p.Models, name), data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// tree lists all below the root.
func (p *place) tree(tb testing.TB) (all []string) {
	tb.Helper()
	err := filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, p.root))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.put(t, "m.mar", zipOf(t, goodEntries()...))
	p.put(t, "m.tgz", tarOf(t, append(goodEntries(), entry{name: "./", kind: tar.TypeDir})...))
	if err := os.CopyFS(filepath.Join(p.Models, "folder"), os.DirFS(unzipped(t, p))); err != nil {
		t.Fatal(err)
	}
	before := p.tree(t)
	for _, name := range []string{"m.mar", "m.tgz", "folder", "file://" + filepath.Join(p.Models, "m.mar")} {
		a, err := p.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		m := a.Manifest.Model
		if m.Name != "m" || m.Version != "1.0" || m.Handler != "handler.py" || *a.Config.BatchSize != 4 || *a.Config.MaxBatchDelay != 7*time.Millisecond || a.Config.MinWorkers != nil {
			t.Errorf("%s: %+v", name, a)
		}
		data, err := os.ReadFile(filepath.Join(a.Dir, "lib", "deep", "a.txt"))
		if err != nil || string(data) != "a" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	}
	if after := p.tree(t); !slices.Equal(before, after) {
		t.Errorf("left behind: %v, before %v", after, before)
	}
}

func unzipped(t *testing.T, p *place) string {
	t.Helper()
	a, err := p.Open(t.Context(), "m.mar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.CopyFS(dir, os.DirFS(a.Dir)), a.Remove()); err != nil {
		t.Fatal(err)
	}
	return dir
}

type objects map[string][]byte

func (o objects) OpenURI(_ context.Context, uri string) (io.ReadCloser, error) {
	data, ok := o[uri]
	if !ok {
		return nil, resource.NotFound(uri)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func TestFetch(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	data := zipOf(t, goodEntries()...)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/m.mar" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	defer server.Close()
	p.Objects, p.HTTP = objects{"gs://b/m.mar": data, "s3://b/m.mar": data}, server.Client()
	before := p.tree(t)
	for _, url := range []string{server.URL + "/m.mar", "gs://b/m.mar", "s3://b/m.mar"} {
		a, err := p.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	}
	var err error
	if p.Allowed, err = mar.ParseAllowed([]string{"gs://b/.*", "http://127.*"}); err != nil {
		t.Fatal(err)
	}
	for url, kind := range map[string]mar.Kind{
		"":                     mar.NotFound,
		"none.mar":             mar.NotFound,
		"../m.mar":             mar.NotFound,
		"a/../../m.mar":        mar.NotFound,
		"/etc/passwd":          mar.NotFound,
		"gs://b/none.mar":      mar.NotFound,
		server.URL + "/x.mar":  mar.Download,
		"s3://b/m.mar":         mar.InvalidURL,
		"file:///etc/passwd":   mar.InvalidURL,
		"xgs://b/m.mar":        mar.InvalidURL,
		"http://127.0.0.1:1/x": mar.Download,
	} {
		_, err := p.Open(t.Context(), url)
		var e *mar.Error
		if !errors.As(err, &e) || e.Kind != kind {
			t.Errorf("%s: %v, want %s", url, err, kind)
		}
	}
	p.Objects, p.HTTP, p.Allowed = nil, nil, nil
	for _, url := range []string{"gs://b/m.mar", "http://h/m.mar", "ftp://h/m.mar"} {
		if _, err := p.Open(t.Context(), url); err == nil {
			t.Errorf("%s is opened", url)
		}
	}
	if after := p.tree(t); !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
	if code := resource.CodeOf(resource.NotFound("x")); code != codes.NotFound {
		t.Error(code)
	}
}

// TestAllowedURLs: what allowed_urls names is what is fetched, whatever a path or a
// redirect says.
func TestAllowedURLs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	data := zipOf(t, goodEntries()...)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		_, _ = w.Write(data)
	}))
	defer server.Close()
	p.HTTP, p.Objects = server.Client(), objects{"gs://b/m/../n.mar": data}
	dir, secret := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(secret, "m.mar"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(dir, filepath.Join(secret, "m.mar"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Allowed, err = mar.ParseAllowed([]string{"file://" + dir + "/.*", "gs://b/m/.*", regexp.QuoteMeta(server.URL) + "/models/.*"}); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		"file://" + dir + "/" + rel,
		"file://" + dir + "/" + strings.ReplaceAll(rel, "..", "%2e%2E"),
		"file://" + dir + "/" + strings.ReplaceAll(rel, "../", "..%2f"),
		"gs://b/m/../n.mar",
		server.URL + "/models/../m.mar",
		server.URL + "/models/%2e%2e/m.mar",
		server.URL + "/models/..%5cm.mar",
		server.URL + "/models/m.mar?to=/other/m.mar",
		server.URL + "/models/m.mar?to=/models/n.mar%3Fto=/m.mar",
		server.URL + "/models/m.mar?to=file:///etc/passwd",
	} {
		_, err := p.Open(t.Context(), ref)
		var e *mar.Error
		if !errors.As(err, &e) || e.Kind != mar.InvalidURL && !strings.Contains(ref, "file:///etc") {
			t.Errorf("%s: %v, want %s", ref, err, mar.InvalidURL)
		}
	}
	for _, ref := range []string{"/models/m..n.mar", "/models/m.mar?to=/models/n.mar"} {
		a, err := p.Open(t.Context(), server.URL+ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		} else if err := a.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// names that lead out of the folder of an archive, or are no names.
func hostileNames() []string {
	names := []string{
		"../evil", "a/../../evil", "/evil", "//evil", "..", "a/..", "a/../..", "../../../../../../../../tmp/evil", `..\evil`, `a\..\..\evil`, `C:\evil`, "C:evil", "c:/evil",
		"a\x00b", "a\nb", "a\x7fb", "\x01", "caf\xe9", "\xff\xfe", "./../evil", "a/./../../evil", "a//../..//evil", "lib/deep/a.txt/evil", "m.pt/evil", "handler.py/../../evil",
		strings.Repeat("a", 300), strings.Repeat("a/", 600) + "b", strings.Repeat("d/", 100) + "b", "MAR-INF/MANIFEST.json/x", "MAR-INF/../../evil", "\\\\server\\share\\evil", "file:///evil", "handler.py:stream",
	}
	return names
}

// hostile makes damaged and hostile archives: at least 200.
func hostile(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	good := goodEntries()
	for i, name := range hostileNames() {
		bad := entry{name: name, text: "evil"}
		all[fmt.Sprintf("name-zip-%d", i)] = zipOf(t, append(slices.Clone(good), bad)...)
		all[fmt.Sprintf("name-zip-first-%d", i)] = zipOf(t, append([]entry{bad}, good...)...)
		if !strings.ContainsRune(name, 0) && len(name) < 200 { // tar cannot hold these
			all[fmt.Sprintf("name-tar-%d", i)] = tarOf(t, append(slices.Clone(good), bad)...)
		}
	}
	for i, mode := range []fs.FileMode{fs.ModeSymlink, fs.ModeDevice, fs.ModeNamedPipe, fs.ModeSocket, fs.ModeDevice | fs.ModeCharDevice} {
		all[fmt.Sprintf("mode-%d", i)] = zipOf(t, append(slices.Clone(good), entry{name: "x", text: "/etc", mode: mode})...)
	}
	for i, kind := range []byte{tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo} {
		all[fmt.Sprintf("kind-%d", i)] = tarOf(t, append(slices.Clone(good), entry{name: "x", kind: kind, link: "/etc/passwd"})...)
		all[fmt.Sprintf("through-%d", i)] = tarOf(t, entry{name: "lib", kind: kind, link: "../.."}, entry{name: "lib/evil", text: "evil"})
	}
	all["twice-zip"] = zipOf(t, append(slices.Clone(good), good[1])...)
	all["twice-tar"] = tarOf(t, append(slices.Clone(good), good[1])...)
	all["file-then-folder"] = zipOf(t, append(slices.Clone(good), entry{name: "handler.py/"})...)
	all["empty"], all["text"], all["zeros"] = nil, []byte("this is no archive"), make([]byte, 4096)
	all["gzip-of-text"] = gzipOf(t, []byte("no tar"))
	all["bomb-zip"] = zipOf(t, append(slices.Clone(good), entry{name: "bomb", text: strings.Repeat("\x00", 3<<20)})...)
	all["bomb-tar"] = tarOf(t, append(slices.Clone(good), entry{name: "bomb", text: strings.Repeat("\x00", 3<<20)})...)
	many := slices.Clone(good)
	for i := range 200 {
		many = append(many, entry{name: fmt.Sprintf("f%d", i)})
	}
	deep := slices.Clone(good)
	for i := range 20 { // each makes ten folders that have no entry
		deep = append(deep, entry{name: fmt.Sprintf("%d/a/b/c/d/e/f/g/h/i/j", i)})
	}
	all["folders-zip"], all["folders-tar"] = zipOf(t, deep...), tarOf(t, deep...)
	all["many-zip"], all["many-tar"] = zipOf(t, many...), tarOf(t, many...)
	for i, text := range badManifests() {
		all[fmt.Sprintf("manifest-%d", i)] = zipOf(t, entry{name: "MAR-INF/MANIFEST.json", text: text}, good[1])
	}
	all["no-manifest"] = zipOf(t, good[1:]...)
	all["manifest-is-folder"] = zipOf(t, entry{name: "MAR-INF/MANIFEST.json/"}, good[1])
	all["huge-manifest"] = zipOf(t, entry{name: "MAR-INF/MANIFEST.json", text: manifest + strings.Repeat(" ", 1<<20)}, good[1])
	for i, text := range []string{"batchSize: [", "batchSize: many", "- a\n- b", "batchSize: -1", "minWorkers: 1.5", "deviceIds: 3", "parallelType: some", "a: &a [*a]", "torchrun: 3", "useJobTicket: perhaps", "\x00", "batchSize: 99999999999999999999"} {
		all[fmt.Sprintf("config-%d", i)] = zipOf(t, good[0], good[1], entry{name: "model-config.yaml", text: text})
	}
	// Cut, and with bytes changed where that must be found.
	z, g := zipOf(t, good...), tarOf(t, good...)
	for i := 1; i <= 40; i++ {
		all[fmt.Sprintf("cut-zip-%d", i)] = z[:len(z)*i/41]
		all[fmt.Sprintf("cut-tar-%d", i)] = g[:len(g)*i/41]
	}
	for i := range 16 {
		changed := slices.Clone(g)
		changed[len(changed)-1-i%8] ^= byte(1 << (i % 7)) // of the checksum and length
		all[fmt.Sprintf("sum-tar-%d", i)] = changed
	}
	return all
}

func gzipOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	_, err := g.Write(data)
	if err := errors.Join(err, g.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func badManifests() []string {
	return []string{
		``, `{`, `[]`, `null`, `{}`, `{"model": null}`, `{"model": {}}`, `{"model": []}`, `{"runtime": "LSP", "model": {"modelName": "m", "modelVersion": "1.0", "handler": "h"}}`,
		`{"model": {"modelName": "../m", "handler": "h"}}`, `{"model": {"modelName": "a/b", "handler": "h"}}`, `{"model": {"modelName": "m", "modelVersion": "../1", "handler": "h"}}`,
		`{"model": {"modelName": "m", "handler": "h", "configFile": "../../etc/passwd"}}`, `{"model": {"modelName": "m", "handler": "h", "configFile": "/etc/passwd"}}`,
		`{"model": {"modelName": "m", "handler": "h", "requirementsFile": "../r.txt"}}`, `{"model": {"modelName": "m", "handler": "h", "serializedFile": "/dev/zero"}}`,
		`{"model": {"modelName": "m", "handler": "h", "modelFile": "..\\m.py"}}`, `{"model": {"modelName": "m", "handler": "h", "configFile": "none.yaml"}}`,
		`{"model": {"modelName": {"a": 1}, "handler": "h"}}`, `{"model": {"modelName": "` + strings.Repeat("m", 300) + `", "handler": "h"}}`, "{\"model\": {\"modelName\": \"m\\u0000\", \"handler\": \"h\"}}",
	}
}

// TestHostile: each is refused with a clear error, and leaves nothing anywhere.
func TestHostile(t *testing.T) {
	t.Parallel()
	all := hostile(t)
	if len(all) < 200 {
		t.Fatalf("%d archives, want 200", len(all))
	}
	p := newPlace(t)
	p.Limits = mar.Limits{Bytes: 2 << 20, Entries: 150}
	for name, data := range all {
		p.put(t, "m.mar", data)
		before := p.tree(t)
		a, err := p.Open(t.Context(), "m.mar")
		var e *mar.Error
		if err == nil {
			t.Errorf("%s is opened: %+v", name, a.Manifest)
			continue
		}
		if !errors.As(err, &e) || e.Kind != mar.Invalid || e.Message == "" || strings.ContainsRune(e.Message, 0) || len(e.Message) > 2000 {
			t.Errorf("%s: %T %.300v", name, err, err)
		}
		if after := p.tree(t); !slices.Equal(before, after) {
			t.Fatalf("%s leaves %v, before it was %v", name, after, before)
		}
	}
}

// TestLimits: what unpacks to too much is stopped while it does.
func TestLimits(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	big := entry{name: "big", text: strings.Repeat("\x00", 80<<20)}
	for name, data := range map[string][]byte{"zip": zipOf(t, append(goodEntries(), big)...), "tar": tarOf(t, append(goodEntries(), big)...)} {
		p.put(t, "m.mar", data)
		p.Limits = mar.Limits{Ratio: 100}
		if _, err := p.Open(t.Context(), "m.mar"); err == nil || !strings.Contains(err.Error(), "more than 100 times its size") {
			t.Errorf("%s: %v", name, err)
		}
		p.Limits = mar.Limits{Ratio: 10_000}
		a, err := p.Open(t.Context(), "m.mar")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	}
}
