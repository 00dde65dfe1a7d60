package blob_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
)

func (f *fixture) start(t *testing.T, name string, conds blob.Conditions) blob.Upload {
	t.Helper()
	u, err := f.StartUpload(t.Context(), blob.Object{Bucket: "bucket", Name: name, ContentType: "a/b"}, conds, -1)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestUploadInPieces goes through restarts, pieces sent twice, and a broken
// connection; the hashes are those of the whole.
func TestUploadInPieces(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	u := f.start(t, "x", blob.Conditions{})
	appendPiece := func(from, to int, want int64) {
		t.Helper()
		got, err := f.AppendUpload(t.Context(), u.ID, int64(from), bytes.NewReader(data[from:to]))
		if err != nil || got.Received != want {
			t.Fatalf("piece %d-%d: received %d, %v, want %d", from, to, got.Received, err, want)
		}
	}
	appendPiece(0, 30_001, 30_001)
	f.reopen(t)
	appendPiece(0, 30_001, 30_001)      // the same once more
	appendPiece(20_000, 40_000, 40_000) // half of it known
	_, err := f.AppendUpload(t.Context(), u.ID, 50_000, strings.NewReader("x"))
	checkCode(t, "a gap", err, codes.OutOfRange)
	broken := io.MultiReader(bytes.NewReader(data[40_000:45_000]), failing{})
	got, err := f.AppendUpload(t.Context(), u.ID, 40_000, broken)
	if !errors.Is(err, errBroken) || got.Received != 45_000 {
		t.Errorf("a broken piece: received %d, %v", got.Received, err)
	}
	// What a kill left behind the last recorded byte is cut off.
	if _, err := f.content.Append(t.Context(), u.Object.Content, 45_000, strings.NewReader("torn")); err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	appendPiece(45_000, len(data), int64(len(data)))
	_, err = f.Stat(t.Context(), "bucket", "x", 0, blob.Conditions{})
	checkCode(t, "Stat before the end", err, codes.NotFound)
	o, err := f.FinishUpload(t.Context(), u.ID, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(data)
	if !bytes.Equal(o.MD5, sum[:]) || o.CRC32C != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) || o.ContentType != "a/b" {
		t.Errorf("%+v", o)
	}
	f.checkData(t, "x", string(data))
	again, err := f.FinishUpload(t.Context(), u.ID, blob.Conditions{})
	if err != nil || again.Generation != o.Generation {
		t.Errorf("finished twice: %+v, %v", again, err)
	}
	if err := f.CancelUpload(t.Context(), u.ID); err != nil { // of a finished one: the object stays
		t.Fatal(err)
	}
	f.checkData(t, "x", string(data))
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

func TestUploadOfNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := f.start(t, "x", blob.Conditions{})
	o, err := f.FinishUpload(t.Context(), u.ID, blob.Conditions{})
	if err != nil || o.Size != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	f.checkData(t, "x", "")
}

func TestUploadRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := f.start(t, "x", blob.Conditions{GenerationMatch: new(int64(0))})
	if _, err := f.AppendUpload(t.Context(), u.ID, 0, strings.NewReader("late")); err != nil {
		t.Fatal(err)
	}
	f.put(t, "x", "first")
	_, err := f.FinishUpload(t.Context(), u.ID, blob.Conditions{})
	checkCode(t, "FinishUpload after another wrote", err, codes.FailedPrecondition)
	f.checkData(t, "x", "first")

	u = f.start(t, "y", blob.Conditions{})
	if _, err := f.AppendUpload(t.Context(), u.ID, 0, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	_, err = f.FinishUpload(t.Context(), u.ID, blob.Conditions{CRC32C: new(uint32(1))})
	checkCode(t, "FinishUpload with a wrong hash", err, codes.InvalidArgument)
	_, err = f.GetUpload(t.Context(), u.ID)
	checkCode(t, "GetUpload afterwards", err, codes.NotFound)

	u = f.start(t, "z", blob.Conditions{})
	if _, err := f.AppendUpload(t.Context(), u.ID, 0, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	if err := f.CancelUpload(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents, want that of the one object", n)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "kept", "k")
	copied, err := f.Stat(t.Context(), "bucket", "kept", 0, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Copy(t.Context(), copied, blob.Object{Bucket: "bucket", Name: "copy"}, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	u := f.start(t, "u", blob.Conditions{})
	if _, err := f.AppendUpload(t.Context(), u.ID, 0, strings.NewReader("half")); err != nil {
		t.Fatal(err)
	}
	if err := f.AppendLog(t.Context(), "stream", 0, []byte("line")); err != nil {
		t.Fatal(err)
	}
	orphan, _, err := f.content.Create(t.Context(), strings.NewReader("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		later time.Duration
		want  blob.Swept
		left  int
	}{
		{0, blob.Swept{}, 5}, // all is young
		{2 * time.Hour, blob.Swept{Contents: 1, Bytes: 6}, 4},  // the orphan
		{blob.UploadLife, blob.Swept{Uploads: 1, Bytes: 4}, 3}, // the upload and its bytes
		{365 * 24 * time.Hour, blob.Swept{}, 3},                // objects and logs stay
	} {
		f.clock.add(step.later)
		if dry, err := f.SweepDry(t.Context(), time.Hour); err != nil || dry != step.want {
			t.Errorf("after %v, dry: %+v, %v, want %+v", step.later, dry, err, step.want)
		}
		got, err := f.Sweep(t.Context(), time.Hour)
		if err != nil || got != step.want {
			t.Errorf("after %v: %+v, %v, want %+v", step.later, got, err, step.want)
		}
		if n := f.contents(t); n != step.left {
			t.Errorf("after %v: %d contents, want %d", step.later, n, step.left)
		}
	}
	if _, err := f.content.Size(t.Context(), orphan); err == nil {
		t.Error("the orphan is still there")
	}
	f.checkData(t, "kept", "k")
	f.checkData(t, "copy", "k")
}

func TestLogs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const stream = "projects/p/jobs/1/tasks/../x"
	for _, step := range []struct {
		offset int64
		text   string
		want   string
	}{{0, "one\n", "one\n"}, {4, "two\n", "one\ntwo\n"}, {4, "two\n", "one\ntwo\n"}, {0, "one\ntwo\nthree\n", "one\ntwo\nthree\n"}, {14, "", "one\ntwo\nthree\n"}} {
		if err := f.AppendLog(t.Context(), stream, step.offset, []byte(step.text)); err != nil {
			t.Fatal(err)
		}
		f.reopen(t)
		got, err := f.ReadLog(t.Context(), stream, 0, 1000)
		if err != nil || string(got) != step.want {
			t.Errorf("log = %q, %v, want %q", got, err, step.want)
		}
	}
	checkCode(t, "a gap", f.AppendLog(t.Context(), stream, 100, []byte("x")), codes.OutOfRange)
	if got, err := f.ReadLog(t.Context(), stream, 4, 3); err != nil || string(got) != "two" {
		t.Errorf("a part = %q, %v", got, err)
	}
	if got, err := f.ReadLog(t.Context(), stream, 99, 3); err != nil || len(got) != 0 {
		t.Errorf("past the end = %q, %v", got, err)
	}
	if n, err := f.LogSize(t.Context(), stream); err != nil || n != 14 {
		t.Errorf("LogSize = %d, %v", n, err)
	}
	if n, err := f.LogSize(t.Context(), "none"); err != nil || n != 0 {
		t.Errorf("LogSize of none = %d, %v", n, err)
	}
	if err := f.RemoveLog(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if got, err := f.ReadLog(t.Context(), stream, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("removed log = %q, %v", got, err)
	}
}
