package imaging

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"

	"tategu/internal/resource"
)

// maxIndexFile bounds what of a file is read into memory.
const maxIndexFile = 16 << 20

// Read opens the images of a docker-save tar, an OCI layout's directory or its tar.
// dir is an empty directory that lives as long as the pictures.
func Read(path, dir string) ([]Picture, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	if info.IsDir() {
		return readLayout(path)
	}
	plain, err := uncompressed(path, dir)
	if err != nil {
		return nil, err
	}
	names, err := members(plain)
	if err != nil {
		return nil, resource.Invalid("file", "%s is not a tar: %v", path, err).WithHint("give what `docker save` wrote, or an OCI layout")
	}
	switch {
	case names["manifest.json"]:
		return readDocker(plain)
	case names["oci-layout"]:
		to := filepath.Join(dir, "layout")
		if err := unpackLayout(plain, to); err != nil {
			return nil, err
		}
		return readLayout(to)
	}
	return nil, resource.Invalid("file", "%s has neither manifest.json (of `docker save`) nor oci-layout", path).
		WithHint("unpack a plain tar of files, and build an image of the directory with `tategu image build`")
}

// uncompressed gives a path with the plain tar.
func uncompressed(path, dir string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // opened for reading
	r := bufio.NewReader(f)
	if magic, err := r.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return path, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	to := filepath.Join(dir, "image.tar")
	out, err := os.Create(to)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, z)
	return to, errors.Join(err, out.Close())
}

// members gives the names at the top of a tar that tell what it is.
func members(path string) (map[string]bool, error) {
	found := map[string]bool{}
	err := eachFile(path, func(h *tar.Header, _ io.Reader) error {
		switch filepath.Clean(h.Name) {
		case "manifest.json", "oci-layout", "index.json":
			found[filepath.Clean(h.Name)] = true
		}
		return nil
	})
	return found, err
}

func eachFile(path string, fn func(*tar.Header, io.Reader) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := fn(h, r); err != nil {
			return err
		}
	}
}

// unpackLayout writes the files of a layout: those that the specification names, and
// no other.
func unpackLayout(path, to string) error {
	blob := regexp.MustCompile(`^blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})$`)
	return eachFile(path, func(h *tar.Header, r io.Reader) error {
		name := filepath.ToSlash(filepath.Clean(h.Name))
		if !blob.MatchString(name) && (name != "oci-layout" && name != "index.json" || h.Size > maxIndexFile) {
			return nil
		}
		file := filepath.Join(to, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		return errors.Join(err, out.Close())
	})
}

func readDocker(path string) ([]Picture, error) {
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, resource.Invalid("file", "read %s: %v", path, err)
	}
	var pictures []Picture
	for _, d := range manifest {
		if len(d.RepoTags) == 0 {
			if len(manifest) > 1 {
				return nil, resource.Invalid("file", "%s has several images, one without a name", path).WithHint("save them one by one")
			}
			img, err := tarball.Image(open, nil)
			if err != nil {
				return nil, resource.Invalid("file", "read %s: %v", path, err)
			}
			return []Picture{{Image: img}}, nil
		}
		for _, t := range d.RepoTags {
			tag, err := name.NewTag(t)
			if err != nil {
				return nil, resource.Invalid("file", "%s has an image %.200q: %v", path, t, err)
			}
			img, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, resource.Invalid("file", "read %s of %s: %v", t, path, err)
			}
			pictures = append(pictures, Picture{Name: t, Image: img})
		}
	}
	if len(pictures) == 0 {
		return nil, resource.Invalid("file", "%s has no image", path)
	}
	return pictures, nil
}

// Annotations that name the images of a layout.
const (
	annotationName     = "org.opencontainers.image.ref.name"
	annotationFullName = "io.containerd.image.name"
)

func readLayout(path string) ([]Picture, error) {
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); errors.Is(err, fs.ErrNotExist) {
		return nil, resource.Invalid("file", "the directory %s is no OCI layout: it has no file oci-layout", path).
			WithHint("a directory of files becomes an image with `tategu image build %s`", path)
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return nil, resource.Invalid("file", "read the layout %s: %v", path, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, resource.Invalid("file", "read the layout %s: %v", path, err)
	}
	var pictures []Picture
	for _, d := range m.Manifests {
		p := Picture{Name: layoutName(d.Annotations)}
		switch {
		case d.MediaType.IsImage():
			p.Image, err = index.Image(d.Digest)
		case d.MediaType.IsIndex():
			p.Index, err = index.ImageIndex(d.Digest)
		default:
			return nil, resource.Unimplemented("a manifest of type " + string(d.MediaType))
		}
		if err != nil {
			return nil, resource.Invalid("file", "read the layout %s: %v", path, err)
		}
		pictures = append(pictures, p)
	}
	if len(pictures) == 0 {
		return nil, resource.Invalid("file", "the layout %s has no image", path)
	}
	return pictures, nil
}

func layoutName(annotations map[string]string) string {
	if full := annotations[annotationFullName]; full != "" {
		return full
	}
	return annotations[annotationName]
}

// WriteDocker writes an image as `docker save` does.
func WriteDocker(w io.Writer, nameOf string, img v1.Image) error {
	tag, err := name.NewTag(nameOf)
	if err != nil {
		return resource.Invalid("name", "an image in a tar has a name with a tag: %v", err)
	}
	return tarball.Write(tag, img, w)
}

// WriteLayout writes an image or index as an OCI layout into a directory.
func WriteLayout(dir, nameOf string, p Picture) error {
	to, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		to, err = layout.Write(dir, emptyIndex())
	}
	if err != nil {
		return fmt.Errorf("open the layout %s: %w", dir, err)
	}
	annotations := layout.WithAnnotations(map[string]string{annotationName: nameOf})
	if p.Index != nil {
		return to.AppendIndex(p.Index, annotations)
	}
	return to.AppendImage(p.Image, annotations)
}
