package runtime

import (
	"regexp"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// textRule is a row of a table over lines of output. $1 and so on in message and
// hint are groups of line.
type textRule struct {
	codes   []int  // exit codes that it can stand for; empty = any
	line    string // regular expression, somewhere in one line
	reason  string
	cause   resource.Cause
	message string // "" = the line as it is
	hint    string
}

// match looks through lines from the last to the first, at most as many as given.
func match(rules []textRule, code int, lines []string, most int) (finding, bool) {
	lines = lines[max(0, len(lines)-most):]
	for _, rule := range rules {
		if len(rule.codes) > 0 && !slices.Contains(rule.codes, code) {
			continue
		}
		re := regexp.MustCompile(rule.line)
		for _, line := range slices.Backward(lines) {
			at := re.FindStringSubmatchIndex(line)
			if at == nil {
				continue
			}
			f := finding{reason: rule.reason, cause: rule.cause, message: "it ended with: " + short(line)}
			if rule.message != "" {
				f.message = short(string(re.ExpandString(nil, rule.message, line, at)))
			}
			f.hint = short(string(re.ExpandString(nil, rule.hint, line, at)))
			return f, true
		}
	}
	return finding{}, false
}

func short(line string) string {
	const most = 500
	line = strings.TrimSpace(line)
	if len(line) > most {
		return strings.ToValidUTF8(line[:most], "") + "..."
	}
	return line
}

// saidLines is how far from its end the output is looked through for a program's
// own words; what stands further up it may have got over.
const saidLines = 5

// saidRules are what programs of every language say when they end.
func saidRules() []textRule {
	const aborted = 128 + 6
	memory := "ask for more memory (set_memory_limit of a task, a larger machine type), or give it smaller batches"
	return []textRule{
		{[]int{127}, `error while loading shared libraries: ([^:]+):`, "LIBRARY_NOT_FOUND", resource.CauseInput, "the library $1 is missing", "install the package that has $1 in the image, or link the program statically"},
		{[]int{1, 127}, "version `([^']+)' not found \\(required by", "LIBRARY_NOT_FOUND", resource.CauseInput, "it was built with a newer system library than is here ($1)", "build it on the base image that it runs in, or link it statically"},
		{[]int{127}, `^(?:.*?[:/ ])?(?:line )?\d*:? ?([^\s:]+): (?:command )?not found$`, "COMMAND_NOT_FOUND", resource.CauseInput, "a shell did not find the command $1", "install $1 in the image, or name it by its full path"},
		{[]int{127}, `[‘'"]?([^\s:‘'’"]+)[’'"]?: No such file or directory$`, "COMMAND_NOT_FOUND", resource.CauseInput, "there is no program $1", "install $1 in the image, or name it by its full path"},
		{[]int{126, 127}, `(?:Exec format error|cannot execute binary file)`, "WRONG_FORMAT", resource.CauseInput, "", "build the program for this processor; a script needs a first line such as #!/bin/sh"},
		{[]int{126}, `[‘'"]?([^\s:‘'’"]+)[’'"]?: Permission denied$`, "NOT_EXECUTABLE", resource.CauseInput, "$1 may not be executed", "give the file the right to be executed (chmod a+x, in the image before it is pushed)"},
		{[]int{65}, `^tategu-runner: (.+)`, "MODEL_NOT_LOADED", resource.CauseModel, "$1", "check that the whole file was uploaded, and that Python's onnxruntime loads it"},
		{[]int{69}, `^tategu-runner: (.+)`, "LIBRARY_NOT_FOUND", resource.CauseDependency, "$1", "name the library in onnx.library of tategu.yaml"},
		{nil, `(?i)(?:no space left on device|disk quota exceeded)`, "DISK_FULL", resource.CauseResource, "", "free space on the disk of the data directory, or let the program write less"},
		{[]int{1, 3}, `java\.lang\.OutOfMemoryError`, "OUT_OF_MEMORY", resource.CauseResource, "", memory},
		{[]int{2}, `^fatal error: runtime: (?:out of memory|cannot allocate memory)`, "OUT_OF_MEMORY", resource.CauseResource, "", memory},
		{[]int{aborted}, `(?:std::bad_alloc|memory allocation of \d+ bytes failed)`, "OUT_OF_MEMORY", resource.CauseResource, "", memory},
	}
}

// saidError judges a program by its last words.
func saidError(e End) (finding, bool) {
	if f, ok := match(saidRules(), e.Code, e.Tail, saidLines); ok {
		return f, true
	}
	// pip in a container runs before the program, and nothing else says this.
	if e.Code == 1 && slices.ContainsFunc(e.Tail, func(line string) bool {
		return strings.HasPrefix(line, "ERROR: No matching distribution found for ") || strings.HasPrefix(line, "ERROR: Could not find a version that satisfies the requirement ")
	}) {
		return packages(e.Tail), true
	}
	return finding{}, false
}

// packageLines bounds what is read of the output of a package tool.
const packageLines = 60

// packageRules are what uv and pip say, the surest first: an index that cannot be
// reached also has no versions.
func packageRules() []textRule {
	unreachable := "check that the package index is reachable from this machine (PIP_INDEX_URL, UV_DEFAULT_INDEX, pip_index_urls of the component), then run it again"
	return []textRule{
		{nil, `(?i)no space left on device|disk quota exceeded`, "DISK_FULL", resource.CauseResource, "the disk is full", "free space on the disk of the cache directory"},
		{nil, `(?i)HTTP (?:status client error|error) ?\(?(401|403)\b|(?:401|403) (?:Unauthorized|Forbidden)|(?:401|403) (?:Client )?Error`, "INDEX_DENIED", resource.CauseInput, "the package index does not let us in", "put the credentials into the URL of the index, or into ~/.netrc of the server's user"},
		{nil, `(?i)connection refused|failed to establish a new connection|name or service not known|temporary failure in name resolution|dns error|network is unreachable|connect(?:ion)? timed? ?out|operation timed out|connection reset|proxyerror|error sending request|could not connect|max retries exceeded`, "INDEX_UNREACHABLE", resource.CauseDependency, "the package index cannot be reached", unreachable},
		{nil, `(?i)HTTP status server error|5\d\d Server Error|HTTP error 5\d\d`, "INDEX_UNREACHABLE", resource.CauseDependency, "the package index is out of order", unreachable},
		{nil, `[Bb]ecause (\S+) was not found in the (?:package registry|provided package locations|cache)`, "UNKNOWN_PACKAGE", resource.CauseInput, "there is no package $1 in the index", "check the name in packages_to_install (requirements of a custom job)"},
		{nil, `there (?:is|are) no (?:version|versions) of (\S+)`, "UNKNOWN_VERSION", resource.CauseInput, "the index has no such version: $1", "name another version in packages_to_install (requirements of a custom job)"},
		{nil, `[Bb]ecause only (?:the following versions of )?([A-Za-z0-9][A-Za-z0-9._-]*)\S* (?:is|are) available`, "UNKNOWN_VERSION", resource.CauseInput, "the index has no such version of $1", "name another version in packages_to_install (requirements of a custom job)"},
		{nil, `Could not find a version that satisfies the requirement (.+?) \(from versions: none\)`, "UNKNOWN_PACKAGE", resource.CauseInput, "there is no package $1 in the index", "check the name in packages_to_install (requirements of a custom job)"},
		{nil, `Could not find a version that satisfies the requirement (.+?) \(from`, "UNKNOWN_VERSION", resource.CauseInput, "the index has no such version: $1", "name another version in packages_to_install (requirements of a custom job)"},
		{nil, `(?i)(?:failed to parse|invalid requirement): (.+)`, "BAD_REQUIREMENT", resource.CauseInput, "this is no requirement: $1", "write requirements as pip takes them: NAME, NAME==VERSION, or a URL"},
		{nil, `current Python version \(([^)]+)\) does not satisfy Python(\S+)`, "PYTHON_VERSION", resource.CauseInput, "a package needs Python $2, and the component runs on $1", "choose another base_image, or another version of the package"},
		{nil, `(?:requirements are unsatisfiable|ResolutionImpossible|conflicting dependencies)`, "CONFLICT", resource.CauseInput, "the packages exclude each other", "loosen the versions in packages_to_install (requirements of a custom job)"},
		{nil, `(?i)Failed to build [‘'"` + "`" + `]?([^\s‘'’"` + "`" + `]+)`, "BUILD_FAILED", resource.CauseDependency, "the package $1 could not be built here", "choose a version of it that has a wheel for this Python and processor, or install its compiler"},
		{nil, `(?i)hash mismatch|do not match the hashes`, "INDEX_DAMAGED", resource.CauseDependency, "a package from the index is not the one that was named", "clear the cache of the index, and run it again"},
	}
}

// packages judges the output of a package tool that failed.
func packages(lines []string) finding {
	if f, ok := match(packageRules(), 1, lines, packageLines); ok {
		return f
	}
	return finding{
		reason: "PACKAGES", cause: resource.CauseDependency, message: "the packages could not be installed",
		hint: "check their names and versions, and that the package index is reachable from this machine",
	}
}

// PackageError is the failure of a package tool, uv or pip, judged by its output.
func PackageError(what string, output []string) *resource.Error {
	f := packages(output)
	return &resource.Error{Code: f.cause.Code(), Message: what + " failed: " + f.message, Hint: f.hint, Cause: f.cause, Reason: f.reason}
}
