package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOrder: what runs a command, and as what.
func TestOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"train.py": 0o600, "tool": 0o700, "plain": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		flags       runFlags
		words       string
		image, want string // the command
		title, say  string
	}{
		"python":           {words: "python train.py -x", image: "python", want: "python train.py -x", title: "train.py"},
		"python of a kind": {words: "python3.12 -m pkg", image: "python:3.12", want: "python3.12 -m pkg", title: "pkg"},
		"a flag wins":      {flags: runFlags{python: "3.11"}, words: "python3.12 x.py", image: "python:3.11", want: "python3.12 x.py", title: "x.py"},
		"a script":         {words: "train.py a", image: "python", want: "python3 train.py a", title: "train.py"},
		"of the folder":    {words: "tool a", want: "./tool a", title: "tool"},
		"of the machine":   {words: "sleep 1", want: "sleep 1", title: "sleep"},
		"packages":         {flags: runFlags{with: []string{"ruff"}}, words: "ruff check", image: "python", want: "ruff check", title: "ruff"},
		"in an image":      {flags: runFlags{image: "team/x:v1"}, words: "python a.py", image: "team/x:v1", want: "python a.py", title: "a.py"},
		"not executable":   {words: "plain", say: "sh plain"},
		"version":          {flags: runFlags{python: "latest"}, words: "x", say: "not a version"},
		"both":             {flags: runFlags{python: "3.11", image: "team/x"}, words: "x", say: "without an image"},
		"not there":        {flags: runFlags{with: []string{"six"}, image: "team/x"}, words: "x", say: "image of its own"},
	}
	for name, tc := range tests {
		tc.flags.folder = dir
		o, err := tc.flags.order(strings.Fields(tc.words), true)
		if tc.say != "" {
			if err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s: %v, want %q", name, err, tc.say)
			}
			continue
		}
		if err != nil || o.image != tc.image || strings.Join(o.command, " ") != tc.want || o.title() != tc.title {
			t.Errorf("%s: image %q, command %q, title %q, %v", name, o.image, o.command, o.title(), err)
		}
	}
	image, err := (&runFlags{}).order([]string{"team/app:v1", "-x", "--", "y"}, false)
	if err != nil || image.image != "team/app:v1" || !slices.Equal(image.args, []string{"-x", "--", "y"}) || image.folder != "" || image.title() != "app:v1" {
		t.Errorf("an image: %+v, %v", image, err)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "512": 512, "1K": 1 << 10, "512M": 512 << 20, "8G": 8 << 30, "1.5GiB": 3 << 29, "2TB": 2 << 40} {
		if got, err := size("memory", text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "8X", "G", "1e9", "99999999999999G"} {
		if got, err := size("memory", text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
