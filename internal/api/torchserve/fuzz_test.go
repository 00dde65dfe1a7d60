package torchserve

import (
	"bytes"
	"strings"
	"testing"

	engine "tategu/internal/torchserve"
)

// FuzzBody reads bodies of every form: no panic, and what is read is in the body.
func FuzzBody(f *testing.F) {
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"x\"\r\n\r\nv\r\n--b--\r\n"))
	f.Add("multipart/mixed; boundary=\"b c\"", []byte("--b c\r\n\r\nv\r\n--b c--"))
	f.Add("application/x-www-form-urlencoded", []byte("a=1&b=%20&=&&c"))
	f.Add("application/json; charset=utf-8", []byte("{}"))
	f.Add("text/plain; =", []byte("x"))
	f.Add("multipart/form-data", []byte("--"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		parts, err := readBody(kind, bytes.NewReader(body), int64(len(body)))
		checkRead(t, "a body of "+kind, parts, err, body)
	})
}

// FuzzKeyFile reads key files.
func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(`{"management":{"key":"a","expiration time":"2026-11-27T07:40:41.458327720Z"},"inference":{"key":"b","expiration time":"2026-11-27T07:40:41Z"},"API":{"key":"c"}}`))
	f.Add([]byte(`{"API":{"key":""}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := readTokens(text)
		if err == nil && (keys[kindAPI].Key == "" || keys[KindInference].Key == "" || keys[KindManagement].Key == "") {
			t.Errorf("a file without all keys was read: %v", keys)
		}
	})
}

// FuzzDefinitions reads metrics configurations; what is read can be observed and shown.
func FuzzDefinitions(f *testing.F) {
	f.Add([]byte("ts_metrics: {counter: [{name: C, unit: u, dimensions: [a]}]}"))
	f.Add([]byte("dimensions: [&a b]\nmodel_metrics: {gauge: [{name: G, unit: u, dimensions: [*a]}]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ds, err := ReadDefinitions(text)
		if err != nil {
			return
		}
		m := NewMetrics(MetricsConfig{Mode: ModePrometheus, Definitions: ds})
		if got := strings.Count(m.text(nil), "# TYPE"); got != len(ds) {
			t.Errorf("%d definitions, %d shown", len(ds), got)
		}
	})
}

// FuzzDAG shows graphs of workflows.
func FuzzDAG(f *testing.F) {
	f.Add([]byte(`{"dag":{"a":["b","c"],"b":["d"]}}`))
	f.Add([]byte(`{"dag":{"a":[1]}}`))
	f.Add([]byte(`{"dag":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s := dag(text); !strings.HasPrefix(s, "{") || !strings.HasSuffix(s, "}") {
			t.Errorf("%q", s)
		}
	})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0.0", 1: "1.0", 49: "49.0", 22881.345: "22881.345", 9999999: "9999999.0", 1e7: "1.0E7", 1.25e10: "1.25E10", 0.001: "0.001", 0.00012: "1.2E-4", -3.5: "-3.5"} {
		if got := number64(v); got != want {
			t.Errorf("%v = %s, want %s", v, got, want)
		}
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	a := readCPU("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n")
	b := readCPU("cpu  150 0 75 850 75 0 0 0 0 0\n")
	if a.busy != 150 || a.all != 1000 || b.busy-a.busy != 75 || b.all-a.all != 150 {
		t.Errorf("%+v %+v", a, b)
	}
	if total, free := readMemory("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\nrubbish\n"); total != 1000 || free != 250 {
		t.Errorf("%v %v", total, free)
	}
}

// checkRead wants an error to be the client's, and no more read than was sent.
func checkRead(t *testing.T, what string, parts []engine.Part, err error, body []byte) {
	t.Helper()
	if err != nil {
		if e := told(err); e.Code != 400 {
			t.Errorf("%q: %v is no fault of the client's", what, err)
		}
		return
	}
	size := 0
	for _, p := range parts {
		size += len(p.Value)
	}
	if size > len(body) {
		t.Errorf("%d bytes were read of %d", size, len(body))
	}
}

// FuzzInstances reads what a workflow is asked: no panic, and a refusal is the client's fault.
func FuzzInstances(f *testing.F) {
	f.Add([]byte(`{"instances": [1, {"b64": "AGE="}, {"b64": null}, null, {"b64": "x", "c": 1}]}`))
	f.Add([]byte(`{"instances": {}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		parts, err := readInstances(body)
		checkRead(t, string(body), parts, err, body)
	})
}
