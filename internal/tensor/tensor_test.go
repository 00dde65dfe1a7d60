package tensor_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"tategu/internal/scan"
	"tategu/internal/tensor"
)

func read(t *testing.T, typ tensor.Type, text string, dims ...int64) (tensor.Tensor, error) {
	t.Helper()
	b := tensor.Builder{}
	b.Reset(typ)
	s := scan.Scanner{Data: []byte(text)}
	err := b.Read(&s, dims)
	if err != nil {
		return tensor.Tensor{}, err
	}
	out := b.Tensor(0, dims)
	if err := out.Check(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out, s.End()
}

func TestValuesComeBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ  tensor.Type
		dims []int64
		text string
		want string // "" = the text
	}{
		{tensor.Float32, []int64{2, 2}, `[[1,2.5],[-0.1,1e+30]]`, ""},
		{tensor.Float32, []int64{2}, `[1e6,1e-7]`, `[1000000,1e-07]`},
		{tensor.Float32, []int64{-1}, `[null,NaN,Infinity,true]`, `[null,null,null,1]`},
		{tensor.Float32, nil, `16777217`, `16777216`},
		{tensor.Float64, []int64{-1, -1}, `[[0.1],[1e-300]]`, ""},
		{tensor.Float16, []int64{3}, `[0.1,65504,1e9]`, `[0.099975586,65504,null]`},
		{tensor.BFloat16, []int64{2}, `[0.1,3]`, `[0.100097656,3]`},
		{tensor.Int64, []int64{2}, `[9007199254740993,-9223372036854775808]`, ""},
		{tensor.Int32, []int64{1, 1, 2}, `[[[2147483647,-5.0]]]`, `[[[2147483647,-5]]]`},
		{tensor.Int16, []int64{1}, `[-32768]`, ""},
		{tensor.Int8, []int64{2}, `[-128,127]`, ""},
		{tensor.Uint64, []int64{1}, `[18446744073709551615]`, ""},
		{tensor.Uint32, []int64{1}, `[4294967295]`, ""},
		{tensor.Uint16, []int64{1}, `[65535]`, ""},
		{tensor.Uint8, []int64{2, -1}, `{"b64":"AAEC/w=="}`, `[[0,1],[2,255]]`},
		{tensor.Uint8, []int64{2, 2}, `[[1,2],{"b64":"AwQ="}]`, `[[1,2],[3,4]]`},
		{tensor.Bool, []int64{3}, `[true,0,1]`, `[true,false,true]`},
		{tensor.String, []int64{3}, `["a\"\\\u0001é",{"b64":"/w=="},""]`, `["a\"\\\u0001é",{"b64":"/w=="},""]`},
		{tensor.String, nil, `"x"`, ""},
		{tensor.Float32, []int64{-1, -1}, `[]`, ""},
	} {
		got, err := read(t, tt.typ, tt.text, tt.dims...)
		if err != nil {
			t.Errorf("%s %s: %v", tt.typ, tt.text, err)
			continue
		}
		want := tt.want
		if want == "" {
			want = tt.text
		}
		if out := string(got.AppendJSON(nil)); out != want {
			t.Errorf("%s %s came back as %s, want %s", tt.typ, tt.text, out, want)
		}
		if !json.Valid(got.AppendJSON(nil)) || !json.Valid(got.AppendFlat(nil)) {
			t.Errorf("%s %s came back as no JSON", tt.typ, tt.text)
		}
	}
}

func TestMismatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ  tensor.Type
		dims []int64
		text string
		want string
	}{
		{tensor.Float32, []int64{3}, `[1,2]`, "want shape [3], got shape [2]"},
		{tensor.Float32, []int64{3}, `[1,2,3,4]`, "want shape [3], got shape [4]"},
		{tensor.Float32, []int64{2, -1}, `[[1],[2,3]]`, "want 1 elements, got more"},
		{tensor.Float32, []int64{2, 2}, `[1,2]`, "want shape [2, 2], got shape [2]"},
		{tensor.Float32, []int64{2}, `[[1,2]]`, "want shape [2], got shape [1, 2]"},
		{tensor.Float32, []int64{2}, `{"a":1}`, "want shape [2], got an object"},
		{tensor.Float32, []int64{1}, `["x"]`, "want a float32, got a string"},
		{tensor.Int64, []int64{1}, `[1.5]`, "want an int64, got 1.5"},
		{tensor.Int8, []int64{1}, `[128]`, "want an int8, got 128"},
		{tensor.Uint8, []int64{1}, `[-1]`, "want a uint8, got -1"},
		{tensor.Bool, []int64{1}, `[2]`, "want a bool, got 2"},
		{tensor.String, []int64{1}, `[7]`, "want a string, got 7"},
		{tensor.String, []int64{1}, `[{"b64":"*"}]`, "want base64"},
		{tensor.String, []int64{1}, `[{"x":"*"}]`, `the key "x"`},
		{tensor.Uint8, []int64{3}, `{"b64":"AAE="}`, "2 bytes of base64"},
		{tensor.Uint8, []int64{-1, -1}, `{"b64":"AAE="}`, "several dimensions"},
	} {
		_, err := read(t, tt.typ, tt.text, tt.dims...)
		if _, ok := errors.AsType[*tensor.MismatchError](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v %s: error = %v, want %q", tt.typ, tt.dims, tt.text, err, tt.want)
		}
	}
}

// TestHalves: every half is itself again, and rounding goes to the nearest of its neighbours.
func TestHalves(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		v := tensor.FromFloat16(uint16(h))
		if back := tensor.ToFloat16(v); back != uint16(h) && v == v {
			t.Fatalf("half %#04x is %v and came back as %#04x", h, v, back)
		}
		if b := tensor.FromBFloat16(uint16(h)); b == b && tensor.ToBFloat16(b) != uint16(h) {
			t.Fatalf("bfloat16 %#04x came back as %#04x", h, tensor.ToBFloat16(b))
		}
		if h&0x7fff >= 0x7bff {
			continue
		}
		up := tensor.FromFloat16(uint16(h + 1))
		middle := (v + up) / 2 // exact
		even := uint16(h + h&1)
		if got := tensor.ToFloat16(middle); got != even {
			t.Fatalf("%v lies between %#04x and %#04x, and became %#04x", middle, h, h+1, got)
		}
		if got := tensor.ToFloat16(math.Nextafter32(middle, up)); got != uint16(h+1) {
			t.Fatalf("above the middle of %#04x: %#04x", h, got)
		}
	}
	if !math.IsNaN(float64(tensor.FromFloat16(tensor.ToFloat16(float32(math.NaN()))))) || tensor.ToFloat16(float32(math.Inf(-1))) != 0xfc00 {
		t.Error("NaN or infinity did not stay what it was")
	}
}

func TestRowsAndConcat(t *testing.T) {
	t.Parallel()
	a, _ := read(t, tensor.Float32, `[[1,2],[3,4],[5,6]]`, 3, 2)
	back := tensor.Concat([]tensor.Tensor{a.Rows(2, 3), a.Rows(0, 2)})
	if got := string(back.AppendJSON(nil)); got != `[[5,6],[1,2],[3,4]]` {
		t.Error(got)
	}
	s, _ := read(t, tensor.String, `["a","b"]`, 2)
	if got := string(tensor.Concat([]tensor.Tensor{s.Rows(1, 2), s}).AppendJSON(nil)); got != `["b","a","b"]` {
		t.Error(got)
	}
	if _, ok := tensor.Elements([]int64{1 << 40, 1 << 40}); ok {
		t.Error("a number of elements overflowed")
	}
	odd := make([]byte, 9)
	binary.LittleEndian.PutUint64(odd[1:], 7)
	if got := tensor.Aligned(tensor.Int64, odd[1:]); binary.LittleEndian.Uint64(got) != 7 {
		t.Error(got)
	}
}

// FuzzRead: no panic, and what was read is written as JSON that reads the same.
func FuzzRead(f *testing.F) {
	for typ := range tensor.String + 1 {
		f.Add(byte(typ), int8(-1), int8(2), `[[1,2],[3,4]]`)
		f.Add(byte(typ), int8(2), int8(-1), `[["a"],[{"b64":"AAE="}]]`)
		f.Add(byte(typ), int8(-1), int8(-2), `{"b64":"AAE="}`)
	}
	f.Fuzz(func(t *testing.T, kind byte, d0, d1 int8, text string) {
		typ := tensor.Type(kind%byte(tensor.String)) + 1
		dims := []int64{max(int64(d0), -1), max(int64(d1), -1)}
		if d1 < -1 {
			dims = dims[:1]
		}
		b := tensor.Builder{}
		b.Reset(typ)
		s := scan.Scanner{Data: []byte(text)}
		if b.Read(&s, dims) != nil {
			return
		}
		got := b.Tensor(0, dims)
		if err := got.Check(); err != nil {
			t.Fatalf("%s %q: %v", typ, text, err)
		}
		out := got.AppendJSON(nil)
		if !json.Valid(out) && typ != tensor.String {
			t.Fatalf("%s %q was written as %s", typ, text, out)
		}
		again := tensor.Builder{}
		again.Reset(typ)
		if err := again.Read(&scan.Scanner{Data: out}, append([]int64{}, dims...)); err != nil {
			t.Fatalf("%s %q was written as %s: %v", typ, text, out, err)
		}
		if b := again.Tensor(0, dims).AppendJSON(nil); !reflect.DeepEqual(b, out) {
			t.Fatalf("%s became %s", out, b)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := []byte("[" + strings.Repeat("0.123456,", 63) + "7]")
	builder := tensor.Builder{}
	dims := []int64{64}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		builder.Reset(tensor.Float32)
		dims[0] = 64
		if err := builder.Read(&scan.Scanner{Data: text}, dims); err != nil {
			b.Fatal(err)
		}
	}
}
