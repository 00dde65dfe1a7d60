package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/runtime"
)

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

func TestWordsThatAreDataNameNoFiles(t *testing.T) {
	t.Parallel()
	got := wanted(runtime.Workload{Fetch: []string{"gs://asked/x"}, Literal: true, Args: []string{"gs://b/model"}})
	if d := cmp.Diff([]string{"gs://asked/x"}, got); d != "" {
		t.Error(d)
	}
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
	})
}

// TestOwnDirectoryIsNotFetched: where a program writes its outputs nothing is looked for,
// unless it is asked for.
func TestOwnDirectoryIsNotFetched(t *testing.T) {
	t.Parallel()
	got := wanted(runtime.Workload{
		Dirs: []string{"/gcs/b1/run/task"}, Fetch: []string{"gs://b1/run/task/asked"},
		Args: []string{`{"a":"/gcs/b1/run/task/out","b":"/gcs/b1/run/task","c":"gs://b1/run/task/x/y","d":"/gcs/b1/run/task2/in"}`},
	})
	if d := cmp.Diff([]string{"gs://b1/run/task/asked", "gs://b1/run/task2/in"}, got); d != "" {
		t.Error(d)
	}
}
