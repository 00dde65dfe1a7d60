package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"

	"google.golang.org/grpc/codes"
)

// Names of the image layer format
// (github.com/opencontainers/image-spec/blob/main/layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// unpacker applies layers to one directory. Every operation goes through os.Root
// on a path without links, so whatever a layer names stays below it.
type unpacker struct {
	root   *os.Root
	limits Limits
	ids    box.Mapping
	m      marker

	links   map[string]string // directories as named, and where they really are
	touched map[string]bool   // what this layer brought, and the directories above it
}

// Unpack writes the files of an image into a directory, which is made unless it is
// there, for programs outside of containers: they belong to the caller.
func Unpack(ctx context.Context, dir string, image runtime.Image, limits Limits, say func(string)) error {
	_, err := unpack(ctx, dir, image, limits, box.Mapping{Base: os.Geteuid(), Count: 1}, say)
	return err
}

// unpack makes dir/rootfs of the image's layers.
func (s *Store) unpack(ctx context.Context, dir string, image runtime.Image, say func(string)) (marker, error) {
	return unpack(ctx, filepath.Join(dir, rootfsName), image, s.limits, s.ids, say)
}

func unpack(ctx context.Context, dir string, image runtime.Image, limits Limits, ids box.Mapping, say func(string)) (m marker, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return m, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	u := &unpacker{root: root, limits: limits, ids: ids, m: marker{Digest: image.Digest, Base: ids.Base}}
	for i, layer := range image.Layers {
		say(fmt.Sprintf("unpacking layer %d of %d of %s (%d MB)", i+1, len(image.Layers), image.Reference, layer.Size/1e6))
		if err := u.layer(ctx, layer); err != nil {
			return m, fmt.Errorf("layer %d (%s): %w", i+1, layer.DiffID, err)
		}
	}
	if err := u.own(".", 0, 0); err != nil {
		return m, err
	}
	return u.m, nil
}

func (u *unpacker) layer(ctx context.Context, layer runtime.Layer) (err error) {
	r, err := layer.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	bounded := &bound{r: r, ctx: ctx, left: max(freeRatio, layer.Size*u.limits.Ratio)}
	u.links, u.touched = map[string]string{}, map[string]bool{}
	tr := tar.NewReader(bounded)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken(err, bounded)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("%s: %w", clip(h.Name), err)
		}
	}
	// The digest is checked at the end, which lies behind the tar's own.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return unreadable(err)
	}
	return nil
}

// broken tells a tar that was made wrong from one that changed on our disk: the
// rest of the layer is read, since only its end tells whether it has its digest.
func broken(err error, rest io.Reader) error {
	if !errors.Is(err, tar.ErrHeader) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return unreadable(err)
	}
	if _, later := io.Copy(io.Discard, rest); later != nil {
		return unreadable(later)
	}
	return resource.Errorf(codes.DataLoss, "the layer is not a whole tar: %w", err).WithCause(resource.CauseInput).
		WithHint("build the image again, or pull it anew")
}

// bound ends a layer that unpacks to far more than it is kept as.
type bound struct {
	r    io.Reader
	ctx  context.Context //nolint:containedctx // of one read of one layer
	left int64
}

func (b *bound) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, tooMuch("the layer unpacks to far more than it is kept as")
	}
	return n, err
}

// entry applies one entry of a layer.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if u.m.Entries++; u.m.Entries > u.limits.Entries {
		return tooMuch(fmt.Sprintf("the image has more than %d entries", u.limits.Entries))
	}
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.attributes(".", h)
	}
	dir, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	at := path.Join(dir, base)
	switch hidden, isWhiteout := strings.CutPrefix(base, whiteout); {
	case base == opaque:
		return u.hideBelow(dir)
	case isWhiteout && (hidden == "" || hidden == "." || hidden == ".."):
		return badImage("%q hides nothing that could be there", base)
	case isWhiteout:
		return u.hide(path.Join(dir, hidden))
	}
	return u.place(at, h, content)
}

// place makes the file, directory or link of an entry.
func (u *unpacker) place(at string, h *tar.Header, content io.Reader) error {
	if err := u.clear(at, h.Typeflag); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.root.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := u.file(at, h, content); err != nil {
			return err
		}
	case tar.TypeSymlink:
		clear(u.links)
		if err := u.root.Symlink(h.Linkname, at); err != nil {
			return err
		}
		u.touch(at)
		return u.own(at, h.Uid, h.Gid)
	case tar.TypeLink:
		if err := u.hardlink(at, h.Linkname); err != nil {
			return err
		}
		u.touch(at)
		return nil // its attributes are those of the file
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.m.Skipped++ // a container's /dev is made when it starts
		return nil
	default:
		return badImage("entries of type %q are not part of the image format", h.Typeflag)
	}
	u.touch(at)
	return u.attributes(at, h)
}

// clear takes away what an entry replaces; a directory stays one.
func (u *unpacker) clear(at string, typ byte) error {
	st, err := u.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() && typ == tar.TypeDir {
		return nil
	}
	clear(u.links)
	return u.root.RemoveAll(at)
}

func (u *unpacker) file(at string, h *tar.Header, content io.Reader) (err error) {
	if h.Size < 0 || h.Size > u.limits.Bytes-u.m.Bytes {
		return tooMuch(fmt.Sprintf("the image has more than %d MB of files", u.limits.Bytes/1e6))
	}
	f, err := u.root.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, content)
	u.m.Bytes += n
	if err != nil {
		return broken(err, strings.NewReader("")) // of which nothing is left
	}
	return nil
}

// hardlink gives a file of the image a second name.
func (u *unpacker) hardlink(at, target string) error {
	name, err := inside(target)
	if err != nil {
		return err
	}
	dir, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	from := path.Join(dir, path.Base(name))
	st, err := u.root.Lstat(from)
	if err != nil {
		return badImage("it is a link to %s, which the image does not have", clip(target))
	}
	if st.IsDir() {
		return badImage("it is a hard link to the directory %s", clip(target))
	}
	return u.root.Link(from, at)
}

// attributes gives a file or directory its owner, mode and time. What we could not
// read or remove ourselves is of no use, so the owner keeps those bits.
func (u *unpacker) attributes(at string, h *tar.Header) error {
	if err := u.own(at, h.Uid, h.Gid); err != nil {
		return err
	}
	mode := h.FileInfo().Mode()
	keep := mode & (fs.ModePerm | fs.ModeSticky)
	if u.limits.KeepSetuid {
		keep = mode & (fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid)
	}
	if h.Typeflag == tar.TypeDir {
		keep |= 0o700
	} else {
		keep |= 0o400
	}
	if err := u.root.Chmod(at, keep); err != nil {
		return err
	}
	when := h.ModTime
	if when.Before(time.Unix(0, 0)) {
		when = time.Unix(0, 0)
	}
	return u.root.Chtimes(at, when, when)
}

func (u *unpacker) own(at string, uid, gid int) error {
	if u.ids.Count <= 1 {
		return nil // we can give files to nobody else
	}
	return u.root.Lchown(at, u.ids.Host(uid), u.ids.Host(gid))
}

// touch remembers what this layer brought: it hides only what is below it.
func (u *unpacker) touch(at string) {
	for ; at != "." && !u.touched[at]; at = path.Dir(at) {
		u.touched[at] = true
	}
}

// hide removes what lower layers have at a path.
func (u *unpacker) hide(at string) error {
	st, err := u.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	clear(u.links)
	if !u.touched[at] {
		return u.root.RemoveAll(at)
	}
	if !st.IsDir() {
		return nil
	}
	return u.hideBelow(at)
}

func (u *unpacker) hideBelow(dir string) error {
	entries, err := fs.ReadDir(u.root.FS(), dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := u.hide(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// parent gives the directory that name is in the image's own view, making it when
// it is missing: links are followed as a program in the image would follow them.
func (u *unpacker) parent(name string) (string, error) {
	if real, ok := u.links[name]; ok {
		return real, nil
	}
	at, rest := ".", strings.Split(name, "/")
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at) // of links alone; the root's own is the root
			continue
		}
		next := path.Join(at, part)
		st, err := u.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := u.makeDir(next); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case st.Mode()&fs.ModeSymlink != 0:
			if hops++; hops > 40 {
				return "", badImage("%s is a chain of too many links", clip(name))
			}
			link, err := u.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(link) {
				at = "."
			}
			rest = append(strings.Split(link, "/"), rest...)
			continue
		case !st.IsDir():
			return "", badImage("%s is a file and not a directory", clip(next))
		}
		at = next
	}
	u.links[name] = at
	return at, nil
}

func (u *unpacker) makeDir(at string) error {
	if err := u.root.Mkdir(at, 0o755); err != nil {
		return err
	}
	u.touch(at)
	return u.own(at, 0, 0)
}

// inside cleans a name of a layer; one with .. is refused whatever it leads to.
func inside(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) > 4096 {
		return "", badImage("the name is not a path")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", badImage("the name leads out of the image")
		}
	}
	return path.Clean(strings.TrimLeft(name, "/")), nil
}

func clip(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

// badImage is an error of who made the image.
func badImage(format string, args ...any) error {
	return resource.Errorf(codes.InvalidArgument, format, args...).WithCause(resource.CauseInput).
		WithHint("build or pull the image anew")
}

func tooMuch(what string) error {
	return resource.Errorf(codes.ResourceExhausted, "%s", what).WithCause(resource.CauseInput).
		WithHint("use a smaller image, or raise the limits of images in tategu.yaml")
}

// unreadable keeps errors that know their cause; all else is the disk's.
func unreadable(err error) error {
	if _, ok := errors.AsType[*resource.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe // of the disk that is written to
	}
	return resource.Errorf(codes.DataLoss, "the layer cannot be read: %w", err).WithCause(resource.CausePlatform).
		WithHint("check the disk, then pull or import the image anew")
}
