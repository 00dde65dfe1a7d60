package tract_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/runner"
	"tategu/internal/runner/runnertest"
	"tategu/internal/runner/tract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is made once: the library cannot be loaded twice, and the models take seconds.
type world struct {
	*runnertest.Models

	lib *tract.Library
}

var errNoTract = errors.New("the Python of TATEGU_TEST_PYTHON lacks the package tract")

var theWorld = sync.OnceValues(func() (*world, error) {
	m, err := runnertest.Make()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(filepath.Dir(m.Package), "tract", "*.so"))
	if err != nil || len(found) != 1 {
		return nil, errNoTract
	}
	w := &world{Models: m}
	w.lib, err = tract.Open(found[0])
	return w, err
})

func open(tb testing.TB) *world {
	tb.Helper()
	w, err := theWorld()
	if missing, ok := errors.AsType[*runnertest.MissingError](err); ok {
		tb.Skip(missing.What)
	}
	if errors.Is(err, errNoTract) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func serve(tb testing.TB, w *world, model string, change func(*runner.Config)) (url string, log *bytes.Buffer) {
	tb.Helper()
	return runnertest.Serve(tb, func(int) (runner.Engine, error) { return w.lib.Load(w.Path(model)) }, change)
}

// beyond are the models that Tract does not have operators or types for, with a part of
// what it says.
func beyond() map[string]string {
	return map[string]string{"forest": "ZipMap", "pipeline": "Scaler", "type-string": "String"}
}

// TestAnswersAreThoseOfONNXRuntime: every net and type, each instance in a request of
// its own and all in one.
func TestAnswersAreThoseOfONNXRuntime(t *testing.T) {
	w := open(t)
	for _, c := range w.Cases {
		if beyond()[c.Model] != "" {
			continue
		}
		t.Run(c.Model, func(t *testing.T) {
			url, log := serve(t, w, c.Model, nil)
			runnertest.Answers(t, url, c)
			if !strings.Contains(log.String(), c.Mode) || !strings.Contains(log.String(), "Tract 0.") {
				t.Errorf("want mode %q: %s", c.Mode, log)
			}
		})
	}
}

// TestWhatTractDoesNotKnow is refused when the model is loaded, in one line.
func TestWhatTractDoesNotKnow(t *testing.T) {
	w := open(t)
	for model, want := range beyond() {
		_, err := w.lib.Load(w.Path(model))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "backtrace") {
			t.Errorf("%s: %v, want %s", model, err, want)
		}
	}
}

// TestManyAtOnce: requests of many clients are merged and none gets another's answer.
func TestManyAtOnce(t *testing.T) {
	w := open(t)
	url, log := serve(t, w, "network", nil)
	i := slices.IndexFunc(w.Cases, func(c runnertest.Example) bool { return c.Model == "network" })
	c := w.Cases[i]
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			k := n % len(c.Instances)
			status, text := runnertest.Ask(t, "POST", url+"/p:predict", runnertest.Body(t, c.Instances[k:k+1]))
			if status != http.StatusOK || !runnertest.Near(any(runnertest.Predictions(t, text)), any(c.Predictions[k:k+1])) {
				t.Errorf("%d: %d %s", k, status, text)
			}
		})
	}
	wg.Wait()
	if !strings.Contains(log.String(), "merged") {
		t.Error(log)
	}
}

func TestAnotherLibrary(t *testing.T) {
	w := open(t)
	found, err := filepath.Glob(filepath.Join(w.Package, "capi", "libonnxruntime.so.*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if _, err := tract.Open(found[0]); err == nil || !strings.Contains(err.Error(), "is not Tract") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkPredict(b *testing.B) {
	w := open(b)
	for _, rows := range []int{1, 32} {
		b.Run(fmt.Sprintf("network/rows=%d", rows), func(b *testing.B) {
			var in []any
			for _, c := range w.Cases {
				if c.Model == "network" {
					for i := range rows {
						in = append(in, c.Instances[i%len(c.Instances)])
					}
				}
			}
			url, _ := serve(b, w, "network", nil)
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
