package workload_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/runtime/workload"
)

func TestTail(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3000)
	for name, tc := range map[string]struct {
		output string
		want   []string
	}{
		"nothing":      {"", nil},
		"empty lines":  {"\n\n", nil},
		"no line feed": {"a\nb", []string{"a", "b"}},
		"progress":     {"  1%\r 50%\r100%\ndone\r\n", []string{"100%", "done"}},
		"colours":      {"\x1b[1;31mError\x1b[0m: no\n", []string{"Error: no"}},
		"controls":     {"a\x07b\x00c\td\n", []string{"abc\td"}},
		"not text":     {"\xff\xfeok\n", []string{"\uFFFDok"}},
		"a long line":  {long + "\nend\n", []string{strings.Repeat("x", 1000) + "...", "end"}},
		"many lines":   {strings.Repeat("line\n", 100), strings.Split(strings.TrimSuffix(strings.Repeat("line\n", 20), "\n"), "\n")},
		"much of it":   {strings.Repeat(long+"\n", 10) + "end\n", nil},
	} {
		path := filepath.Join(t.TempDir(), "output")
		if err := os.WriteFile(path, []byte(tc.output), 0o600); err != nil {
			t.Fatal(err)
		}
		got := workload.Tail(path)
		if name == "much of it" { // starts somewhere in the middle, at a line
			if len(got) != 6 || len(got[0]) != 1003 || got[5] != "end" {
				t.Errorf("%s: %d lines", name, len(got))
			}
			continue
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if got := workload.Tail(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("no file: %q", got)
	}
}
