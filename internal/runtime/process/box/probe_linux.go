package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"tategu/internal/runtime/record"
)

// DefaultMapping is the one that this user can have: a range of ids of its own
// for root, the single user else.
func DefaultMapping() Mapping {
	if os.Geteuid() != 0 {
		return Mapping{User: true, Base: os.Geteuid(), Count: 1}
	}
	if mapped(shiftedBase, shiftedCount) {
		return Mapping{User: true, Base: shiftedBase, Count: shiftedCount}
	}
	return Same()
}

// Same shows the machine's ids as they are, for directories whose owners are not shifted.
func Same() Mapping {
	if os.Geteuid() != 0 {
		return Mapping{User: true, Base: os.Geteuid(), Count: 1}
	}
	if mapped(0, shiftedCount) {
		return Mapping{User: true, Base: 0, Count: shiftedCount}
	}
	return Mapping{User: true, Base: 0, Count: 1}
}

// MappingOf is the one under which a directory's owner is the container's root,
// if there is one.
func MappingOf(rootfs string, ids Mapping) Mapping {
	if ids.Base == 0 || ids.Count <= 1 || ownedBy(rootfs, ids.Base) {
		return ids
	}
	same := Same()
	same.User = ids.User
	return same
}

// mapped reports whether our own user namespace has these ids.
func mapped(base, count int) bool {
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		found := false
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			first, err1 := strconv.Atoi(f[0])
			size, err2 := strconv.Atoi(f[2])
			found = found || err1 == nil && err2 == nil && first <= base && base+count <= first+size
		}
		if !found {
			return false
		}
	}
	return true
}

// Probe finds what this machine lets us do, by trying it with our own binary
// below dir: run starts it with the arguments given to serve Try.
func Probe(dir string, run func(cmd *exec.Cmd) *exec.Cmd) Mode {
	ids := DefaultMapping()
	attempts := []struct {
		try  Attempt
		note []string
	}{
		{Attempt{ids, true, true}, nil},
		{Attempt{ids, false, true}, []string{"the image is read-only (no overlay here)"}},
		{Attempt{ids, true, false}, []string{"no system call filter here"}},
		{Attempt{ids, false, false}, []string{"the image is read-only (no overlay here)", "no system call filter here"}},
	}
	if os.Geteuid() == 0 {
		plain := Mapping{Count: shiftedCount}
		attempts = append(attempts,
			struct {
				try  Attempt
				note []string
			}{Attempt{plain, true, true}, []string{"root inside is root outside with fewer capabilities (no user namespaces here)"}})
	}
	var first error
	for _, a := range attempts {
		err := tryOnce(dir, a.try, run)
		if err == nil {
			return Mode{IDs: a.try.IDs, Overlay: a.try.Overlay, Filter: a.try.Filter}.describe(append(isolation(a.try.IDs), a.note...))
		}
		if first == nil {
			first = err
		}
	}
	return Mode{Err: first}
}

func isolation(ids Mapping) []string {
	var notes []string
	if ids.User && ids.Count <= 1 {
		notes = append(notes, "one user only")
	}
	if !hasScope() {
		notes = append(notes, "abstract sockets of the machine can be reached (no Landlock scopes here)")
	}
	return notes
}

func tryOnce(dir string, try Attempt, run func(*exec.Cmd) *exec.Cmd) error {
	work, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	defer func() { _ = record.RemoveAll(work) }() // a leftover is removed at the next start
	rootfs := filepath.Join(work, "image")
	for _, d := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			return err
		}
	}
	if try.IDs.Count > 1 {
		if err := ChownTree(rootfs, try.IDs.Base, try.IDs.Base); err != nil {
			return err
		}
	}
	if err := Make(work, try.IDs); err != nil {
		return err
	}
	b, err := json.Marshal(try)
	if err != nil {
		return err
	}
	cmd := run(&exec.Cmd{Args: []string{string(b)}, Dir: work, SysProcAttr: Attr(try.IDs, false)})
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}

// Try is what a probing child does in dir: everything but the program.
func Try(dir string, text string) error {
	var try Attempt
	if err := json.Unmarshal([]byte(text), &try); err != nil {
		return err
	}
	c := &Container{Root: filepath.Join(dir, "image"), Overlay: try.Overlay, IDs: try.IDs, Filter: try.Filter, Host: "probe", Dir: "/"}
	_, err := Start(dir, c, []string{"/no-such-program"}, nil)
	if errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), "/no-such-program") {
		return nil
	}
	return fmt.Errorf("probe: %w", err)
}
