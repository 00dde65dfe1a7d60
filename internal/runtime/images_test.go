package runtime

import (
	"context"
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
		{Match: "python:3.12-real", Image: true, Mounts: []string{"/a:/b"}},
		{Match: "both", Image: true, Python: "3.11"},
		{Match: "alone", Rootfs: "/srv/x", Network: "none"},
		{Match: "shared", Image: true, Network: "host"},
		{Match: "bridge", Image: true, Network: "bridge"},
		{Match: "program", Command: []string{"x"}, Network: "none"},
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
		"rootfs":                                  {want: Plan{Rootfs: "/srv/x"}},
		"python:3.12-real":                        {want: Plan{Kept: true, Mounts: []string{"/a:/b"}}},
		"both":                                    {code: codes.InvalidArgument, say: "more than one"},
		"alone":                                   {want: Plan{Rootfs: "/srv/x", NoNetwork: true}},
		"shared":                                  {want: Plan{Kept: true}},
		"bridge":                                  {code: codes.InvalidArgument, say: `"bridge"`},
		"program":                                 {code: codes.InvalidArgument, say: "which only containers have"},
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

// keeper knows some images.
type keeper map[string]error

func (k keeper) Image(_ context.Context, reference string) (Image, error) {
	err, ok := k[reference]
	if !ok {
		err = resource.NotFound(reference).WithHint("run `pull %s`", reference)
	}
	image := Image{Reference: reference}
	if base, ok := strings.CutPrefix(reference, "files_"); ok {
		base, packages, _ := strings.Cut(base, "+")
		image.Config.Base = base
		if packages != "" {
			image.Config.Packages = []string{packages}
		}
	}
	return image, err
}

// TestChoose: rules first, then Python images, then what is kept.
func TestChoose(t *testing.T) {
	t.Parallel()
	rules := []ImageRule{{Match: "rule*", Command: []string{"x"}}, {Match: "real*", Image: true}, {Match: "bad"}, {Match: "*alone*", Image: true, Network: "none"}}
	kept := keeper{
		"ours:1": nil, "rule:1": nil, "python:3.11": nil, "real:1": nil, "bad": nil, "alone:1": nil, "files_machine+alone": nil, "broken:1": resource.Errorf(codes.DataLoss, "damaged"),
		"files_machine": nil, "files_python:3.12+six": nil, "files_machine+six": nil, "files_real:1": nil, "files_rule:9": nil, "files_nobody:1": nil,
	}
	tests := map[string]struct {
		kept Images
		want Plan
		code codes.Code
		say  string
	}{
		"ours:1":                {kept: kept, want: Plan{Kept: true}},
		"rule:1":                {kept: kept, want: Plan{Command: []string{"x"}}},
		"python:3.11":           {kept: kept, want: Plan{Python: true, Version: "3.11"}},
		"real:1":                {kept: kept, want: Plan{Kept: true}},
		"alone:1":               {kept: kept, want: Plan{Kept: true, NoNetwork: true}},
		"files_machine+alone":   {kept: kept, code: codes.InvalidArgument, say: "no network"},
		"real:2":                {kept: kept, code: codes.NotFound, say: "pull real:2"},
		"other:1":               {kept: kept, code: codes.InvalidArgument, say: "pull other:1"},
		"broken:1":              {kept: kept, code: codes.DataLoss, say: "damaged"},
		"bad":                   {kept: kept, code: codes.InvalidArgument, say: "neither"},
		"files_machine":         {kept: kept, want: Plan{Files: true}},
		"files_python:3.12+six": {kept: kept, want: Plan{Files: true, Python: true, Version: "3.12", Packages: []string{"six"}}},
		"files_rule:9":          {kept: kept, want: Plan{Files: true, Command: []string{"x"}}},
		"files_machine+six":     {kept: kept, code: codes.InvalidArgument, say: "Python version"},
		"files_real:1":          {kept: kept, code: codes.InvalidArgument, say: "runs in a container here"},
		"files_nobody:1":        {kept: kept, code: codes.InvalidArgument, say: "nobody:1"},
		"none:1":                {code: codes.InvalidArgument, say: "add a rule"},
		"real:3":                {code: codes.FailedPrecondition, say: "keeps no images"},
		"":                      {},
	}
	for image, tc := range tests {
		got, err := Choose(t.Context(), rules, tc.kept, image)
		if resource.CodeOf(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.say) {
			t.Errorf("Choose(%q) = %v, want %v with %q", image, err, tc.code, tc.say)
		}
		if d := cmp.Diff(tc.want, got); err == nil && d != "" {
			t.Errorf("Choose(%q): %s", image, d)
		}
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
