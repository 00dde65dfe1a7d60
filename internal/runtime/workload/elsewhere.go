package workload

import (
	"encoding/json"
	"errors"
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
			to, err := p.local(a.URI)
			if err != nil {
				return err
			}
			if err := p.bringOne(from, to); err != nil {
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
	f, err := root.Open(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return said, nil
	}
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

// bringOne copies a file or a directory. What a container left is looked for in
// the directories that it shares with the machine.
func (p Place) bringOne(from, to string) error {
	clean := path.Clean(from)
	base := "/"
	if p.Contained {
		base = p.Dir
		if clean != "/tmp" && !strings.HasPrefix(clean, "/tmp/") && !strings.HasPrefix(clean, runtime.GCSRoot+"/") {
			return errors.New("a container keeps nothing there; use a path below /tmp")
		}
	} else if strings.HasPrefix(clean, runtime.GCSRoot+"/") {
		base = p.Dir
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written
	rel := strings.TrimPrefix(clean, "/")
	st, err := root.Stat(rel)
	if err != nil {
		return err
	}
	if st.IsDir() {
		inside, err := fs.Sub(root.FS(), rel)
		if err != nil {
			return err
		}
		return os.CopyFS(to, inside)
	}
	if !st.Mode().IsRegular() {
		return errors.New("it is neither a file nor a directory")
	}
	return bringFile(root, rel, to)
}

func bringFile(root *os.Root, rel, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := root.Open(rel)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // nothing was written
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
