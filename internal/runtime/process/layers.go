package process

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"tategu/internal/runtime/workload"
)

// layers are the thin environments of programs; those that a program has left as they
// were serve the next one.
type layers struct{ shelf *shelf }

// key is the same for environments whose layers are.
func (l layers) key(base environment) string {
	return fmt.Sprintf("%q %q %q %t", base.site, base.python, base.version, base.pip)
}

// take makes a layer over base at venv, of one that waits where there is one.
func (l layers) take(venv string, base environment) error {
	if err := workload.RemoveAll(venv); err != nil { // left by a server that was killed
		return err
	}
	if l.shelf.take(l.key(base), venv) {
		if !base.pip {
			return nil
		}
		// It holds its own path; its mode stays.
		if err := os.WriteFile(filepath.Join(venv, "bin", "pip"), pipScript(venv), 0o600); err == nil {
			return nil
		}
		if err := workload.RemoveAll(venv); err != nil {
			return err
		}
	}
	return layer(venv, base)
}

// give keeps the layer of a program that has ended, if nobody could tell it from a new
// one; else it stays where it is. path is where it lies, venv where the program had it.
func (l layers) give(path, venv string, base environment) {
	if base.dir == "" || workload.RemoveAll(filepath.Join(path, dirHook, "__pycache__")) != nil || !untouched(path, venv, base) {
		return
	}
	l.shelf.give(l.key(base), path)
}

// part is an entry of a layer.
type part struct {
	name   string // below the layer, parents first; "." is itself
	mode   fs.FileMode
	text   []byte   // of a file
	target string   // of a symbolic link
	also   []string // further names, in the same directory: cheaper than further files
}

// parts lists what is in a layer at venv over base. PEP 405 says what makes one.
func parts(venv string, base environment) []part {
	python := filepath.Base(filepath.Dir(base.site))
	lib := filepath.Join("lib", python)
	site := filepath.Join(lib, "site-packages")
	// pip installs with --user only where the system's packages are visible; the
	// hook hides them again.
	cfg := fmt.Appendf(nil, "home = %s\ninclude-system-site-packages = true\nversion = %s\n", filepath.Dir(base.python), base.version)
	found := []part{
		{name: ".", mode: fs.ModeDir | 0o700},
		{name: "bin", mode: fs.ModeDir | 0o700},
		{name: "lib", mode: fs.ModeDir | 0o700},
		{name: lib, mode: fs.ModeDir | 0o700},
		{name: site, mode: fs.ModeDir | 0o700},
		{name: dirHook, mode: fs.ModeDir | 0o700},
		{name: filepath.Join(dirHook, "sitecustomize.py"), mode: 0o600, text: hookSource},
		{name: "pyvenv.cfg", mode: 0o600, text: cfg},
		{name: filepath.Join(site, "_tategu.pth"), mode: 0o600, text: fmt.Appendf(nil, "import site; site.addsitedir(%q)\n", base.site)},
		{name: filepath.Join("bin", "python"), mode: fs.ModeSymlink | 0o777, target: base.python, also: []string{"python3", python}},
	}
	if base.pip {
		found = append(found, part{name: filepath.Join("bin", "pip"), mode: 0o700, text: pipScript(venv), also: []string{"pip3"}})
	}
	return found
}

func pipScript(venv string) []byte {
	return []byte("#!/bin/sh\nexec \"" + filepath.Join(venv, "bin", "python3") + "\" -m pip \"$@\"\n")
}

// layer writes a virtual environment by hand: a few small files and links, the
// packages of base behind its own ones.
func layer(venv string, base environment) error {
	if err := os.MkdirAll(filepath.Dir(venv), 0o755); err != nil {
		return err
	}
	for _, p := range parts(venv, base) {
		path := filepath.Join(venv, p.name)
		var err error
		switch p.mode.Type() {
		case fs.ModeDir:
			err = os.Mkdir(path, p.mode.Perm())
		case fs.ModeSymlink:
			err = os.Symlink(p.target, path)
		default:
			err = os.WriteFile(path, p.text, p.mode.Perm())
		}
		if err != nil {
			return err
		}
		for _, name := range p.also {
			if err := again(path, filepath.Join(filepath.Dir(path), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// again gives a file or a link a second name. Where the disk has no such names it is a link.
func again(path, name string) error {
	if os.Link(path, name) == nil {
		return nil
	}
	return os.Symlink(filepath.Base(path), name)
}

// untouched reports a layer in which everything is as layer has made it, and nothing else.
func untouched(path, venv string, base environment) bool {
	names := map[string]int{} // entries that each directory has
	expected := parts(venv, base)
	for _, p := range expected {
		if p.name != "." {
			names[filepath.Dir(p.name)] += 1 + len(p.also)
		}
	}
	for _, p := range expected {
		if !p.found(path) {
			return false
		}
		if p.mode.IsDir() {
			entries, err := os.ReadDir(filepath.Join(path, p.name))
			if err != nil || len(entries) != names[p.name] {
				return false
			}
		}
	}
	return true
}

// found reports that a part is below path as it was made.
func (p part) found(path string) bool {
	at := filepath.Join(path, p.name)
	is, err := os.Lstat(at)
	if err != nil || is.Mode() != p.mode || !plain(at, is) {
		return false
	}
	switch p.mode.Type() {
	case fs.ModeDir:
		return true
	case fs.ModeSymlink:
		if target, err := os.Readlink(at); err != nil || target != p.target {
			return false
		}
	default:
		if is.Size() != int64(len(p.text)) {
			return false
		}
		if text, err := os.ReadFile(at); err != nil || !slices.Equal(text, p.text) {
			return false
		}
	}
	if st, ok := is.Sys().(*syscall.Stat_t); !ok || int(st.Nlink) != 1+len(p.also) {
		return false // somebody else has it, or the disk has no second names
	}
	for _, name := range p.also {
		if other, err := os.Lstat(filepath.Join(filepath.Dir(at), name)); err != nil || !os.SameFile(is, other) {
			return false
		}
	}
	return true
}
