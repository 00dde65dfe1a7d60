//go:build linux

package durability

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fixture is the expect.json of test/upgrade/fixture.py.
type fixture struct {
	Objects   []fixtureObject
	Resources map[string]struct{ DisplayName, State string }
	Model     string
	Versions  int `json:"modelVersions"`
	Upload    struct {
		ID, Bucket, Name, Seed string
		Received, Size         int
	}
	Endpoint struct {
		Name                   string
		Instances, Predictions json.RawMessage
	}
}

// fixtureObject has the fields of the storage API that do not change.
type fixtureObject struct {
	Bucket, Name, Generation, CRC32C, MD5Hash, ContentType, Size string
	Metadata                                                     map[string]string
	SHA256                                                       []byte
}

// TestUpgrade opens the data directory of each released schema: it serves, every
// object reads back as it was, and work that was under way goes on.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/schema-*.tar.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			unpack(t, path, data)
			text, err := os.ReadFile(filepath.Join(data, "expect.json"))
			if err != nil {
				t.Fatal(err)
			}
			var f fixture
			if err := json.Unmarshal(text, &f); err != nil {
				t.Fatal(err)
			}
			s := start(t, data, options{})
			f.checkObjects(t, s)
			f.checkResources(t, s)
			s.stop()
			s = start(t, data, options{})
			f.finishUpload(t, s)
			f.overwrite(t, s)
			f.checkResources(t, s)
		})
	}
}

func unpack(t *testing.T, path, dir string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || !filepath.IsLocal(h.Name) {
			t.Fatalf("%s: %q, %v", path, h.Name, err)
		}
		name := filepath.Join(dir, h.Name)
		content, err := io.ReadAll(io.LimitReader(r, 16<<20))
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fixture) checkObjects(t *testing.T, s *server) {
	t.Helper()
	if len(f.Objects) == 0 {
		t.Fatal("the fixture has no objects")
	}
	for _, want := range f.Objects {
		raw := s.do(http.MethodGet, objectPath(want.Bucket, want.Name), "")
		got := fixtureObject{SHA256: want.SHA256}
		raw.decode(t, &got)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s, want %+v", want.Name, raw, want)
		}
		content := s.do(http.MethodGet, objectPath(want.Bucket, want.Name)+"?alt=media", "")
		if sum := sha256.Sum256(content.body); content.status != http.StatusOK || !bytes.Equal(sum[:], want.SHA256) {
			t.Errorf("content of %s: %d, %d bytes of another hash", want.Name, content.status, len(content.body))
		}
	}
}

func (f *fixture) checkResources(t *testing.T, s *server) {
	t.Helper()
	lists := map[string][]string{} // names by collection
	for name, want := range f.Resources {
		var got struct{ Name, DisplayName, State string }
		s.get("/v1/"+name, &got)
		if got.Name != name || got.DisplayName != want.DisplayName || got.State != want.State {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		parent := name[:strings.LastIndexByte(name, '/')]
		lists[parent] = append(lists[parent], name)
	}
	for parent, want := range lists {
		collection := parent[strings.LastIndexByte(parent, '/')+1:]
		var page map[string]json.RawMessage
		s.get("/v1/"+parent, &page)
		var items []struct{ Name string }
		if err := json.Unmarshal(page[collection], &items); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range items {
			got = append(got, i.Name)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", parent, got, want)
		}
	}
	var versions struct{ Models []json.RawMessage }
	s.get("/v1/"+f.Model+":listVersions", &versions)
	if len(versions.Models) != f.Versions {
		t.Errorf("%d model versions, want %d", len(versions.Models), f.Versions)
	}
	var scores struct{ Predictions json.RawMessage }
	s.do(http.MethodPost, "/v1/"+f.Endpoint.Name+":predict", fmt.Sprintf(`{"instances":%s}`, f.Endpoint.Instances)).decode(t, &scores)
	var got, want []float64
	if err := errors.Join(json.Unmarshal(scores.Predictions, &got), json.Unmarshal(f.Endpoint.Predictions, &want)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("predictions %v, want %v", got, want)
	}
}

// fixtureText is text() of fixture.py.
func fixtureText(size int, seed string) string {
	line := seed + " the quick brown fox\n"
	return strings.Repeat(line, size/len(line)+1)[:size]
}

func (f *fixture) finishUpload(t *testing.T, s *server) {
	t.Helper()
	u := f.Upload
	path := "/upload/storage/v1/b/" + u.Bucket + "/o?uploadType=resumable&upload_id=" + u.ID
	size := strconv.Itoa(u.Size)
	asked := s.do(http.MethodPut, path, "", "Content-Range", "bytes */"+size)
	if asked.status != http.StatusPermanentRedirect || asked.header.Get("Range") != fmt.Sprintf("bytes=0-%d", u.Received-1) {
		t.Fatalf("the upload is at %q, answered %s", asked.header.Get("Range"), asked)
	}
	whole := fixtureText(u.Size, u.Seed)
	last := s.do(http.MethodPut, path, whole[u.Received:], "Content-Range", fmt.Sprintf("bytes %d-%d/%d", u.Received, u.Size-1, u.Size))
	if last.status != http.StatusOK {
		t.Fatalf("the last piece was answered %s", last)
	}
	if got := s.do(http.MethodGet, objectPath(u.Bucket, u.Name)+"?alt=media", ""); string(got.body) != whole {
		t.Errorf("the finished upload reads %d bytes, want %d", len(got.body), len(whole))
	}
}

// overwrite checks that old rows can be replaced and that generations grow.
func (f *fixture) overwrite(t *testing.T, s *server) {
	t.Helper()
	old := f.Objects[0]
	var got fixtureObject
	s.do(http.MethodPost, "/upload/storage/v1/b/"+old.Bucket+"/o?uploadType=media&ifGenerationMatch="+old.Generation+"&name="+old.Name, "new").decode(t, &struct{ Generation *string }{&got.Generation})
	if got.Generation <= old.Generation {
		t.Errorf("generation %s after %s", got.Generation, old.Generation)
	}
}
