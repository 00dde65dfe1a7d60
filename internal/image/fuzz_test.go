package image_test

import (
	"encoding/json"
	"testing"

	"tategu/internal/image"
)

// FuzzReference: what is read as a reference is written as one that reads the same.
func FuzzReference(f *testing.F) {
	for _, s := range []string{
		"python", "python:3.11", "localhost:8090/a/b:c", "r.example/x@" + fakeDigest(1), "a:b@" + fakeDigest(2),
		"a__b--c.d", "a..b", "A", "a/", ":", "@", "a:", "localhost/x", "x@sha512:00", "a_-b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := image.ParseReference(s)
		if err != nil {
			if code(err) == "" {
				t.Errorf("%q: an error without a code: %v", s, err)
			}
			return
		}
		again, err := image.ParseReference(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v and then %+v, %v", s, r, again, err)
		}
		if err := image.CheckName(r.Path); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if _, _, err := image.ParseVersion(r.Version()); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// FuzzManifest: what is taken as a manifest names only digests, and reads the same
// when it was written again.
func FuzzManifest(f *testing.F) {
	d := `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + fakeDigest(1) + `","size":3}`
	for _, s := range []string{
		`{}`, `[]`, `null`, `{"schemaVersion":1}`, `{"schemaVersion":2,"config":` + d + `,"layers":[` + d + `]}`,
		`{"schemaVersion":2,"mediaType":"` + image.TypeOCIIndex + `","manifests":[` + d + `],"subject":` + d + `}`,
		`{"schemaVersion":2,"config":` + d + `,"layers":[{"digest":"sha256:x","size":-1}]}`,
		`{"schemaVersion":2,"mediaType":"` + image.TypeDockerManifest + `","config":` + d + `} `,
		`{"schemaVersion":2,"config":` + d + `,"manifests":[` + d + `]}`,
	} {
		f.Add("", s)
		f.Add(image.TypeOCIManifest, s)
	}
	f.Fuzz(func(t *testing.T, contentType, s string) {
		m, err := image.ParseManifest(contentType, []byte(s))
		if err != nil {
			if code(err) == "" {
				t.Errorf("%q: an error without a code: %v", s, err)
			}
			return
		}
		for _, d := range append(append([]image.Descriptor{}, m.Layers...), m.Manifests...) {
			if _, err := image.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Errorf("%q names %+v", s, d)
			}
		}
		if m.IsIndex() == (m.Config != nil) {
			t.Errorf("%q is an index and an image, or neither", s)
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := image.ParseManifest("", raw); err != nil && len(raw) <= image.MaxManifest {
			t.Errorf("%q reads once only: %v", s, err)
		}
	})
}

// FuzzConfig pushes an image with any config: it is run or refused, and no more.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`, `{"config":{"Env":null,"User":5}}`,
		`{"rootfs":{"diff_ids":["sha256:1"]}}`, `{"rootfs":{"type":"base"}}`, `{"created":"yesterday"}`, `{"config":{"ExposedPorts":{"80":{}}}}`, `[`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := newWorld(t)
		c := w.blob("app", []byte(s))
		c.MediaType = ociConfig
		w.manifest("app", "v1", image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &c})
		img, err := w.images().Image(t.Context(), "app:v1")
		if err == nil && img.Digest == "" {
			t.Error("an image without a digest")
		}
	})
}
