package process

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tategu/internal/runtime"
)

// TestMountedMeanwhile: what was mounted while a wrapper waited is there for the next
// program, also where mounts are private. It is not parallel: others' wrappers would see
// the mount, too.
func TestMountedMeanwhile(t *testing.T) { //nolint:paralleltest // see above
	r := nested(t)
	dir := t.TempDir()
	waits(t, r)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("nothing can be mounted here: " + err.Error())
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("seen"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, _ := said(t, r, runtime.Workload{ID: "x", Command: []string{"cat", filepath.Join(dir, "here")}}); text != "seen" {
		t.Errorf("%q", text)
	}
}
