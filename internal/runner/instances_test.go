package runner

import (
	"encoding/json"
	"strings"
	"testing"

	"tategu/internal/tensor"
)

// several is a model with inputs of many kinds.
func several(mode Mode) *Model {
	return &Model{mode: mode, inputs: []Spec{
		{Name: "a", Type: tensor.Float32, Shape: []int64{-1, 2}},
		{Name: "b", Type: tensor.Int64, Shape: []int64{-1, -1}},
		{Name: "s", Type: tensor.String, Shape: []int64{-1, 1}},
		{Name: "n", Type: tensor.Bool, Shape: []int64{-1}},
	}}
}

func TestInstances(t *testing.T) {
	t.Parallel()
	in := newInstances(several(Merged))
	for range 2 { // its memory is used again
		err := in.read([]byte(`{"instances":[
			{"a":[1,2],"b":[7],"s":["x"],"n":true}, {"n":false,"s":"y","b":[8],"a":[3,4]},
			{"a":[5,6],"b":[9,9],"s":{"b64":"/w=="},"n":1}],"parameters":null}`))
		if err != nil {
			t.Fatal(err)
		}
		if len(in.parts) != 2 || in.parts[0].rows != 2 || in.parts[1].rows != 1 || in.count != 3 {
			t.Fatalf("parts %+v", in.parts)
		}
		var got []string
		for _, p := range in.parts {
			for _, x := range p.inputs {
				if err := x.Check(); err != nil {
					t.Error(err)
				}
				got = append(got, string(x.AppendJSON(nil)))
			}
		}
		want := `[[1,2],[3,4]] [[7],[8]] [["x"],["y"]] [true,false] [[5,6]] [[9,9]] [[{"b64":"/w=="}]] [true]`
		if s := strings.Join(got, " "); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	}
}

func TestBadInstancesAreNamed(t *testing.T) {
	t.Parallel()
	one := &Model{mode: Merged, inputs: []Spec{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, 2, 2}}}}
	many := several(Merged)
	for _, tt := range []struct {
		model      *Model
		body, want string
	}{
		{one, `[]`, `not an object of the form`},
		{one, `{}`, `no instances`},
		{one, `{"instances":7}`, `instances must be a list`},
		{one, `{"instances":[],"instances":[]}`, `given twice`},
		{one, `{"instance":[]}`, `field "instance" is not known`},
		{one, `{"instances":[[[1,2],[3,4]],[[1,2,3]]]}`, `instance 1: input "x" (float32 [2, 2]): want shape [2, 2], got shape [1, 3]`},
		{one, `{"instances":[[[1,2],[3,"4"]]]}`, `instance 0: input "x" (float32 [2, 2]): want a float32, got a string`},
		{one, `{"instances":["x"]}`, `instance 0: input "x" (float32 [2, 2]): want shape [2, 2], got`},
		{one, `{"instances":[{"y":1}]}`, `instance 0: the model has no input "y", it has "x"`},
		{one, `{"instances":[{}]}`, `instance 0: input "x" is missing`},
		{one, `{"instances":[],"parameters":{"p":1}}`, `parameter "p" is not known`},
		{one, `{"instances":[[[1,2],[3,4]]`, `not valid JSON`},
		{many, `{"instances":[[1,2]]}`, `instance 0 must be an object by input name: the model has "a", "b", "s", "n"`},
		{many, `{"instances":[{"a":[1,2],"a":[1,2]}]}`, `instance 0: input "a" is given twice`},
		{many, `{"instances":[{"a":[1,2],"b":[1.5]}]}`, `instance 0: input "b" (int64 [?]): want an int64, got 1.5`},
	} {
		err := newInstances(tt.model).read([]byte(tt.body))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want %q", tt.body, err, tt.want)
		}
	}
}

// FuzzInstances: no panic; what is taken is whole tensors with a row for each instance,
// as many as the standard library reads.
func FuzzInstances(f *testing.F) {
	f.Add([]byte(`{"instances":[{"a":[1,2],"b":[7],"s":["x"],"n":true},{"n":false,"s":"y","b":[8,9],"a":[3,4]}]}`), true)
	f.Add([]byte(`{"instances":[[1,2],[3,4]],"parameters":{}}`), false)
	f.Add([]byte(`{"instances":[{"b64":"AAE="},"\u00e9"]}`), false)
	f.Fuzz(func(t *testing.T, body []byte, rows bool) {
		mode := Whole
		if rows {
			mode = Merged
		}
		for _, m := range []*Model{
			several(mode),
			{mode: mode, inputs: []Spec{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, 2}}}},
			{mode: mode, inputs: []Spec{{Name: "x", Type: tensor.String, Shape: []int64{-1}}}},
			{mode: mode, inputs: []Spec{{Name: "x", Type: tensor.Uint8, Shape: []int64{-1, -1, 3}}}},
		} {
			in := newInstances(m)
			if in.read(body) != nil {
				continue
			}
			count := 0
			for _, p := range in.parts {
				count += p.rows
				for _, x := range p.inputs {
					if err := x.Check(); err != nil {
						t.Fatalf("%q: %v", body, err)
					}
					if mode != Whole && x.Shape[0] != int64(p.rows) {
						t.Fatalf("%q: %v rows of %d instances", body, x.Shape, p.rows)
					}
				}
			}
			var std map[string]json.RawMessage
			var list []json.RawMessage
			if json.Unmarshal(body, &std) == nil && json.Unmarshal(std["instances"], &list) == nil && len(list) != count {
				t.Fatalf("%q has %d instances, %d were read", body, len(list), count)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	m := &Model{mode: Merged, inputs: []Spec{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, 64}}}}
	body := []byte(`{"instances":[[` + strings.Repeat("0.123456,", 63) + `7]]}`)
	in := newInstances(m)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := in.read(body); err != nil {
			b.Fatal(err)
		}
	}
}
