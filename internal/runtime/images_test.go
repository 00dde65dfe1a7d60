package runtime

import (
	"strings"
	"testing"

	"tategu/internal/resource"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	rules := []ImageRule{
		{Match: "gcr.io/cloud-aiplatform/*", Python: "3.11", PythonMatch: "any"},
		{Match: "echo*:v?", Command: []string{"/bin/echo", "x"}},
		{Match: "rootfs", Rootfs: "/srv/x"},
		{Match: "nothing"},
	}
	tests := map[string]struct {
		want Plan
		code codes.Code
		say  string
	}{
		"":                         {},
		"python:3.11":              {want: Plan{Python: true, Version: "3.11"}},
		"python:3.9-slim-bookworm": {want: Plan{Python: true, Version: "3.9"}},
		"python:3.12.4":            {want: Plan{Python: true, Version: "3.12"}},
		"python":                   {want: Plan{Python: true}},
		"python:3":                 {want: Plan{Python: true}},
		"python:slim":              {want: Plan{Python: true}},
		"docker.io/library/python:3.10@sha256:ab": {want: Plan{Python: true, Version: "3.10"}},
		"gcr.io/cloud-aiplatform/training/tf:1":   {want: Plan{Python: true, Version: "3.11", AnyPython: true}},
		"echo/anything:v1":                        {want: Plan{Command: []string{"/bin/echo", "x"}}},
		"echo/anything:v12":                       {code: codes.InvalidArgument, say: "images:"},
		"notpython:3.11":                          {code: codes.InvalidArgument, say: "notpython:3.11"},
		"example.com/python/other:1":              {code: codes.InvalidArgument, say: "images:"},
		"rootfs":                                  {code: codes.Unimplemented, say: "rootfs"},
		"nothing":                                 {code: codes.InvalidArgument, say: "nothing"},
	}
	for image, tc := range tests {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			got, err := Resolve(rules, image)
			if resource.CodeOf(err) != tc.code {
				t.Fatalf("Resolve(%q) = %v, want code %v", image, err, tc.code)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tc.say) {
					t.Fatalf("error %q does not name %q", err, tc.say)
				}
				return
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Fatal(d)
			}
		})
	}
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"*", "a*b?c", "", "**", "gcr.io/*:latest"} {
		f.Add(s, "gcr.io/a/b:latest")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		_ = glob(pattern, s) // must return
		if !glob("*"+s+"*", s) && !strings.ContainsAny(s, "*?") {
			t.Fatalf("*%q* does not match %q", s, s)
		}
	})
}
