package torchserve_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// TestGPUsInTurn: workers get those that CUDA_VISIBLE_DEVICES leaves, counted from 0.
func TestGPUsInTurn(t *testing.T) {
	t.Parallel()
	for visible, want := range map[string][]int{"GPU-a,GPU-b": {0, 1, 0}, "7": {0, 0, 0}, "": {-1, -1, -1}, "-1": {-1, -1, -1}, "3,-1,4": {0, 0, 0}} {
		w := start(t, configure(t, func(c *torchserve.Config) {
			c.GPUs, c.Environment = -1, append(c.Environment, "CUDA_VISIBLE_DEVICES="+visible)
		}))
		w.up(t, "m", 3, "")
		found, err := w.Describe(t.Context(), "m", "", false)
		if err != nil || len(found) != 1 {
			t.Fatalf("%+v, %v", found, err)
		}
		var got []int
		for _, one := range found[0].Workers {
			got = append(got, one.GPU)
		}
		if !slices.Equal(got, want) {
			t.Errorf("CUDA_VISIBLE_DEVICES=%s: %v, want %v", visible, got, want)
		}
		w.stop()
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	zero, one := 0, 1
	writeModel(t, w.store, "m", "1.0", "")
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &zero}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &zero})
	wantCode(t, err, 409, "Model version 1.0 is already registered for model m")
	writeModel(t, w.store, "m", "2.0", "")
	if r, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true}); err != nil || r.Version != "2.0" || !r.Started {
		t.Fatalf("%+v, %v", r, err)
	}
	if all := w.Models(); len(all) != 1 || all[0].Version != "1.0" {
		t.Errorf("the default is %+v", all)
	}
	_, err = w.ask(t.Context(), "m", "x")
	wantCode(t, err, 503, "has no worker to serve inference request")
	if err := w.SetDefault(t.Context(), "m", "2.0"); err != nil {
		t.Fatal(err)
	}
	w.want(t, "m", "x", "x:False:")
	wantCode(t, w.SetDefault(t.Context(), "m", "3.0"), 404, "Model version: 3.0 does not exist for model: m")
	wantCode(t, w.SetDefault(t.Context(), "n", "1.0"), 404, "Model not found: n")
	wantCode(t, w.Unregister(t.Context(), "m", "2.0"), 403, "Cannot remove default version for model m")
	wantCode(t, w.Unregister(t.Context(), "m", "3.0"), 404, "Model version: 3.0")
	wantCode(t, w.Unregister(t.Context(), "n", ""), 404, "Model not found: n")
	if all, err := w.Describe(t.Context(), "m", "all", false); err != nil || len(all) != 2 || all[0].Default || !all[1].Default {
		t.Errorf("%+v, %v", all, err)
	}
	for _, id := range []string{"1.0", ""} {
		if err := w.Unregister(t.Context(), "m", id); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.ask(t.Context(), "m", "x")
	wantCode(t, err, 404, "Model not found: m")
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", Runtime: "python4"}); err == nil {
		t.Error("python4 is a runtime")
	}
}

func TestScale(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "")
	for _, tt := range []struct {
		least, most, code int
	}{{2, 1, 400}, {-1, -1, 500}, {1, -1, 400}, {5000, 5000, 400}} {
		err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &tt.least, MaxWorkers: &tt.most})
		wantCode(t, err, tt.code, "worker")
	}
	for _, n := range []int{3, 1, 2, 0} {
		if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &n, Synchronous: true}); err != nil {
			t.Fatal(err)
		}
		all, err := w.Describe(t.Context(), "m", "", false)
		if err != nil || len(all[0].Workers) != n || all[0].MinWorkers != n || all[0].MaxWorkers != n {
			t.Errorf("%d: %+v, %v", n, all, err)
		}
	}
	if h := w.Health(); h != torchserve.Healthy {
		t.Errorf("a model without workers makes the server %s", h)
	}
}

// TestScaleDownFinishes: a worker that goes finishes what it has.
func TestScaleDownFinishes(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "")
	done := filepath.Join(t.TempDir(), "done")
	answer := make(chan error, 1)
	go func() {
		got, err := w.ask(t.Context(), "m", "until "+done)
		if err == nil && got != "done" {
			err = errors.New(got)
		}
		answer <- err
	}()
	w.metrics.await(t, "Waits")
	zero := 0
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &zero}); err != nil {
		t.Fatal(err)
	}
	touch(t, done)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

// TestUnregisterHung: what hangs is killed when the time for it is over, and its
// client hears of it.
func TestUnregisterHung(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.UnregisterTime = 100 * time.Millisecond }))
	w.up(t, "m", 1, "")
	answer := make(chan error, 1)
	go func() {
		_, err := w.ask(t.Context(), "m", "until /nowhere")
		answer <- err
	}()
	w.metrics.await(t, "Waits")
	if err := w.Unregister(t.Context(), "m", ""); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-answer, 503, "the model's workers are stopped")
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) {
		c.SnapshotFolder, c.ModelStore = filepath.Join(t.TempDir(), "config"), t.TempDir()
		c.Properties = map[string]string{"inference_address": "http://127.0.0.1:0", "odd key": `a\b = c`}
	})
	w := start(t, cfg)
	w.up(t, "m", 1, "")
	writeModel(t, w.store, "m", "2.0", "")
	zero, delay := 0, 7*time.Millisecond
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &zero, BatchSize: 3, MaxBatchDelay: &delay}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(w.store, "m.mar"), filepath.Join(w.store, "m2.mar")); err != nil {
		t.Fatal(err)
	}
	if err := w.Unregister(t.Context(), "m", "2.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m2.mar", InitialWorkers: &zero, BatchSize: 3, MaxBatchDelay: &delay}); err != nil {
		t.Fatal(err)
	}
	if err := w.SetDefault(t.Context(), "m", "2.0"); err != nil {
		t.Fatal(err)
	}
	writeModel(t, w.store, "m", "1.0", "")
	w.stop()
	last, err := torchserve.LastSnapshot(cfg.SnapshotFolder)
	if err != nil || !strings.HasSuffix(last, "-shutdown.cfg") {
		t.Fatalf("%s, %v", last, err)
	}
	data, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	next, err := torchserve.ReadProperties(cfg, data, func(string) (string, bool) { return "", false })
	if err != nil || next.Properties["odd key"] != `a\b = c` {
		t.Fatalf("%v, %v", next.Properties, err)
	}
	again := start(t, next)
	all, err := again.Describe(t.Context(), "m", "all", false)
	if err != nil || len(all) != 2 || !all[1].Default || all[1].BatchSize != 3 || all[1].MaxBatchDelay != delay || all[1].MinWorkers != 0 || all[0].MinWorkers != 1 || !all[0].LoadedAtStartup {
		t.Fatalf("%+v, %v", all, err)
	}
	if all[0].Workers[0].State != torchserve.WorkerReady {
		t.Errorf("%+v", all[0])
	}
	again.stop()
	// An archive that has gone is told, and nothing is lost over it.
	if err := os.Remove(filepath.Join(cfg.ModelStore, "m2.mar")); err != nil {
		t.Fatal(err)
	}
	s, err := torchserve.New(next, torchserve.Deps{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Run(t.Context()), 500, "--ncs")
}

func TestLoadModels(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) { c.LoadModels, c.DefaultWorkers = []string{"all"}, 1 })
	writeModel(t, cfg.ModelStore, "a", "1.0", "")
	writeModel(t, cfg.ModelStore, "b", "1.0", "minWorkers: 2\n")
	w := start(t, cfg)
	all := w.Models()
	if len(all) != 2 || len(all[0].Workers) != 1 || len(all[1].Workers) != 2 || !all[0].LoadedAtStartup {
		t.Errorf("%+v", all)
	}
	if err := w.StartError(); err != nil {
		t.Error(err)
	}
	w.want(t, "b", "x", "x:False:")
	w.stop()
	cfg.LoadModels = []string{"other=a.mar", "none.mar"}
	w = start(t, cfg)
	w.want(t, "other", "x", "x:False:")
	if err := w.StartError(); err == nil || !strings.Contains(err.Error(), "none.mar") {
		t.Errorf("the start had no error: %v", err)
	}
}

const workflowHandler = `
def before(data, context):
    return data and [b"<" + bytes(r.get("body")) + b">" for r in data]

def after(data, context):
    return data and [{"left": bytes(r["left"]).decode(), "right": bytes(r["right"]).decode()} for r in data]

def fails(data, context):
    if data:
        raise ValueError("never")
`

func writeWorkflow(t *testing.T, folder, name, spec string) {
	t.Helper()
	writeArchive(t, folder, name+".war", map[string]string{
		"WAR-INF/MANIFEST.json": `{"createdOn": "x", "archiverVersion": "0.1", "workflow": {"workflowName": "` + name + `", "specFile": "spec.yaml", "handler": "wf.py"}}`,
		"spec.yaml":             spec, "wf.py": workflowHandler,
	})
}

func TestWorkflow(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	writeModel(t, w.store, "m", "1.0", "")
	writeWorkflow(t, w.store, "wf", "models:\n  min-workers: 1\n  left: {url: m.mar}\n  right: {url: m.mar, batch-size: 2}\ndag:\n  before: [left, right]\n  left: [after]\n  right: [after]\n")
	if wf, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "wf.war"}); err != nil || wf.Name != "wf" || !json.Valid(wf.Definition) {
		t.Fatalf("%+v, %v", wf, err)
	}
	_, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "wf.war"})
	wantCode(t, err, 500, "already registered")
	var got torchserve.Frame
	if err := w.PredictWorkflow(t.Context(), "wf", body("x"), func(f torchserve.Frame) error { got = f; return nil }); err != nil {
		t.Fatal(err)
	}
	var both map[string]string
	if err := json.Unmarshal(got.Body, &both); err != nil || both["left"] != "<x>:False:" || both["right"] != "<x>:False:" {
		t.Errorf("%s, %v", got.Body, err)
	}
	if len(w.Models()) != 0 || len(w.Workflows()) != 1 {
		t.Errorf("%+v %+v", w.Models(), w.Workflows())
	}
	if err := w.UnregisterWorkflow(t.Context(), "wf"); err != nil {
		t.Fatal(err)
	}
	_, err = w.ask(t.Context(), "wf__left", "x")
	wantCode(t, err, 404, "Model not found: wf__left")
	wantCode(t, w.UnregisterWorkflow(t.Context(), "wf"), 404, "Workflow not found: wf")

	writeWorkflow(t, w.store, "two", "models:\n  left: {url: m.mar}\n  right: {url: m.mar}\ndag:\n  before: [left, right]\n")
	if _, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "two.war"}); err != nil {
		t.Fatal(err)
	}
	err = w.PredictWorkflow(t.Context(), "two", body("x"), func(torchserve.Frame) error { return nil })
	wantCode(t, err, 500, "gave no JSON")
	writeWorkflow(t, w.store, "bad", "models:\n  retry-attempts: 2\n  m: {url: m.mar}\ndag:\n  fails: [m]\n")
	if _, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "bad.war"}); err != nil {
		t.Fatal(err)
	}
	err = w.PredictWorkflow(t.Context(), "bad", body("x"), func(torchserve.Frame) error { return nil })
	wantCode(t, err, 500, "Failed to execute workflow Node after 2 attempts")
	writeWorkflow(t, w.store, "none", "models:\n  m: {url: none.mar}\ndag:\n  m: []\n")
	_, err = w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "none.war"})
	wantCode(t, err, 500, "Workflow none has failed to register")
	_, err = w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "nowhere.war"})
	wantCode(t, err, 404, "nowhere.war")
}

// continuousHandler gives each request as many pieces as it says, and others meanwhile.
const continuousHandler = `
state = {}

def handle(data, context):
    if not data:
        return None
    out = []
    for i, row in enumerate(data):
        name = context.get_request_id(i)
        if row:
            state[name] = int(bytes(row["body"]))
        state[name] -= 1
        context.set_response_header(i, "ts_stream_next", "true" if state[name] > 0 else "false")
        out.append("%d/%d " % (state[name], len(data)))
    context.stopping_criteria = None
    return out
`

func TestContinuousBatching(t *testing.T) {
	t.Parallel()
	if asyncHandlerKind() == "real" {
		t.Skip("the real worker decides by stopping criteria; the protocol is the same")
	}
	w := start(t, configure(t, nil))
	writeArchive(t, w.store, "m.mar", map[string]string{
		"handler.py": continuousHandler, "model-config.yaml": "continuousBatching: true\nbatchSize: 4\nmaxBatchDelay: 0\n",
		"MAR-INF/MANIFEST.json": manifest("m", "1.0", map[string]string{"configFile": "model-config.yaml"}),
	})
	one := 1
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	w.want(t, "m", "3", "2/1 1/1 0/1 ")
	// One that goes on is joined by others, and they leave before it ends.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	pieces := make(chan struct{}, 1<<20)
	wg.Go(func() {
		err := w.Predict(ctx, "m", "", body("1000000000"), func(torchserve.Frame) error {
			pieces <- struct{}{}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the long one: %v", err)
		}
	})
	<-pieces
	w.want(t, "m", "2", "1/2 0/2 ")
	cancel()
	wg.Wait()
	w.want(t, "m", "1", "0/1 ")
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.MaxResponse = 10 }))
	w.up(t, "m", 1, "useJobTicket: true\n")
	_, err := w.ask(t.Context(), "m", "a long word")
	wantCode(t, err, 500, "max_response_size allows 10")
	w.want(t, "m", "batch", "1") // the worker is still of use
	done := filepath.Join(t.TempDir(), "done")
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = w.ask(t.Context(), "m", "until "+done) })
	w.metrics.await(t, "Waits")
	_, err = w.ask(t.Context(), "m", "x")
	wantCode(t, err, 503, "no free worker")
	touch(t, done)
	wg.Wait()
	w.up(t, "n", 1, "clientTimeoutInMills: 200\n")
	_, err = w.ask(t.Context(), "n", "sleep 1")
	wantCode(t, err, 408, "clientTimeoutInMills")
	broken := errors.New("gone")
	if err := w.Predict(t.Context(), "m", "", body("batch"), func(torchserve.Frame) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("an error of the client is %v", err)
	}
}

// TestUnsupported: what is not done is refused by name.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	for config, want := range map[string]string{
		"parallelType: pp\n": "torchrun", "torchrun: {nproc-per-node: 2}\n": "torchrun", "sequenceBatching: true\n": "sequenceBatching",
		"deviceType: neuron\n": "neuron", "asyncCommunication: true\ncontinuousBatching: true\n": "exclude",
	} {
		writeModel(t, w.store, "m", "1.0", config)
		_, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar"})
		wantCode(t, err, 400, want)
	}
}

// TestRequirements: a model's own package is seen by its workers alone.
func TestRequirements(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("uv"); err != nil {
		t.Skip("uv is not installed, which makes the environments of models")
	}
	w := start(t, configure(t, func(c *torchserve.Config) { c.Requirements = true }))
	wheel := writeArchive(t, t.TempDir(), "extra.zip", map[string]string{
		"extra.py": "word = 'extra'\n", "extra-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n",
		"extra-1.0.dist-info/WHEEL":  "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"extra-1.0.dist-info/RECORD": "extra.py,,\nextra-1.0.dist-info/METADATA,,\nextra-1.0.dist-info/WHEEL,,\nextra-1.0.dist-info/RECORD,,\n",
	})
	data, err := os.ReadFile(wheel)
	if err != nil {
		t.Fatal(err)
	}
	writeArchive(t, w.store, "m.mar", map[string]string{
		"handler.py": "import extra\n\ndef handle(data, context):\n    return data and [extra.word] * len(data)\n", "requirements.txt": "./extra-1.0-py3-none-any.whl\n",
		"extra-1.0-py3-none-any.whl": string(data), "MAR-INF/MANIFEST.json": manifest("m", "1.0", map[string]string{"requirementsFile": "requirements.txt"}),
	})
	one := 1
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	w.want(t, "m", "x", "extra")
	writeArchive(t, w.store, "bad.mar", map[string]string{
		"handler.py": handler, "requirements.txt": "./none-1.0-py3-none-any.whl\n", "MAR-INF/MANIFEST.json": manifest("bad", "1.0", map[string]string{"requirementsFile": "requirements.txt"}),
	})
	_, err = w.Register(t.Context(), torchserve.Registration{URL: "bad.mar", InitialWorkers: &one, Synchronous: true})
	wantCode(t, err, 400, "Custom pip package installation failed for model")
}

func TestNoPython(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.Python = "no-such-python" }))
	writeModel(t, w.store, "m", "1.0", "")
	one := 1
	_, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true})
	wantCode(t, err, 500, `there is no Python "no-such-python"`)
}
