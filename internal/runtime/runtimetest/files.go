package runtimetest

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

func testFiles(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, map[string]string{
		"gs://bucket/in/a.txt": "A", "gs://bucket/in/deep/b.txt": "B", "gs://bucket/other": "not asked for", "gs://second/one": "1", "gs://bucket/in/same": "same",
	})
	w := b.sh("files", `set -e
cat /gcs/bucket/in/a.txt /gcs/bucket/in/deep/b.txt /gcs/second/one
ls /gcs/bucket | grep other && exit 8
[ -d /gcs/out/empty ]
echo z > /gcs/out/z; echo y > /gcs/out/sub.y; mkdir -p /gcs/bucket/new/dir; echo n > /gcs/bucket/new/dir/n
echo changed > /gcs/bucket/in/a.txt; cat /gcs/bucket/in/same >/dev/null
exit 9`)
	w.Fetch, w.Publish, w.Dirs = []string{"gs://bucket/in/", "gs://second/one", "gs://bucket/missing"}, true, []string{"/gcs/out/empty"}
	exit := b.run(w)
	if exit.Code != 9 || !strings.Contains(b.logs.Text("files"), "AB1") {
		t.Fatalf("exit %+v, log %q", exit, b.logs.Text("files"))
	}
	want := []string{"gs://bucket/in/a.txt", "gs://bucket/new/dir/n", "gs://out/sub.y", "gs://out/z"}
	if got := b.files.Uploads(); !slices.Equal(got, want) {
		t.Fatalf("uploads %q, want %q", got, want)
	}
	if got := b.files.Content("gs://bucket/in/a.txt"); got != "changed\n" {
		t.Fatalf("a.txt = %q", got)
	}
}

// testLiterals: what a command line spells out is there, though nobody asked for it.
func testLiterals(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, map[string]string{"gs://lit/a b": "no", "gs://lit/x.txt": "X", "gs://lit/env/y.txt": "Y", "gs://lit/j.json": "J"})
	w := b.sh("literals", `cat /gcs/lit/x.txt "$DATA/y.txt" "$1"`)
	w.Args = []string{"sh", "/gcs/lit/j.json"}
	w.Env = map[string]string{"DATA": "/gcs/lit/env", "JSON": `{"uri":"gs://lit/none"}`}
	if exit := b.run(w); !exit.OK() || b.logs.Text("literals") != "XYJ" {
		t.Fatalf("exit %+v, log %q", exit, b.logs.Text("literals"))
	}
}

// testLiteralWords: words that are data name no files, and come as they are.
func testLiteralWords(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, map[string]string{"gs://lit/x.txt": "X"})
	w := b.sh("words", `cd "${TATEGU_GCS_DIR:-/gcs}" && echo made > out/made && ls && echo "$1"`)
	w.Literal, w.Publish, w.Dirs = true, true, []string{"/gcs/out"}
	w.Args = []string{"sh", `{"uri": "gs://lit/x.txt", "path": "/gcs/lit/x.txt"}`}
	if exit := b.run(w); !exit.OK() || b.logs.Text("words") != "out\n"+w.Args[1]+"\n" {
		t.Fatalf("exit %+v, log %q", exit, b.logs.Text("words"))
	}
	if got := b.files.Content("gs://out/made"); got != "made\n" {
		t.Fatalf("published %q", got)
	}
}

func testUploadFails(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	b.files.Fail(errors.New("the disk is full"))
	w := b.sh("upload", `echo x > /gcs/bucket/x`)
	w.Publish, w.Dirs = true, []string{"/gcs/bucket"}
	exit := b.run(w)
	if exit.OK() || exit.Cause != resource.CauseDependency || !strings.Contains(exit.Message, "gs://bucket/x") || !strings.Contains(exit.Message, "disk is full") {
		t.Fatalf("exit %+v", exit)
	}
}

func testEnvironment(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	w := b.sh("env", "env; echo cwd=$(pwd); [ -d \"$TMPDIR\" ] && [ -w . ] && echo usable")
	w.Env = map[string]string{"GIVEN": "value with spaces\nand lines", "OMP_NUM_THREADS": "7"}
	w.Resources.Cores = 1
	if exit := b.run(w); !exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
	text := "\n" + b.logs.Text("env")
	for _, want := range []string{"\nGIVEN=value with spaces\nand lines\n", "\nOMP_NUM_THREADS=7\n", "\nMKL_NUM_THREADS=1\n", "\nTEST_CREDENTIAL=env/p/s\n", "\nusable\n", "\nPATH=", "\nTMPDIR="} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	for _, secret := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		if strings.Contains(text, secret+"=") {
			t.Errorf("%s of the server leaks into %s", secret, text)
		}
	}
}

func testPort(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	w := b.sh("port", `echo "$PORT $AIP_HTTP_PORT"`)
	w.Port = true
	in := b.start(w)
	if exit := b.wait(in); !exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
	host, port, err := net.SplitHostPort(in.Address())
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("address %q: %v", in.Address(), err)
	}
	if got := b.logs.Text("port"); got != port+" "+port+"\n" {
		t.Fatalf("the program saw %q, the address is %s", got, in.Address())
	}
	b.restart()
	again, err := b.Find(b.ctx(), "port")
	if err != nil || again.Address() != in.Address() {
		t.Fatalf("after a restart: %v, %v", again, err)
	}
	if without := b.start(b.sh("none", "true")); without.Address() != "" {
		t.Fatalf("an address that nobody asked for: %s", without.Address())
	}
}

func testCredentials(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	in := b.start(b.sh("cred", "echo up; sleep 1000"))
	b.awaitLog("cred", "up")
	b.restart()
	in, err := b.Find(b.ctx(), in.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	if open, all := b.credentials.Counts(); open != 0 || all != 2 {
		t.Fatalf("%d of %d credentials are open after the end; want 0 of 2", open, all)
	}
	w := b.sh("refused", "true")
	w.Project = "refused"
	if exit := b.run(w); exit.OK() || !strings.Contains(exit.Message, "no such project") {
		t.Fatalf("exit %+v", exit)
	}
}

// testScript: the file of Python.Script; any interpreter will do to read it.
func testScript(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	w := runtime.Workload{ID: "script", Command: []string{"grep", "-c", "marker", runtime.ScriptPath}, Python: &runtime.Python{Script: "# marker\nprint('marker')\n"}}
	in := b.start(w)
	exit := b.wait(in)
	if exit.Cause == resource.CauseDependency {
		t.Skip("no Python here: " + exit.Message)
	}
	if !exit.OK() || exit.Tail[len(exit.Tail)-1] != "2" {
		t.Fatalf("exit %+v", exit)
	}
}
