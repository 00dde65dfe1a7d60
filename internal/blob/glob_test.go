package blob

import (
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern  string
		yes, not []string
	}{
		{"a", []string{"a"}, []string{"", "aa", "a/"}},
		{"*.csv", []string{"x.csv", ".csv"}, []string{"d/x.csv", "x.csv.gz"}},
		{"**.csv", []string{"x.csv", "d/e/x.csv", "\n.csv"}, []string{"x.csvs"}},
		{"a/**/b", []string{"a//b", "a/x/b", "a/x/y/b"}, []string{"a/b"}},
		{"l/[12]/*", []string{"l/1/f", "l/2/"}, []string{"l/3/f", "l/1/f/g"}},
		{"[!a-c]x", []string{"dx"}, []string{"ax", "cx", "x"}},
		{"[]-]x", []string{"]x", "-x"}, []string{"ax"}},
		{"?", []string{"a", "図"}, []string{"", "/", "ab"}},
		{"{a,b*}c,", []string{"ac,", "bbc,"}, []string{"c,", "abc,"}},
		{"{a,{b,c}d}", []string{"a", "bd", "cd"}, []string{"b"}},
		{`\*\[a`, []string{"*[a"}, []string{"x[a"}},
		{"a.+(b)", []string{"a.+(b)"}, []string{"aa(b)"}},
		{"[[:alpha:]]", nil, []string{"b"}},
	} {
		g, err := ParseGlob(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, name := range tt.yes {
			if !g.Match(name) || !strings.HasPrefix(name, g.prefix) {
				t.Errorf("%q does not match %q (prefix %q)", tt.pattern, name, g.prefix)
			}
		}
		for _, name := range tt.not {
			if g.Match(name) {
				t.Errorf("%q matches %q", tt.pattern, name)
			}
		}
	}
	for _, pattern := range []string{"[", "[a", "{a", "a}", `a\`, "[b-a]", "\xff", strings.Repeat("a", maxGlob+1)} {
		if _, err := ParseGlob(pattern); err == nil {
			t.Errorf("%.20q was accepted", pattern)
		}
	}
}

// FuzzMatchGlob: whatever is accepted matches without trouble, only names with its
// literal beginning, and a pattern of plain characters only itself.
func FuzzMatchGlob(f *testing.F) {
	for _, s := range []string{"a*", "**/b", "[a-z]{x,y}?", `\*`, "[]]", "{,}", "[^/]", "a{b,[c,d]}"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := ParseGlob(pattern)
		if err != nil {
			return
		}
		if g.Match(name) && !strings.HasPrefix(name, g.prefix) {
			t.Errorf("%q matches %q without its prefix %q", pattern, name, g.prefix)
		}
		if literalLength(pattern) == len(pattern) && (!g.Match(pattern) || name != pattern && g.Match(name)) {
			t.Errorf("plain pattern %q", pattern)
		}
	})
}

// FuzzGenerationKey: keys give their names back and sort by name, then generation.
func FuzzGenerationKey(f *testing.F) {
	f.Add("a", int64(1), "a\x00", int64(2))
	f.Add("a\x01", int64(1), "a", int64(2))
	f.Add("a\x01\x01", int64(9), "a\x01", int64(2))
	f.Fuzz(func(t *testing.T, a string, m int64, b string, n int64) {
		if m < 0 || n < 0 || a == "" || b == "" {
			return
		}
		x, y := generationKey("bucket", a, m), generationKey("bucket", b, n)
		if bucket, name, err := parseGenerationKey(x); err != nil || bucket != "bucket" || name != a {
			t.Errorf("%q gave %q %q %v", x, bucket, name, err)
		}
		want := listed{name: a, generation: m}.compare(listed{name: b, generation: n})
		if got := strings.Compare(x, y); got != want {
			t.Errorf("%q/%d and %q/%d sort %d, want %d", a, m, b, n, got, want)
		}
	})
}
