package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
)

// Media types of manifests and configs.
const (
	TypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	TypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"

	typeOCIConfig    = "application/vnd.oci.image.config.v1+json"
	typeDockerConfig = "application/vnd.docker.container.image.v1+json"
	typeOCILayer     = "application/vnd.oci.image.layer.v1.tar"
	typeDockerLayer  = "application/vnd.docker.image.rootfs.diff.tar"
)

// Descriptor points at a blob or a manifest.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Manifest is a manifest of an image (or of anything else) or an index of manifests.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// ParseManifest reads a manifest. contentType is how it was announced; "" means
// that its own mediaType counts.
func ParseManifest(contentType string, raw []byte) (Manifest, error) {
	var m Manifest
	if len(raw) > MaxManifest {
		return m, Refuse(ErrManifestInvalid, "a manifest has at most %d bytes, this one %d", MaxManifest, len(raw))
	}
	contentType, _, _ = strings.Cut(contentType, ";")
	contentType = strings.TrimSpace(contentType)
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&m); err != nil {
		return m, Refuse(ErrManifestInvalid, "the manifest is not the JSON that it should be: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return m, Refuse(ErrManifestInvalid, "more follows the JSON of the manifest")
	}
	if m.SchemaVersion == 1 {
		return m, Refuse(ErrManifestInvalid, "Docker's manifest schema 1 is not supported").WithHint("push the image again with a client of the last ten years")
	}
	if m.SchemaVersion != 2 {
		return m, Refuse(ErrManifestInvalid, "schemaVersion is %d and not 2", m.SchemaVersion)
	}
	if contentType != "" && m.MediaType != "" && contentType != m.MediaType {
		return m, Refuse(ErrManifestInvalid, "the manifest says it is %.100q and was sent as %.100q", m.MediaType, contentType)
	}
	if m.MediaType == "" {
		m.MediaType = contentType
	}
	if m.MediaType == "" {
		m.MediaType = TypeOCIManifest // the specification lets both be absent in a layout
		if m.Manifests != nil {
			m.MediaType = TypeOCIIndex
		}
	}
	return m, m.check()
}

// IsIndex reports an index, a list of manifests.
func (m Manifest) IsIndex() bool { return m.MediaType == TypeOCIIndex || m.MediaType == TypeDockerList }

func (m Manifest) check() error {
	switch m.MediaType {
	case TypeOCIIndex, TypeDockerList:
		// Readers that look at the other fields must not see another image.
		if m.Config != nil || len(m.Layers) > 0 {
			return Refuse(ErrManifestInvalid, "an index has no config and no layers")
		}
	case TypeOCIManifest, TypeDockerManifest:
		if m.Config == nil {
			return Refuse(ErrManifestInvalid, "the manifest has no config")
		}
		if len(m.Manifests) > 0 {
			return Refuse(ErrManifestInvalid, "a manifest of an image lists no manifests")
		}
	default:
		return Refuse(ErrManifestInvalid, "manifests of type %.100q are not supported", m.MediaType)
	}
	if n := len(m.Layers) + len(m.Manifests); n > maxDescriptors {
		return Refuse(ErrManifestInvalid, "the manifest names %d blobs, the most is %d", n, maxDescriptors)
	}
	for what, list := range map[string][]Descriptor{"config": m.config(), "layer": m.Layers, "manifest": m.Manifests, "subject": m.subject()} {
		for i := range list {
			if err := list[i].check(what); err != nil {
				return err
			}
		}
	}
	if m.total() < 0 {
		return Refuse(ErrManifestInvalid, "the sizes of the manifest add up to more than there can be")
	}
	return nil
}

func (m Manifest) config() []Descriptor {
	if m.Config == nil {
		return nil
	}
	return []Descriptor{*m.Config}
}

func (m Manifest) subject() []Descriptor {
	if m.Subject == nil {
		return nil
	}
	return []Descriptor{*m.Subject}
}

// blobs are the blobs that the manifest needs.
func (m Manifest) blobs() []Descriptor { return append(m.config(), m.Layers...) }

// total is the size of all blobs; -1 = it overflows.
func (m Manifest) total() int64 {
	var n int64
	for _, d := range m.blobs() {
		if d.Size > math.MaxInt64-n {
			return -1
		}
		n += d.Size
	}
	return n
}

// isImage reports a manifest whose config is one of a container image.
func (m Manifest) isImage() bool {
	return m.Config != nil && (m.Config.MediaType == typeOCIConfig || m.Config.MediaType == typeDockerConfig)
}

func (d *Descriptor) check(what string) error {
	if _, err := ParseDigest(string(d.Digest)); err != nil {
		return Refuse(ErrManifestInvalid, "a %s of the manifest has a digest that is not one: %.150q", what, d.Digest)
	}
	if d.Size < 0 {
		return Refuse(ErrManifestInvalid, "%s %s of the manifest has %d bytes", what, d.Digest, d.Size)
	}
	return nil
}

// isForeign reports a layer that is fetched from elsewhere.
func (d *Descriptor) isForeign() bool {
	return strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.")
}

// runnable refuses layers that no container can be made of.
func (d *Descriptor) runnable() error {
	switch base, compression, _ := strings.Cut(d.MediaType, "+"); {
	case strings.HasSuffix(compression, "encrypted"):
		return Refuse(ErrUnsupported, "layer %s is encrypted (%.100s), which is not supported", d.Digest, d.MediaType).
			WithHint("push the image without encryption")
	case d.isForeign():
		return Refuse(ErrUnsupported, "layer %s is a foreign one (%.100s), which is fetched from elsewhere and not supported", d.Digest, d.MediaType).
			WithHint("push the image with the layer in it (docker: allow-nondistributable-artifacts)")
	case base == typeOCILayer && slices.Contains([]string{"", "gzip", "zstd"}, compression):
		return nil
	case slices.Contains([]string{typeDockerLayer, typeDockerLayer + ".gzip", typeDockerLayer + ".zstd"}, d.MediaType):
		return nil
	}
	return Refuse(ErrUnsupported, "layer %s is of type %.100q, which is not supported", d.Digest, d.MediaType)
}
