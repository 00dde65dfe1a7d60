package registry

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"tategu/internal/image"
)

// manifest answers for one manifest by tag or digest: GET, HEAD, PUT, DELETE.
func (c *call) manifest() error {
	if err := c.only(http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	if err := c.may(c.permission()); err != nil {
		return err
	}
	switch c.r.Method {
	case http.MethodPut:
		return c.putManifest()
	case http.MethodDelete:
		if err := c.Images.DeleteManifest(c.ctx(), c.repo.Name, c.last); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	st, err := c.Images.Manifest(c.ctx(), c.repo.Name, c.last)
	if err != nil {
		return err
	}
	if st, err = c.negotiate(st); err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Docker-Content-Digest", string(st.Digest))
	h.Set("ETag", `"`+string(st.Digest)+`"`)
	if c.unchanged(st.Digest) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", st.MediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(st.Raw)))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodGet {
		_, _ = c.w.Write(st.Raw) // the caller may be gone
	}
	return nil
}

func (c *call) putManifest() error {
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, image.MaxManifest))
	if err != nil {
		return fmt.Errorf("receive manifest: %w", err)
	}
	st, m, err := c.Images.PutManifest(c.ctx(), c.repo, c.last, c.r.Header.Get("Content-Type"), raw)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo.Name+"/manifests/"+string(st.Digest))
	h.Set("Docker-Content-Digest", string(st.Digest))
	if m.Subject != nil {
		h.Set("OCI-Subject", string(m.Subject.Digest))
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// negotiate gives what the client accepts. One that asks for a tag and reads no
// indexes gets the image for this server's own machine; anything else that it does
// not read is refused, since another form would have another digest.
func (c *call) negotiate(st image.Stored) (image.Stored, error) {
	accepted := accepts(c.r.Header.Values("Accept"))
	if accepted(st.MediaType) {
		return st, nil
	}
	m, err := image.ParseManifest(st.MediaType, st.Raw)
	if err != nil {
		return st, err
	}
	if m.IsIndex() && !strings.Contains(c.last, ":") {
		for _, d := range m.Manifests {
			if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != runtime.GOARCH || !accepted(d.MediaType) {
				continue
			}
			return c.Images.Manifest(c.ctx(), c.repo.Name, string(d.Digest))
		}
	}
	return st, image.Refuse(image.ErrManifestUnknown, "the manifest is of type %s, which the request does not accept", st.MediaType).
		WithHint("name the type in the Accept header")
}

// accepts reads Accept headers. None, and wildcards, take everything; so does JSON,
// which old clients write.
func accepts(headers []string) func(mediaType string) bool {
	all := true
	types := map[string]bool{}
	for _, header := range headers {
		for part := range strings.SplitSeq(header, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			all = false
			mediaType, params, err := mime.ParseMediaType(part)
			if err != nil || isZero(params["q"]) {
				continue
			}
			types[mediaType] = true
		}
	}
	if all || types["*/*"] || types["application/*"] || types["application/json"] {
		return func(string) bool { return true }
	}
	return func(mediaType string) bool { return types[mediaType] }
}

func isZero(q string) bool {
	if q == "" {
		return false
	}
	f, err := strconv.ParseFloat(q, 64)
	return err == nil && f == 0
}

// referrers lists what refers to a manifest, as an index.
func (c *call) referrers() error {
	if err := c.only(http.MethodGet); err != nil {
		return err
	}
	if err := c.may(PermissionRead); err != nil {
		return err
	}
	d, err := image.ParseDigest(c.last)
	if err != nil {
		return err
	}
	artifactType := c.r.URL.Query().Get("artifactType")
	found, err := c.Images.Referrers(c.ctx(), c.repo.Name, d, artifactType)
	if err != nil {
		return err
	}
	if artifactType != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	c.w.Header().Set("Content-Type", image.TypeOCIIndex)
	writeJSON(c.w, http.StatusOK, map[string]any{"schemaVersion": 2, "mediaType": image.TypeOCIIndex, "manifests": found})
	return nil
}
