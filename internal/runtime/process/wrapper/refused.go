package wrapper

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"tategu/internal/runtime/process/box"
)

// Refusal is why the system did not start a program, where that is about the
// program.
type Refusal string

// The refusals; those of package runtime say what they mean.
const (
	RefusedMissing   Refusal = "missing"
	RefusedLoader    Refusal = "loader"
	RefusedDenied    Refusal = "denied"
	RefusedFormat    Refusal = "format"
	RefusedArguments Refusal = "arguments"
	RefusedDirectory Refusal = "directory"
)

// notStarted says why a program could not be started: what is wrong with it, or
// else with what was built around it.
func notStarted(err error, dir, user string) Exit {
	e := Exit{Code: -1, Error: err.Error()}
	pe, ok := errors.AsType[*fs.PathError](err)
	if !ok || pe.Op != box.OpStart {
		return e
	}
	e.Program, e.User = pe.Path, user
	st, missing := os.Stat(pe.Path)
	if !strings.Contains(pe.Path, "/") {
		missing = fs.ErrNotExist // looked for in PATH, in vain
	}
	_, nowhere := os.Stat(dir)
	switch {
	case errors.Is(pe.Err, fs.ErrNotExist) && missing == nil && nowhere != nil:
		e.Refused = RefusedDirectory
	case errors.Is(pe.Err, fs.ErrNotExist) && missing == nil:
		e.Refused, e.Loader = RefusedLoader, loader(pe.Path)
	case errors.Is(pe.Err, fs.ErrNotExist), errors.Is(pe.Err, syscall.ENOTDIR):
		e.Refused = RefusedMissing
	case errors.Is(pe.Err, fs.ErrPermission) && (missing != nil || !st.IsDir()):
		e.Refused = RefusedDenied
	case errors.Is(pe.Err, syscall.ENOEXEC), errors.Is(pe.Err, fs.ErrPermission), errors.Is(pe.Err, syscall.EISDIR):
		e.Refused = RefusedFormat
	case errors.Is(pe.Err, syscall.E2BIG):
		e.Refused = RefusedArguments
	}
	return e
}

// loader is the interpreter that a script names in its first line; "" for what is
// not a script.
func loader(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // opened for reading
	head := make([]byte, 128)
	n, err := f.Read(head)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	name, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return ""
	}
	return strings.TrimSpace(name)
}
