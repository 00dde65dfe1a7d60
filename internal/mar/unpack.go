package mar

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Defaults of Limits.
const (
	defaultBytes   = 64 << 30
	defaultEntries = 100_000
	defaultRatio   = 1000
	freeBytes      = 64 << 20 // up to here the ratio does not matter: text packs well
	maxPath        = 1024
	maxDepth       = 64
)

func (l Limits) orDefault() Limits {
	if l.Bytes <= 0 {
		l.Bytes = defaultBytes
	}
	if l.Entries <= 0 {
		l.Entries = defaultEntries
	}
	if l.Ratio <= 0 {
		l.Ratio = defaultRatio
	}
	return l
}

// checkPath refuses what is no plain relative path with slashes.
func checkPath(name string) error {
	quoted := strconv.QuoteToASCII(name)
	if len(quoted) > 200 {
		quoted = quoted[:200] + "..."
	}
	clean := strings.TrimSuffix(name, "/")
	switch {
	case clean == "":
		return errors.New("a name is empty")
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %s is no UTF-8", quoted)
	case len(name) > maxPath:
		return fmt.Errorf("the name %s is too long (%d bytes, at most %d)", quoted, len(name), maxPath)
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("the name %s is absolute", quoted)
	case strings.ContainsAny(name, "\\:"):
		return fmt.Errorf("the name %s has a backslash or colon, which lead elsewhere on some systems", quoted)
	case strings.Count(clean, "/") >= maxDepth:
		return fmt.Errorf("the name %s is too deep (more than %d folders)", quoted, maxDepth)
	}
	for part := range strings.SplitSeq(clean, "/") {
		if part == ".." {
			return fmt.Errorf("the name %s leaves the archive", quoted)
		}
		if len(part) > 255 {
			return fmt.Errorf("the name %s has a part that is too long (%d bytes, at most 255)", quoted, len(part))
		}
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("the name %s has a control character", quoted)
		}
	}
	return nil
}

// unpacker writes entries below a folder, within its limits.
type unpacker struct {
	root    *os.Root
	limits  Limits
	packed  int64 // size of the archive
	written int64
	entries int
	files   map[string]bool // paths written; true = a file
}

func newUnpacker(root *os.Root, limits Limits, packed int64) *unpacker {
	return &unpacker{root: root, limits: limits.orDefault(), packed: packed, files: map[string]bool{}}
}

// place checks a name and gives its path, "" for the folder of the archive itself.
func (u *unpacker) place(name string, folder bool) (string, error) {
	if u.entries++; u.entries > u.limits.Entries {
		return "", fmt.Errorf("more than %d entries", u.limits.Entries)
	}
	if folder && (name == "." || name == "./") {
		return "", nil
	}
	if err := checkPath(name); err != nil {
		return "", err
	}
	if !folder && strings.HasSuffix(name, "/") {
		return "", fmt.Errorf("the name %q is a folder's and its entry is none", name)
	}
	p := path.Clean(name)
	if p == "." {
		return "", fmt.Errorf("the name %q names nothing", name)
	}
	if file, ok := u.files[p]; ok && (file || !folder) {
		return "", fmt.Errorf("two entries are %s", p)
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		file, known := u.files[dir]
		switch {
		case file:
			return "", fmt.Errorf("%s is a file, and %s lies in it", dir, p)
		case known: // and those above it
			continue
		}
		if u.entries++; u.entries > u.limits.Entries { // it is made without an entry of its own
			return "", fmt.Errorf("more than %d files and folders", u.limits.Entries)
		}
		u.files[dir] = false
	}
	u.files[p] = !folder
	return p, nil
}

func (u *unpacker) folder(p string) error {
	if p == "" {
		return nil
	}
	return u.root.MkdirAll(filepath.FromSlash(p), 0o755)
}

func (u *unpacker) file(p string, r io.Reader) (err error) {
	if err := u.folder(strings.TrimPrefix(path.Dir(p), ".")); err != nil {
		return err
	}
	f, err := u.root.OpenFile(filepath.FromSlash(p), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, &meter{u: u, r: r})
	return err
}

// meter stops at the limits.
type meter struct {
	u *unpacker
	r io.Reader
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.u.written += int64(n)
	if m.u.written > m.u.limits.Bytes {
		return 0, fmt.Errorf("it unpacks to more than %d bytes", m.u.limits.Bytes)
	}
	if m.u.written > freeBytes && m.u.written/m.u.limits.Ratio > m.u.packed {
		return 0, fmt.Errorf("it unpacks to more than %d times its size", m.u.limits.Ratio)
	}
	return n, err
}

// unpackZip looks at every entry before it writes the first.
func (u *unpacker) unpackZip(f *os.File) error {
	z, err := zip.NewReader(f, u.packed)
	if err != nil {
		return fmt.Errorf("no zip archive, or a damaged one: %w", err)
	}
	paths := make([]string, len(z.File))
	var claimed uint64
	for i, e := range z.File {
		mode := e.Mode()
		folder := strings.HasSuffix(e.Name, "/") || mode.IsDir()
		switch {
		case mode&fs.ModeSymlink != 0:
			return fmt.Errorf("%q is a link", e.Name)
		case mode.Type() != 0 && !mode.IsDir():
			return fmt.Errorf("%q is no file and no folder", e.Name)
		case e.Flags&1 != 0:
			return fmt.Errorf("%q is encrypted", e.Name)
		case e.Method != zip.Store && e.Method != zip.Deflate:
			return fmt.Errorf("%q is packed by method %d, which is not supported (stored and deflated are)", e.Name, e.Method)
		}
		if claimed += e.UncompressedSize64; e.UncompressedSize64 > uint64(u.limits.Bytes) || claimed > uint64(u.limits.Bytes) {
			return fmt.Errorf("it unpacks to more than %d bytes", u.limits.Bytes)
		}
		if paths[i], err = u.place(e.Name, folder); err != nil {
			return err
		}
	}
	for i, e := range z.File {
		if paths[i] == "" || !u.files[paths[i]] {
			if err := u.folder(paths[i]); err != nil {
				return err
			}
			continue
		}
		if err := u.zipFile(e, paths[i]); err != nil {
			return fmt.Errorf("%s: %w", paths[i], err)
		}
	}
	return nil
}

func (u *unpacker) zipFile(e *zip.File, p string) (err error) {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return u.file(p, r)
}

func (u *unpacker) unpackTar(f io.Reader) error {
	g, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("no gzip archive, or a damaged one: %w", err)
	}
	counted := &meter{u: &unpacker{limits: Limits{Bytes: u.limits.Bytes + int64(u.limits.Entries)*2048, Ratio: u.limits.Ratio}, packed: u.packed}, r: g}
	t := tar.NewReader(counted)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("no tar archive, or a damaged one: %w", err)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeSymlink, tar.TypeLink:
			return fmt.Errorf("%q is a link", h.Name)
		default:
			return fmt.Errorf("%q is no file and no folder", h.Name)
		}
		folder := h.Typeflag == tar.TypeDir
		p, err := u.place(h.Name, folder)
		if err != nil {
			return err
		}
		if folder {
			err = u.folder(p)
		} else {
			err = u.file(p, t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, counted); err != nil { // the checksum is at the end
		return fmt.Errorf("a damaged gzip archive: %w", err)
	}
	return nil
}
