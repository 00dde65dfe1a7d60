package columnar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

func written(tb testing.TB, rows int) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Column{"a", Text}, Column{"b", JSON}, Column{"c", Int}, Column{"d", Float}, Column{"e", Floats})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range rows {
		w.Text(0, fmt.Appendf(nil, "row %d", i))
		w.Text(1, fmt.Appendf(nil, "{\"i\":\n%d}", i))
		w.Int(2, int64(i))
		w.Float(3, []float64{0.5, math.NaN(), -1e300}[i%3])
		w.Floats(4, [][]float64{{1}, {float64(i), math.Inf(1), 3}}[i%2])
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func lines(tb testing.TB, data []byte, from, to int64) (all []string) {
	tb.Helper()
	f, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Lines(from, to, func(line []byte) error { all = append(all, string(line)); return nil }); err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestThereAndBack(t *testing.T) {
	t.Parallel()
	const rows = 3*pageRows + 7
	data := written(t, rows)
	got := lines(t, data, 0, rows)
	if len(got) != rows {
		t.Fatalf("%d rows", len(got))
	}
	for i, line := range got {
		d := []string{"0.5", "null", "-1e+300"}[i%3]
		e := []string{"[1]", fmt.Sprintf("[%d,null,3]", i)}[i%2]
		want := fmt.Sprintf(`{"a":"row %d","b":{"i":%d},"c":%d,"d":%s,"e":%s}`, i, i, i, d, e)
		if line != want {
			t.Fatalf("row %d: %s, want %s", i, line, want)
		}
	}
	if part := lines(t, data, pageRows-1, pageRows+1); len(part) != 2 || part[1] != got[pageRows] {
		t.Errorf("part %q", part)
	}
}

func TestNested(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := parquet.NewWriter(&b, parquet.NewSchema("x", parquet.Group{"point": parquet.Group{"x": parquet.Leaf(parquet.DoubleType), "y": parquet.Leaf(parquet.DoubleType)}}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len())); err == nil || !strings.Contains(err.Error(), `column "point"`) {
		t.Errorf("got %v", err)
	}
}

// TestArrow reads what the reference library writes, and has it read ours.
func TestArrow(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON is not set: it names a Python with pyarrow")
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import pyarrow.parquet").Run(); err != nil {
		t.Skip("there is no pyarrow in TATEGU_TEST_PYTHON")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ours.parquet"), written(t, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/arrow.py", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var want []json.RawMessage
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "theirs-*.parquet"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := lines(t, data, 0, int64(len(want)))
		for i, line := range got {
			if !same(t, line, string(want[i])) {
				t.Errorf("%s, row %d: %s, want %s", filepath.Base(file), i, line, want[i])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d rows", filepath.Base(file), len(got))
		}
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// FuzzOpen: any bytes give rows of JSON or an error.
func FuzzOpen(f *testing.F) {
	f.Add(written(f, 5))
	f.Add([]byte("PAR1PAR1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		_ = file.Lines(0, min(file.Len(), 1000), func(line []byte) error {
			if !json.Valid(line) {
				t.Fatalf("%s", line)
			}
			return nil
		})
	})
}
