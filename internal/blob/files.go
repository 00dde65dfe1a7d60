package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// maxSegment is the longest file name of the usual file systems.
const maxSegment = 255

// Download writes the object uri below dir as BUCKET/NAME; when there is no such
// object, every object below it as a folder. Missing objects are not an error.
// Names that cannot be files are refused by name; nothing is written outside dir.
func (s *Store) Download(ctx context.Context, uri, dir string) (err error) {
	bucket, name, err := ParseURI(uri)
	if err != nil {
		return err
	}
	root, err := openDir(uri, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if name != "" && !strings.HasSuffix(name, "/") {
		err := s.downloadOne(ctx, root, bucket, name)
		if !resource.IsNotFound(err) {
			return err
		}
		name += "/"
	}
	for q := (ListQuery{Prefix: name}); ; {
		page, err := s.List(ctx, bucket, q)
		if resource.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, o := range page.Objects {
			if err := s.downloadOne(ctx, root, bucket, o.Name); err != nil && !resource.IsNotFound(err) {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.After = page.Next
	}
}

// DownloadObject is Download for one object, which must be there.
func (s *Store) DownloadObject(ctx context.Context, uri, dir string) (err error) {
	bucket, name, err := parseObject(uri)
	if err != nil {
		return err
	}
	root, err := openDir(uri, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return s.downloadOne(ctx, root, bucket, name)
}

func openDir(uri, dir string) (*os.Root, error) {
	err := os.MkdirAll(dir, 0o750)
	if err == nil {
		var root *os.Root
		if root, err = os.OpenRoot(dir); err == nil {
			return root, nil
		}
	}
	return nil, fmt.Errorf("download %s: %w", uri, err)
}

// filePath gives the path of an object below a directory, or why it has none.
func filePath(bucket, name string) (string, error) {
	refuse := func(why string) error {
		return resource.Errorf(codes.InvalidArgument, "object gs://%s/%s cannot be a file: %s", bucket, name, why).
			WithResource("gs://" + bucket + "/" + name).WithHint("copy it to a name that can")
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(name, "/"), "/") {
		switch {
		case segment == "":
			return "", refuse("its name has an empty segment")
		case segment == "." || segment == "..":
			return "", refuse(fmt.Sprintf("its name has the segment %q", segment))
		case len(segment) > maxSegment:
			return "", refuse(fmt.Sprintf("its name has a segment of %d bytes, the most is %d", len(segment), maxSegment))
		case strings.ContainsRune(segment, 0):
			return "", refuse("its name holds a NUL")
		}
	}
	return filepath.FromSlash(bucket + "/" + name), nil
}

func (s *Store) downloadOne(ctx context.Context, root *os.Root, bucket, name string) (err error) {
	o, r, err := s.OpenLive(ctx, bucket, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	file, err := filePath(bucket, name)
	if err != nil {
		return err
	}
	if strings.HasSuffix(name, "/") { // a folder marker, as consoles and mounts make them
		return root.MkdirAll(path.Clean(file), 0o750)
	}
	if err := root.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("download gs://%s/%s: %w", bucket, name, err)
	}
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("download gs://%s/%s: %w", bucket, name, err)
	}
	n, err := io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("download gs://%s/%s: %w", bucket, name, err)
	}
	if n != o.Size {
		return lost(o)
	}
	return nil
}

// UploadFile makes the local file the content of the object uri. The type is
// guessed from the name. It is durable once a later write of the store is: files are
// of programs, whose end is told after them (docs/adr/0004).
func (s *Store) UploadFile(ctx context.Context, file, uri string, conds Conditions) (err error) {
	bucket, name, err := parseObject(uri)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("upload %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	o := Object{Bucket: bucket, Name: name, ContentType: mime.TypeByExtension(path.Ext(name))}
	_, err = s.put(ctx, o, f, conds, true)
	return err
}
