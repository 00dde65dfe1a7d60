package process_test

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"tategu/internal/runtime"
)

// TestDebian runs Python and the package manager in an image of Debian packages,
// which `mmdebstrap --variant=minbase --include=python3 bookworm FILE.tar` makes.
func TestDebian(t *testing.T) {
	t.Parallel()
	path := os.Getenv("TATEGU_TEST_DEBIAN")
	if path == "" {
		t.Skip("TATEGU_TEST_DEBIAN names no tar of a Debian with python3 (mmdebstrap makes one)")
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := images{}
	r := inImages(t, kept)
	kept["debian:1"] = image("debian:1", runtime.ImageConfig{Cmd: []string{"python3", "--version"}}, runtime.Layer{
		DiffID: path, Size: st.Size(), Open: func(context.Context) (io.ReadCloser, error) { return os.Open(path) },
	})
	exit := runToEnd(t, r, runtime.Workload{ID: "version", Image: "debian:1"})
	if got := strings.Join(exit.Tail, "\n"); !exit.OK() || !strings.HasPrefix(got, "Python 3.") {
		t.Fatalf("exit %+v", exit)
	}
	script := "import os, pathlib, subprocess\n" +
		"pathlib.Path('/gcs/b/x').write_text('made'); print(os.getuid(), sorted(os.listdir('/dev'))[:3])\n" +
		"print(subprocess.run(['dpkg', '--configure', '-a'], check=True).returncode, sum(1 for _ in open('/var/lib/dpkg/status')) > 1000)\n"
	w := runtime.Workload{ID: "script", Image: "debian:1", Dirs: []string{"/gcs/b"}, Python: &runtime.Python{Script: script}}
	exit = runToEnd(t, r, w)
	if got := strings.Join(exit.Tail, "\n"); !exit.OK() || !strings.Contains(got, "0 ['fd', 'full', 'null']") || !strings.Contains(got, "0 True") {
		t.Fatalf("exit %+v", exit)
	}
}
