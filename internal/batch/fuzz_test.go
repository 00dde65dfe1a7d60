package batch

import (
	"encoding/json"
	"path"
	"strings"
	"testing"
)

// FuzzRow turns any line into an instance: JSON that holds what the configuration
// leaves of the line, or an error that is written beside it as JSON.
func FuzzRow(f *testing.F) {
	for _, s := range []string{`{"k":1,"a":[1,2],"b":null}`, `[1,2]`, `1`, `{"a":1,"a":2}`, `{"k":`, `"x"`, `{"a":1}{"b":2}`, "\xff", `{"\ud800":1}`, ` {}`} {
		f.Add(s, true, "k", "a", "")
		f.Add(s, false, "", "", "b")
		f.Add(s, false, "", "", "")
	}
	f.Fuzz(func(t *testing.T, line string, array bool, key, included, excluded string) {
		if strings.TrimSpace(line) != line || line == "" {
			t.Skip("lines are trimmed, and blank ones left out")
		}
		s := shape{array: array, key: key}
		if included != "" {
			s.included = strings.Split(included, ",")
		}
		if excluded != "" {
			s.excluded = strings.Split(excluded, ",")
		}
		it := s.item([]byte(line))
		if !json.Valid([]byte("{" + string(it.shown) + "}")) {
			t.Fatalf("%q is shown as %q", line, it.shown)
		}
		if it.err != nil {
			return
		}
		if !json.Valid(it.instance) {
			t.Fatalf("%q gives the instance %q", line, it.instance)
		}
		if s.plain() && string(it.instance) != line {
			t.Fatalf("%q became %q", line, it.instance)
		}
	})
}

// FuzzMatches: without ** a pattern means what path.Match says, and a name is in
// the directory that it is in.
func FuzzMatches(f *testing.F) {
	for _, s := range [][2]string{{"a/*.jsonl", "a/b.jsonl"}, {"a/**/c", "a/b/b/c"}, {"dir/", "dir/x"}, {"", "x"}, {"[", "x"}, {"**", "a/b"}, {"a*b*c*d", "abcd"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got := matches(pattern, name)
		switch {
		case !strings.Contains(pattern, "*"):
			dir := strings.TrimSuffix(pattern, "/")
			if want := dir == "" || strings.HasPrefix(name, dir+"/"); got != want {
				t.Fatalf("%q, %q: %t", pattern, name, got)
			}
		case !strings.Contains(pattern, "**"):
			if want, err := path.Match(pattern, name); got != (want && err == nil) {
				t.Fatalf("%q, %q: %t", pattern, name, got)
			}
		}
	})
}
