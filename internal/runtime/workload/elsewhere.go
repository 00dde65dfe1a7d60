package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// maxExecutorOutput bounds what is read to find artifacts that lie elsewhere.
const maxExecutorOutput = 8 << 20

// elsewhere is what matters of an ExecutorOutput (kfp.dsl.executor writes
// custom_path in snake case).
type elsewhere struct {
	Artifacts map[string]struct {
		Artifacts []struct {
			URI        string `json:"uri"`
			CustomPath string `json:"custom_path"`
			CamelPath  string `json:"customPath"`
		} `json:"artifacts"`
	} `json:"artifacts"`
}

// bring copies the artifacts that the program keeps at paths of its own to where
// they are published from.
func (p Place) bring() error {
	if p.Workload.ExecutorOutput == "" {
		return nil
	}
	said, err := p.readElsewhere()
	if err != nil {
		return err
	}
	for _, list := range said.Artifacts {
		for _, a := range list.Artifacts {
			from := a.CustomPath
			if from == "" {
				from = a.CamelPath
			}
			if from == "" || !strings.HasPrefix(a.URI, "gs://") {
				continue
			}
			if err := p.bringOne(from, strings.TrimPrefix(a.URI, "gs://")); err != nil {
				return resource.Errorf(codes.FailedPrecondition, "the artifact %s, which the program says is at %s: %w", a.URI, from, err).WithCause(resource.CauseUserCode)
			}
		}
	}
	return nil
}

// readElsewhere gives nothing for a file that is absent or no JSON: whoever reads
// it for its outputs says what is wrong.
func (p Place) readElsewhere() (elsewhere, error) {
	var said elsewhere
	rel, err := filepath.Rel(runtime.GCSRoot, p.Workload.ExecutorOutput)
	if err != nil || !filepath.IsLocal(rel) {
		return said, resource.Invalid("executor_output", "%q is not below %s", p.Workload.ExecutorOutput, runtime.GCSRoot)
	}
	root, err := os.OpenRoot(filepath.Join(p.Dir, DirGCS))
	if err != nil {
		return said, err
	}
	defer func() { _ = root.Close() }() // nothing was written
	st, err := root.Stat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return said, nil
	}
	if err != nil {
		return said, err
	}
	if !st.Mode().IsRegular() {
		return said, nil // to open a pipe would wait for who writes to it
	}
	f, err := root.Open(rel)
	if err != nil {
		return said, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxExecutorOutput))
	if err == nil && json.Unmarshal(text, &said) != nil {
		return elsewhere{}, nil
	}
	return said, err
}

// bringOne copies a file or a directory to the object named BUCKET/NAME. What a
// container left is looked for in the directories that it shares with the machine.
// Both ends may hold links that the program made: none is followed out of them.
// It may run again after a restart or on a disk that was full.
func (p Place) bringOne(from, object string) (err error) {
	if !filepath.IsLocal(object) {
		return fmt.Errorf("gs://%s is not the name of an object", object)
	}
	base, rel, err := p.lies(path.Clean(from))
	if err != nil || from == runtime.GCSRoot+"/"+object {
		return err
	}
	source, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // nothing was written
	objects, err := os.OpenRoot(filepath.Join(p.Dir, DirGCS))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	st, err := source.Stat(rel)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return bringDir(source, rel, objects, object)
	case !st.Mode().IsRegular():
		return errors.New("it is neither a file nor a directory")
	}
	return bringFile(source, rel, objects, object)
}

// lies says below which directory of the machine a program's path is, and where.
func (p Place) lies(clean string) (base, rel string, err error) {
	below, objects := strings.CutPrefix(clean, runtime.GCSRoot+"/")
	if objects {
		return filepath.Join(p.Dir, DirGCS), below, nil
	}
	if !p.Contained {
		return "/", strings.TrimPrefix(clean, "/"), nil
	}
	if below, ok := strings.CutPrefix(clean, "/tmp/"); ok {
		return filepath.Join(p.Dir, dirTmp), below, nil
	}
	return "", "", errors.New("a container keeps nothing there; use a path below /tmp")
}

// bringDir copies the files below a directory; links to files count as these. They
// are listed before, since the copies may lie below the same directory.
func bringDir(source *os.Root, from string, objects *os.Root, to string) error {
	var files []string
	err := fs.WalkDir(source.FS(), from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := source.Stat(name); err == nil && st.Mode().IsRegular() { // a dangling link or a socket is no object
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range files {
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if err := bringFile(source, name, objects, filepath.Join(to, rel)); err != nil {
			return err
		}
	}
	return nil
}

func bringFile(source *os.Root, from string, objects *os.Root, to string) error {
	if err := objects.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := source.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // nothing was written
	// What is there is replaced, not written to: it may be a link, or a pipe.
	if err := objects.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := objects.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
