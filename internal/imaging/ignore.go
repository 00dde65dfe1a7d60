package imaging

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// IgnoreFile says what of a folder stays behind, in the language of gitignore(5).
const IgnoreFile = ".tateguignore"

const gitIgnoreFile = ".gitignore"

// Ignore tells what of a folder stays behind: what IgnoreFile in it names, else what
// the .gitignore files of the folder do; besides .git, caches of Python and
// virtual environments, unless a pattern takes them in again (!.venv).
type Ignore struct {
	Source   string // the name of the file that patterns come from; "" = there is none
	fsys     fs.FS
	patterns []pattern
	read     map[string]bool // folders whose .gitignore was read
}

// pattern is a line of an ignore file.
type pattern struct {
	folder  string // of its file, "." = the top
	parts   []string
	negated bool
	dirs    bool // names folders alone
	rooted  bool // is about a path, and not about a name anywhere
}

// maxIgnoreFile bounds an ignore file.
const maxIgnoreFile = 1 << 20

// NewIgnore reads the ignore file of a folder.
func NewIgnore(fsys fs.FS) (*Ignore, error) {
	ig := &Ignore{fsys: fsys, read: map[string]bool{}}
	for _, name := range []string{IgnoreFile, gitIgnoreFile} {
		text, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(text) > maxIgnoreFile {
			return nil, fmt.Errorf("%s has more than %d bytes", name, maxIgnoreFile)
		}
		ig.Source, ig.patterns, ig.read["."] = name, parseIgnore(".", text), true
		return ig, nil
	}
	return ig, nil // .gitignore files of folders below may follow
}

// Ignored reports whether a file or folder stays behind. A folder is asked about
// before what is in it.
func (ig *Ignore) Ignored(name string, dir bool) bool {
	if ig.Source != IgnoreFile {
		ig.enter(path.Dir(name))
	}
	always := ig.always(name, dir)
	out := always
	for _, p := range ig.patterns {
		if p.matches(name, dir) && (!always || p.plain()) {
			out = !p.negated
		}
	}
	return out
}

// plain reports a pattern that spells out what it is about: "!*/" of a list of what
// to keep does not mean .git.
func (p pattern) plain() bool { return !strings.ContainsAny(p.parts[len(p.parts)-1], "*?[") }

// enter reads the .gitignore of a folder, once.
func (ig *Ignore) enter(folder string) {
	if ig.read[folder] {
		return
	}
	ig.read[folder] = true
	text, err := fs.ReadFile(ig.fsys, path.Join(folder, gitIgnoreFile))
	if err != nil || len(text) > maxIgnoreFile {
		return // there is none, and who cannot read it cannot read the folder either
	}
	ig.Source = gitIgnoreFile
	ig.patterns = append(ig.patterns, parseIgnore(folder, text)...)
}

// always tells what nobody wants to send.
func (ig *Ignore) always(name string, dir bool) bool {
	base := path.Base(name)
	if base == ".git" || base == IgnoreFile && !strings.Contains(name, "/") {
		return true
	}
	if !dir {
		return false
	}
	if base == "__pycache__" {
		return true
	}
	_, err := fs.Stat(ig.fsys, path.Join(name, "pyvenv.cfg")) // see PEP 405
	return err == nil
}

func parseIgnore(folder string, text []byte) []pattern {
	var out []pattern
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if p, ok := parsePattern(folder, strings.TrimSuffix(lines.Text(), "\r")); ok {
			out = append(out, p)
		}
	}
	return out
}

func parsePattern(folder, line string) (pattern, bool) {
	p := pattern{folder: folder}
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = strings.TrimSuffix(line, " ")
	}
	if line == "" || line[0] == '#' {
		return p, false
	}
	line, p.negated = strings.CutPrefix(line, "!")
	line, p.dirs = strings.CutSuffix(line, "/")
	p.rooted = strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return p, false
	}
	p.parts = strings.Split(line, "/")
	for i, part := range p.parts {
		p.parts[i] = strings.ReplaceAll(part, "[!", "[^") // of shells, and of path.Match
	}
	return p, true
}

// matches reports a path, below the folder of the pattern's file, that it is about.
func (p pattern) matches(name string, dir bool) bool {
	if p.dirs && !dir {
		return false
	}
	if p.folder != "." {
		below, ok := strings.CutPrefix(name, p.folder+"/")
		if !ok {
			return false
		}
		name = below
	}
	if !p.rooted {
		return segment(p.parts[0], path.Base(name))
	}
	return segments(p.parts, strings.Split(name, "/"))
}

// segments matches part by part; "**" is any number of folders, and at the end
// everything in one.
func segments(pattern, name []string) bool {
	// reach[i] says that the pattern so far may end before name[i].
	reach := make([]bool, len(name)+1)
	reach[0] = true
	for n, part := range pattern {
		next := make([]bool, len(name)+1)
		for i := range reach {
			switch {
			case !reach[i]:
			case part == "**" && n == len(pattern)-1:
				return i < len(name)
			case part == "**":
				for j := i; j <= len(name); j++ {
					next[j] = true
				}
			case i < len(name) && segment(part, name[i]):
				next[i+1] = true
			}
		}
		reach = next
	}
	return reach[len(name)]
}

// segment matches one name; a pattern that is none matches nothing.
func segment(pattern, name string) bool {
	for strings.Contains(pattern, "**") { // inside of a name it is one star
		pattern = strings.ReplaceAll(pattern, "**", "*")
	}
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}
