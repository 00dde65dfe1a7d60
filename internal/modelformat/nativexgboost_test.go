package modelformat

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat/xgboost"
	"tategu/internal/resource"
)

const xgboostGolden = "xgboost/testdata/golden/3.2.0/"

func loadXGBoost(tb testing.TB, name string) *Native {
	tb.Helper()
	f, err := os.Open(xgboostGolden + name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	m, err := xgboost.Parse(f)
	if err != nil {
		tb.Fatal(err)
	}
	return newNative(xgboostModel{m})
}

// goldenRows reads a table of the library's test data.
func goldenRows(tb testing.TB, name string) [][]float64 {
	tb.Helper()
	text, err := os.ReadFile(xgboostGolden + name)
	if err != nil {
		tb.Fatal(err)
	}
	var rows [][]float64
	for line := range strings.Lines(string(text)) {
		var row []float64
		for w := range strings.FieldsSeq(line) {
			v, err := strconv.ParseFloat(w, 64)
			if err != nil {
				tb.Fatal(err)
			}
			row = append(row, v)
		}
		rows = append(rows, row)
	}
	return rows
}

// request writes rows as a client does, NaN as null.
func requestOf(rows [][]float64, parameters string) string {
	var b strings.Builder
	b.WriteString(`{"parameters":` + parameters + `,"instances":[`)
	for i, row := range rows {
		for k, v := range row {
			b.WriteByte([]byte("[,")[min(k, 1)])
			if v != v {
				b.WriteString("null")
			} else {
				b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
			}
		}
		b.WriteByte(']')
		if i < len(rows)-1 {
			b.WriteByte(',')
		}
	}
	b.WriteString("]}")
	return b.String()
}

// TestXGBoostAnswers compares what is answered with what the library predicted: the
// same numbers, digit for digit, one for each row or a list for several outputs.
func TestXGBoostAnswers(t *testing.T) {
	t.Parallel()
	rows := goldenRows(t, "rows.txt")
	for _, c := range []struct{ file, expected, parameters string }{
		{"binary.json", "binary.json.out.txt", "null"},
		{"binary.ubj", "binary.ubj.margin.txt", `{"output_margin":true}`},
		{"softprob.ubj", "softprob.ubj.out.txt", "{}"},
		{"softprob.json", "softprob.json.range.txt", `{"output_margin":true,"iteration_range":[1,3]}`},
		{"vector.json", "vector.json.out.txt", "null"},
		{"categorical_partition.ubj", "categorical_partition.ubj.out.txt", "null"},
	} {
		var answer struct{ Predictions []json.RawMessage }
		n := loadXGBoost(t, c.file)
		if err := json.Unmarshal([]byte(predictions(t, n, requestOf(rows, c.parameters))), &answer); err != nil {
			t.Fatal(err)
		}
		for i, want := range goldenRows(t, c.expected) {
			list, err := json.Marshal(want)
			if len(want) == 1 {
				list, err = json.Marshal(want[0])
			}
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			if json.Unmarshal(list, &a) != nil || json.Unmarshal(answer.Predictions[i], &b) != nil || !equal(a, b) {
				t.Errorf("%s %s, row %d: %s, want %s", c.file, c.parameters, i, answer.Predictions[i], list)
			}
		}
	}
}

func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func TestXGBoostErrors(t *testing.T) {
	t.Parallel()
	n := loadXGBoost(t, "binary.json")
	if got, want := predictions(t, n, `{"instances":[{"f5":null,"f0":1,"f1":2,"f2":3,"f3":4,"f4":5,"f6":1}]}`), predictions(t, n, `{"instances":[[1,2,3,4,5,null]]}`); got != want {
		t.Errorf("by name %s, as a list %s", got, want)
	}
	for body, want := range map[string]string{
		`{"instances":[[1,2]]}`:                                             `the model has 6 features: feature "f2"`,
		`{"instances":[[1,2,3,4,5,1e39]]}`:                                  `instance 0: feature "f5" is too large for a 32-bit float`,
		`{"instances":[[1,2,3,4,5,"x"]]}`:                                   `feature "f5" is not a number; the model takes the number of a category`,
		`{"instances":[],"parameters":{"raw_score":true}}`:                  `parameter "raw_score" is not known to an XGBoost model: want output_margin`,
		`{"instances":[],"parameters":{"output_margin":1}}`:                 "output_margin must be true or false",
		`{"instances":[],"parameters":{"iteration_range":[1]}}`:             "a list of two integers",
		`{"instances":[],"parameters":{"iteration_range":[0,0.5]}}`:         "a list of two integers",
		`{"instances":[],"parameters":{"iteration_range":[0,1,2]}}`:         "a list of two integers",
		`{"instances":[],"parameters":{"iteration_range":[3,99]}}`:          "is not within the 4 boosting rounds",
		`{"instances":[],"parameters":{"iteration_range":[-1,2]}}`:          "is not within the 4 boosting rounds",
		`{"instances":[],"parameters":{"best_iteration":true}}`:             "trained without early stopping",
		`{"instances":[[1,2,3,4,5,6]],"parameters":{"iteration_range":{}}}`: "want a list",
	} {
		_, err := n.Predict([]byte(body))
		if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

// TestManyValues refuses what would take gigabytes.
func TestManyValues(t *testing.T) {
	t.Parallel()
	model := `{"learner":{"gradient_booster":{"model":{"trees":[],"tree_info":[]},"name":"gbtree"},"learner_model_param":` +
		`{"base_score":"5E-1","num_class":"65536","num_feature":"1"},"objective":{"name":"multi:softprob"}},"version":[2,1,0]}`
	m, err := xgboost.Parse(strings.NewReader(model))
	if err != nil {
		t.Fatal(err)
	}
	n := newNative(xgboostModel{m})
	if _, err := n.Predict([]byte(`{"instances":[[1]` + strings.Repeat(",[1]", 1000) + `]}`)); err == nil || !strings.Contains(err.Error(), "too many for one request") {
		t.Fatalf("got %v", err)
	}
}

// TestManyClasses: multi:softmax answers with one number for the margins of a row,
// which are not kept for all rows at a time.
func TestManyClasses(t *testing.T) {
	t.Parallel()
	const classes, rows = 20_000, 200
	var weights strings.Builder
	for i := range classes {
		weights.WriteString(strconv.Itoa(i) + ",")
	}
	parsed, err := xgboost.Parse(strings.NewReader(`{"learner":{"gradient_booster":{"model":{"weights":[` + weights.String() + strings.Repeat("0,", classes-1) +
		`0]},"name":"gblinear"},"learner_model_param":{"base_score":"5E-1","num_class":"` + strconv.Itoa(classes) +
		`","num_feature":"1"},"objective":{"name":"multi:softmax"}},"version":[2,1,0]}`))
	if err != nil {
		t.Fatal(err)
	}
	m, out := &matrix{rows: make([]float64, rows)}, make([]float64, rows)
	for i := range m.rows {
		m.rows[i] = float64(i%2*2 - 1) // the last class has most where this is 1, the first where it is -1
	}
	if err := (xgboostModel{parsed}).predict(m, out, options{}); err != nil {
		t.Fatal(err)
	}
	for i, v := range out {
		if want := float64(i % 2 * (classes - 1)); v != want {
			t.Fatalf("row %d is of class %v, want %v", i, v, want)
		}
	}
	if cap(m.out32) > blockValues {
		t.Errorf("%d margins are kept", cap(m.out32))
	}
}
