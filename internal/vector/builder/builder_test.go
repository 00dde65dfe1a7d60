package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/vector/ann"
)

// misbehave has the process of a build do what its value names.
const misbehave = "TATEGU_TEST_BUILD"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Verb {
		switch os.Getenv(misbehave) {
		case "die":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "panic":
			panic("a bug of the builder")
		case "silence":
			os.Exit(0)
		}
		if err := Main(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	runtime.LockOSThread() // the first thread never ends: tests have others
	goleak.VerifyTestMain(m)
}

func newProcess(t *testing.T) *Process {
	t.Helper()
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	p := New(self, slog.New(slog.DiscardHandler))
	p.small = 0
	return p
}

func some(n int) ann.Rows {
	return func(yield func(ann.Row, error) bool) {
		r := rand.New(rand.NewPCG(1, 2))
		v := make([]float32, 8)
		for i := range n {
			for j := range v {
				v[j] = float32(r.NormFloat64())
			}
			row := ann.Row{ID: fmt.Sprint("row-", i), Vector: v, Crowding: strconv.Itoa(i % 3), Extra: []byte{byte(i)}}
			row.Restricts = []ann.Restrict{{Namespace: "parity", Allow: []string{strconv.Itoa(i % 2)}}}
			row.Numerics = []ann.Numeric{{Namespace: "n", Number: ann.Number{Kind: ann.Int, Int: int64(i)}}}
			if !yield(row, nil) {
				return
			}
		}
	}
}

func options() ann.Options {
	return ann.Options{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Method: ann.IVF, Check: true}
}

// TestSame: a segment is the same wherever it was built, but for what was measured.
func TestSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	far, err := newProcess(t).Build(t.Context(), filepath.Join(dir, "far"), some(6000), options(), true)
	if err != nil {
		t.Fatal(err)
	}
	near, err := ann.BuildFile(t.Context(), filepath.Join(dir, "near"), some(6000), options())
	if err != nil {
		t.Fatal(err)
	}
	if far.Stats.Rows != 6000 || far.Stats.Method != near.Stats.Method || far.Found < 0.9 || far.Found > 1 {
		t.Errorf("built %+v, which finds %v", far.Stats, far.Found)
	}
	a, b := open(t, filepath.Join(dir, "far")), open(t, filepath.Join(dir, "near"))
	for row := range uint32(6000) {
		x, err := a.Get(row)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Get(row)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("row %d is %v, and %v where it was built here", row, x, y)
		}
	}
}

func open(t *testing.T, path string) *ann.Segment {
	t.Helper()
	s, err := ann.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestErrors: whatever goes wrong is told, with its kind, and nothing is left.
func TestErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("the source broke")
	for _, c := range []struct {
		name, does string
		rows       ann.Rows
		is         error
		says       string
	}{
		{name: "twice", rows: join(some(10), some(10)), is: ann.ErrDuplicate, says: `id "row-0"`},
		{name: "dimensions", rows: one(ann.Row{ID: "x", Vector: make([]float32, 3)}, nil), is: ann.ErrVector, says: "3 dimensions instead of 8"},
		{name: "source", rows: join(some(10), one(ann.Row{}, broken)), is: broken},
		{name: "die", does: "die", rows: some(100_000), says: "signal: killed"},
		{name: "panic", does: "panic", rows: some(100_000), says: "a bug of the builder"},
		{name: "silence", does: "silence", rows: some(1), says: "it answered nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := newProcess(t)
			p.env = append(os.Environ(), misbehave+"="+c.does)
			_, err := p.Build(t.Context(), filepath.Join(dir, "s"), c.rows, options(), true)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v and %q", err, c.is, c.says)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
				t.Errorf("it left %v, %v", files, err)
			}
		})
	}
}

func one(r ann.Row, err error) ann.Rows {
	return func(yield func(ann.Row, error) bool) { yield(r, err) }
}

func join(all ...ann.Rows) ann.Rows {
	return func(yield func(ann.Row, error) bool) {
		for _, rows := range all {
			for r, err := range rows {
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

// TestFull: a disk without room is known as such, wherever the build is.
func TestFull(t *testing.T) {
	t.Parallel()
	for kind, known := range map[string]error{"full": syscall.ENOSPC, "quota": syscall.EDQUOT} {
		cause := fmt.Errorf("build: %w", &fs.PathError{Op: "write", Path: "segment", Err: known})
		out, err := json.Marshal(failed(cause))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := read(out, nil, nil, ""); a.Kind != kind || !errors.Is(err, known) || err.Error() != cause.Error() {
			t.Errorf("%v is told as %s, and taken for %v", cause, out, err)
		}
	}
}

// TestEnvironment: a build is told nothing of the server's but what Go reads.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	got := environment([]string{"PATH=/bin", "AWS_SECRET_ACCESS_KEY=x", "GOMEMLIMIT=1GiB", "TATEGU_TOKEN=y", "GODEBUG=z=1"})
	if fmt.Sprint(got) != "[GOMEMLIMIT=1GiB GODEBUG=z=1]" {
		t.Errorf("it has %v", got)
	}
}

// TestCancel: a build ends with its context, whether it reads or builds.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 5, 20_000} {
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		rows := func(yield func(ann.Row, error) bool) {
			for r, err := range some(20_000) {
				if n++; n == after {
					stop()
				}
				if !yield(r, err) {
					return
				}
			}
		}
		if after == 0 {
			stop()
		}
		if _, err := newProcess(t).Build(ctx, filepath.Join(t.TempDir(), "s"), rows, options(), false); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled after %d rows: %v", after, err)
		}
		stop()
	}
}

// TestMissing names what is not there.
func TestMissing(t *testing.T) {
	t.Parallel()
	_, err := New(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)).Build(t.Context(), "s", some(1), options(), false)
	if err == nil || !strings.Contains(err.Error(), "start a process that builds a segment") {
		t.Error(err)
	}
}

// TestFew are built here: a binary that is missing is not missed.
func TestFew(t *testing.T) {
	t.Parallel()
	o := options()
	o.Hint = 100
	built, err := New(filepath.Join(t.TempDir(), "none"), nil).Build(t.Context(), filepath.Join(t.TempDir(), "s"), some(100), o, false)
	if err != nil || built.Stats.Rows != 100 {
		t.Errorf("%+v, %v", built, err)
	}
}
