package resource

import (
	"fmt"
	"path/filepath"
	"strings"
)

// maxFileSegment is the longest file name of the usual file systems.
const maxFileSegment = 255

// FilePath gives the path of a file below a directory for a relative object name,
// or why it can have none. The path never leaves the directory.
func FilePath(name string) (string, error) {
	refuse := func(format string, args ...any) error {
		return Invalid("name", "%q cannot be a file: %s", name, fmt.Sprintf(format, args...))
	}
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "":
			return "", refuse("it has an empty segment")
		case segment == "." || segment == "..":
			return "", refuse("it has the segment %q", segment)
		case len(segment) > maxFileSegment:
			return "", refuse("it has a segment of %d bytes, the most is %d", len(segment), maxFileSegment)
		case strings.ContainsRune(segment, 0):
			return "", refuse("it holds a NUL")
		}
	}
	path := filepath.FromSlash(name)
	if !filepath.IsLocal(path) {
		return "", refuse("this system has no such path")
	}
	return path, nil
}
