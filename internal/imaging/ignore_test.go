package imaging_test

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"tategu/internal/imaging"
)

// kept lists the files that an Ignore lets pass.
func kept(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	ig, err := imaging.NewIgnore(fsys)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if ig.Ignored(name, d.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIgnore(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ ignore, git, want string }{
		"nothing":           {want: "a.py data/x.csv data/y.txt pkg/a.py pkg/sub/b.log"},
		"git":               {git: "*.log\n/data\n", want: ".gitignore a.py pkg/a.py"},
		"ours alone counts": {ignore: "*.txt\n", git: "*.py\n", want: ".gitignore a.py data/x.csv pkg/a.py pkg/sub/b.log"},
		"taken in again":    {ignore: "data/*\n!data/y.txt\n!.venv\n", want: ".venv/pyvenv.cfg a.py data/y.txt pkg/a.py pkg/sub/b.log"},
		"a folder by path":  {ignore: "pkg/**/b.log\ndata/\n", want: "a.py pkg/a.py"},
		"comments, blanks":  {ignore: "# no\n\n   \n\\#x\na.py  \n", want: "data/x.csv data/y.txt pkg/sub/b.log"},
	}
	for name, tc := range tests {
		files := fstest.MapFS{}
		for _, f := range []string{"a.py", "data/x.csv", "data/y.txt", "pkg/a.py", "pkg/sub/b.log", ".git/config", ".venv/pyvenv.cfg", "pkg/__pycache__/a.pyc"} {
			files[f] = &fstest.MapFile{}
		}
		if tc.ignore != "" {
			files[imaging.IgnoreFile] = &fstest.MapFile{Data: []byte(tc.ignore)}
		}
		if tc.git != "" {
			files[".gitignore"] = &fstest.MapFile{Data: []byte(tc.git)}
		}
		if got := strings.Join(kept(t, files), " "); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestIgnoreIsGits compares with git itself, over random trees and patterns.
func TestIgnoreIsGits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not on this machine")
	}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	for round := range 40 {
		dir := t.TempDir()
		files := map[string]string{}
		for range 12 {
			name := pick("a", "b", "c.txt", "ab", "x y")
			for range random.IntN(3) {
				name = pick("a", "b", "ab", "d") + "/" + name
			}
			files[name] = ""
		}
		for _, at := range []string{".gitignore", "a/.gitignore", "d/.gitignore"} {
			var lines []string
			for range random.IntN(4) {
				lines = append(lines, pick("", "", "!", "/", "**/", "a/")+pick("a", "b", "*", "?", "[!a]", "*.txt", "d", "a*", "x\\ y", "**", "a/**/b", "#a")+pick("", "", "/", "/*", "/**", "  "))
			}
			files[at] = strings.Join(lines, "\n")
		}
		for name, text := range files {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				continue // one is a file, which the other wants to be a folder
			}
			_ = os.WriteFile(file, []byte(text), 0o600) // likewise
		}
		run := func(args ...string) string {
			cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "core.excludesFile=", "-c", "core.quotePath=false"}, args...)...)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("git %v: %v", args, err)
			}
			return string(out)
		}
		run("init", "--quiet")
		want := strings.Split(strings.TrimRight(run("ls-files", "-z", "--others", "--exclude-standard"), "\x00"), "\x00")
		want = slices.DeleteFunc(want, func(s string) bool { return s == "" })
		slices.Sort(want)
		got := kept(t, os.DirFS(dir))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: kept %q, git keeps %q of %q", round, got, want, files)
		}
	}
}

func FuzzIgnore(f *testing.F) {
	f.Add("**/a/[!b]*\n!x/\n", "a/b/c")
	f.Add("a/**\n\\!z\n[", "z")
	f.Fuzz(func(t *testing.T, text, name string) {
		if !fs.ValidPath(name) || name == "." {
			return
		}
		if strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(text, "\r") {
			return
		}
		// What is taken in by its own name at the end stays in.
		escaped := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, ` `, `\ `).Replace(name)
		ig, err := imaging.NewIgnore(fstest.MapFS{imaging.IgnoreFile: &fstest.MapFile{Data: []byte(text + "\n!/" + escaped)}})
		if err != nil {
			return
		}
		if ig.Ignored(name, false) && path.Base(name) != ".git" {
			t.Fatalf("%q is ignored although !/%s", name, escaped)
		}
	})
}
