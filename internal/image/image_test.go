package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/image"
	"tategu/internal/runtime"
)

// code of an error, or "" when it has none.
func code(err error) image.Code {
	c, _ := errors.AsType[image.Code](err)
	return c
}

func TestImageOfEachCompression(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := strings.Repeat("text that compresses. ", 100_000)
	plain := tarOf(t, "file", big)
	id := "sha256:" + hexOf(plain)
	w.push("app", "v1", here(),
		layer{ociLayer, plain, id},
		layer{ociLayer + "+gzip", gzipped(t, plain), id},
		layer{ociLayer + "+zstd", zstded(t, plain), id},
		layer{"application/vnd.docker.image.rootfs.diff.tar.gzip", append(gzipped(t, plain[:1000]), gzipped(t, plain[1000:])...), id},
	)
	img, err := w.images().Image(t.Context(), "app:v1")
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range img.Layers {
		r, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("layer %d: %d bytes, %v", i, len(got), err)
		}
	}
	want := runtime.ImageConfig{
		Env: []string{"A=b"}, User: "1:2", WorkingDir: "/w", Entrypoint: []string{"/run"}, Cmd: []string{"x"}, Ports: []string{"8080/tcp"},
	}
	if d := cmp.Diff(want, img.Config); d != "" {
		t.Error(d)
	}
}

func TestLayersThatAreNotWhatTheySay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := tarOf(t, "file", strings.Repeat("x", 100_000))
	id := "sha256:" + hexOf(plain)
	zipped := gzipped(t, plain)
	for name, l := range map[string]layer{
		"other content":   {ociLayer, tarOf(t, "file", "other"), id},
		"truncated gzip":  {ociLayer + "+gzip", zipped[:len(zipped)-20], id},
		"damaged gzip":    {ociLayer + "+gzip", append([]byte{0x1f, 0x8b, 8, 0}, bytes.Repeat([]byte{0xff}, 100)...), id},
		"truncated zstd":  {ociLayer + "+zstd", zstded(t, plain)[:30], id},
		"half of the tar": {ociLayer, plain[:50_000], id},
		"more than it":    {ociLayer, append(bytes.Clone(plain), "more"...), id},
		"empty":           {ociLayer, nil, id},
	} {
		t.Run(name, func(t *testing.T) {
			repoName := "bad/" + strings.ReplaceAll(name, " ", "-")
			w.push(repoName, "v1", here(), l)
			img, err := w.images().Image(t.Context(), repoName+":v1")
			if err != nil {
				t.Fatal(err)
			}
			r, err := img.Layers[0].Open(t.Context())
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				err = errors.Join(err, r.Close())
			}
			if err == nil || !strings.Contains(err.Error(), id) {
				t.Errorf("reading gave %v", err)
			}
		})
	}
}

func TestRefusedByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := tarOf(t, "f", "x")
	id := "sha256:" + hexOf(data)
	other := image.Platform{OS: "linux", Architecture: "s390x"}
	w.push("foreign", "latest", here(), layer{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", data, id})
	w.push("nondist", "latest", here(), layer{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", data, id})
	w.push("secret", "latest", here(), layer{ociLayer + "+gzip+encrypted", data, id})
	w.push("lz4", "latest", here(), layer{ociLayer + "+lz4", data, id})
	w.push("mainframe", "latest", other, layer{ociLayer, data, id})
	st := w.push("windows", "latest", image.Platform{OS: "windows", Architecture: "amd64"}, layer{ociLayer, data, id})
	w.manifest("windows", "all", index(desc(st, &image.Platform{OS: "windows", Architecture: "amd64"})))
	empty := w.blob("artifact", []byte("{}"))
	empty.MediaType = "application/vnd.oci.empty.v1+json"
	w.manifest("artifact", "latest", image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &empty})
	for reference, want := range map[string]string{
		"foreign": "foreign", "nondist": "foreign", "secret": "encrypted", "lz4": "+lz4", "mainframe": "linux/s390x", "windows": "windows/amd64",
		"windows:all": "windows/amd64", "artifact": "not a container image",
		"absent:v2": "tategu image pull absent:v2", "Upper": "not a repository's name", "app@sha256:12": "hex digits",
	} {
		if _, err := w.find(reference); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", reference, err, want)
		}
	}
}

func TestReferencesFindTheSameImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	local, hub, other := w.simple("team/app", "v1", "local"), w.simple("docker.io/library/python", "3.11", "hub"), w.simple("registry.example_5000/team/app", "v1", "other")
	for reference, want := range map[string]image.Digest{
		"team/app:v1":                           local.Digest,
		"localhost:8090/team/app:v1":            local.Digest,
		"team/app@" + string(local.Digest):      local.Digest,
		"team/app:gone@" + string(local.Digest): local.Digest,
		string(local.Digest):                    local.Digest,
		"python:3.11":                           hub.Digest,
		"library/python:3.11":                   hub.Digest,
		"docker.io/python:3.11":                 hub.Digest,
		"index.docker.io/library/python:3.11":   hub.Digest,
		"registry.example:5000/team/app:v1":     other.Digest,
	} {
		if got, err := w.find(reference); got != string(want) {
			t.Errorf("%s is %s, %v, want %s", reference, got, err, want)
		}
	}
}

func TestIndexesGiveTheImageOfThisMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := w.simple("app", "mine", "mine")
	data := tarOf(t, "f", "theirs")
	theirs := w.push("app", "theirs", image.Platform{OS: "linux", Architecture: "s390x"}, layer{ociLayer, data, "sha256:" + hexOf(data)})
	p, q := here(), image.Platform{OS: "linux", Architecture: "s390x"}
	w.manifest("app", "both", index(desc(theirs, &q), desc(mine, &p)))
	w.manifest("app", "unnamed", index(desc(theirs, nil), desc(mine, nil)))
	attested := desc(theirs, &image.Platform{OS: "unknown", Architecture: "unknown"})
	w.manifest("app", "attested", index(attested, desc(mine, &p)))
	inner := w.manifest("app", "inner", index(desc(mine, &p)))
	w.manifest("app", "nested", index(desc(inner, nil)))
	for _, tag := range []string{"both", "unnamed", "attested", "nested"} {
		if got, err := w.find("app:" + tag); got != string(mine.Digest) {
			t.Errorf("%s is %s, %v", tag, got, err)
		}
	}
	deep := inner
	for range 6 {
		deep = w.manifest("app", "deep", index(desc(deep, nil)))
	}
	if _, err := w.find("app:deep"); code(err) != image.ErrManifestInvalid {
		t.Errorf("indexes seven deep: %v", err)
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := w.blob("app", []byte(`{"os":"linux"}`))
	config.MediaType = ociConfig
	list := func(n int) []image.Descriptor {
		all := make([]image.Descriptor, n)
		for i := range all {
			all[i] = image.Descriptor{MediaType: ociLayer, Digest: image.Digest(fakeDigest(i)), Size: 1}
		}
		return all
	}
	wrongSize := config
	wrongSize.Size++
	m := func(change func(*image.Manifest)) []byte {
		c := config
		v := image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &c}
		change(&v)
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, tt := range map[string]struct {
		raw     []byte
		version string
		want    image.Code
	}{
		"not JSON":         {[]byte("<xml/>"), "v1", image.ErrManifestInvalid},
		"more than JSON":   {append(m(func(*image.Manifest) {}), '{'), "v1", image.ErrManifestInvalid},
		"schema 1":         {[]byte(`{"schemaVersion":1}`), "v1", image.ErrManifestInvalid},
		"no schema":        {[]byte(`{}`), "v1", image.ErrManifestInvalid},
		"unknown type":     {m(func(m *image.Manifest) { m.MediaType = "text/plain" }), "v1", image.ErrManifestInvalid},
		"no config":        {m(func(m *image.Manifest) { m.Config = nil }), "v1", image.ErrManifestInvalid},
		"both kinds":       {m(func(m *image.Manifest) { m.Manifests = list(1) }), "v1", image.ErrManifestInvalid},
		"index + layers":   {m(func(m *image.Manifest) { m.MediaType = image.TypeOCIIndex }), "v1", image.ErrManifestInvalid},
		"unknown layer":    {m(func(m *image.Manifest) { m.Layers = list(1) }), "v1", image.ErrManifestBlobUnknown},
		"unknown manifest": {m(func(m *image.Manifest) { m.MediaType, m.Config, m.Manifests = image.TypeOCIIndex, nil, list(1) }), "v1", image.ErrManifestBlobUnknown},
		"100,000 layers":   {m(func(m *image.Manifest) { m.Layers = list(100_000) }), "v1", image.ErrManifestInvalid},
		"5,000 layers":     {m(func(m *image.Manifest) { m.Layers = list(5000) }), "v1", image.ErrManifestInvalid},
		"giant":            {m(func(m *image.Manifest) { m.Annotations = map[string]string{"a": strings.Repeat("x", 5<<20)} }), "v1", image.ErrManifestInvalid},
		"wrong size":       {m(func(m *image.Manifest) { m.Config = &wrongSize }), "v1", image.ErrManifestInvalid},
		"negative size":    {m(func(m *image.Manifest) { m.Config.Size = -1 }), "v1", image.ErrManifestInvalid},
		"sizes overflow":   {m(func(m *image.Manifest) { m.Layers = list(2); m.Layers[0].Size, m.Layers[1].Size = 1<<63-1, 1<<63-1 }), "v1", image.ErrManifestInvalid},
		"bad digest":       {m(func(m *image.Manifest) { m.Config.Digest = "sha256:../../x" }), "v1", image.ErrManifestInvalid},
		"other digest":     {m(func(*image.Manifest) {}), fakeDigest(1), image.ErrDigestInvalid},
		"bad tag":          {m(func(*image.Manifest) {}), "..", image.ErrManifestInvalid},
	} {
		if _, _, err := w.PutManifest(t.Context(), repo("app"), tt.version, "", tt.raw); code(err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if tags, err := w.Tags(t.Context(), "app", "", 0); err != nil || len(tags) != 0 {
		t.Errorf("tags %v, %v after refusals", tags, err)
	}
	if _, _, err := w.PutManifest(t.Context(), repo("app"), "v1", image.TypeDockerManifest, m(func(*image.Manifest) {})); code(err) != image.ErrManifestInvalid {
		t.Errorf("sent as another type: %v", err)
	}
}

func TestBlobsAreCheckedOnTheWayIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 300_000} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		d := image.DigestOf(data)
		broken := io.MultiReader(bytes.NewReader(data[:size/2]), iotest.ErrReader(errors.New("connection lost")))
		if _, err := w.PutBlob(t.Context(), repo("app"), d, broken); err == nil {
			t.Errorf("%d bytes: a broken body was taken", size)
		}
		if _, err := w.PutBlob(t.Context(), repo("app"), d, strings.NewReader(string(data)+"x")); code(err) != image.ErrDigestInvalid {
			t.Errorf("%d bytes and one more: %v", size, err)
		}
		if _, err := w.Blob(t.Context(), "app", d); code(err) != image.ErrBlobUnknown {
			t.Errorf("%d bytes: the refused blob is there: %v", size, err)
		}
		for range 2 { // again changes nothing
			if _, err := w.PutBlob(t.Context(), repo("app"), d, iotest.OneByteReader(bytes.NewReader(data))); err != nil {
				t.Fatal(err)
			}
		}
		b, err := w.Blob(t.Context(), "app", d)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][2]int64{{0, -1}, {0, 0}, {int64(size) / 2, -1}, {int64(size) / 3, 1}} {
			want := data[part[0]:]
			if part[1] >= 0 {
				want = want[:min(part[1], int64(len(want)))]
			}
			r, err := w.OpenBlob(t.Context(), b, part[0], part[1])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, part %v: %d bytes, %v", size, part, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := w.Blob(t.Context(), "other", d); code(err) != image.ErrBlobUnknown {
			t.Errorf("another repository sees the blob: %v", err)
		}
	}
	if checked, err := w.Check(t.Context(), func(d image.Digest, err error) { t.Error(d, err) }); err != nil || checked.Blobs != 5 {
		t.Errorf("checked %+v, %v", checked, err)
	}
	// What was refused or came twice left no content behind.
	if swept, err := w.blobs.Sweep(t.Context(), -1); err != nil || swept.Contents != 0 {
		t.Errorf("swept %+v, %v", swept, err)
	}
}

func TestBrokenPiecesAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	u, err := w.StartUpload(t.Context(), repo("app"))
	if err != nil {
		t.Fatal(err)
	}
	for from := 0; from < len(data); from += 30_000 {
		to := min(from+30_000, len(data))
		broken := io.MultiReader(bytes.NewReader(data[from:to]), iotest.ErrReader(errors.New("connection lost")))
		u, err = w.AppendUpload(t.Context(), "app", u.ID, int64(from), -1, broken)
		if err == nil || u.Received != int64(to) {
			t.Fatalf("%d bytes received of %d, %v", u.Received, to, err)
		}
	}
	// A piece that is longer than announced is not taken at all.
	if u, err = w.AppendUpload(t.Context(), "app", u.ID, image.AtEnd, 2, strings.NewReader("more")); code(err) != image.ErrSizeInvalid || u.Received != int64(len(data)) {
		t.Errorf("%d bytes, %v", u.Received, err)
	}
	b, err := w.FinishUpload(t.Context(), "app", u.ID, image.DigestOf(data))
	if err != nil || b.Size != int64(len(data)) {
		t.Errorf("%+v, %v", b, err)
	}
}
