package imaging_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tategu/internal/image"
	"tategu/internal/imaging"
	"tategu/internal/runtime"
)

func TestFolder(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{
		"train.py": "x", "image.yaml": "is a file like others", ".git/config": "", "old/.git/config": "",
		"big/data": strings.Repeat("d", 2000), imaging.IgnoreFile: "big\n",
	})
	f, err := imaging.OpenFolder(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if text := f.String(); text != "2 files, 0.0 kB; left out: .git/, big/, 1 below (.tateguignore)" {
		t.Errorf("said %q", text)
	}
	r := f.Recipe()
	r.On = "python:3.12"
	r.Packages = []string{"six==1.16", `pandas; python_version < "3.13"`}
	img, err := imaging.Build(nil, dir, r, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// The server reads what the client wrote.
	c, images, sent := serve(t)
	digestOf := digest(t, img)
	for round, want := range []int{1, 0} {
		to, err := c.Digest("home/"+image.PackedName, digestOf)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), to, imaging.Picture{Image: img}); err != nil {
			t.Fatal(err)
		}
		if n := sent(); (n > 0) != (want > 0) {
			t.Errorf("round %d sent %d blobs", round, n)
		}
	}
	got, err := image.NewImages(images, func(string) bool { return false }).Image(t.Context(), "home/"+image.PackedName+"@"+digestOf)
	if err != nil {
		t.Fatal(err)
	}
	if got.Config.Base != "python:3.12" || !slices.Equal(got.Config.Packages, r.Packages) || len(got.Layers) != 1 {
		t.Errorf("the server sees %+v", got.Config)
	}
	if err := os.WriteFile(filepath.Join(dir, imaging.IgnoreFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := imaging.OpenFolder(dir, 1000); err == nil || !strings.Contains(err.Error(), "big 2.0 kB") || !strings.Contains(err.Error(), imaging.IgnoreFile) {
		t.Errorf("too large: %v", err)
	}
	if _, err := imaging.OpenFolder(filepath.Join(dir, "train.py"), 1000); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestFilesRecipes(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{"run": "#!/bin/sh\n"})
	for name, tc := range map[string]struct {
		r         imaging.Recipe
		base, say string
	}{
		"python":             {imaging.Recipe{Python: "3.12"}, "python:3.12", ""},
		"machine":            {imaging.Recipe{Base: runtime.BaseMachine}, runtime.BaseMachine, ""},
		"system":             {imaging.Recipe{}, "", ""},
		"both":               {imaging.Recipe{Python: "3.12", Base: "x"}, "", "not both"},
		"not a version":      {imaging.Recipe{Python: "latest"}, "", "not a version"},
		"packages of nobody": {imaging.Recipe{Packages: []string{"six"}}, "", "version of Python"},
		"into":               {imaging.Recipe{Python: "3.12", Into: "/app"}, "", "working directory"},
	} {
		img, err := imaging.Build(nil, filepath.Join(dir, "run"), tc.r, t.TempDir())
		if tc.say != "" {
			if err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s: %v, want %q", name, err, tc.say)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		entry := map[bool]string{true: "./run", false: "/app/run"}[tc.base != ""]
		if c.Config.Labels[runtime.LabelBase] != tc.base || c.Config.Entrypoint[0] != entry || (c.OS == "") != (tc.base != "") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{
		"all.txt":    "# pinned\nnumpy==2.1  # why\n\npandas[sql] >= 2 ; \\\n  python_version < '3.13'\n-r more/m.txt\npkg @ https://x/y#egg=z\n",
		"more/m.txt": "six\r\n--requirement=../six.txt",
		"six.txt":    "attrs",
		"index.txt":  "--index-url https://index/simple\n--pre\nnumpy",
		"loop.txt":   "-r loop.txt", "edit.txt": "-e .", "hash.txt": "six --hash=sha256:1", "local.txt": "./pkg", "none.txt": "-i",
	})
	read := func(name string) ([]string, error) { return imaging.ReadRequirements(filepath.Join(dir, name)) }
	got, err := read("all.txt")
	if want := []string{"numpy==2.1", "pandas[sql] >= 2 ;    python_version < '3.13'", "six", "attrs", "pkg @ https://x/y#egg=z"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	got, err = read("index.txt")
	if want := []string{"--index-url https://index/simple --pre numpy"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for name, say := range map[string]string{
		"loop.txt": "includes itself", "edit.txt": `"-e"`, "hash.txt": "options of one requirement", "local.txt": "path of this machine", "none.txt": "one value", "gone.txt": "no such file",
	} {
		if _, err := read(name); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want %q", name, err, say)
		}
	}
}

func FuzzRequirements(f *testing.F) {
	f.Add("a==1 # x\n-i http://x\n\\\n")
	f.Add("-r x\n--pre\r\nb ; c\\")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "r.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := imaging.ReadRequirements(file)
		if err != nil {
			return
		}
		for _, entry := range list {
			if strings.TrimSpace(entry) == "" || strings.ContainsAny(entry, "\n") {
				t.Fatalf("entry %q of %q", entry, text)
			}
		}
	})
}
