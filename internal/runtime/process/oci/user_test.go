package oci

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tategu/internal/resource"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"tategu/internal/runtime/process/box"
)

func nlink(st os.FileInfo) uint64 { return uint64(st.Sys().(*syscall.Stat_t).Nlink) } //nolint:unconvert // the type differs by system

func TestLookUser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nbroken line\nann:x:1000:1001:Ann:/home/ann:/bin/sh\nminus:x:-1:5::/:\nann:x:7:7::/:\n",
		"group":  "root:x:0:\nwheel:x:10:root,ann\ndocker:x:99:ann\nown:x:1001:ann\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		want box.User
		code codes.Code
	}{
		"":           {want: box.User{Home: "/root", Groups: []int{10}}},
		"ann":        {want: box.User{UID: 1000, GID: 1001, Home: "/home/ann", Groups: []int{10, 99}}},
		"1000":       {want: box.User{UID: 1000, GID: 1001, Home: "/home/ann", Groups: []int{10, 99}}},
		"ann:docker": {want: box.User{UID: 1000, GID: 99, Home: "/home/ann"}},
		"ann:5":      {want: box.User{UID: 1000, GID: 5, Home: "/home/ann"}},
		"4242":       {want: box.User{UID: 4242, Home: "/"}},
		"4242:4243":  {want: box.User{UID: 4242, GID: 4243, Home: "/"}},
		"bob":        {code: codes.InvalidArgument},
		"minus":      {code: codes.InvalidArgument},
		"ann:none":   {code: codes.InvalidArgument},
	}
	for spec, tc := range tests {
		got, err := LookUser(dir, spec)
		if resource.CodeOf(err) != tc.code {
			t.Errorf("%q: %v, want %v", spec, err, tc.code)
		} else if d := cmp.Diff(tc.want, got); err == nil && d != "" {
			t.Errorf("%q: %s", spec, d)
		}
	}
	if got, err := LookUser(t.TempDir(), "0"); err != nil || got.Home != "/root" {
		t.Errorf("an image without accounts: %+v, %v", got, err)
	}
	out := t.TempDir()
	if err := os.Mkdir(filepath.Join(out, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(out, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if got, err := LookUser(out, "root"); err == nil {
		t.Errorf("read the machine's own accounts: %+v", got)
	}
}
