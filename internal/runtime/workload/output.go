package workload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tategu/internal/resource"
)

func outputOf(dir string) string { return filepath.Join(dir, Output) }

// OpenOutput reads a workload's output from a byte offset: nothing before it wrote
// any, NotFound once it is released.
func OpenOutput(dir, id string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(outputOf(dir))
	if errors.Is(err, fs.ErrNotExist) {
		if Exists(dir) {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return nil, resource.NotFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("read the output of %s: %w", id, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close() // the seek error is the one to tell
		return nil, fmt.Errorf("read the output of %s: %w", id, err)
	}
	return f, nil
}
