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
	"strconv"
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

func open(tb testing.TB) *world {
	tb.Helper()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		tb.Skip("TATEGU_TEST_PYTHON names no Python with onnxruntime, onnx and skl2onnx")
	}
	w, err := theWorld()
	if err != nil && strings.Contains(err.Error(), "ModuleNotFoundError") {
		tb.Skipf("the Python of TATEGU_TEST_PYTHON lacks onnxruntime, onnx, skl2onnx or pandas: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// serve starts a runner for a model file and gives its URL.
func serve(tb testing.TB, w *world, path string, change func(*runner.Config)) (url string, log *bytes.Buffer) {
	tb.Helper()
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
		if status, _ := ask(tb, "GET", url+"/h", ""); status == http.StatusOK {
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

func ask(tb testing.TB, method, url, body string, header ...string) (int, string) {
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

func body(tb testing.TB, instances []any) string {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"instances": instances})
	if err != nil {
		tb.Fatal(err)
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

func predictions(tb testing.TB, text string) []any {
	tb.Helper()
	var answer struct{ Predictions []any }
	if err := decode([]byte(text), &answer); err != nil {
		tb.Fatalf("%s: %v", text, err)
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

func TestBadRequests(t *testing.T) {
	w := open(t)
	for _, c := range []struct {
		model, body string
		status      int
		want        string
	}{
		{"table", `{"instances":[0,3]}`, 400, "out of data bounds"},
		{"table", `{"instances":["a"]}`, 400, `instance 0: input \"i\" (int64 []): want an int64, got a string`},
		{"network", `{"instances":[[1,2,3]]}`, 400, `want shape [4], got shape [3]`},
		{"network", `{"instances":[]}`, 200, `{"predictions":[]}`},
		{"network", `{`, 400, "not valid JSON"},
		{"network", `{"instances":[` + strings.Repeat("[0,0,0,0],", 1<<17) + `[0,0,0,0]]}`, 413, "too large"},
		{"pipeline", `{"instances":[{"age":1,"city":"nowhere"}]}`, 500, "Unknown Category"},
		{"two", `{"instances":[{"a":[1,2]}]}`, 400, `input \"b\" is missing`},
	} {
		url, _ := serve(t, w, filepath.Join(w.dir, c.model+".onnx"), nil)
		if status, text := ask(t, "POST", url+"/p:predict", c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.model, status, text, c.status, c.want)
		}
	}
}

// TestNeighbours: of many requests at a time, those with a bad index fail, each by itself.
func TestNeighbours(t *testing.T) {
	w := open(t)
	url, log := serve(t, w, filepath.Join(w.dir, "table.onnx"), func(c *runner.Config) { c.Cores = 1 })
	_, first := ask(t, "POST", url+"/p:predict", `{"instances":[1]}`)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			index, want, answer := 1, http.StatusOK, first
			if i%10 == 0 {
				index, want, answer = 99, http.StatusBadRequest, "out of data bounds"
			}
			status, text := ask(t, "POST", url+"/p:predict", fmt.Sprintf(`{"instances":[%d]}`, index))
			if status != want || !strings.Contains(text, answer) {
				t.Errorf("index %d: %d %s", index, status, text)
			}
		})
	}
	wg.Wait()
	if !strings.Contains(log.String(), "merged") {
		t.Error(log)
	}
}

func TestNoiseIsNotMerged(t *testing.T) {
	w := open(t)
	_, log := serve(t, w, filepath.Join(w.dir, "noise.onnx"), nil)
	if !strings.Contains(log.String(), "requests are not merged") {
		t.Error(log)
	}
}

func TestOpenInferenceProtocol(t *testing.T) {
	w := open(t)
	url, _ := serve(t, w, filepath.Join(w.dir, "forest.onnx"), nil)
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/v2", "", `{"name":"tategu-runner","version":"test","extensions":["binary_tensor_data"]}`},
		{"GET", "/v2/health/live", "", `{"live":true}`},
		{"GET", "/v2/health/ready", "", `{"ready":true}`},
		{"GET", "/v2/models/m/ready", "", `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/1", "", `"inputs":[{"name":"X","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"output_label","datatype":"INT64","shape":[-1]},{"name":"output_probability","datatype":"BYTES","shape":[-1]}]`},
		{"GET", "/v2/models/other", "", `there is no model \"other\"`},
		{"GET", "/v2/models/m/versions/2", "", `there is no model \"m\" of version \"2\"`},
		{"POST", "/v2/models/m/infer", `{"inputs":[{"name":"X","datatype":"FP64","shape":[1,4],"data":[1,2,3,4]}]}`, `input \"X\": want FP32, got FP64`},
		{"POST", "/v2/models/m/infer", `{"inputs":[{"name":"X","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}`, `input \"X\": want shape [?, 4], got shape [1, 3]`},
		{"POST", "/v2/models/m/infer", `{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}],"outputs":[{"name":"z"}]}`, `no output \"z\"`},
		{"POST", "/v2/models/m/infer", `{"id":"7","inputs":[{"name":"X","datatype":"FP32","shape":[2,4],"data":[1,2,3,4,1,2,3,4]}],"outputs":[{"name":"output_label"}]}`, `{"model_name":"m","model_version":"1","id":"7","outputs":[{"name":"output_label","datatype":"INT64","shape":[2],"data":[`},
		{"POST", "/v2/models/m/infer", `{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[[1,2,3,4]]}]}`, `"name":"output_probability","datatype":"BYTES","shape":[1],"data":["{\"0\":`},
		{"GET", "/metrics", "", "tategu_runner_requests_total 5\n"},
	} {
		if _, text := ask(t, c.method, url+c.path, c.body); !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %s, want %s", c.path, c.body, text, c.want)
		}
	}
	head := `{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],"outputs":[{"name":"output_label","parameters":{"binary_data":true}}]}`
	status, text := ask(t, "POST", url+"/v2/models/m/infer", head+strings.Repeat("\x00\x00\x80\x3f", 4), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	want := `"parameters":{"binary_data_size":8}}]}`
	if _, tail, ok := strings.Cut(text, want); status != http.StatusOK || !ok || len(tail) != 8 {
		t.Errorf("%d %q", status, text)
	}
}

func BenchmarkPredict(b *testing.B) {
	w := open(b)
	for _, model := range []string{"network", "forest"} {
		for _, rows := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/rows=%d", model, rows), func(b *testing.B) {
				var in []any
				for _, c := range w.Cases {
					if c.Model == model {
						for i := range rows {
							in = append(in, c.Instances[i%len(c.Instances)])
						}
					}
				}
				url, _ := serve(b, w, filepath.Join(w.dir, model+".onnx"), nil)
				text := body(b, in)
				b.ReportAllocs()
				for b.Loop() {
					if status, out := ask(b, "POST", url+"/p:predict", text); status != http.StatusOK {
						b.Fatal(out)
					}
				}
			})
		}
	}
}
