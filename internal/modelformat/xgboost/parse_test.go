package xgboost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// small is a model of one split whose parts the tests replace.
const small = `{"learner":{"attributes":{},"feature_names":[],"feature_types":[],"gradient_booster":{"model":{` +
	`"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"1"},"iteration_indptr":[0,1],"tree_info":[0],` +
	`"trees":[{"base_weights":[0,0,0,0,0],"categories":[5],"categories_nodes":[2],"categories_segments":[0],"categories_sizes":[1],` +
	`"default_left":[1,0,0,0,0],"id":0,"left_children":[1,-1,3,-1,-1],"right_children":[2,-1,4,-1,-1],"split_type":[0,0,1,0,0],` +
	`"split_conditions":[1.5,1E1,NaN,2E1,3E1],"split_indices":[0,0,1,0,0],"tree_param":{"size_leaf_vector":"1"}}]},"name":"gbtree"},` +
	`"learner_model_param":{"base_score":"[5E-1]","num_class":"0","num_feature":"2","num_target":"1"},"objective":{"name":"reg:squarederror"}},"version":[3,2,0]}`

func TestSmall(t *testing.T) {
	t.Parallel()
	m, err := Parse(strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	for _, c := range []struct{ a, b, want float32 }{
		{1, 5, 10.5}, {nan, 5, 10.5}, {1.5, 5, 30.5}, {2, 5.9, 30.5}, {2, 4, 20.5}, {2, -1, 20.5}, {2, nan, 30.5}, {2, 1e9, 20.5}, {float32(math.Inf(1)), 5, 30.5},
	} {
		out := make([]float32, 1)
		if m.Predict([]float32{c.a, c.b}, out, Options{}); out[0] != c.want {
			t.Errorf("%v, %v: %v, want %v", c.a, c.b, out[0], c.want)
		}
	}
	var wait sync.WaitGroup
	for range 4 { // a model is for many goroutines
		wait.Go(func() {
			var rows, want []float32
			for range 50 {
				rows, want = append(rows, nan, 5, 1.5, 5), append(want, 10.5, 30.5)
			}
			out := make([]float32, len(want))
			if m.Predict(rows, out, Options{}); !slices.Equal(out, want) {
				t.Errorf("got %v", out)
			}
		})
	}
	wait.Wait()
	if i, ok := m.Index("f1"); !ok || i != 1 {
		t.Error("there is no f1")
	}
	for _, name := range []string{"f2", "f01", "f-1", "1", "x1"} {
		if _, ok := m.Index(name); ok {
			t.Errorf("there is a %s", name)
		}
	}
}

// TestSparseSets: a set takes memory for the categories in it, not for their numbers,
// and answers as the library does.
func TestSparseSets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		categories string
		sparse     bool
		in, out    []float32
	}{
		{"[5]", false, []float32{5, 5.9}, []float32{4, 6, 1e9}},
		{"[1087]", false, []float32{1087}, []float32{5, 1086, 1088}},
		{"[1088]", true, []float32{1088, 1088.5}, []float32{0, 1087, 1089, -1, 1e9, float32(math.Inf(1))}},
		{"[16777215,9000,9001]", true, []float32{9000, 9001, 16777215}, []float32{0, 8999, 9002, 16777214, 16777216}},
	} {
		n := strings.Count(c.categories, ",") + 1
		text := strings.NewReplacer(`"categories":[5]`, `"categories":`+c.categories, `"categories_sizes":[1]`, `"categories_sizes":[`+strconv.Itoa(n)+`]`).Replace(small)
		m, err := Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if m.sets[0].sparse != c.sparse || len(m.bits) > dense+2*n {
			t.Errorf("%s: sparse is %v, %d words", c.categories, m.sets[0].sparse, len(m.bits))
		}
		for want, values := range map[float32][]float32{30.5: c.in, 20.5: c.out} {
			for _, v := range values {
				out := make([]float32, 1)
				if m.Predict([]float32{2, v}, out, Options{}); out[0] != want {
					t.Errorf("%s: %v gives %v, want %v", c.categories, v, out[0], want)
				}
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, old, new, want string }{
		{"cut off", `],"split_indices"`, "", "in learner.gradient_booster.model.trees[0].split_conditions: "},
		{"more", `"version":[3,2,0]}`, `"version":[3,2,0]}{`, "more follows"},
		{"objective", "reg:squarederror", "reg:wish", `in objective: objective "reg:wish" is not known`},
		{"booster", `"name":"gbtree"`, `"name":"forest"`, `booster "forest" is not known`},
		{"no base score", `"base_score":"[5E-1]",`, "", "there is no base_score"},
		{"base score", "[5E-1]", "[5E-1,1]", "in base_score: 2 intercepts for 1 outputs"},
		{"base score", "[5E-1]", "[NaN]", `"NaN" is not a finite number`},
		{"features", `"num_feature":"2"`, `"num_feature":"0"`, "in num_feature: the model has no features"},
		{"too many features", `"num_feature":"2"`, `"num_feature":"4294967295"`, "in num_feature: 4294967295 is not between"},
		{"too many classes", `"num_class":"0"`, `"num_class":"100000"`, "in num_class: 100000 is not between"},
		{"names", `"feature_names":[]`, `"feature_names":["a"]`, "1 names for 2 features"},
		{"same names", `"feature_names":[]`, `"feature_names":["a","a"]`, `two features are called "a"`},
		{"tree info", `"tree_info":[0]`, `"tree_info":[0,0]`, "in tree_info: 2 entries for 1 trees"},
		{"group", `"tree_info":[0]`, `"tree_info":[1]`, "tree 0: there is no output 1"},
		{"rounds", `"iteration_indptr":[0,1]`, `"iteration_indptr":[0,2]`, "the rounds have 2 trees, the model has 1"},
		{"backward rounds", `"iteration_indptr":[0,1]`, `"iteration_indptr":[0,1,0,1]`, "before the round ahead"},
		{"columns", `"right_children":[2,`, `"right_children":[`, "in trees[0].right_children: 4 values for 5 nodes"},
		{"node", `"left_children":[1,`, `"left_children":[7,`, "there is no node 7"},
		{"loop", `"right_children":[2,`, `"right_children":[0,`, "node 0 is reached twice"},
		{"feature", `"split_indices":[0,0,1`, `"split_indices":[0,0,2`, "node 2: there is no feature 2"},
		{"not an integer", `"split_indices":[0,0,1`, `"split_indices":[0,0,1.5`, `"1.5" is not an integer`},
		{"not a number", `"split_conditions":[1.5`, `"split_conditions":[1,5x`, `"5x" is not a number`},
		{"bits", `"split_indices":[0,0,1`, `"split_indices":[0,0,4294967296`, "more than 32 bits"},
		{"id", `"id":0`, `"id":3`, "3 is not the number"},
		{"kind", `"split_type":[0,0,1`, `"split_type":[0,0,0`, "do not agree"},
		{"set", `"categories_sizes":[1]`, `"categories_sizes":[2]`, "is not within the 1 categories"},
		{"category", `"categories":[5]`, `"categories":[-5]`, "-5 is not a category"},
		{"shared", `"categories_nodes":[2],"categories_segments":[0],"categories_sizes":[1]`, `"categories_nodes":[2,2],"categories_segments":[0,0],"categories_sizes":[1,1]`, "in trees[0].categories_sizes: set 1: the sets so far have 2 categories, there are 1"},
		{"leaf values", `"size_leaf_vector":"1"`, `"size_leaf_vector":"2"`, "the leaves have 2 values, the model 1 outputs"},
		{"parallel", `"num_parallel_tree":"1"`, `"num_parallel_tree":"x"`, `"x" is not a number of trees`},
		{"nesting", `"feature_types":[]`, `"feature_types":` + strings.Repeat("[", 100), "nests more than 64 deep"},
		{"other", `{"learner"`, `{"leaner"`, "not an XGBoost model"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(small, c.old, c.new, 1)
			if bad == small {
				t.Fatalf("the model does not hold %q", c.old)
			}
			_, err := Parse(strings.NewReader(bad))
			if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want a SyntaxError with %q", err, c.want)
			}
		})
	}
}

// TestLongErrors: what a file calls its fields and values does not become as long an error.
func TestLongErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, file := range []string{
		`{"learner":{"` + long + `":?}}`,
		strings.Replace(small, `"reg:squarederror"`, `"`+long+`"`, 1),
		strings.Replace(small, `"feature_names":[]`, `"feature_names":["`+long+`","`+long+`"]`, 1),
	} {
		if _, err := Parse(strings.NewReader(file)); err == nil || len(err.Error()) > 1000 {
			t.Errorf("got %.100v", err)
		}
	}
}

// TestCutOff cuts files of every format anywhere: each end is an error with its place.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for _, path := range goldens(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(data) - 1 {
			// The binary format ends with what does not matter to predictions.
			m, err := Parse(bytes.NewReader(data[:n]))
			if syntax, ok := errors.AsType[*SyntaxError](err); !ok || syntax.Offset > n {
				t.Fatalf("%s: the first %d bytes of %d: %v, %v", path, n, len(data), m, err)
			}
		}
	}
}

// TestBombs has files of a few bytes that claim much.
func TestBombs(t *testing.T) {
	t.Parallel()
	ubj := func(text string, n int64) string {
		return "{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L\x00\x00\x00\x00\x00\x00\x00\x10gradient_booster{L\x00\x00\x00\x00\x00\x00\x00\x05model{" + text +
			string(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	for name, file := range map[string]string{
		"weights":   ubj("L\x00\x00\x00\x00\x00\x00\x00\x07weights[$d#L", 1<<40),
		"negative":  ubj("L\x00\x00\x00\x00\x00\x00\x00\x07weights[$d#L", -1),
		"trees":     ubj("L\x00\x00\x00\x00\x00\x00\x00\x05trees[#L", 1<<62),
		"skipped":   ubj("L\x00\x00\x00\x00\x00\x00\x00\x04cats[$L#L", 1<<61),
		"key":       ubj("L", 1<<62),
		"deep":      ubj("L\x00\x00\x00\x00\x00\x00\x00\x04cats"+strings.Repeat("[", 1<<20), 1),
		"bst trees": "binf" + strings.Repeat("\x00", headerSize) + "\x07\x00\x00\x00\x00\x00\x00\x00reg:any\x06\x00\x00\x00\x00\x00\x00\x00gbtree\xff\xff\xff\x7f" + strings.Repeat("\x00", gbtreeSize),
	} {
		_, err := Parse(strings.NewReader(file))
		if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// goldens are one committed model of each format and of each kind.
func goldens(tb testing.TB) []string {
	tb.Helper()
	var paths []string
	for _, pattern := range []string{
		"3.2.0/squarederror.json", "3.2.0/categorical_partition.ubj", "3.2.0/vector.ubj", "3.2.0/dart.json", "2.1.4/linear_softprob.ubj", "2.1.4/dart.bst",
		"2.1.4/vector.ubj", "0.90/linear_softprob.bst", "0.90/binary.bst",
	} {
		path := filepath.Join("testdata/golden", pattern)
		if _, err := os.Stat(path); err != nil {
			tb.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	for _, path := range goldens(f) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		if m.Features()*m.Groups() > 1<<20 {
			return // a request would be refused
		}
		// Whatever parses must predict, for any row, alone and among others.
		for _, v := range []float32{0, float32(math.NaN()), float32(math.Inf(1)), -1e30, 3.5} {
			for _, count := range []int{1, 9} {
				rows, out := make([]float32, count*m.Features()), make([]float32, count*m.Groups())
				for i := range rows {
					rows[i] = v
				}
				m.Predict(rows, out, Options{})
				if end := m.Rounds(); end > 1 {
					m.Predict(rows, out, Options{Margin: true, Begin: end / 2, End: end})
				}
			}
		}
	})
}
