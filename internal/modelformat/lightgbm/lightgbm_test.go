package lightgbm

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestGolden compares small committed models with what the library said of them.
func TestGolden(t *testing.T) {
	t.Parallel()
	compare(t, "testdata/golden", 13)
}

// TestLibrary trains models of every kind with the real library and compares.
func TestLibrary(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON does not name a Python with lightgbm")
	}
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), python, "testdata/train.py", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	compare(t, dir, 14)
}

func compare(t *testing.T, dir string, want int) {
	t.Helper()
	models, err := filepath.Glob(filepath.Join(dir, "*.model.txt"))
	if err != nil || len(models) != want {
		t.Fatalf("%d models in %s (%v), want %d", len(models), dir, err, want)
	}
	for _, path := range models {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".model.txt"), func(t *testing.T) {
			compareModel(t, path)
		})
	}
}

func compareModel(t *testing.T, path string) {
	t.Helper()
	m := load(t, path)
	base := strings.TrimSuffix(path, ".model.txt")
	has := map[string]bool{
		"categorical": len(m.sets) > 0, "linear_tree": len(m.linear) > 0, "rf": m.average, "multiclass": m.outputs == 3,
		"zero_as_missing": slices.ContainsFunc(m.nodes, func(n node) bool { return n.kind == zeroMissing }),
	}
	if ok, listed := has[filepath.Base(base)]; listed && !ok {
		t.Fatal("the model does not have what its name says: change train.py")
	}
	rows, wantRaw, wantOut := readMatrix(t, filepath.Join(filepath.Dir(path), "rows.txt")), readMatrix(t, base+".raw.txt"), readMatrix(t, base+".out.txt")
	got := make([]float64, len(wantRaw))
	m.Predict(rows, got, true)
	for i, w := range wantRaw {
		if math.Float64bits(got[i]) != math.Float64bits(w) {
			t.Fatalf("raw score %d is %x, the library says %x", i, got[i], w)
		}
	}
	m.Predict(rows, got, false)
	for i, w := range wantOut {
		if d := ulps(got[i], w); d > 4 {
			t.Fatalf("prediction %d is %x, the library says %x: %d units in the last place", i, got[i], w, d)
		}
	}
	// One row at a time gives the same as all at once.
	n, one := len(m.Features()), make([]float64, m.Outputs())
	for i := range len(rows) / n {
		m.Predict(rows[i*n:(i+1)*n], one, true)
		for k, v := range one {
			if math.Float64bits(v) != math.Float64bits(wantRaw[i*m.Outputs()+k]) {
				t.Fatalf("row %d alone scores %x, want %x", i, v, wantRaw[i*m.Outputs()+k])
			}
		}
	}
}

func ulps(a, b float64) int64 {
	d := int64(math.Float64bits(a)) - int64(math.Float64bits(b))
	return max(d, -d)
}

func load(tb testing.TB, path string) *Model {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	m, err := Parse(f)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func readMatrix(tb testing.TB, path string) []float64 {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var values []float64
	for w := range strings.FieldsSeq(string(text)) {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil {
			tb.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/golden/categorical.model.txt")
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	for _, c := range []struct{ name, old, new, want string }{
		{"not a model", "tree\n", "# tree\n", `line 1: not a LightGBM text model`},
		{"version", "version=v4", "version=v5", `line 2: version "v5" is not supported`},
		{"cut off", "end of trees\n", "", `is missing`},
		{"objective", "objective=regression", "objective=wish", `objective "wish" is not known`},
		{"features", "max_feature_idx=5", "max_feature_idx=6", "6 feature names for 7 features"},
		{"classes", "num_class=1", "num_class=0", `num_class "0"`},
		{"iteration", "num_tree_per_iteration=1", "num_tree_per_iteration=3", "do not make whole iterations of 3"},
		{"leaf count", "num_leaves=6", "num_leaves=7", "tree 0: leaf_value: 6 values, want 7"},
		{"no leaf", "num_leaves=6", "num_leaves=0", "tree 0: num_leaves: 0 leaves"},
		{"number", "leaf_value=", "leaf_value=x", "tree 0: leaf_value: value 0"},
		{"loop", "left_child=", "left_child=0 ", "tree 0: left_child: 6 values"},
		{"sets", "cat_boundaries=0 ", "cat_boundaries=0 999999 ", "tree 0: cat_boundaries: value 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the model does not hold %q", c.old)
			}
			_, err := Parse(strings.NewReader(bad))
			if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want a SyntaxError with %q", err, c.want)
			}
		})
	}
}

// small is a model of one split whose parts the tests replace.
const small = "tree\nversion=v4\nmax_feature_idx=0\nfeature_names=x\nTree=0\nnum_leaves=3\nsplit_feature=0 0\n" +
	"threshold=1 2\ndecision_type=2 2\nleft_child=-1 -2\nright_child=1 -3\nleaf_value=1 2 3\nend of trees\n"

func TestShape(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, new, want string }{
		{"right_child=1 -3", "right_child=0 -3", "node 0 is reached twice"},
		{"right_child=1 -3", "right_child=7 -3", "there is no node 7"},
		{"right_child=1 -3", "right_child=1 -9", "there is no leaf 8"},
		{"split_feature=0 0", "split_feature=0 4", "there is no feature 4"},
		{"decision_type=2 2", "decision_type=2 1", "there is no category set 2"},
	} {
		if _, err := Parse(strings.NewReader(strings.Replace(small, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.new, err, c.want)
		}
	}
	m, err := Parse(strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 4)
	m.Predict([]float64{0, 1.5, 3, math.NaN()}, out, false)
	if fmt.Sprint(out) != "[1 2 3 1]" {
		t.Errorf("got %v", out)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	for _, name := range []string{"categorical", "linear_tree", "multiclass", "rf"} {
		text, err := os.ReadFile("testdata/golden/" + name + ".model.txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		// Whatever parses must predict, for any row.
		for _, v := range []float64{0, math.NaN(), math.Inf(1), -1e300, 3.5} {
			row, out := make([]float64, len(m.Features())), make([]float64, m.Outputs())
			for i := range row {
				row[i] = v
			}
			m.Predict(row, out, false)
		}
	})
}

// BenchmarkPredict times models that the library trains: regression has 40 trees
// of 31 leaves, large 500 of 63.
func BenchmarkPredict(b *testing.B) {
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		b.Skip("TATEGU_TEST_PYTHON does not name a Python with lightgbm")
	}
	dir := b.TempDir()
	if out, err := exec.CommandContext(b.Context(), python, "testdata/train.py", dir).CombinedOutput(); err != nil {
		b.Fatalf("train: %v\n%s", err, out)
	}
	rows := readMatrix(b, filepath.Join(dir, "rows.txt"))
	for _, kind := range []string{"regression", "categorical", "large"} {
		m := load(b, filepath.Join(dir, kind+".model.txt"))
		n := len(m.Features())
		for _, count := range []int{1, 1000} {
			in, out := make([]float64, 0, count*n), make([]float64, count)
			for len(in) < count*n {
				in = append(in, rows[:min(len(rows), count*n-len(in))]...)
			}
			b.Run(fmt.Sprintf("%s/rows=%d", kind, count), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m.Predict(in, out, false)
				}
			})
		}
	}
}
