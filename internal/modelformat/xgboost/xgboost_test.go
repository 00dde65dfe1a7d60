package xgboost

import (
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

// TestGolden compares small committed models of several versions with what each
// library said of its own.
func TestGolden(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("golden directories %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			compare(t, dir, 5)
		})
	}
}

// TestLibrary trains models of every kind with the real library and compares.
// TATEGU_TEST_XGBOOST may list more Pythons, with other versions.
func TestLibrary(t *testing.T) {
	t.Parallel()
	for _, python := range pythons(t) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			train(t, python, dir)
			compare(t, dir, 30)
		})
	}
}

func pythons(tb testing.TB) []string {
	tb.Helper()
	list := filepath.SplitList(os.Getenv("TATEGU_TEST_XGBOOST"))
	if python := os.Getenv("TATEGU_TEST_PYTHON"); python != "" {
		if err := exec.CommandContext(tb.Context(), python, "-c", "import xgboost").Run(); err == nil {
			list = append(list, python)
		}
	}
	if len(list) == 0 {
		tb.Skip("neither TATEGU_TEST_PYTHON nor TATEGU_TEST_XGBOOST names a Python with xgboost")
	}
	return list
}

func train(tb testing.TB, python, dir string, kinds ...string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), python, "testdata/train.py", dir)
	cmd.Env = append(os.Environ(), "KINDS="+strings.Join(kinds, " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("train: %v\n%s", err, out)
	}
	tb.Logf("%s: %s", python, out)
}

func compare(t *testing.T, dir string, least int) {
	t.Helper()
	expected, err := filepath.Glob(filepath.Join(dir, "*.margin.txt"))
	if err != nil || len(expected) < least {
		t.Fatalf("%d models in %s (%v), want at least %d", len(expected), dir, err, least)
	}
	for _, path := range expected {
		path = strings.TrimSuffix(path, ".margin.txt")
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			compareModel(t, path)
		})
	}
}

func compareModel(t *testing.T, path string) {
	t.Helper()
	m := load(t, path)
	kind, format, _ := strings.Cut(filepath.Base(path), ".")
	checkKind(t, m, kind, format)
	if data, err := os.ReadFile(path); err != nil || Detect(data[:min(len(data), HeadSize)]) != map[string]Format{"json": JSON, "ubj": UBJSON, "bst": Binary}[format] {
		t.Errorf("the format is not detected (%v)", err)
	}
	rows := readMatrix(t, filepath.Join(filepath.Dir(path), "rows.txt"))
	margin, out := readMatrix(t, path+".margin.txt"), readMatrix(t, path+".out.txt")
	n := len(rows) / m.Features()
	got := make([]float32, n*m.Groups())
	same(t, m, rows, got, margin, m.Groups(), Options{Margin: true})
	same(t, m, rows, got, out, m.Outputs(), Options{})
	if _, err := os.Stat(path + ".range.txt"); err == nil {
		same(t, m, rows, got, readMatrix(t, path+".range.txt"), m.Groups(), Options{Margin: true, Begin: 1, End: 3})
	}
	if _, err := os.Stat(path + ".best.txt"); err == nil {
		best, ok := m.Best()
		if !ok || best+1 >= m.Rounds() {
			t.Errorf("best iteration %d, %v of %d rounds", best, ok, m.Rounds())
		}
		same(t, m, rows, got, readMatrix(t, path+".best.txt"), m.Groups(), Options{Margin: true, End: best + 1})
	}
	// One row, and some, give the same as all at once, with and without values missing.
	for i := range n {
		for _, count := range []int{1, 3, 9} {
			end := min(i+count, n)
			same(t, m, rows[i*m.Features():end*m.Features()], got[:(end-i)*m.Groups()], margin[i*m.Groups():end*m.Groups()], m.Groups(), Options{Margin: true})
		}
	}
}

// checkKind makes sure that a model has what its name says.
func checkKind(t *testing.T, m *Model, kind, format string) {
	t.Helper()
	name, _, _ := strings.Cut(kind, "_")
	_, best := m.Best()
	ok, listed := map[string]bool{
		"categorical": len(m.sets) > 0, "linear": m.booster == gblinear, "dart": m.booster == dart && m.weights[0] != 1,
		"softprob": m.groups == 3, "targets": m.groups == 3, "vector": m.places != nil, "named": format == "bst" || m.Feature(2) == "column 2",
		"forest": m.Trees() >= 16, "early": best, "empty": m.Trees() == 0, "stump": len(m.nodes) == len(m.trees),
	}[name]
	if listed && !ok {
		t.Fatal("the model does not have what its name says: change train.py")
	}
}

// same predicts and compares bit for bit; columns of got beyond width do not count.
func same(t *testing.T, m *Model, rows, got, want []float32, width int, o Options) {
	t.Helper()
	if err := m.Check(o); err != nil {
		t.Fatal(err)
	}
	m.Predict(rows, got, o)
	if len(want) != len(got)/m.Groups()*width {
		t.Fatalf("%d expected values for %d rows of %d", len(want), len(got)/m.Groups(), width)
	}
	for i, w := range want {
		g := got[i/width*m.Groups()+i%width]
		if math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
			t.Fatalf("%+v: value %d of %d in row %d is %x, the library says %x", o, i%width, width, i/width, g, w)
		}
	}
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

func readMatrix(tb testing.TB, path string) []float32 {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var values []float32
	for w := range strings.FieldsSeq(string(text)) {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil {
			tb.Fatal(err)
		}
		values = append(values, float32(v))
	}
	return values
}

// BenchmarkPredict times models that the library trains, and the library itself:
// squarederror has 20 trees of depth 6, wide 100 of depth 8, large 500 of depth 6,
// lossguide 20 of 40 leaves. A twentieth of the values is missing; dense has none.
func BenchmarkPredict(b *testing.B) {
	dir, python := b.TempDir(), pythons(b)[0]
	kinds := []string{"squarederror", "categorical_partition", "lossguide", "wide", "large"}
	train(b, python, dir, kinds...)
	rows := readMatrix(b, filepath.Join(dir, "rows.txt"))
	dense := slices.Clone(rows)
	for i, v := range dense {
		if v != v {
			dense[i] = float32(i%7) - 3
		}
	}
	for _, kind := range kinds {
		path := filepath.Join(dir, kind+".json")
		m := load(b, path)
		n := m.Features()
		for _, count := range []int{1, 1000} {
			for name, rows := range map[string][]float32{"missing": rows, "dense": dense} {
				in, out := make([]float32, 0, count*n), make([]float32, count)
				for len(in) < count*n {
					in = append(in, rows[n:min(len(rows), count*n-len(in)+n)]...)
				}
				b.Run(fmt.Sprintf("%s/%s/rows=%d", kind, name, count), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						m.Predict(in, out, Options{})
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/row")
					b.ReportMetric(library(b, python, path, filepath.Join(dir, "rows.txt"), count)/float64(count), "library-ns/row")
				})
			}
		}
	}
}

// library times the library, in nanoseconds a call.
func library(b *testing.B, python, model, rows string, count int) float64 {
	b.Helper()
	out, err := exec.CommandContext(b.Context(), python, "testdata/time.py", model, rows, strconv.Itoa(count)).Output()
	if err != nil {
		b.Fatal(err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return ns
}
