//go:build linux

package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// smallDisk mounts a file system of 64 MB; the test is skipped where it may not.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk writes a file until not one byte more fits.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err = f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block, err = block[:len(block)/2], nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// enough refusals of one kind make sure that the disk is full and stays so.
const enough = 12

// fill sends requests of every kind until the server has refused enough of each.
func fill(t *testing.T, s *server, l *ledger) {
	t.Helper()
	var work sync.WaitGroup
	for kind, up := range uploads() {
		work.Go(func() {
			for n := 0; l.refusals(kind) < enough; n++ {
				if !uploadOnce(t, s, l, kind, up, fmt.Sprintf("%s-%d", kind, n)) {
					return
				}
			}
		})
	}
	work.Go(func() {
		for n := 0; uploadModel(t, s, l, n); n++ {
		}
	})
	work.Wait()
}

func uploadOnce(t *testing.T, s *server, l *ledger, kind string, up upload, name string) bool {
	t.Helper()
	size := rand.IntN(700 << 10)
	if rand.IntN(3) == 0 {
		size = rand.IntN(2000)
	}
	a, err := up(s, name, content(name, size))
	switch {
	case err != nil:
		t.Errorf("%s upload of %d bytes: %v", kind, size, err)
		return false
	case a.status == http.StatusOK:
		l.put(name, size)
	case a.status == http.StatusInsufficientStorage:
		if !strings.Contains(string(a.body), "no space left") {
			t.Errorf("%s upload was refused without a reason: %s", kind, a)
		}
		l.refuse(kind)
	default:
		t.Errorf("%s upload of %d bytes: %s", kind, size, a)
		return false
	}
	return true
}

// modelBody is large, so that models too fill the disk.
func modelBody(n int) (display, body string) {
	display = fmt.Sprintf("model-%d", n)
	return display, fmt.Sprintf(`{"model":{"displayName":%q,"description":%q,"containerSpec":{"imageUri":"wait:1"}}}`, display, strings.Repeat("word ", 3000))
}

func uploadModel(t *testing.T, s *server, l *ledger, n int) bool {
	t.Helper()
	display, body := modelBody(n)
	a, err := s.try(http.MethodPost, parent+"/models:upload", strings.NewReader(body))
	switch {
	case err != nil:
		t.Errorf("upload a model: %v", err)
		return false
	case a.status == http.StatusOK:
		var op struct{ Response struct{ Model string } }
		a.decode(t, &op)
		l.mu.Lock()
		l.models[op.Response.Model] = display
		l.mu.Unlock()
		return true
	case a.status == http.StatusInsufficientStorage && strings.Contains(string(a.body), "RESOURCE_EXHAUSTED"):
		return l.refuse("model") < enough
	}
	t.Errorf("upload a model: %s", a)
	return false
}

// TestFullDisk: clients fill a disk to the brim in every way they have. They are
// told so, what was acknowledged stays, objects can be deleted, and with room
// again everything goes on without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	data := filepath.Join(smallDisk(t), "data")
	s := start(t, data, options{config: waitConfig})
	makeBucket(t, s)
	l := newLedger()
	fill(t, s, l)
	if t.Failed() {
		return
	}
	for kind, n := range l.refused {
		if n < enough {
			t.Errorf("only %d of %s were refused", n, kind)
		}
	}
	t.Logf("%d objects and %d models were acknowledged; refused: %v", len(l.objects), len(l.models), l.refused)
	if out, err := command(t, "status", "--data", data); err != nil || !strings.Contains(out, "WARNING: the disk is full") {
		t.Errorf("status says %q, %v", out, err)
	}
	if a := s.do(http.MethodGet, "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("a full disk made the server unready: %s", a)
	}
	refusedOverGRPC(t, s)
	l.check(t, s)
	if left, err := os.ReadDir(filepath.Join(data, "objects", "tmp")); err != nil || len(left) != 0 {
		t.Errorf("%d temporary files are left, %v", len(left), err)
	}
	s.stop()
	s = start(t, data, options{config: waitConfig}) // a full disk keeps no server from starting
	names := l.names()
	for _, name := range names[:len(names)/2] {
		if a := s.do(http.MethodDelete, objectPath(bucket, name), ""); a.status != http.StatusNoContent {
			t.Fatalf("delete %s from a full disk: %s", name, a)
		}
		l.drop(name)
	}
	for kind, up := range uploads() {
		name := kind + "-again"
		if a, err := up(s, name, content(name, 100_000)); err != nil || a.status != http.StatusOK {
			t.Errorf("%s upload into the space that was freed: %s, %v", kind, a, err)
		}
		l.put(name, 100_000)
	}
	l.refused["model"] = 0
	if !uploadModel(t, s, l, 1<<20) || l.refused["model"] > 0 {
		t.Error("no model can be made with space again")
	}
	l.check(t, s)
	s.stop()
	s = start(t, data, options{})
	l.check(t, s)
	checkWhole(t, s)
}

func refusedOverGRPC(t *testing.T, s *server) {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.base, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the call is over
	_, err = pb.NewModelServiceClient(conn).UploadModel(t.Context(), &pb.UploadModelRequest{
		Parent: strings.TrimPrefix(parent, "/v1/"), Model: &pb.Model{DisplayName: "m", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "wait:1"}},
	})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over gRPC: %v", err)
	}
}

// exhaust uses up what room the state has left: each refused deletion is audited.
func exhaust(t *testing.T, s *server) {
	t.Helper()
	for n := range 20_000 {
		switch a := s.do(http.MethodDelete, objectPath(bucket, "missing"), ""); a.status {
		case http.StatusNotFound:
		case http.StatusInsufficientStorage:
			t.Logf("the state is full after %d more commits", n)
			return
		default:
			t.Fatalf("delete a missing object: %s", a)
		}
	}
	t.Error("the state is not full")
}

// running reports a program with an argument.
func running(t *testing.T, argument string) bool {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(entries, func(path string) bool {
		line, err := os.ReadFile(path)
		return err == nil && bytes.Contains(line, []byte(argument))
	})
}

// TestFullFromOutside: something else takes the last byte of the disk, so that
// not even the server's state can be written, while programs run and end.
func TestFullFromOutside(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	data, flag := filepath.Join(disk, "data"), filepath.Join(t.TempDir(), "go")
	s := start(t, data, options{config: waitConfig})
	makeBucket(t, s)
	l := newLedger()
	for n := range 60 {
		uploadOnce(t, s, l, "simple", simple, fmt.Sprintf("before-%d", n))
	}
	pipeline := created(t, s, "pipelineJobs?pipelineJobId=run", waitPipeline(flag, 2))
	job := created(t, s, "customJobs", waitJob(flag))
	runaway := created(t, s, "customJobs", waitJob(flag+"-never"))
	for _, name := range []string{pipeline, job, runaway} {
		reaches(t, s, name, "RUNNING")
	}

	fillDisk(t, filepath.Join(disk, "filler"))
	for kind, up := range uploads() {
		if a, err := up(s, "during", content("during", 5000)); err != nil || a.status != http.StatusInsufficientStorage {
			t.Errorf("%s upload on a full disk: %s, %v", kind, a, err)
		}
	}
	if a := s.do(http.MethodPost, "/v1/"+runaway+":cancel", "{}"); a.status != http.StatusOK {
		t.Errorf("cancel on a full disk: %s", a)
	}
	if !poll(t.Context(), func() bool { return !running(t, flag+"-never") }) {
		t.Error("the program of a cancelled job goes on")
	}
	// Deletions are taken while the log has room.
	for _, name := range l.names()[:40] {
		switch a := s.do(http.MethodDelete, objectPath(bucket, name), ""); a.status {
		case http.StatusNoContent:
			l.drop(name)
		case http.StatusInsufficientStorage:
			l.unsure(name)
		default:
			t.Errorf("delete %s: %s", name, a)
		}
		fillDisk(t, filepath.Join(disk, "filler-"+name)) // what a deletion gave back
	}
	exhaust(t, s)
	if err := os.WriteFile(flag, nil, 0o600); err != nil { // the programs end now
		t.Fatal(err)
	}
	for range 20 {
		uploadModel(t, s, l, 0)
	}
	if !s.alive() {
		t.Fatal("the server ended")
	}
	if a := s.do(http.MethodGet, "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("a full disk made the server unready: %s", a)
	}
	l.check(t, s)

	if len(l.unknown) > 30 {
		t.Errorf("%d of 40 deletions were refused: the log has kept no room", len(l.unknown))
	}
	t.Logf("of 40 deletions on the full disk %d were refused; refused models: %v", len(l.unknown), l.refused)
	fillers, err := filepath.Glob(filepath.Join(disk, "filler*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fillers {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	reaches(t, s, pipeline, "SUCCEEDED")
	reaches(t, s, job, "SUCCEEDED")
	reaches(t, s, runaway, "CANCELLED")
	again := created(t, s, "pipelineJobs?pipelineJobId=again", waitPipeline(flag, 1))
	reaches(t, s, again, "SUCCEEDED")
	for n := range 10 {
		uploadOnce(t, s, l, "simple", simple, fmt.Sprintf("after-%d", n))
	}
	if n := l.refused["simple"]; n > 0 {
		t.Errorf("%d uploads were refused with space again", n)
	}
	l.check(t, s)
	s.stop()
	l.check(t, start(t, data, options{}))
}
