package process

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/runtime"
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
	if d := cmp.Diff([]string{"--index-url", "https://a", "--extra-index-url", "https://b", "--allow-insecure-host", "a"}, flags); d != "" {
		t.Fatal(d)
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	got := wanted(runtime.Workload{
		Fetch:   []string{"gs://asked/"},
		Command: []string{"sh", "-c", "pip install /gcs/staging/x-0.1.tar.gz && cat '/gcs/b1/y' /home/gcs/no/this /gcs/bare gs://bare2"},
		Args:    []string{`{"uri":"gs://b2/in/data","again":"gs://asked/"}`, "--dir=gs://b2/dir/"},
		Env:     map[string]string{"B": "gs://b3/e", "A": "/gcs/b1/y"},
	})
	want := []string{"gs://asked/", "gs://staging/x-0.1.tar.gz", "gs://b1/y", "gs://b2/in/data", "gs://b2/dir/", "gs://b3/e"}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestRewriteGCS(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/gcs/b/x": "/d$1/gcs/b/x", "a=/gcs": "a=/d$1/gcs", `{"f":"/gcs/b/x"}`: `{"f":"/d$1/gcs/b/x"}`,
		"/home/gcs/x": "/home/gcs/x", "gs://gcs/x": "gs://gcs/x", "/gcsfuse": "/gcsfuse",
	} {
		if got := rewriteGCS(in, "/d$1/gcs"); got != want {
			t.Errorf("rewriteGCS(%q) = %q, want %q", in, got, want)
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

func FuzzWanted(f *testing.F) {
	f.Add("cat /gcs/b1/x gs://b2/y", `{"a":"gs://b/c"}`)
	f.Fuzz(func(t *testing.T, command, arg string) {
		for _, uri := range wanted(runtime.Workload{Command: []string{command}, Args: []string{arg}}) {
			bucket, name, ok := strings.Cut(strings.TrimPrefix(uri, "gs://"), "/")
			if !ok || bucket == "" || name == "" {
				t.Fatalf("%q is not an object", uri)
			}
		}
		rewriteGCS(command, "/d/gcs")
	})
}
