package mar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// Objects reads objects by their URI (gs://BUCKET/NAME); a missing one is an error
// that resource.IsNotFound knows.
type Objects interface {
	OpenURI(ctx context.Context, uri string) (io.ReadCloser, error)
}

// Store opens archives and keeps their unpacked files below a folder of its own.
type Store struct {
	Models    string           // folder of archives that are named without a scheme; "" = there is none
	Workflows string           // the same of workflows; "" = Models
	Work      string           // archives are unpacked below it; it must exist
	Allowed   []*regexp.Regexp // of which one must match the whole of a URL that has a scheme; empty = all may be fetched
	Objects   Objects          // nil = gs:// and s3:// are refused
	HTTP      *http.Client     // nil = http(s):// is refused
	Limits    Limits
}

// Limits of what an archive may unpack to; zero values are the defaults.
type Limits struct {
	Bytes   int64 // of all files, and of the archive itself: 64 GiB
	Entries int   // files and folders: 100,000
	Ratio   int64 // unpacked to packed bytes, beyond the first 64 MiB: 1000
}

// ParseAllowed compiles the expressions of allowed_urls, each for a whole URL.
func ParseAllowed(expressions []string) ([]*regexp.Regexp, error) {
	allowed := make([]*regexp.Regexp, 0, len(expressions))
	for _, e := range expressions {
		r, err := regexp.Compile("^(?:" + e + ")$")
		if err != nil {
			return nil, fmt.Errorf("allowed_urls: %q is no regular expression: %w", e, err)
		}
		allowed = append(allowed, r)
	}
	return allowed, nil
}

// Open fetches and unpacks a model archive. Its errors are of the type *Error.
func (s *Store) Open(ctx context.Context, url string) (*Archive, error) {
	dir, owned, err := s.unpack(ctx, url, s.Models)
	if err != nil {
		return nil, err
	}
	a := &Archive{URL: url, Dir: dir, owned: owned}
	if err := a.read(); err != nil {
		return nil, errors.Join(err, a.Remove())
	}
	return a, nil
}

// Folder gives a registered model that is a folder already, as the functions of
// workflows are. It stays when the archive is removed.
func Folder(dir string, m Manifest) *Archive { return &Archive{Dir: dir, Manifest: m} }

// Remove deletes the unpacked files; a folder of the model store stays.
func (a *Archive) Remove() error {
	if !a.owned {
		return nil
	}
	return os.RemoveAll(a.Dir)
}

// ReadFile gives a small file of the archive.
func (a *Archive) ReadFile(name string) ([]byte, error) { return readSmall(a.Dir, name) }

func (a *Archive) read() error {
	data, err := readSmall(a.Dir, "MAR-INF/MANIFEST.json")
	if err != nil {
		return errorf(Invalid, "Missing manifest file in model archive: %w", err)
	}
	if a.Manifest, err = ParseManifest(data); err != nil {
		return errorf(Invalid, "%w", err)
	}
	name := a.Manifest.Model.ConfigFile
	if name == "" {
		return nil
	}
	if data, err = readSmall(a.Dir, name); err != nil {
		return errorf(Invalid, "Failed to parse model config file %s: %w", name, err)
	}
	if a.Config, err = ParseConfig(data); err != nil {
		return errorf(Invalid, "Failed to parse model config file %s: %w", name, err)
	}
	return nil
}

// unpack gives the folder of what url names, and whether it is ours to remove.
func (s *Store) unpack(ctx context.Context, ref, store string) (dir string, owned bool, err error) {
	local, err := s.local(ref, store)
	if err != nil {
		return "", false, err
	}
	if local != "" {
		info, err := os.Stat(local)
		if err != nil {
			return "", false, errorf(NotFound, "Model not found at: %s: %w", ref, err)
		}
		if info.IsDir() {
			return local, false, nil
		}
	} else if local, err = s.fetch(ctx, ref); err != nil {
		return "", false, err
	} else {
		defer func() { err = errors.Join(err, os.Remove(local)) }()
	}
	dir, err = s.extract(local, ref)
	return dir, true, err
}

// local gives the path of what is on this machine, "" = it must be fetched.
func (s *Store) local(ref, store string) (string, error) {
	if ref == "" {
		return "", errorf(NotFound, "empty url")
	}
	scheme, _, ok := strings.Cut(ref, "://")
	if ok {
		return s.localURL(ref, scheme)
	}
	if store == "" {
		return "", errorf(NotFound, "Model store has not been configured.")
	}
	if err := checkPath(ref); err != nil || !filepath.IsLocal(filepath.FromSlash(ref)) {
		return "", errorf(NotFound, "Relative path is not allowed in url: %s", ref)
	}
	return filepath.Join(store, filepath.FromSlash(ref)), nil
}

// allow refuses URLs that allowed_urls does not name, and those that would lead
// elsewhere than what it looked at: file:///models/../etc matches file:///models/.*.
func (s *Store) allow(ref string) error {
	path, _, _ := strings.Cut(ref, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return errorf(InvalidURL, "%s is no URL: %w", ref, err)
	}
	if slices.Contains(strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }), "..") {
		return errorf(InvalidURL, "Given URL %s has a .. in its path, which is not allowed", ref)
	}
	allowed := len(s.Allowed) == 0
	for _, r := range s.Allowed {
		allowed = allowed || r.MatchString(ref)
	}
	if !allowed {
		return errorf(InvalidURL, "Given URL %s does not match any allowed URL(s)", ref)
	}
	return nil
}

func (s *Store) localURL(ref, scheme string) (string, error) {
	if err := s.allow(ref); err != nil {
		return "", err
	}
	switch scheme {
	case "file":
		u, err := url.Parse(ref)
		if err != nil || (u.Host != "" && u.Host != "localhost") || !strings.HasPrefix(u.Path, "/") {
			return "", errorf(InvalidURL, "%s names no file of this machine: want file:///PATH", ref)
		}
		return filepath.FromSlash(path.Clean(u.Path)), nil
	case "http", "https":
		if s.HTTP != nil {
			return "", nil
		}
	case "gs", "s3":
		if s.Objects != nil {
			return "", nil
		}
		return "", errorf(Download, "Failed to download archive from: %s: no access to %s:// is configured here", ref, scheme)
	}
	return "", errorf(InvalidURL, "%s: URLs of %s:// are not supported (%s)", ref, scheme, "file, http, https, gs and s3 are")
}

// fetch brings what a URL names into a file of the work folder.
func (s *Store) fetch(ctx context.Context, ref string) (file string, err error) {
	r, err := s.open(ctx, ref)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }() // only read
	f, err := os.CreateTemp(s.Work, "download-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	limit := s.Limits.orDefault().Bytes
	n, err := io.Copy(f, io.LimitReader(r, limit+1))
	if err != nil {
		return "", errorf(Download, "Failed to download archive from: %s: %w", ref, err)
	}
	if n > limit {
		return "", errorf(Download, "Failed to download archive from: %s: it has more than %d bytes", ref, limit)
	}
	return f.Name(), nil
}

// maxRedirects are followed, each only where allowed_urls allows it.
const maxRedirects = 10

func (s *Store) open(ctx context.Context, ref string) (io.ReadCloser, error) {
	if !strings.HasPrefix(ref, "http") {
		r, err := s.Objects.OpenURI(ctx, ref)
		if resource.IsNotFound(err) {
			return nil, errorf(NotFound, "Model not found at: %s: %w", ref, err)
		}
		if err != nil {
			return nil, errorf(Download, "Failed to download archive from: %s: %w", ref, err)
		}
		return r, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ref, http.NoBody)
	if err != nil {
		return nil, errorf(InvalidURL, "%s is no URL: %w", ref, err)
	}
	client := *s.HTTP
	client.CheckRedirect = func(to *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("it redirects more than %d times", maxRedirects)
		}
		if to.URL.Scheme != "http" && to.URL.Scheme != "https" {
			return fmt.Errorf("it redirects to the scheme %s", to.URL.Scheme)
		}
		return s.allow(to.URL.String())
	}
	res, err := client.Do(req)
	if refused, ok := errors.AsType[*Error](err); ok {
		return nil, errorf(refused.Kind, "%s redirects elsewhere: %w", ref, refused)
	}
	if err != nil {
		return nil, errorf(Download, "Failed to download archive from: %s: %w", ref, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(errorf(Download, "Failed to download archive from: %s: the server answers %s", ref, res.Status), res.Body.Close())
	}
	return res.Body, nil
}

// extract unpacks an archive into a new folder, which goes again if that fails.
func (s *Store) extract(file, ref string) (dir string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", errorf(NotFound, "Model not found at: %s: %w", ref, err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errorf(Invalid, "%s is no file and no folder", ref)
	}
	var head [4]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(s.Work, "archive-"); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	u := newUnpacker(root, s.Limits, info.Size())
	switch {
	case bytes.HasPrefix(head[:n], []byte("PK")):
		err = u.unpackZip(f)
	case bytes.HasPrefix(head[:n], []byte{0x1f, 0x8b}):
		err = u.unpackTar(f)
	default:
		err = errors.New("it is no zip and no gzip archive")
	}
	if err = errors.Join(err, root.Close()); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return "", errorf(Invalid, "Failed to unpack %s: %w", ref, err)
}
