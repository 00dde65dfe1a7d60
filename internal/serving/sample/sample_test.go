package sample_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/serving/sample"
)

type objects map[string]string

func (o objects) ReadObject(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	text, ok := o[bucket+"/"+name]
	if !ok {
		return nil, resource.NotFound(name)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// echo predicts its instances; "bad" is refused.
func echo(_ context.Context, body []byte) (int, []byte, error) {
	var r struct{ Instances []json.RawMessage }
	if err := json.Unmarshal(body, &r); err != nil {
		return 0, nil, err
	}
	if bytes.Contains(body, []byte(`"bad"`)) {
		return 400, []byte("bad is not taken"), nil
	}
	out, err := json.Marshal(map[string]any{"predictions": r.Instances})
	return 200, out, err
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lines, want string }{
		{`{"instance":1,"prediction":1}`, ""},
		{`{"instance":{"a":[1.0000001,"x",null]},"prediction":{"a":[1.0,"x",null]}}`, ""},
		{`{"instance":1000000,"prediction":1000001}`, "line 1 of gs://b/d/tategu-samples.jsonl: the model predicts 1000000 where 1000001 is wanted"},
		{`{"instance":1000000,"prediction":1000001,"tolerance":1e-5}`, ""},
		{`{"instance":0.5,"prediction":0.51,"tolerance":0.02}`, ""},
		{`{"instance":0.5,"prediction":0.51}`, "predicts 0.5 where 0.51 is wanted"},
		{"\n{\"instance\":1,\"prediction\":1}\n{\"instance\":[1,[2]],\"prediction\":[1,[3]]}", "line 3 of gs://b/d/tategu-samples.jsonl: the model predicts 2 where 3 is wanted at [1][0]"},
		{`{"instance":{"a":1},"prediction":{"a":2}}`, "predicts 1 where 2 is wanted at .a"},
		{`{"instance":{"a":1},"prediction":{"b":1}}`, `predicts {"a":1} where {"b":1} is wanted`},
		{`{"instance":"1","prediction":1}`, `predicts "1" where 1 is wanted`},
		{`{"instance":null,"prediction":false}`, `predicts null where false is wanted`},
		{"{\"instance\":1,\"prediction\":1}\n{\"instance\":\"bad\",\"prediction\":1}", "line 2 of gs://b/d/tategu-samples.jsonl: the model's server answers 400: bad is not taken"},
		{`{"instance":1}`, "line 1: it has no prediction"},
		{`{"prediction":1}`, "line 1: it has no instance"},
		{`{"instance":1,"prediction":1,"tolerance":-1}`, "tolerance is -1"},
		{`{"instance":1,"prediction":1,"weight":1}`, "weight"},
		{`{"instance":1,"prediction":1} x`, "line 1"},
		{strings.Repeat(`{"instance":1,"prediction":1}`+"\n", 1001), "more than 1000 rows"},
	} {
		s, err := sample.Load(t.Context(), objects{"b/d/tategu-samples.jsonl": c.lines}, "gs://b/d/")
		if err == nil {
			err = s.Check(t.Context(), echo)
		}
		if c.want == "" {
			if err != nil || s.Len() == 0 {
				t.Errorf("%s: %v", c.lines, err)
			}
			continue
		}
		e, ok := errors.AsType[*resource.Error](err)
		if !ok || !strings.Contains(err.Error(), c.want) || e.Cause != resource.CauseModel || e.Hint == "" {
			t.Errorf("%.100s: %v, want %q of cause model with a next step", c.lines, err, c.want)
		}
	}
}

func TestManyRows(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	for i := range 250 {
		fmt.Fprintf(&lines, "{\"instance\":%d,\"prediction\":%d}\n", i, i)
	}
	s, err := sample.Load(t.Context(), objects{"b/tategu-samples.jsonl": lines.String()}, "gs://b/model.onnx")
	if err != nil || s.Len() != 250 {
		t.Fatal(s.Len(), err)
	}
	asked := 0
	if err := s.Check(t.Context(), func(ctx context.Context, body []byte) (int, []byte, error) {
		asked++
		return echo(ctx, body)
	}); err != nil || asked != 3 {
		t.Errorf("%d requests: %v", asked, err)
	}
	for _, uri := range []string{"", "gs://b/other", "gs://c", "/local"} {
		if s, err := sample.Load(t.Context(), objects{"b/tategu-samples.jsonl": lines.String()}, uri); err != nil || s.Len() != 0 {
			t.Errorf("%s: %d %v", uri, s.Len(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"instance":{"a":[1,"x",null]},"prediction":0.5,"tolerance":1e-3}`)
	f.Add("\n\n{\"instance\":1,\"prediction\":1}\nx")
	f.Fuzz(func(t *testing.T, lines string) {
		rows, err := sample.Parse(strings.NewReader(lines))
		if err == nil && len(rows) > strings.Count(lines, "\n")+1 {
			t.Fatalf("%q has %d rows", lines, len(rows))
		}
	})
}
