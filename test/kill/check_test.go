package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func counts(b *book) [4]int64 {
	return [4]int64{b.lost.Load(), b.torn.Load(), b.double.Load(), b.problems.Load()}
}

func newBook() *book { return &book{out: io.Discard, began: time.Now()} }

// TestLedger: what the loop is to find shows in its counts.
func TestLedger(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lines   string
		commits bool
		want    [4]int64 // lost, torn, double, problems
		across  int
	}{
		"once":             {"begin,r,t,1\ncommit,r,t,1\n", true, [4]int64{}, 0},
		"over two kills":   {"begin,r,t,1\nkill,1\nkill,2\ncommit,r,t,1\n", true, [4]int64{}, 2},
		"failed attempt":   {"begin,r,t,1\n", false, [4]int64{}, 0},
		"ran twice":        {"begin,r,t,1\nkill,1\nbegin,r,t,1\ncommit,r,t,1\n", true, [4]int64{0, 0, 1}, 0},
		"committed twice":  {"begin,r,t,1\ncommit,r,t,1\ncommit,r,t,1\n", true, [4]int64{0, 0, 1}, 0},
		"failed, it said":  {"begin,r,t,1\ncommit,r,t,1\n", false, [4]int64{0, 0, 1}, 0},
		"no commit":        {"begin,r,t,1\nkill,1\n", true, [4]int64{1}, 0},
		"never began":      {"", true, [4]int64{1}, 0},
		"unknown programs": {"begin,r,t,1\ncommit,r,t,1\nbegin,r,t,2\n", true, [4]int64{0, 0, 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "tasks.csv")
			if err := os.WriteFile(path, []byte(tt.lines), 0o600); err != nil {
				t.Fatal(err)
			}
			ledger, err := readLedger(path)
			if err != nil {
				t.Fatal(err)
			}
			b := newBook()
			ledger.expect(b, attempt{"r", "t", "1"}, tt.commits)
			ledger.rest(b)
			if got := counts(b); got != tt.want || ledger.across != tt.across {
				t.Errorf("counts %v, want %v; over kills %d, want %d", got, tt.want, ledger.across, tt.across)
			}
		})
	}
}

// TestDiffers: an object that is not as acknowledged is lost or torn.
func TestDiffers(t *testing.T) {
	t.Parallel()
	is := func(text string) outcome { return outcome{data: []byte(text)} }
	gone := outcome{deleted: true}
	for name, tt := range map[string]struct {
		entry      entry
		found      outcome
		generation int64
		want       [4]int64
	}{
		"missing":         {entry{acked: is("a"), generation: 5}, gone, 0, [4]int64{1}},
		"an older one":    {entry{acked: is("b"), generation: 5}, is("a"), 4, [4]int64{1}},
		"back from death": {entry{acked: gone}, is("a"), 4, [4]int64{1}},
		"half of a write": {entry{acked: is("a"), generation: 5, maybe: []outcome{is("long")}}, is("lo"), 6, [4]int64{0, 1}},
		"other bytes":     {entry{acked: is("a"), generation: 5}, is("x"), 5, [4]int64{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &objects{client: &client{book: newBook()}}
			if tt.entry.known(tt.found, tt.generation) {
				t.Fatal("taken for what was acknowledged")
			}
			o.differs(&tt.entry, tt.found, tt.generation)
			if got := counts(o.book); got != tt.want {
				t.Errorf("counts %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReceivedBytes(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int{"": 0, "bytes=0-0": 1, "bytes=0-262143": 262144} {
		if got, err := receivedBytes(header); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", header, got, err, want)
		}
	}
	if _, err := receivedBytes("bytes=7"); err == nil {
		t.Error("a broken header is taken")
	}
}
