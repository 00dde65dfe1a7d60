package runtime

import (
	"fmt"
	"path"
	"strings"

	"tategu/internal/resource"
)

// maxRequirements bounds a requirements file, with those that it includes.
const maxRequirements = 1 << 20

// ReadRequirements reads a requirements file of pip: one requirement an entry, in
// the form of Python.Packages, whose entries may begin with options of an index.
// open gives the text of a file; names of included files are relative to the one that
// includes them, with slashes. What an entry cannot say is refused by name.
func ReadRequirements(file string, open func(name string) (string, error)) ([]string, error) {
	r := requirements{open: open, left: maxRequirements, seen: map[string]bool{}}
	if err := r.file(file); err != nil {
		return nil, err
	}
	if len(r.options) == 0 {
		return r.entries, nil
	}
	for i, entry := range r.entries { // options of a file are for all that it lists
		r.entries[i] = strings.Join(r.options, " ") + " " + entry
	}
	return r.entries, nil
}

type requirements struct {
	open    func(name string) (string, error)
	entries []string
	options []string
	left    int
	seen    map[string]bool
}

func (r *requirements) file(file string) error {
	if r.seen[path.Clean(file)] {
		return resource.Invalid("requirements", "the requirements file %s includes itself", file)
	}
	r.seen[path.Clean(file)] = true
	text, err := r.open(file)
	if err != nil {
		return fmt.Errorf("read requirements: %w", err)
	}
	if r.left -= len(text); r.left < 0 {
		return resource.Invalid("requirements", "the requirements have more than %d bytes", maxRequirements)
	}
	for n, line := range logicalLines(text) {
		if err := r.line(path.Dir(file), line); err != nil {
			return resource.Invalid("requirements", "%s, requirement %d: %v", file, n+1, err)
		}
	}
	return nil
}

// logicalLines joins lines that a backslash continues, and drops comments and
// empty ones (pip.pypa.io, "Requirements File Format").
func logicalLines(text string) []string {
	var out []string
	whole := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			line = ""
		} else if i := strings.Index(line, " #"); i >= 0 {
			line = line[:i]
		} else if i := strings.Index(line, "\t#"); i >= 0 {
			line = line[:i]
		}
		if part, more := strings.CutSuffix(line, `\`); more {
			whole += part + " "
			continue
		}
		if whole = strings.TrimSpace(whole + line); whole != "" {
			out = append(out, whole)
		}
		whole = ""
	}
	if whole = strings.TrimSpace(whole); whole != "" {
		out = append(out, whole)
	}
	return out
}

func (r *requirements) line(dir, line string) error {
	if !strings.HasPrefix(line, "-") {
		switch {
		case strings.Contains(line, " --"):
			return fmt.Errorf("options of one requirement, as in %.80q, are not supported; write the requirement without them", line)
		case strings.HasPrefix(line, ".") || strings.HasPrefix(line, "/") || strings.Contains(line, "file:"):
			return fmt.Errorf("%.80q is a path of this machine; leave it out, and let the program import it from the folder", line)
		}
		r.entries = append(r.entries, line)
		return nil
	}
	option, value, _ := strings.Cut(line, " ")
	if name, with, ok := strings.Cut(option, "="); ok {
		option, value = name, with
	}
	value = strings.TrimSpace(value)
	switch option {
	case "-r", "--requirement":
		return r.file(path.Join(dir, value))
	case "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--trusted-host":
		if value == "" || strings.ContainsAny(value, " \t") {
			return fmt.Errorf("%s needs one value", option)
		}
		r.options = append(r.options, option, value)
		return nil
	case "--no-index", "--pre", "--prefer-binary":
		r.options = append(r.options, option)
		return nil
	}
	return fmt.Errorf("the option %.40q is not supported; write requirements alone, such as numpy==2.1", option)
}
