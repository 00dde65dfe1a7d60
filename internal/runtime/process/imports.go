package process

import (
	"regexp"
	"slices"
	"strings"
)

// mostImports bounds what one zygote loads for its programs.
const mostImports = 64

// importer reads what Python source imports, well enough to load it beforehand:
// what is missed costs time, and what is not there is skipped.
type importer struct {
	statement, word *regexp.Regexp
	touchy          *regexp.Regexp
}

func newImporter() importer {
	return importer{
		statement: regexp.MustCompile(`^[ \t]*(?:import[ \t]+(.+)|from[ \t]+([A-Za-z_][\w.]*)[ \t]+import[ \t]+(.+))$`),
		word:      regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*`),
		touchy:    regexp.MustCompile(`\b(environ|environb|putenv|unsetenv|warnings|importlib|pip|subprocess|set_start_method|setlocale)\b|\b(os\.(system|popen|exec\w*|spawn\w*|posix_spawn\w*)|sys\.(path|modules|meta_path|path_hooks)|site\.)`),
	}
}

// touches reports source that may change what an import does: variables it reads,
// where it looks, packages it finds. Its imports have to come when it says so.
func (i importer) touches(source string) bool { return i.touchy.MatchString(source) }

// imports lists the modules that source names in import statements, at any depth,
// as "module" or "module:name", in their order.
func (i importer) imports(source string) []string {
	var out []string
	add := func(entry string) {
		if len(out) < mostImports && len(entry) < 200 && !slices.Contains(out, entry) {
			out = append(out, entry)
		}
	}
	for _, line := range statements(source) {
		m := i.statement.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		module, names := m[2], m[3]
		if module == "" {
			names = m[1]
		}
		for name := range strings.SplitSeq(strings.Trim(names, "() \t"), ",") {
			switch name = i.word.FindString(strings.TrimSpace(name)); {
			case module == "" && name != "":
				add(name)
			case module == "__future__":
			case module != "" && name == "":
				add(module) // import *
			case module != "":
				add(module + ":" + name)
			}
		}
	}
	return out
}

// statements cuts source into logical lines without comments and strings.
func statements(source string) []string {
	var out []string
	var line strings.Builder
	depth := 0
	end := func() {
		if line.Len() > 0 {
			out = append(out, line.String())
		}
		line.Reset()
	}
	for i := 0; i < len(source); i++ {
		switch c := source[i]; c {
		case '#':
			i += lengthTo(source[i:], '\n') - 1
		case '"', '\'':
			i += stringLength(source[i:]) - 1
			line.WriteString(`""`)
		case '\\':
			i++ // a continued line
		case '(', '[', '{':
			depth++
			line.WriteByte(c)
		case ')', ']', '}':
			depth = max(0, depth-1)
			line.WriteByte(c)
		case '\n', ';':
			if depth == 0 {
				end()
			}
		case '\r':
		default:
			line.WriteByte(c)
		}
	}
	end()
	return out
}

// lengthTo is the length of s before the byte, or all of it.
func lengthTo(s string, b byte) int {
	if i := strings.IndexByte(s, b); i >= 0 {
		return i
	}
	return len(s)
}

// stringLength is the length of the string literal that s begins with.
func stringLength(s string) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return i // not closed
		}
	}
	return len(s)
}
