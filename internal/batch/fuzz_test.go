package batch

import (
	"path"
	"strings"
	"testing"
)

// FuzzMatches: without ** a pattern means what path.Match says, and a name is in
// the directory that it is in.
func FuzzMatches(f *testing.F) {
	for _, s := range [][2]string{{"a/*.jsonl", "a/b.jsonl"}, {"a/**/c", "a/b/b/c"}, {"dir/", "dir/x"}, {"", "x"}, {"[", "x"}, {"**", "a/b"}, {"a*b*c*d", "abcd"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got := Matches(pattern, name)
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
