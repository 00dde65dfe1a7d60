package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// secretDir keeps secrets as files that the operator puts there: PROJECT/NAME/KEY,
// as Kubernetes shows a secret. It is read when a task starts, so a changed value
// counts from then on.
type secretDir string

// maxSecret is the size of one value.
const maxSecret = 1 << 20

// check refuses what needs secrets where there are none.
func (d secretDir) check(names []string) error {
	if d != "" || len(names) == 0 {
		return nil
	}
	return resource.Errorf(codes.FailedPrecondition, "platforms.kubernetes.secretAsEnv: a secret is needed (%s), and this server keeps none", strings.Join(names, ", ")).
		WithCause(resource.CauseInput).WithHint("set secrets: in tategu.yaml to a directory of PROJECT/NAME/KEY files")
}

// Secret implements pipeline.Secrets.
func (d secretDir) Secret(_ context.Context, project, name string) (map[string]string, error) {
	part := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:_-]*$`)
	if d == "" || !part.MatchString(project) || !part.MatchString(name) {
		return nil, resource.NotFound("secret " + name)
	}
	root, err := os.OpenRoot(filepath.Join(string(d), project, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, resource.NotFound("secret " + name)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	defer func() { _ = root.Close() }() // nothing was written
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	values := map[string]string{}
	for _, e := range entries {
		info, err := root.Stat(e.Name())
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxSecret {
			continue // Kubernetes has directories of its own beside the keys
		}
		value, err := root.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		values[e.Name()] = string(value)
	}
	return values, nil
}
