package oip_test

import (
	"encoding/json"
	"strings"
	"testing"

	"tategu/internal/oip"
	"tategu/internal/tensor"
)

func TestRequestInAnyForm(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"flat":       `{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}`,
		"nested":     `{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4]]}]}`,
		"data first": `{"id":"7","inputs":[{"data":[1,2,3,4],"datatype":"FP32","shape":[2,2],"name":"x"}],"later":{}}`,
	} {
		r, err := oip.ParseRequest([]byte(body), len(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(r.Inputs[0].AppendJSON(nil)); got != `[[1,2],[3,4]]` || r.Inputs[0].Name != "x" || r.ID != "7" {
			t.Errorf("%s: %s %+v", name, got, r)
		}
	}
}

func TestBinaryThereAndBack(t *testing.T) {
	t.Parallel()
	ask := oip.Request{
		ID: "a", Outputs: []oip.Output{{Name: "y", Binary: true}, {Name: "z"}}, Parameters: []byte(`{"binary_data_output":true}`),
		Inputs: []oip.Named{
			{Name: "i", Tensor: tensor.Tensor{Type: tensor.Int64, Shape: []int64{1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0}}},
			{Name: "s", Tensor: tensor.Tensor{Type: tensor.String, Shape: []int64{2}, Strings: [][]byte{{0xff}, []byte("é")}}},
			{Name: "b", Tensor: tensor.Tensor{Type: tensor.Bool, Shape: []int64{1}, Data: []byte{1}}},
			{Name: "f", Tensor: tensor.Tensor{Type: tensor.Float32, Shape: []int64{1}, Data: []byte{0, 0, 0x80, 0x3f}}},
		},
	}
	body, length, err := ask.Append(nil, true)
	if err != nil || length <= 0 || length >= len(body) {
		t.Fatal(length, err)
	}
	got, err := oip.ParseRequest(body, length)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, in := range got.Inputs {
		values = append(values, string(in.AppendJSON(nil)))
	}
	if s := strings.Join(values, " "); s != `[1] [{"b64":"/w=="},"é"] [true] [1]` {
		t.Error(s)
	}
	if !got.Outputs[0].Binary || got.Outputs[1].Binary || !got.Binary {
		t.Errorf("outputs %+v", got.Outputs)
	}
	answer := oip.Response{Model: "m", ID: got.ID, Outputs: []oip.Result{{got.Inputs[0], true}, {got.Inputs[3], false}}}
	out, length, err := answer.Append([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	head := string(out[len("before") : len("before")+length])
	want := `{"model_name":"m","id":"a","outputs":[{"name":"i","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}},{"name":"f","datatype":"FP32","shape":[1],"data":[1]}]}`
	if head != want || len(out) != len("before")+length+8 {
		t.Errorf("%s", out)
	}
	answer.Outputs = []oip.Result{{got.Inputs[1], false}}
	if _, _, err := answer.Append(nil); err == nil || !strings.Contains(err.Error(), "binary_data") {
		t.Error(err)
	}
}

func TestBadRequestsAreTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ body, tail, want string }{
		{`{}`, "", "no inputs"},
		{`{"inputs":[]}`, "", "no inputs"},
		{`{"inputs":[{}]}`, "", "input 0: the name is missing"},
		{`{"inputs":[{"name":"x","datatype":"FP99"}]}`, "", `input "x": datatype "FP99" is not known`},
		{`{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}`, "", `input "x": the shape is missing`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}`, "", `input "x": data: want shape [2], got shape [1]`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[-2],"data":[1]}]}`, "", `not negative`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1000000,1000000,1000000,1000000],"data":[1]}]}`, "", `too large`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}`, "", `no data`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}`, "abc", `3 bytes are left`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":3}}]}`, "abc", `3 bytes`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`, "abc", `3 bytes follow`},
		{`{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}`, "\x09\x00\x00\x00a", `a string of 9 bytes`},
		{`{"inputs":[{"name":"x","datatype":"BOOL","shape":[1],"parameters":{"binary_data_size":1}}]}`, "\x09", `of a BOOL is 9`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]`, "", `not valid JSON`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"shared_memory_region":"r"}}]}`, "", `shared memory extension`},
		{`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"shape":[1000000]}]}`, "", `the shape is given twice`},
		{`{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1],"datatype":"FP64"}]}`, "", `the datatype is given twice`},
		{`{"inputs":[{"name":"x","datatype":"FP32","data":[1],"shape":[1` + strings.Repeat(",1", 40) + `]}]}`, "", `more than 32 dimensions`},
		{"{\"inputs\":[{\"name\":\"\xff\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}", "", `is not UTF-8`},
		{"{\"id\":\"\xff\",\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}", "", `id is not UTF-8`},
		{`{"outputs":[{"name":"y"},{"name":"z"},{"name":"y"}],"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`, "", `the output "y" is asked for twice`},
	} {
		_, err := oip.ParseRequest([]byte(tt.body+tt.tail), len(tt.body))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want %q", tt.body, err, tt.want)
		}
	}
	if _, err := oip.Length("9", 8); err == nil {
		t.Error("a header beyond the body is taken")
	}
}

// FuzzParseRequest: no panic, and what is read can be written and read again.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4]]}]}`), uint16(999))
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"shape":[9],"datatype":"FP64"}]}`), uint16(999))
	f.Add([]byte(`{"inputs":[{"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`+"\x01\x00\x00\x00a"), uint16(92))
	f.Add([]byte(`{"parameters":{"binary_data_output":true},"outputs":[{"name":"y","parameters":{"binary_data":false}}],"inputs":[{"data":["a"],"name":"s","shape":[1],"datatype":"BYTES"}]}`), uint16(999))
	f.Fuzz(func(t *testing.T, body []byte, length uint16) {
		r, err := oip.ParseRequest(body, min(int(length), len(body)))
		if err != nil {
			return
		}
		for _, in := range r.Inputs {
			if err := in.Check(); err != nil {
				t.Fatalf("%q: %v", body, err)
			}
		}
		r.Parameters = nil
		out, n, err := r.Append(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		again, err := oip.ParseRequest(out, n)
		if err != nil {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		if len(again.Inputs) != len(r.Inputs) || len(again.Outputs) != len(r.Outputs) {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

func TestMetadataIsJSON(t *testing.T) {
	t.Parallel()
	for typ := tensor.Bool; typ <= tensor.String; typ++ {
		if back, ok := oip.Type(oip.Datatype(typ)); !ok || back != typ {
			t.Errorf("%s is %q", typ, oip.Datatype(typ))
		}
	}
	for _, b := range [][]byte{oip.ErrorBody(`a "b"`), oip.ReadyBody("m", true), oip.ReadyBody("", false)} {
		if !json.Valid(b) {
			t.Errorf("%s", b)
		}
	}
}
