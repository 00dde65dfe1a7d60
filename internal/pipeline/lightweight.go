package pipeline

import (
	"path"
	"slices"
	"strings"

	"tategu/internal/runtime"
)

// lightweight is a Python function that the kfp compiler put into a command:
// sh -c <pip script> sh -ec <write the source, run kfp's executor on it> <source>,
// the first three only when there is something to install. Running it by parts
// saves a pip run on every task.
type lightweight struct {
	source  string
	module  string // kfp's executor, whose name depends on kfp's version
	version string // of Python
	install pipInstall
}

// pipInstall is what the pip lines of a script ask for.
type pipInstall struct {
	packages []string // requirements; "--no-deps " first where pip was told so
	indexes  []string
}

// parseLightweight recognises the shape. ok is false for anything else, which
// then runs as it stands.
func parseLightweight(command []string, image string) (lightweight, bool) {
	var l lightweight
	if len(command) == 7 && command[0] == "sh" && command[1] == "-c" {
		var ok bool
		if l.install, ok = parsePip(command[2]); !ok {
			return l, false
		}
		command = command[3:]
	}
	if len(command) != 4 || command[0] != "sh" || command[1] != "-ec" {
		return l, false
	}
	words := strings.Fields(command[2])
	for i, w := range words {
		if w == "-m" && i+1 < len(words) && strings.HasSuffix(words[i+1], ".executor_main") {
			l.module = words[i+1]
		}
	}
	if l.module == "" || !strings.Contains(command[2], "--component_module_path") {
		return l, false
	}
	l.source, l.version = command[3], pythonVersion(image)
	return l, true
}

// pythonVersion reads the X.Y of an official image such as python:3.11-slim; ""
// leaves the choice to the images configuration.
func pythonVersion(image string) string {
	name, tag, _ := strings.Cut(path.Base(image), ":")
	if name != "python" {
		return ""
	}
	tag, _, _ = strings.Cut(tag, "-")
	tag, _, _ = strings.Cut(tag, "@")
	parts := strings.Split(tag, ".")
	if len(parts) < 2 || parts[0] != "3" || strings.Trim(parts[1], "0123456789") != "" {
		return ""
	}
	return parts[0] + "." + parts[1]
}

// apply fills in how the runtime runs the function: the arguments stay those of
// the container.
func (l lightweight) apply(w *runtime.Workload) {
	w.Python = &runtime.Python{Version: l.version, Packages: l.install.packages, Indexes: l.install.indexes, Script: l.source}
	w.Command = []string{"python3", "-m", l.module, "--component_module_path", runtime.ScriptPath}
	if _, set := w.Env["_KFP_RUNTIME"]; !set {
		w.Env["_KFP_RUNTIME"] = "true" // keeps `import kfp` from loading the compiler
	}
}

// parsePip reads the pip lines of a compiled script. ok is false when one of them
// asks for something that an environment of packages and indexes cannot say.
func parsePip(script string) (pipInstall, bool) {
	var p pipInstall
	lines := 0
	for _, command := range shellCommands(script) {
		i := indexOf(command, "pip", "install")
		if i < 0 {
			continue
		}
		lines++
		if !p.line(command[i+2:]) {
			return p, false
		}
	}
	return p, lines > 0
}

// line reads the arguments of one pip install.
func (p *pipInstall) line(args []string) bool {
	noDeps := false
	var packages []string
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		switch name {
		case "--quiet", "-q", "--no-warn-script-location", "--disable-pip-version-check", "--no-cache-dir":
			continue
		case "--no-deps":
			noDeps = true
			continue
		case "--index-url", "-i", "--extra-index-url":
			if !inline {
				if i++; i == len(args) {
					return false
				}
				value = args[i]
			}
			p.option(name, value)
			continue
		}
		if strings.HasPrefix(args[i], "-") {
			return false
		}
		packages = append(packages, args[i])
	}
	for _, pkg := range packages {
		if noDeps {
			pkg = "--no-deps " + pkg
		}
		p.packages = append(p.packages, pkg)
	}
	return true
}

func (p *pipInstall) option(name, value string) {
	if name == "--extra-index-url" {
		p.index(len(p.indexes), value)
		return
	}
	p.index(0, value) // the main one comes first
}

// index adds an index once; kfp repeats the options on every pip line.
func (p *pipInstall) index(at int, url string) {
	if slices.Contains(p.indexes, url) {
		return
	}
	p.indexes = append(p.indexes[:at:at], append([]string{url}, p.indexes[at:]...)...)
}

// indexOf finds two words in a row.
func indexOf(words []string, first, second string) int {
	for i := 0; i+1 < len(words); i++ {
		if words[i] == first && words[i+1] == second {
			return i
		}
	}
	return -1
}

// shellCommands cuts a script into simple commands at newlines, "&&", "||", ";"
// and removes the quotes from their words.
func shellCommands(script string) [][]string {
	var commands [][]string
	var words []string
	var word strings.Builder
	started := false
	endWord := func() {
		if started {
			words = append(words, word.String())
		}
		word.Reset()
		started = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for i := 0; i < len(script); i++ {
		switch c := script[i]; c {
		case ' ', '\t':
			endWord()
		case '\n', ';', '&', '|':
			endCommand()
		case '\'', '"':
			started = true
			end := strings.IndexByte(script[i+1:], c)
			if end < 0 {
				end = len(script) - i - 1
			}
			word.WriteString(script[i+1 : i+1+end])
			i += end + 1
		case '\\':
			if i++; i < len(script) && script[i] != '\n' {
				started = true
				word.WriteByte(script[i])
			}
		default:
			started = true
			word.WriteByte(c)
		}
	}
	endCommand()
	return commands
}
