package onnxruntime_test

import (
	"bytes"
	"context"
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
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tategu/internal/runner"
	"tategu/internal/runner/onnxruntime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// example is what testdata/models.py makes of a model.
type example struct {
	Model, Mode            string
	Instances, Predictions []any
}

type examples struct {
	Library, Package string
	Cases            []example
}

// world is made once: the library cannot be loaded twice, and the models take seconds.
type world struct {
	dir string
	examples
	lib *onnxruntime.Library
}

var theWorld = sync.OnceValues(func() (*world, error) {
	dir, err := os.MkdirTemp("", "onnx-models-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	cmd := exec.Command(os.Getenv("TATEGU_TEST_PYTHON"), "testdata/models.py", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err == nil {
		err = decode(b, &w.examples)
	}
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(w.Package, "capi", "libonnxruntime.so.*"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("libraries %v: %w", found, err)
	}
	w.lib, err = onnxruntime.Open(found[0])
	return w, err
})

func open(t testing.TB) *world {
	t.Helper()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON names no Python with onnxruntime, onnx and skl2onnx")
	}
	if err := exec.Command(python, "-c", "import onnxruntime, onnx, skl2onnx, pandas").Run(); err != nil {
		t.Skip("the Python of TATEGU_TEST_PYTHON lacks onnxruntime, onnx, skl2onnx or pandas")
	}
	w, err := theWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// serve starts a runner for a model file and gives its URL.
func serve(t testing.TB, w *world, path string, change func(*runner.Config)) (url string, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	cfg := runner.Config{
		Load: func(threads int) (runner.Engine, error) { return w.lib.Load(path, threads) },
		Log:  slog.New(slog.NewTextHandler(log, nil)), Version: "test", Names: []string{"m"}, Health: "/h", Predict: "/p:predict",
		Cores: 2, Batch: 64, Body: 1 << 20,
	}
	if change != nil {
		change(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- runner.New(cfg).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the runner ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	url = "http://" + l.Addr().String()
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		if status, _ := ask(t, "GET", url+"/h", ""); status == http.StatusOK {
			return url, log
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("the runner ended: %v", err)
		default:
		}
	}
}

func ask(t testing.TB, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func body(t testing.TB, instances []any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"instances": instances})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// near compares JSON values. Sums of a batch are rounded in another order than those of
// one row, so floats may differ by a few units of a float32.
func near(a, b any) bool {
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
			if !near(a[i], v[i]) {
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
			if !near(a[k], v[k]) {
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

func predictions(t testing.TB, text string) []any {
	t.Helper()
	var answer struct{ Predictions []any }
	if err := decode([]byte(text), &answer); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return answer.Predictions
}

// TestAnswersAreThoseOfPython: every kind of model, each instance in a request of its
// own and all in one, beside Python's onnxruntime.
func TestAnswersAreThoseOfPython(t *testing.T) {
	w := open(t)
	for _, c := range w.Cases {
		t.Run(c.Model, func(t *testing.T) {
			url, log := serve(t, w, filepath.Join(w.dir, c.Model+".onnx"), func(cfg *runner.Config) {
				if c.Model == "pipeline" { // made-up cities are unknown to it
					cfg.Samples = []byte(body(t, c.Instances[:2]))
				}
			})
			requests := [][]any{c.Instances}
			for _, instance := range c.Instances {
				requests = append(requests, []any{instance})
			}
			want := c.Predictions
			for i, instances := range requests {
				status, text := ask(t, "POST", url+"/p:predict", body(t, instances))
				if status != http.StatusOK {
					t.Fatalf("%v: %d %s", instances, status, text)
				}
				if i > 0 {
					want = c.Predictions[i-1 : i]
				}
				if got := predictions(t, text); !near(got, any(want)) {
					t.Errorf("%v:\n got %v\nwant %v", instances, got, want)
				}
			}
			if !strings.Contains(log.String(), c.Mode) {
				t.Errorf("want mode %q: %s", c.Mode, log)
			}
		})
	}
}
