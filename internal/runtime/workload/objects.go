package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/record"

	"google.golang.org/grpc/codes"
)

// mark tells one state of a file from another; see stat(2).
type mark struct {
	Size  int64
	Mtime int64
	Inode uint64
}

// Fetch brings the objects that the workload names below DirGCS and remembers what
// is there, so that Publish finds what the program made.
func (p Place) Fetch(ctx context.Context) error {
	w, root := p.Workload, filepath.Join(p.Dir, DirGCS)
	for _, d := range w.Dirs {
		local, err := p.local(d)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(local, 0o755); err != nil {
			return err
		}
	}
	if p.Files == nil || Exists(filepath.Join(p.Dir, fileFetched)) {
		return nil // done by an earlier server
	}
	uris := wanted(w)
	if len(uris) == 0 {
		return nil // all that will be there is the program's
	}
	for i, uri := range uris {
		p.Say(runtime.Preparing, "fetching input %d of %d: %s", i+1, len(uris), uri)
		if err := p.fetch(ctx, uri, root, i < len(w.Fetch)); err != nil {
			return dependency(err, "fetch %s", uri)
		}
	}
	if !w.Publish {
		return nil
	}
	have, err := p.snapshot(root)
	if err != nil {
		return err
	}
	return record.WriteWhole(filepath.Join(p.Dir, fileFetched), have)
}

// fetch brings one URI. One that is only spelled out in the command line or the
// variables may be where the program writes: an account that may write there and
// not read gets nothing, as from a mount.
func (p Place) fetch(ctx context.Context, uri, root string, asked bool) error {
	err := p.Files.Download(ctx, p.Workload.Account(), uri, root)
	if asked || resource.CodeOf(err) != codes.PermissionDenied || p.Files.MayWrite(ctx, p.Workload.Account(), uri) != nil {
		return err
	}
	p.Say(runtime.Preparing, "%s is not fetched: the service account may write there, and not read", uri)
	return nil
}

// local maps /gcs/BUCKET/NAME or gs://BUCKET/NAME to its file.
func (p Place) local(name string) (string, error) {
	rel := strings.TrimPrefix(strings.TrimPrefix(name, "gs://"), runtime.GCSRoot+"/")
	if rel == name || !filepath.IsLocal(rel) {
		return "", resource.Invalid("dirs", "%q is not a path below %s", name, runtime.GCSRoot)
	}
	return filepath.Join(p.Dir, DirGCS, rel), nil
}

// wanted lists what to fetch: what is asked for, then every object that the
// command line or the variables spell out, so that a program which opens
// /gcs/... by name finds it. A bare bucket there is not a wish to copy it, nor is a
// name below a directory that is made for what the program writes.
func wanted(w runtime.Workload) []string {
	uris := slices.Clone(w.Fetch)
	if w.Literal {
		return uris
	}
	made := func(name string) bool {
		return slices.ContainsFunc(w.Dirs, func(dir string) bool {
			below, ok := strings.CutPrefix(runtime.GCSRoot+"/"+name, dir)
			return ok && (below == "" || below[0] == '/')
		})
	}
	literal := regexp.MustCompile(`(?:gs://|(?:^|[^\w./-])/gcs/)([a-z0-9][a-z0-9._-]+/[^\s"'` + "`" + `\\<>|;,*?(){}\[\]]+)`)
	texts := slices.Concat(w.Command, w.Args)
	for _, name := range slices.Sorted(maps.Keys(w.Env)) {
		texts = append(texts, w.Env[name])
	}
	for _, text := range texts {
		for _, m := range literal.FindAllStringSubmatch(text, -1) {
			if uri := "gs://" + m[1]; !made(m[1]) && !slices.Contains(uris, uri) {
				uris = append(uris, uri)
			}
		}
	}
	return uris
}

// snapshot lists the files below root. A container's links count where they stay
// below it: they are read as the server, which sees more than the container did.
func (p Place) snapshot(root string) (_ map[string]mark, err error) {
	stat := func(rel string) (fs.FileInfo, error) { return os.Stat(filepath.Join(root, rel)) }
	if p.Contained {
		inside, err := os.OpenRoot(root)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, inside.Close()) }()
		stat = inside.Stat
	}
	marks := map[string]mark{}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed while we looked
		case err != nil:
			return err
		case d.IsDir():
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		info, err := stat(rel) // a link counts as the file it shows
		if err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // a dangling link or a socket is no object
		}
		marks[filepath.ToSlash(rel)] = mark{Size: info.Size(), Mtime: info.ModTime().UnixNano(), Inode: inode(info)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for files below /gcs: %w", err)
	}
	return marks, nil
}

// Publish uploads what the program made or changed, in the order of names.
func (p Place) Publish(ctx context.Context) error {
	var before map[string]mark
	err := ReadJSON(filepath.Join(p.Dir, fileFetched), &before)
	if errors.Is(err, fs.ErrNotExist) {
		if len(wanted(p.Workload)) > 0 {
			return nil // preparation did not get that far
		}
		err = nil // nothing was there
	}
	if err != nil {
		return err
	}
	root := filepath.Join(p.Dir, DirGCS)
	if err := p.bring(); err != nil {
		return err
	}
	after, err := p.snapshot(root)
	if err != nil {
		return err
	}
	maps.DeleteFunc(after, func(name string, now mark) bool { return before[name] == now })
	made := slices.Sorted(maps.Keys(after))
	if err := p.mayPublish(ctx, made); err != nil {
		return err
	}
	for _, name := range made {
		p.Say(runtime.Running, "uploading gs://%s", name)
		if err := p.Files.UploadFile(ctx, p.Workload.Account(), filepath.Join(root, filepath.FromSlash(name)), "gs://"+name); err != nil {
			return dependency(err, "upload gs://%s", name)
		}
	}
	return nil
}

// mayPublish looks at all that a program made before the first of it is uploaded: one
// that wrote where its account may not leaves nothing anywhere.
func (p Place) mayPublish(ctx context.Context, made []string) error {
	asked := ""
	for _, name := range made {
		bucket, _, in := strings.Cut(name, "/")
		if !in {
			return resource.Errorf(codes.InvalidArgument, "the program wrote %s/%s, which is in no bucket", runtime.GCSRoot, name).WithCause(resource.CauseUserCode)
		}
		if bucket == asked { // permissions are those of buckets
			continue
		}
		if err := p.Files.MayWrite(ctx, p.Workload.Account(), "gs://"+name); err != nil {
			return dependency(err, "upload gs://%s", name)
		}
		asked = bucket
	}
	return nil
}

// dependency keeps an error that knows its cause and gives the others one.
func dependency(err error, format string, args ...any) error {
	what := fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return resource.Outcome(what)
	}
	return &resource.Error{Code: resource.CodeOf(err), Message: what.Error(), Cause: resource.CauseDependency, Err: err}
}
