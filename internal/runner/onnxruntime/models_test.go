package onnxruntime_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/runner"
	"tategu/internal/runner/onnxruntime"
	"tategu/internal/runner/runnertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is made once: the library cannot be loaded twice, and the models take seconds.
type world struct {
	*runnertest.Models

	lib *onnxruntime.Library
}

var theWorld = sync.OnceValues(func() (*world, error) {
	m, err := runnertest.Make()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(m.Package, "capi", "libonnxruntime.so.*"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("libraries %v: %w", found, err)
	}
	w := &world{Models: m}
	w.lib, err = onnxruntime.Open(found[0])
	return w, err
})

func open(tb testing.TB) *world {
	tb.Helper()
	w, err := theWorld()
	if missing, ok := errors.AsType[*runnertest.MissingError](err); ok {
		tb.Skip(missing.What)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func serve(tb testing.TB, w *world, path string, change func(*runner.Config)) (url string, log *bytes.Buffer) {
	tb.Helper()
	return runnertest.Serve(tb, func(threads int) (runner.Engine, error) { return w.lib.Load(path, threads) }, change)
}

// TestAnswersAreThoseOfPython: every kind of model, each instance in a request of its
// own and all in one, beside Python's onnxruntime.
func TestAnswersAreThoseOfPython(t *testing.T) {
	w := open(t)
	for _, c := range w.Cases {
		t.Run(c.Model, func(t *testing.T) {
			url, log := serve(t, w, w.Path(c.Model), func(cfg *runner.Config) {
				if c.Model == "pipeline" { // made-up cities are unknown to it
					cfg.Samples = []byte(runnertest.Body(t, c.Instances[:2]))
				}
			})
			runnertest.Answers(t, url, c)
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
		url, _ := serve(t, w, w.Path(c.model), nil)
		if status, text := runnertest.Ask(t, "POST", url+"/p:predict", c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.model, status, text, c.status, c.want)
		}
	}
}

// TestNeighbours: of many requests at a time, those with a bad index fail, each by itself.
func TestNeighbours(t *testing.T) {
	w := open(t)
	url, log := serve(t, w, w.Path("table"), func(c *runner.Config) { c.Cores = 1 })
	_, first := runnertest.Ask(t, "POST", url+"/p:predict", `{"instances":[1]}`)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			index, want, answer := 1, http.StatusOK, first
			if i%10 == 0 {
				index, want, answer = 99, http.StatusBadRequest, "out of data bounds"
			}
			status, text := runnertest.Ask(t, "POST", url+"/p:predict", fmt.Sprintf(`{"instances":[%d]}`, index))
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
	_, log := serve(t, w, w.Path("noise"), nil)
	if !strings.Contains(log.String(), "requests are not merged") {
		t.Error(log)
	}
}

func TestOpenInferenceProtocol(t *testing.T) {
	w := open(t)
	url, _ := serve(t, w, w.Path("forest"), nil)
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
		if _, text := runnertest.Ask(t, c.method, url+c.path, c.body); !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %s, want %s", c.path, c.body, text, c.want)
		}
	}
	head := `{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],"outputs":[{"name":"output_label","parameters":{"binary_data":true}}]}`
	status, text := runnertest.Ask(t, "POST", url+"/v2/models/m/infer", head+strings.Repeat("\x00\x00\x80\x3f", 4), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
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
				url, _ := serve(b, w, w.Path(model), nil)
				text := runnertest.Body(b, in)
				b.ReportAllocs()
				for b.Loop() {
					if status, out := runnertest.Ask(b, "POST", url+"/p:predict", text); status != http.StatusOK {
						b.Fatal(out)
					}
				}
			})
		}
	}
}
