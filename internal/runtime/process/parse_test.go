package process

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	got := groups([]string{"--no-deps kfp==2.17.0", "pandas >= 2, < 3", "numpy; python_version > '3.8'", "  ", "--index-url https://x/simple --pre torch", "-q"})
	want := []group{
		{flags: []string{"--no-deps"}, packages: []string{"kfp==2.17.0"}},
		{packages: []string{"pandas >= 2, < 3", "numpy; python_version > '3.8'"}},
		{flags: []string{"--index-url", "https://x/simple", "--pre"}, packages: []string{"torch"}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(group{})); d != "" {
		t.Fatal(d)
	}
	flags := uvFlags([]string{"https://a", "https://b"}, []string{"--trusted-host", "a", "--quiet"})
	if d := cmp.Diff([]string{"--default-index", "https://a", "--index", "https://b", "--allow-insecure-host", "a"}, flags); d != "" {
		t.Fatal(d)
	}
}

func TestRewritePaths(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/gcs/b/x": "/d$1/gcs/b/x", "a=/gcs": "a=/d$1/gcs", `{"f":"/gcs/b/x"}`: `{"f":"/d$1/gcs/b/x"}`,
		"/home/gcs/x": "/home/gcs/x", "gs://gcs/x": "gs://gcs/x", "/gcsfuse": "/gcsfuse",
		`["/gcs","/gcs"]`: `["/d$1/gcs","/d$1/gcs"]`, "/gcs/gcs /gcs": "/d$1/gcs/gcs /d$1/gcs",
	} {
		if got := rewriteAt(in, "/gcs", "/d$1/gcs"); got != want {
			t.Errorf("rewriteAt(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzGroups(f *testing.F) {
	f.Add("--no-deps kfp==2.17.0\npandas")
	f.Add("-i\n--index-url\n- -")
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range groups(strings.Split(text, "\n")) {
			if len(g.packages) == 0 {
				t.Fatal("a group without packages")
			}
			for _, p := range g.packages {
				if p == "" || strings.HasPrefix(p, "-") {
					t.Fatalf("%q is no requirement", p)
				}
			}
		}
	})
}

func FuzzRewritePaths(f *testing.F) {
	f.Add("cat /gcs/b1/x a=/gcs")
	f.Fuzz(func(t *testing.T, text string) {
		if got := rewriteAt(text, "/gcs", "/gcs"); got != text {
			t.Fatalf("%q became %q where nothing is to move", text, got)
		}
	})
}
