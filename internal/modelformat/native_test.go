package modelformat

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat/lightgbm"
	"tategu/internal/resource"
	"tategu/internal/scan"
)

func loadNative(tb testing.TB, kind string) *Native {
	tb.Helper()
	f, err := os.Open("lightgbm/testdata/golden/" + kind + ".model.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	m, err := lightgbm.Parse(f)
	if err != nil {
		tb.Fatal(err)
	}
	return newNative(newLightGBM(m))
}

func predictions(t *testing.T, n *Native, body string) string {
	t.Helper()
	out, err := n.Predict([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if !json.Valid(out) {
		t.Fatalf("%s: not JSON: %s", body, out)
	}
	return string(out)
}

func TestNativePredict(t *testing.T) {
	t.Parallel()
	n := loadNative(t, "regression")
	list := predictions(t, n, `{"instances": [[0.5, 3, -1e-2, 12, 0, null], [1,2,3,4,5,6]]}`)
	var answer struct{ Predictions []float64 }
	if err := json.Unmarshal([]byte(list), &answer); err != nil || len(answer.Predictions) != 2 || answer.Predictions[0] == answer.Predictions[1] {
		t.Fatalf("%s, %v", list, err)
	}
	// The expected score comes from the model, by another way than JSON.
	want := make([]float64, 1)
	if err := n.model.predict(&matrix{rows: []float64{0.5, 3, -1e-2, 12, 0, math.NaN()}}, want, options{}); err != nil {
		t.Fatal(err)
	}
	if answer.Predictions[0] != want[0] {
		t.Fatalf("got %v, want %v", answer.Predictions[0], want[0])
	}
	for _, same := range []string{
		`{"instances":[{"Column_0":0.5,"Column_1":3,"Column_2":-1e-2,"Column_3":12,"Column_4":0,"Column_5":null},[1,2,3,4,5,6]]}`,
		`{"instances":[{"Column_5":NaN,"Column_4":false,"x":{"y":[1,"z"]},"Column_3":12.0,"Column_2":-0.01,"Column_1":3,"Col\u0075mn_0":0.5},[true,2,3,4,5,6]]}`,
		`{"parameters":null,"instances":[[0.5,3,-1e-2,12,0,null],[1,2,3,4,5,6]]}`,
	} {
		if got := predictions(t, n, same); got != list {
			t.Errorf("%s: got %s, want %s", same, got, list)
		}
	}
	if got := predictions(t, n, `{"instances":[]}`); got != `{"predictions":[]}` {
		t.Errorf("no instances: %s", got)
	}
}

func TestNativeRawScore(t *testing.T) {
	t.Parallel()
	n := loadNative(t, "multiclass")
	const rows = `"instances":[[1,2,3,4,5,6],[0,0,0,0,0,0]]`
	var plain, raw struct{ Predictions [][]float64 }
	if err := json.Unmarshal([]byte(predictions(t, n, `{`+rows+`}`)), &plain); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(predictions(t, n, `{`+rows+`,"parameters":{"raw_score":true}}`)), &raw); err != nil {
		t.Fatal(err)
	}
	for i, p := range plain.Predictions {
		if sum := p[0] + p[1] + p[2]; len(p) != 3 || math.Abs(sum-1) > 1e-12 {
			t.Errorf("classes %v", p)
		}
		if fmt.Sprint(p) == fmt.Sprint(raw.Predictions[i]) {
			t.Errorf("raw scores are those of the prediction: %v", p)
		}
	}
}

func TestNativeErrors(t *testing.T) {
	t.Parallel()
	n := loadNative(t, "regression")
	for body, want := range map[string]string{
		``:                                                "not valid JSON",
		`[]`:                                              "not valid JSON",
		`{"instances":[[1,2,3,4,5,6]]`:                    "not valid JSON",
		`{"instances":[[1,2,3,4,5,6]]} x`:                 "not valid JSON",
		`{}`:                                              "no instances",
		`{"instance":[[1]]}`:                              `field "instance" is not known`,
		`{"instances":[[1,2,3,4,5,6],[1,2]]}`:             `instance 1 has 2 values, the model has 6 features: feature "Column_2"`,
		`{"instances":[[1,2,3,4,5,6,7]]}`:                 "instance 0 has more than 6 values",
		`{"instances":[[1,2,"x",4,5,6]]}`:                 `instance 0: feature "Column_2" is not a number; a LightGBM text model takes the number of a category`,
		`{"instances":[[1,2,01,4,5,6]]}`:                  `feature "Column_2" is not a number`,
		`{"instances":[[1,2,1e999,4,5,6]]}`:               `feature "Column_2" is not a number`,
		`{"instances":[[1,2,1.,4,5,6]]}`:                  `feature "Column_2" is not a number`,
		`{"instances":[5]}`:                               "instance 0 is neither a list of numbers nor an object",
		`{"instances":[{"Column_0":1}]}`:                  `instance 0 has no feature "Column_1"`,
		`{"instances":[],"parameters":{"x":1}}`:           `parameter "x" is not known`,
		`{"instances":[],"parameters":{"raw_score":1}}`:   "raw_score must be true or false",
		`{"instances":` + strings.Repeat("[", 300) + `]}`: "feature",
		`{"labels":` + strings.Repeat("[", 300) + `]}`:    "less nesting",
	} {
		_, err := n.Predict([]byte(body))
		if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %q", body, err, want)
		}
	}
}

// FuzzNative compares with encoding/json: what both read must be the same.
func FuzzNative(f *testing.F) {
	for _, s := range []string{
		`{"instances":[[1,2,3,4,5,6]]}`, `{"instances":[[-0.0,1e3,1E-3,123456789012345678,0.1234567890123456789,null]]}`,
		`{"instances":[{"Column_0":1,"Column_1":2,"Column_2":3,"Column_3":4,"Column_4":5,"Column_5":6}],"parameters":{"raw_score":true}}`,
		`{"instances":[[1,2,3,4,5,6]],"labels":{"a":["\"",{}]}}`, `{"instances":[[true,false,null,9007199254740993,5e-324,1.7976931348623157e308]]}`,
	} {
		f.Add(s)
	}
	n := loadNative(f, "regression")
	f.Fuzz(func(t *testing.T, body string) {
		m := &matrix{}
		_, err := n.request(&scan.Scanner{Data: []byte(body)}, m)
		if err != nil {
			if resource.CodeOf(err) != codes.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		var want struct{ Instances [][]*float64 }
		if json.Unmarshal([]byte(body), &want) != nil || len(m.rows) != 6*len(want.Instances) {
			return // NaN, booleans and objects are ours alone
		}
		for i, row := range want.Instances {
			for k, v := range row {
				got := m.rows[i*6+k]
				if v == nil != math.IsNaN(got) || v != nil && math.Float64bits(*v) != math.Float64bits(got) {
					t.Fatalf("%q: value %d,%d is %s", body, i, k, strconv.FormatFloat(got, 'g', -1, 64))
				}
			}
		}
	})
}

func BenchmarkNativePredict(b *testing.B) {
	n := loadNative(b, "regression")
	one := `[0.123,3,-1.25,12,0.001,7]`
	named := `{"Column_0":0.123,"Column_1":3,"Column_2":-1.25,"Column_3":12,"Column_4":0.001,"Column_5":7}`
	for name, body := range map[string]string{
		"list/rows=1": `{"instances":[` + one + `]}`, "object/rows=1": `{"instances":[` + named + `]}`,
		"list/rows=1000": `{"instances":[` + strings.Repeat(one+",", 999) + one + `]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.Predict([]byte(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
