package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/resource"
)

func TestSecretDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, value := range map[string]string{"p/db/user": "me", "p/db/..data/x": "no key", "q/other/k": "v"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "p/db/out")); err != nil {
		t.Fatal(err)
	}
	got, err := secretDir(dir).Secret(t.Context(), "p", "db")
	if diff := cmp.Diff(map[string]string{"user": "me"}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, name := range []string{"other", "../q/other", "..", ".", "", "none"} {
		if got, err := secretDir(dir).Secret(t.Context(), "p", name); !resource.IsNotFound(err) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if err := secretDir("").check([]string{"db"}); err == nil {
		t.Error("a server without secrets takes what needs one")
	}
	if err := secretDir(dir).check([]string{"db"}); err != nil {
		t.Error(err)
	}
}
