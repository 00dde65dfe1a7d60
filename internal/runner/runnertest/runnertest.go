// Package runnertest has the models that tests of engines serve, with the answers of
// Python's onnxruntime, and a client for a runner.
package runnertest

import (
	"bytes"
	"context"
	_ "embed" // models.py
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tategu/internal/runner"
)

//go:embed testdata/models.py
var maker string

// Example is what testdata/models.py makes of a model.
type Example struct {
	Model, Mode            string
	Instances, Predictions []any
}

// Models is a directory with NAME.onnx of every case.
type Models struct {
	Dir     string
	Library string // the version of onnxruntime
	Package string // its directory
	Cases   []Example
}

// MissingError is a Python without what makes the models: a reason to skip.
type MissingError struct{ What string }

func (e *MissingError) Error() string { return e.What }

// Make makes the models in a new directory with the Python that TATEGU_TEST_PYTHON
// names. It takes seconds.
func Make() (*Models, error) {
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		return nil, &MissingError{"TATEGU_TEST_PYTHON names no Python with onnxruntime, onnx and skl2onnx"}
	}
	dir, err := os.MkdirTemp("", "onnx-models-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), python, "-", dir) //nolint:gosec // the tester names it
	cmd.Stdin = strings.NewReader(maker)
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("ModuleNotFoundError")) {
		return nil, &MissingError{"the Python of TATEGU_TEST_PYTHON lacks onnxruntime, onnx, skl2onnx or pandas: " + string(out)}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	m := &Models{Dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		return nil, err
	}
	return m, decode(b, m)
}

// Path is the file of a model.
func (m *Models) Path(name string) string { return filepath.Join(m.Dir, name+".onnx") }

// Serve starts a runner and gives its URL once it is ready, and its log.
func Serve(tb testing.TB, load runner.Loader, change func(*runner.Config)) (url string, log *bytes.Buffer) {
	tb.Helper()
	log = &bytes.Buffer{}
	cfg := runner.Config{
		Load: load,
		Log:  slog.New(slog.NewTextHandler(log, nil)), Version: "test", Names: []string{"m"}, Health: "/h", Predict: "/p:predict",
		Cores: 2, Batch: 64, Body: 1 << 20,
	}
	if change != nil {
		change(&cfg)
	}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- runner.New(cfg).Run(ctx, l) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("the runner ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	url = "http://" + l.Addr().String()
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		if status, _ := Ask(tb, "GET", url+"/h", ""); status == http.StatusOK {
			return url, log
		}
		select {
		case err := <-ended:
			ended <- nil
			tb.Fatalf("the runner ended: %v", err)
		default:
		}
	}
}

// Ask makes a request and gives status and body of the answer.
func Ask(tb testing.TB, method, url, body string, header ...string) (int, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Body is a request with instances.
func Body(tb testing.TB, instances []any) string {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"instances": instances})
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// Near compares JSON values. Sums of a batch are rounded in another order than those of
// one row, so floats may differ by a few units of a float32.
func Near(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		n, ok := b.(json.Number)
		if !ok || a == n {
			return ok
		}
		if !strings.ContainsAny(string(a+n), ".e") {
			return false // integers are exact
		}
		x, y := float(a), float(n)
		return math.Abs(x-y) <= 2e-6*math.Max(1, math.Abs(y))
	case []any:
		v, ok := b.([]any)
		if !ok || len(a) != len(v) {
			return false
		}
		for i := range a {
			if !Near(a[i], v[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		v, ok := b.(map[string]any)
		if !ok || len(a) != len(v) {
			return false
		}
		for k := range a {
			if !Near(a[k], v[k]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

func float(n json.Number) float64 {
	v, err := n.Float64()
	if err != nil {
		return math.NaN()
	}
	return v
}

// decode keeps the digits of numbers.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

// Predictions reads an answer.
func Predictions(tb testing.TB, text string) []any {
	tb.Helper()
	var answer struct{ Predictions []any }
	if err := decode([]byte(text), &answer); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return answer.Predictions
}

// Answers asks for each instance of an example in a request of its own, and for all in
// one, and wants what Python's onnxruntime answers.
func Answers(t *testing.T, url string, c Example) {
	t.Helper()
	requests, want := append(make([][]any, 0, 1+len(c.Instances)), c.Instances), c.Predictions
	for _, instance := range c.Instances {
		requests = append(requests, []any{instance})
	}
	for i, instances := range requests {
		status, text := Ask(t, "POST", url+"/p:predict", Body(t, instances))
		if status != http.StatusOK {
			t.Fatalf("%v: %d %s", instances, status, text)
		}
		if i > 0 {
			want = c.Predictions[i-1 : i]
		}
		if got := Predictions(t, text); !Near(got, any(want)) {
			t.Errorf("%v:\n got %v\nwant %v", instances, got, want)
		}
	}
}
