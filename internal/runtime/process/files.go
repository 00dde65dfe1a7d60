package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/volume"

	"google.golang.org/grpc/codes"
)

// mark tells one state of a file from another; see stat(2).
type mark struct {
	Size  int64
	Mtime int64
	Inode uint64
}

// fetch brings the objects that the workload names below gcs/ and remembers what
// is there, so that publish finds what the program made.
func (in *instance) fetch(ctx context.Context) error {
	w := in.rec.Workload
	root := filepath.Join(in.dir, dirGCS)
	for _, d := range w.Dirs {
		local, err := in.local(d)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(local, 0o755); err != nil {
			return err
		}
	}
	if in.r.cfg.Files == nil || exists(filepath.Join(in.dir, fileFetched)) {
		return nil // done by an earlier server
	}
	uris := wanted(w)
	for i, uri := range uris {
		in.set(runtime.Preparing, "fetching input %d of %d: %s", i+1, len(uris), uri)
		if err := in.r.cfg.Files.Download(ctx, uri, root); err != nil {
			return dependency(err, "fetch %s", uri)
		}
	}
	if !w.Publish {
		return nil
	}
	have, err := in.snapshot(root)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(in.dir, fileFetched), have)
}

// local maps /gcs/BUCKET/NAME or gs://BUCKET/NAME to its file.
func (in *instance) local(name string) (string, error) {
	rel := strings.TrimPrefix(strings.TrimPrefix(name, "gs://"), runtime.GCSRoot+"/")
	if rel == name || !filepath.IsLocal(rel) {
		return "", resource.Invalid("dirs", "%q is not a path below %s", name, runtime.GCSRoot)
	}
	return filepath.Join(in.dir, dirGCS, rel), nil
}

// wanted lists what to fetch: what is asked for, then every object that the
// command line or the variables spell out, so that a program which opens
// /gcs/... by name finds it. A bare bucket there is not a wish to copy it.
func wanted(w runtime.Workload) []string {
	uris := slices.Clone(w.Fetch)
	literal := regexp.MustCompile(`(?:gs://|(?:^|[^\w./-])/gcs/)([a-z0-9][a-z0-9._-]+/[^\s"'` + "`" + `\\<>|;,*?(){}\[\]]+)`)
	texts := slices.Concat(w.Command, w.Args)
	for _, name := range slices.Sorted(maps.Keys(w.Env)) {
		texts = append(texts, w.Env[name])
	}
	for _, text := range texts {
		for _, m := range literal.FindAllStringSubmatch(text, -1) {
			if uri := "gs://" + m[1]; !slices.Contains(uris, uri) {
				uris = append(uris, uri)
			}
		}
	}
	return uris
}

// rewriteGCS points /gcs/... at the real directory where it cannot be mounted.
func rewriteGCS(text, dir string) string {
	return regexp.MustCompile(`(^|[^\w./-])/gcs(/|$)`).ReplaceAllString(text, "${1}"+strings.ReplaceAll(dir, "$", "$$")+"${2}")
}

// snapshot lists the files below root. A container's links count where they stay
// below it: they are read as the server, which sees more than the container did.
func (in *instance) snapshot(root string) (_ map[string]mark, err error) {
	stat := func(rel string) (fs.FileInfo, error) { return os.Stat(filepath.Join(root, rel)) }
	if in.contained {
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

// publish uploads what the program made or changed, in the order of names.
func (in *instance) publish(ctx context.Context) error {
	var before map[string]mark
	if err := readJSON(filepath.Join(in.dir, fileFetched), &before); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // preparation did not get that far
		}
		return err
	}
	root := filepath.Join(in.dir, dirGCS)
	after, err := in.snapshot(root)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] == after[name] {
			continue
		}
		if path.Dir(name) == "." {
			return resource.Errorf(codes.InvalidArgument, "the program wrote %s/%s, which is in no bucket", runtime.GCSRoot, name).WithCause(resource.CauseUserCode)
		}
		in.set(runtime.Running, "uploading gs://%s", name)
		if err := in.r.cfg.Files.UploadFile(ctx, filepath.Join(root, filepath.FromSlash(name)), "gs://"+name); err != nil {
			return dependency(err, "upload gs://%s", name)
		}
	}
	return nil
}

// dependency keeps an error that knows its cause and gives the others one.
func dependency(err error, format string, args ...any) error {
	cause := resource.CauseDependency
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		cause = e.Cause
	}
	return resource.Errorf(resource.CodeOf(err), "%s: %w", fmt.Sprintf(format, args...), err).WithCause(cause)
}

// publishSoon waits for room on the disk where the work was well done: what a
// program made in hours is not thrown away for want of space. Stop ends the wait.
func (in *instance) publishSoon(ctx context.Context, wait bool) error {
	if !wait {
		return in.publish(ctx)
	}
	ctx, cancel := in.untilStop(ctx)
	defer cancel()
	return volume.Retry(ctx, func(err error) {
		in.set(runtime.Running, "the program has ended; its files wait for space on the disk")
		in.r.cfg.Log.WarnContext(ctx, "the files of a workload wait for the disk", slog.String("workload", in.ID()), slog.Any("error", err))
	}, func() error { return in.publish(ctx) })
}

// settle does what follows the program: its files and the rest of its output are
// put away before anybody hears of the end.
func (in *instance) settle(ctx context.Context, exit runtime.Exit) runtime.Exit {
	if in.rec.Workload.Publish {
		if err := in.publishSoon(ctx, exit.OK()); err != nil && ctx.Err() == nil && exit.OK() {
			failed := in.failed(err)
			failed.Tail, exit = exit.Tail, failed
		} else if err != nil {
			in.r.cfg.Log.WarnContext(ctx, "publish the files of a failed workload", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
	for attempt := range 5 {
		err := in.logs.flush(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		in.r.cfg.Log.WarnContext(ctx, "keep the log of a workload", slog.String("workload", in.ID()), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(1<<attempt) * 100 * time.Millisecond):
		}
	}
	return exit
}
