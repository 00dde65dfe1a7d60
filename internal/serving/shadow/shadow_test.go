package shadow_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"tategu/internal/serving/shadow"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ours, theirs string
		want         []shadow.Difference
	}{
		{`{"predictions": [1, 2.0]}`, `{"predictions":[1.0000000001,2]}`, nil},
		{`{"a": {"b": [{"s": 0.5}, {"s": 0.7}]}}`, `{"a": {"b": [{"s": 0.5}, {"s": 0.8}]}}`, []shadow.Difference{{"a.b[].s", "0.7", "0.8"}}},
		{`{"a": 1}`, `{"b": 1}`, []shadow.Difference{{"a", "1", ""}, {"b", "", "1"}}},
		{`[1]`, `[1, 2]`, []shadow.Difference{{"[] (length)", "1", "2"}}},
		{`{"a": "x"}`, `{"a": null}`, []shadow.Difference{{"a", `"x"`, "null"}}},
		{`1e400`, `1e400`, nil},
		{`1e400`, `1e401`, []shadow.Difference{{"", "1e400", "1e401"}}},
		{`same text`, `same text`, nil},
		{`{} {}`, `{}`, []shadow.Difference{{"(not JSON)", "{} {}", "{}"}}},
	} {
		if got := shadow.Compare([]byte(tt.ours), []byte(tt.theirs)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s and %s: %+v", tt.ours, tt.theirs, got)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := &shadow.Report{}
	r.Compared([]byte(`{"p":[1,2]}`), []byte(`{"p":[1,2]}`), time.Millisecond, 2*time.Millisecond)
	r.Compared([]byte(`{"p":[1,2]}`), []byte(`{"p":[3,4]}`), time.Millisecond, 2*time.Millisecond)
	r.Compared([]byte(`{"p":[1,2],"q":0}`), []byte(`{"p":[3,4]}`), time.Millisecond, 2*time.Millisecond)
	r.Missed("500")
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back := &shadow.Report{}
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	if back.Requests != 3 || back.Equal != 1 || back.Different != 2 || back.Failed != 1 || len(back.Fields) != 2 ||
		back.Fields[0] != (shadow.Field{Path: "p[]", Count: 2, Ours: "1", Theirs: "3"}) {
		t.Errorf("%s", data)
	}
	n, p50 := back.Theirs.Quantile(0.5)
	if n != 3 || p50 < 2*time.Millisecond || p50 > 2500*time.Microsecond {
		t.Errorf("p50 of %d is %v", n, p50)
	}
}

// TestLongPaths: the keys of answers, which may be as long as these, are not kept whole.
func TestLongPaths(t *testing.T) {
	t.Parallel()
	r := &shadow.Report{}
	key := strings.Repeat("é", 1<<16)
	for range 2 {
		r.Compared([]byte(`{"`+key+`":1}`), []byte(`{"`+key+`":2}`), time.Millisecond, time.Millisecond)
	}
	if len(r.Fields) != 1 || r.Fields[0].Count != 2 || len(r.Fields[0].Path) > 300 || !strings.HasPrefix(r.Fields[0].Path, "éé") {
		t.Errorf("%d fields, the first of %d bytes", len(r.Fields), len(r.Fields[0].Path))
	}
}

// FuzzCompare: an answer is equal to itself, and neither text makes it fall over.
func FuzzCompare(f *testing.F) {
	f.Add(`{"a": [1, {"b": null}]}`, `{"a": [1.5, {"c": "x"}]}`)
	f.Add(`1e999`, `[`)
	f.Fuzz(func(t *testing.T, a, b string) {
		if d := shadow.Compare([]byte(a), []byte(a)); len(d) > 0 {
			t.Errorf("%q differs from itself: %v", a, d)
		}
		if x, y := shadow.Compare([]byte(a), []byte(b)), shadow.Compare([]byte(b), []byte(a)); (len(x) == 0) != (len(y) == 0) {
			t.Errorf("%v one way, %v the other", x, y)
		}
	})
}
