package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// fake runs workloads as functions that a test gives, by the first word of the
// command. It keeps what it ran over a restart of the engine, as real programs do.
type fake struct {
	b        *bench
	programs map[string]program
	seen     func(runtime.Workload) // told of what is started; nil = nobody

	mu        sync.Mutex
	instances map[string]*fakeInstance
	starts    []string // commands in the order of their first start
}

// program is what a fake program does; args are its arguments.
type program func(ctx context.Context, b *bench, args []string) runtime.Exit

type fakeInstance struct {
	f    *fake
	id   string
	stop context.CancelFunc
	done chan struct{}
	exit runtime.Exit
}

func withFake(programs map[string]program) (func(b *bench) runtime.Runtime, *fake) {
	f := &fake{programs: programs, instances: map[string]*fakeInstance{}}
	return func(b *bench) runtime.Runtime {
		f.b = b
		b.t.Cleanup(func() {
			b.stop()
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, in := range f.instances {
				in.stop()
				<-in.done
			}
		})
		return f
	}, f
}

func (f *fake) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in := f.instances[w.ID]; in != nil {
		return in, nil
	}
	run := f.programs[w.Command[0]]
	if run == nil {
		return nil, resource.Invalid("command", "no program %q", w.Command[0])
	}
	if f.seen != nil {
		f.seen(w)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(f.b.t.Context()))
	in := &fakeInstance{f: f, id: w.ID, stop: stop, done: make(chan struct{})}
	f.instances[w.ID] = in
	f.starts = append(f.starts, w.Command[0])
	go func() {
		defer close(in.done)
		in.exit = run(ctx, f.b, w.Args)
	}()
	return in, nil
}

func (f *fake) Find(_ context.Context, id string) (runtime.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in := f.instances[id]; in != nil {
		return in, nil
	}
	return nil, resource.NotFound(id)
}

func (f *fake) List(context.Context) ([]runtime.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []runtime.Instance
	for _, in := range f.instances {
		out = append(out, in)
	}
	return out, nil
}

// started gives the programs that were started so far.
func (f *fake) started() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.starts, " ")
}

func (in *fakeInstance) ID() string      { return in.id }
func (in *fakeInstance) Owner() string   { return "" }
func (in *fakeInstance) Address() string { return "" }

func (in *fakeInstance) Status() runtime.Status {
	select {
	case <-in.done:
		return runtime.Status{Phase: runtime.Ended, Exit: &in.exit}
	default:
		return runtime.Status{Phase: runtime.Running}
	}
}

func (in *fakeInstance) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-in.done:
		return in.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (in *fakeInstance) Stop(context.Context, time.Duration) error {
	in.stop()
	<-in.done
	return nil
}

func (in *fakeInstance) Log(context.Context, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}

func (in *fakeInstance) Release(context.Context) error {
	in.f.mu.Lock()
	defer in.f.mu.Unlock()
	delete(in.f.instances, in.id)
	return nil
}

// write is a program that writes its arguments but the last to the object that
// the last one names by its /gcs path.
func write(ctx context.Context, b *bench, args []string) runtime.Exit {
	uri := "gs://" + strings.TrimPrefix(args[len(args)-1], runtime.GCSRoot+"/")
	text := strings.Join(args[:len(args)-1], " ")
	if err := b.objects.WriteObject(context.WithoutCancel(ctx), uri, "text/plain", []byte(text)); err != nil {
		return runtime.Exit{Code: 1, Message: err.Error()}
	}
	return runtime.Exit{}
}

// onePipeline is a pipeline of container tasks in a row; every one takes the
// output of the one before.
func onePipeline(cache bool, names ...string) []byte {
	var components, executors, tasks []string
	for i, n := range names {
		input := `"runtimeValue":{"constant":"start"}`
		if i > 0 {
			input = fmt.Sprintf(`"taskOutputParameter":{"producerTask":%q,"outputParameterKey":"out"}`, names[i-1])
		}
		components = append(components, fmt.Sprintf(`"comp-%s":{"executorLabel":"exec-%s","inputDefinitions":{"parameters":{"in":{"parameterType":"STRING"}}},"outputDefinitions":{"parameters":{"out":{"parameterType":"STRING"}}}}`, n, n))
		executors = append(executors, fmt.Sprintf(`"exec-%s":{"container":{"image":"none","command":[%q],"args":["{{$.inputs.parameters['in']}}",%q,"{{$.outputs.parameters['out'].output_file}}"]}}`, n, n, n))
		tasks = append(tasks, fmt.Sprintf(`%q:{"taskInfo":{"name":%q},"componentRef":{"name":"comp-%s"},"cachingOptions":{"enableCache":%v},"inputs":{"parameters":{"in":{%s}}}}`, n, n, n, cache, input))
	}
	return fmt.Appendf(nil, `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"row"},"components":{%s},"deploymentSpec":{"executors":{%s}},"root":{"dag":{"tasks":{%s}}}}`,
		strings.Join(components, ","), strings.Join(executors, ","), strings.Join(tasks, ","))
}

func TestEngineRunsTasksInOrder(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"a": write, "b": write})
	b := newBench(t, makeRuntime)
	job := b.wait(b.submit("one", onePipeline(false, "a", "b"), nil))
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", job.State, job.Error.GetMessage())
	}
	if got := b.tasks(job.Name)["b"].Outputs.Parameters["out"]; got != "start a b" {
		t.Errorf("output of b = %v", got)
	}
	if got := f.started(); got != "a b" {
		t.Errorf("started %s", got)
	}
	if job.StartTime == nil || job.EndTime == nil {
		t.Error("times are missing")
	}
	b.stop() // returns once the owner of the job has cleaned up
	if left, _ := f.List(t.Context()); len(left) != 0 {
		t.Errorf("%d instances were not released", len(left))
	}
	events, err := b.store.Events(t.Context(), job.Name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range events {
		if !strings.HasSuffix(e.Type, "pending") {
			types = append(types, e.Type)
		}
	}
	want := "task.running task.running job.running task.succeeded task.running task.succeeded task.succeeded job.succeeded"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("events = %s\nwant     %s", got, want)
	}
}

func TestEngineGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	running, release := make(chan struct{}), make(chan struct{})
	makeRuntime, f := withFake(map[string]program{
		"a": func(ctx context.Context, b *bench, args []string) runtime.Exit {
			close(running)
			<-release
			return write(ctx, b, args)
		},
		"b": write,
	})
	b := newBench(t, makeRuntime)
	name := b.submit("restart", onePipeline(false, "a", "b"), nil)
	<-running
	b.stop()
	close(release) // the program ends while nobody watches
	b.start()
	job := b.wait(name)
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", job.State, job.Error.GetMessage())
	}
	if got := f.started(); got != "a b" {
		t.Errorf("started %s: a running program must be adopted, not started again", got)
	}
}

func TestEngineCancels(t *testing.T) {
	t.Parallel()
	running := make(chan struct{})
	makeRuntime, f := withFake(map[string]program{"a": func(ctx context.Context, _ *bench, _ []string) runtime.Exit {
		close(running)
		<-ctx.Done()
		return runtime.Exit{Code: 143, Signal: "SIGTERM"}
	}})
	b := newBench(t, makeRuntime)
	name := b.submit("cancel", onePipeline(false, "a", "b"), nil)
	<-running
	b.cancel(name)
	job := b.wait(name)
	if job.State != pb.PipelineState_PIPELINE_STATE_CANCELLED || job.Error != nil {
		t.Errorf("%s: %v", job.State, job.Error)
	}
	for path, want := range map[string]pipeline.State{"": pipeline.Cancelled, "a": pipeline.Cancelled, "b": pipeline.Cancelled} {
		if got := b.tasks(name)[path].State; got != want {
			t.Errorf("task %q is %s, want %s", path, got, want)
		}
	}
	if got := f.started(); got != "a" {
		t.Errorf("started %s", got)
	}
}

func TestEngineCancelsBeforeTheStart(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"a": write, "b": write})
	b := newBench(t, makeRuntime)
	b.stop() // nobody looks at the row yet
	name := b.submit("early", onePipeline(false, "a", "b"), nil)
	b.cancel(name)
	b.start()
	if job := b.wait(name); job.State != pb.PipelineState_PIPELINE_STATE_CANCELLED {
		t.Errorf("%s: %v", job.State, job.Error)
	}
	if got := f.started(); got != "" {
		t.Errorf("started %s", got)
	}
}

func TestEngineTakesOutputsFromTheCache(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"a": write, "b": write})
	b := newBench(t, makeRuntime)
	ir := onePipeline(true, "a", "b")
	b.wait(b.submit("first", ir, nil))
	second := b.wait(b.submit("second", ir, nil))
	if second.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", second.State, second.Error.GetMessage())
	}
	if got := f.started(); got != "a b" {
		t.Errorf("started %s: the second run must start nothing", got)
	}
	tasks := b.tasks(second.Name)
	if tasks["b"].State != pipeline.Skipped || tasks["b"].Outputs.Parameters["out"] != "start a b" {
		t.Errorf("b = %+v", tasks["b"])
	}
	details, err := pipeline.Details(t.Context(), b.store, second.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range details {
		if d.TaskName == "b" && (d.State != pb.PipelineTaskDetail_SKIPPED || d.Execution.GetState() != pb.Execution_CACHED) {
			t.Errorf("b shows as %s, execution %s", d.State, d.Execution.GetState())
		}
	}
	if got := b.wait(b.submit("third", onePipeline(true, "a", "c"), nil)); got.State != pb.PipelineState_PIPELINE_STATE_FAILED {
		t.Errorf("a task that the runtime refuses: %s", got.State)
	}
	if got := f.started(); got != "a b" {
		t.Errorf("started %s", got)
	}
}

func TestEngineReportsFailures(t *testing.T) {
	t.Parallel()
	makeRuntime, _ := withFake(map[string]program{"a": func(context.Context, *bench, []string) runtime.Exit {
		return runtime.Exit{Code: 3, Cause: resource.CauseUserCode, Message: "the program ended with exit code 3", Tail: []string{"Traceback", "ValueError: no data"}}
	}})
	b := newBench(t, makeRuntime)
	job := b.wait(b.submit("fails", onePipeline(false, "a"), nil))
	message := job.Error.GetMessage()
	for _, want := range []string{"[a]", "exit code 3", "user code", "ValueError: no data"} {
		if !strings.Contains(message, want) {
			t.Errorf("the error of the job does not say %q:\n%s", want, message)
		}
	}
	if job.Error.GetCode() != 9 || len(job.Error.GetDetails()) != 2 {
		t.Errorf("code %d, details %v", job.Error.GetCode(), job.Error.GetDetails())
	}
}

func TestEngineDropsACacheEntryWhoseArtifactIsGone(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"make": write})
	b := newBench(t, makeRuntime)
	ir := []byte(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"art"},
		"components":{"comp":{"executorLabel":"exec","outputDefinitions":{"artifacts":{"model":{"artifactType":{"schemaTitle":"system.Model","schemaVersion":"0.0.1"}}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"none","command":["make"],"args":["weights","{{$.outputs.artifacts['model'].path}}"]}}}},
		"root":{"dag":{"tasks":{"make":{"taskInfo":{"name":"make"},"componentRef":{"name":"comp"},"cachingOptions":{"enableCache":true}}}}}}`)
	first := b.wait(b.submit("first", ir, nil))
	model := b.tasks(first.Name)["make"].Outputs.Artifacts["model"][0]
	if !model.Content || path.Base(model.URI) != "model" || !strings.HasPrefix(model.URI, "gs://artifacts/root/p/first/make_") {
		t.Fatalf("artifact %+v", model)
	}
	b.wait(b.submit("hit", ir, nil))
	if got := f.started(); got != "make" {
		t.Fatalf("started %s", got)
	}
	bucket, name, _ := strings.Cut(strings.TrimPrefix(model.URI, "gs://"), "/")
	if err := b.objects.Delete(t.Context(), bucket, name, 0, noConditions()); err != nil {
		t.Fatal(err)
	}
	b.wait(b.submit("miss", ir, nil))
	if got := f.started(); got != "make make" {
		t.Errorf("started %s: the artifact is gone, so the entry must not count", got)
	}
}

func TestScheduledRunKnowsItsTick(t *testing.T) {
	t.Parallel()
	makeRuntime, _ := withFake(map[string]program{"a": write})
	b := newBench(t, makeRuntime)
	ir := []byte(strings.Replace(string(onePipeline(false, "a")), `"constant":"start"`, `"constant":"{{$.pipeline_job_schedule_time_utc}}"`, 1))
	const tick = "2026-03-29T01:00:00Z"
	b.update(func(tx store.Tx) error {
		return tx.Put(t.Context(), store.Row{Kind: resource.KindScheduledRuns, Key: jobParent + "/pipelineJobs/one", Data: []byte(tick)})
	})
	job := b.wait(b.submitScheduled("one", ir))
	if got := b.tasks(job.Name)["a"].Outputs.Parameters["out"]; got != tick+" a" {
		t.Errorf("output %v of a run that was due at %s", got, tick)
	}
}

// TestEngineGoesOnWithALoop: a process that is killed in the middle of a loop of
// 100 iterations, five at once, leaves nothing undone and nothing done twice.
func TestEngineGoesOnWithALoop(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	running, most, count := 0, 0, 0
	half := make(chan struct{})
	makeRuntime, f := withFake(map[string]program{"work": func(ctx context.Context, b *bench, args []string) runtime.Exit {
		mu.Lock()
		running++
		most = max(most, running)
		if count++; count == 50 {
			close(half)
		}
		mu.Unlock()
		exit := write(ctx, b, args)
		mu.Lock()
		running--
		mu.Unlock()
		return exit
	}})
	b := newBench(t, makeRuntime)
	items := make([]any, 100)
	for i := range items {
		items[i] = i
	}
	name := b.submit("loop", pipeline.LoopIR(5), map[string]any{"items": items})
	<-half
	b.stop()
	b.start()
	job := b.wait(name)
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", job.State, job.Error.GetMessage())
	}
	if got := strings.Count(f.started(), "work"); got != 100 || most > 5 {
		t.Errorf("%d programs were started, %d at once", got, most)
	}
	out, _ := b.tasks(name)["loop"].Outputs.Parameters["out"].([]any)
	for i := range items {
		if i >= len(out) || out[i] != float64(i) {
			t.Fatalf("the outputs are %v", out)
		}
	}
	details, err := pipeline.Details(t.Context(), b.store, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	parents := map[int64]string{}
	for _, d := range details {
		parents[d.TaskId] = d.TaskName
	}
	for _, d := range details {
		if d.TaskName == "work" && !strings.HasPrefix(parents[d.ParentTaskId], "loop-") || strings.HasPrefix(d.TaskName, "loop-") && parents[d.ParentTaskId] != "loop" {
			t.Errorf("%s is below %s", d.TaskUniqueName, parents[d.ParentTaskId])
		}
	}
}
