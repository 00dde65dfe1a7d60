package imaging

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"tategu/internal/resource"
)

// fileLayer is a gzipped layer in a file.
type fileLayer struct {
	path           string
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
}

// Digest implements v1.Layer, as the other methods do.
func (l *fileLayer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *fileLayer) Size() (int64, error)                { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error) { return l.mediaType, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)  { return os.Open(l.path) }
func (l *fileLayer) Uncompressed() (_ io.ReadCloser, _ error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &unzipped{Reader: z, f: f}, nil
}

type unzipped struct {
	*gzip.Reader
	f *os.File
}

func (u *unzipped) Close() error { return errors.Join(u.Reader.Close(), u.f.Close()) }

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// packLayer writes the files of source as a layer, in one pass.
func packLayer(source string, r Recipe, dir string) (_ *fileLayer, err error) {
	f, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped, plain := sha256.New(), sha256.New()
	buffered := bufio.NewWriterSize(f, 1<<20)
	z, err := gzip.NewWriterLevel(io.MultiWriter(buffered, zipped), gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(io.MultiWriter(z, plain))
	if err := (&packer{Recipe: r, tw: tw, buffer: make([]byte, 256<<10)}).pack(source); err != nil {
		return nil, err
	}
	if err := errors.Join(tw.Close(), z.Close(), buffered.Flush()); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &fileLayer{path: f.Name(), digest: hashOf(zipped), diffID: hashOf(plain), size: info.Size()}, nil
}

type packer struct {
	Recipe
	tw     *tar.Writer
	buffer []byte
}

func (p *packer) pack(source string) error {
	into := strings.TrimPrefix(p.into(), "/")
	for i, c := range into { // the folders on the way are the base's
		if c == '/' {
			if err := p.tw.WriteHeader(folder(into[:i], 0o755)); err != nil {
				return err
			}
		}
	}
	if into != "" {
		if err := p.folder(into); err != nil {
			return err
		}
	}
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	root, one := source, "."
	if !info.IsDir() {
		root, one = filepath.Dir(source), filepath.Base(source)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	defer func() { _ = r.Close() }() // opened for reading
	return fs.WalkDir(r.FS(), one, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if p.excluded(name, d.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return p.add(r, name, path.Join(into, name), d)
	})
}

func (p *packer) folder(name string) error {
	return p.tw.WriteHeader(folder(name, 0o755|p.open()))
}

func folder(name string, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: epoch()}
}

// open is the rights that a shared folder gives to everybody.
func (p *packer) open() int64 {
	if p.Shared {
		return 0o022
	}
	return 0
}

// excluded leaves out the recipe's own file and Git's, and what the recipe says.
func (p *packer) excluded(name string, dir bool) bool {
	if p.Skip != nil {
		return p.Skip(name, dir)
	}
	if name == RecipeFile || path.Base(name) == ".git" {
		return true
	}
	return slices.ContainsFunc(p.Exclude, func(glob string) bool {
		whole, err1 := path.Match(glob, name)
		last, err2 := path.Match(glob, path.Base(name))
		return err1 == nil && whole || err2 == nil && last
	})
}

// RecipeFile is read from the directory that is built.
const RecipeFile = "image.yaml"

func (p *packer) add(root *os.Root, name, to string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: to, Mode: 0o644, ModTime: epoch()}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return p.folder(to)
	case mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		return p.tw.WriteHeader(h)
	case !mode.IsRegular():
		return resource.Invalid("source", "%s is neither a file, a directory nor a link", name).WithHint("leave it out with --exclude")
	case mode&0o111 != 0:
		h.Mode = 0o755 | p.open()
	default:
		h.Mode |= p.open()
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{p.tw}, io.LimitReader(f, h.Size), p.buffer)
	if err == nil && n != h.Size {
		err = resource.Errorf(10, "%s changed while it was read", name).WithHint("build again")
	}
	return err
}

// onlyWriter keeps io.CopyBuffer with its buffer.
type onlyWriter struct{ io.Writer }
