package modelcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// File is one file of a model.
type File struct {
	Name   string `json:"name"` // below the model's directory, with slashes
	Size   int64  `json:"size"`
	CRC32C string `json:"crc32c"`

	object Object
	path   string // Name as this system writes it
	key    string // names the content
}

// listing is what belongs to a model.
type listing struct {
	files  []File // by name
	digest string
}

// maxFiles bounds one model.
const maxFiles = 100_000

// list finds the files at an artifact URI: those below it, or the one object it
// names. origin tells servers apart.
func list(ctx context.Context, objects Objects, origin, uri string) (listing, error) {
	bucket, name, err := splitURI(uri)
	if err != nil {
		return listing{}, err
	}
	var found []Object
	if name != "" && !strings.HasSuffix(name, "/") {
		for o, err := range objects.List(ctx, bucket, name) {
			if err != nil {
				return listing{}, fmt.Errorf("list %s: %w", uri, err)
			}
			if o.Name == name { // the first, if it is there at all
				return newListing(origin, name[:strings.LastIndexByte(name, '/')+1], []Object{o})
			}
			break
		}
		name += "/"
	}
	for o, err := range objects.List(ctx, bucket, name) {
		if err != nil {
			return listing{}, fmt.Errorf("list %s: %w", uri, err)
		}
		if strings.HasSuffix(o.Name, "/") && o.Size == 0 {
			continue // a folder marker, as consoles and mounts make them
		}
		if found = append(found, o); len(found) > maxFiles {
			return listing{}, resource.Errorf(codes.FailedPrecondition, "%s has more than %d objects", uri, maxFiles).
				WithHint("the artifact_uri of a model is the folder of its files alone")
		}
	}
	if len(found) == 0 {
		return listing{}, resource.Errorf(codes.FailedPrecondition, "no object is at or below %s, the artifact_uri of the model", uri).
			WithHint("`tategu ls -r %s` shows what is there; upload the files, or register a version with the folder that has them", uri)
	}
	return newListing(origin, name, found)
}

func splitURI(uri string) (bucket, name string, err error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	bucket, name, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return "", "", resource.Invalid("artifact_uri", "%q is not gs://BUCKET/FOLDER", uri)
	}
	return bucket, name, nil
}

// newListing names the files by what follows the folder ("" or with a slash at its
// end), and refuses names that no directory can hold.
func newListing(origin, folder string, objects []Object) (listing, error) {
	l := listing{files: make([]File, 0, len(objects))}
	for _, o := range objects {
		name, ok := strings.CutPrefix(o.Name, folder)
		if !ok {
			return listing{}, resource.Errorf(codes.Internal, "asked for objects below gs://%s/%s, and got %q", o.Bucket, folder, o.Name)
		}
		file, err := resource.FilePath(name)
		if err != nil {
			return listing{}, fmt.Errorf("gs://%s/%s: %w", o.Bucket, o.Name, err)
		}
		if o.Size < 0 || o.CRC32C == "" {
			return listing{}, resource.Errorf(codes.DataLoss, "gs://%s/%s has no checksum", o.Bucket, o.Name)
		}
		l.files = append(l.files, File{Name: name, Size: o.Size, CRC32C: o.CRC32C, object: o, path: file, key: contentKey(origin, o)})
	}
	slices.SortFunc(l.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	files := make(map[string]bool, len(l.files))
	for _, f := range l.files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return listing{}, resource.Errorf(codes.FailedPrecondition, "%q is an object and a folder, and a disk has one or the other", dir).WithHint("remove one of the two")
			}
		}
		if files[f.Name] {
			return listing{}, resource.Errorf(codes.FailedPrecondition, "%q is listed twice", f.Name)
		}
		files[f.Name] = true
	}
	sum := sha256.New()
	for _, f := range l.files {
		_, _ = fmt.Fprintf(sum, "%s\x00%s\n", f.Name, f.key) // a hash takes everything
	}
	l.digest = hex.EncodeToString(sum.Sum(nil))
	return l, nil
}

// contentKey names the content of an object, so that equal files are kept once. A
// CRC32C finds damage but can be forged: without an MD5 (of composed objects) a file
// is equal to no other but the same generation of the same object.
func contentKey(origin string, o Object) string {
	text := fmt.Sprintf("%d\x00%s\x00%s", o.Size, o.CRC32C, o.MD5)
	if o.MD5 == "" {
		text += fmt.Sprintf("\x00%s\x00%s\x00%s\x00%d", origin, o.Bucket, o.Name, o.Generation)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
