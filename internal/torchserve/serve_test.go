package torchserve_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

func TestPredict(t *testing.T) {
	t.Parallel()
	for _, zygote := range []bool{true, false} {
		w := start(t, configure(t, func(c *torchserve.Config) { c.Zygote = zygote }))
		w.up(t, "m", 1, "")
		w.want(t, "m", "hello", "hello:False:")
		w.want(t, "m", "teapot", "[418 I'm a teapot text/plain]short and stout")
		w.want(t, "m", "stream", "piece 0 piece 1 piece 2 end")
		w.want(t, "m", "hello", "hello:False:") // the stream was read to its end
		r := body("x")
		r.Headers = []torchserve.Pair{{Name: "explain", Value: "True"}, {Name: "url_path", Value: "a/b"}}
		var got string
		if err := w.Predict(t.Context(), "m", "1.0", r, func(f torchserve.Frame) error { got += string(f.Body); return nil }); err != nil || got != "x:True:a/b" {
			t.Errorf("explain: %q, %v", got, err)
		}
		all, err := w.Describe(t.Context(), "m", "", true)
		if err != nil || len(all) != 1 || string(all[0].CustomizedMetadata) != `{"about": "m"}` {
			t.Errorf("describe: %+v, %v", all, err)
		}
		m := all[0]
		if m.Workers[0].PID == 0 || m.Workers[0].State != torchserve.WorkerReady || m.Workers[0].MemoryBytes == 0 || m.Workers[0].ID != "9000" || m.Requests != 5 {
			t.Errorf("describe: %+v", m)
		}
		w.want(t, "m", "metrics", "ok")
		if seen := w.metrics.await(t, "Seen"); seen.Value != 2 || seen.Kind != "GAUGE" || seen.Dimensions[1].Value != "m" || seen.RequestIDs != "r" {
			t.Errorf("the metric is %+v", seen)
		}
		var where struct{ Cwd, Dir, Env, Threads string }
		text, err := w.ask(t.Context(), "m", "where")
		if err != nil || json.Unmarshal([]byte(text), &where) != nil || where.Cwd != where.Dir || where.Env != "" || where.Threads == "" {
			t.Errorf("a worker sees %s, %v", text, err)
		}
		w.stop()
	}
}

// TestWorkersFail: each way to fail has its status, and the model recovers.
func TestWorkersFail(t *testing.T) {
	t.Parallel()
	for _, zygote := range []bool{true, false} {
		w := start(t, configure(t, func(c *torchserve.Config) { c.Zygote = zygote }))
		w.up(t, "m", 1, "responseTimeout: 2\n")
		for _, tt := range []struct {
			word  string
			code  int
			words string
		}{
			{"exit", 500, "Worker died. unexpected EOF; it left with status 3; it last printed:\n"},
			{"kill", 507, "it was killed by SIGKILL"},
			{"hang", 500, "did not answer within the model's responseTimeout"},
			{"oom", 507, "Out of resources"},
			{"raise", 503, "Prediction failed"},
			{"garbage", 500, "not in its protocol"},
			{"short", 503, "number of batch response mismatched"},
		} {
			_, err := w.ask(t.Context(), "m", tt.word)
			if tt.word == "exit" && err != nil {
				err = fix(err)
			}
			wantCode(t, err, tt.code, tt.words)
			w.want(t, "m", "hello", "hello:False:")
		}
		w.stop()
	}
}

// fix makes the two words for an end of a connection one.
func fix(err error) error {
	e, ok := errors.AsType[*torchserve.Error](err)
	if ok {
		e.Message = strings.ReplaceAll(e.Message, "Worker died. EOF;", "Worker died. unexpected EOF;")
		return e
	}
	return err
}

// TestClientsLeave: a client that has gone blocks no worker, and costs no place.
func TestClientsLeave(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.JobQueueSize = 2 }))
	w.up(t, "m", 1, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := filepath.Join(t.TempDir(), "done")
	var wg sync.WaitGroup
	come := func() {
		wg.Go(func() {
			if _, err := w.ask(ctx, "m", "until "+done); !errors.Is(err, context.Canceled) {
				t.Errorf("a client that left gets %v", err)
			}
		})
	}
	come()
	w.metrics.await(t, "Waits") // it is worked on; two wait
	come()
	come()
	eventually(t, func() bool { return waiting(t, w) == 2 })
	_, err := w.ask(t.Context(), "m", "x")
	wantCode(t, err, 503, "2 requests waiting")
	cancel()
	wg.Wait()
	if n := waiting(t, w); n != 0 {
		t.Errorf("%d requests wait that nobody wants", n)
	}
	touch(t, done)
	w.want(t, "m", "hello", "hello:False:")
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func waiting(t *testing.T, w *world) int {
	t.Helper()
	all, err := w.Describe(t.Context(), "m", "", false)
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Waiting
}

// TestBatches: what queued while the worker was busy is one batch, without a delay.
func TestBatches(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "batchSize: 8\n")
	done := filepath.Join(t.TempDir(), "done")
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = w.ask(t.Context(), "m", "until "+done) })
	w.metrics.await(t, "Waits")
	answers := make(chan string, 5)
	for range 5 {
		wg.Go(func() {
			got, err := w.ask(t.Context(), "m", "batch")
			if err != nil {
				got = err.Error()
			}
			answers <- got
		})
	}
	eventually(t, func() bool { return waiting(t, w) == 5 })
	touch(t, done)
	wg.Wait()
	for range 5 {
		if got := <-answers; got != "5" {
			t.Errorf("the batch is of %s, want 5", got)
		}
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	h := "handler.py:handle"
	if strings.Contains(asyncHandlerKind(), "real") {
		h = "handler.py"
	}
	writeArchive(t, w.store, "m.mar", map[string]string{
		"handler.py": asyncHandler, "model-config.yaml": "asyncCommunication: true\nresponseTimeout: 20\n",
		"MAR-INF/MANIFEST.json": manifest("m", "1.0", map[string]string{"configFile": "model-config.yaml", "handler": h}),
	})
	one := 1
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(t.TempDir(), "done")
	slow := make(chan string, 1)
	go func() {
		got, err := w.ask(t.Context(), "m", "until "+done)
		slow <- fmt.Sprint(got, err)
	}()
	w.want(t, "m", "quick", "quick") // the slow one does not hold it up
	touch(t, done)
	if got := <-slow; got != "until "+done+"<nil>" {
		t.Errorf("the slow one gets %s", got)
	}
}

func TestLoadFails(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	writeArchive(t, w.store, "bad.mar", map[string]string{"handler.py": "raise RuntimeError('cannot be')\n", "MAR-INF/MANIFEST.json": manifest("bad", "1.0", nil)})
	one, zero := 1, 0
	_, err := w.Register(t.Context(), torchserve.Registration{URL: "bad.mar", InitialWorkers: &one, Synchronous: true})
	wantCode(t, err, 500, "Failed to start workers for model bad version: 1.0")
	if !strings.Contains(err.Error(), "cannot be") {
		t.Errorf("the error does not tell why: %v", err)
	}
	if len(w.Models()) != 0 {
		t.Error("a model that does not start is registered")
	}
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "bad.mar", InitialWorkers: &zero}); err != nil {
		t.Fatal(err)
	}
	_, err = w.ask(t.Context(), "bad", "x")
	wantCode(t, err, 503, "has no worker to serve inference request")
	err = w.Scale(t.Context(), torchserve.Scaling{Model: "bad", MinWorkers: &one, Synchronous: true})
	wantCode(t, err, 500, "cannot be")
	if h := w.Health(); h != torchserve.Unhealthy {
		t.Errorf("the server is %s", h)
	}
	if err := w.Unregister(t.Context(), "bad", ""); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(w.store, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the store holds %v, %v", left, err)
	}
	// No start-up time: no worker.
	writeModel(t, w.store, "m", "1.0", "")
	none := time.Duration(0)
	_, err = w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true, StartupTimeout: &none})
	wantCode(t, err, 500, "Failed to start workers")
}
