package pipeline_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/pipeline"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// rerun submits a run that goes on with another one.
func (b *bench) rerun(id, original string, ir []byte, configs ...*pb.PipelineTaskRerunConfig) string {
	b.t.Helper()
	plan, err := pipeline.ParseJSON(ir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.update(func(tx store.Tx) error {
		return pipeline.TakeOver(b.t.Context(), tx, plan, original, jobParent+"/pipelineJobs/"+id, configs)
	})
	return b.submit(id, ir, nil)
}

// asClient makes the configs that the SDK makes: it skips what succeeded.
func (b *bench) asClient(job string, again ...string) []*pb.PipelineTaskRerunConfig {
	b.t.Helper()
	details, err := pipeline.Details(b.t.Context(), b.store, job, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []*pb.PipelineTaskRerunConfig
	for _, d := range details {
		c := &pb.PipelineTaskRerunConfig{TaskId: d.TaskId, TaskName: d.TaskUniqueName, SkipTask: d.State == pb.PipelineTaskDetail_SUCCEEDED}
		for _, a := range again {
			if a == d.TaskUniqueName {
				c.SkipTask = false
			}
		}
		out = append(out, c)
	}
	return out
}

// failing is a program that fails until it is told not to.
func failing(fixed *atomic.Bool) program {
	return func(ctx context.Context, b *bench, args []string) runtime.Exit {
		if !fixed.Load() {
			return runtime.Exit{Code: 3, Message: "exit code 3"}
		}
		return write(ctx, b, args)
	}
}

func TestRerunGoesOnWithNoTaskRunAgain(t *testing.T) {
	t.Parallel()
	var fixed atomic.Bool
	makeRuntime, f := withFake(map[string]program{"a": write, "b": write, "c": failing(&fixed), "d": write})
	b := newBench(t, makeRuntime)
	ir := onePipeline(false, "a", "b", "c", "d")
	first := b.wait(b.submit("first", ir, nil))
	if first.State != pb.PipelineState_PIPELINE_STATE_FAILED || f.started() != "a b c" {
		t.Fatalf("%s, started %s", first.State, f.started())
	}
	fixed.Store(true)
	second := b.wait(b.rerun("second", first.Name, ir, b.asClient(first.Name)...))
	if second.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", second.State, second.Error.GetMessage())
	}
	if got := f.started(); got != "a b c c d" {
		t.Errorf("started %s: nothing before the failed task may run again", got)
	}
	tasks := b.tasks(second.Name)
	if tasks["d"].Outputs.Parameters["out"] != "start a b c d" || tasks["a"].State != pipeline.Skipped || tasks["b"].Cached == "" || len(tasks["b"].Workload) != 0 {
		t.Errorf("tasks %+v", tasks)
	}
	// A rerun of the rerun needs the first run no more, and a chosen task runs again.
	b.update(func(tx store.Tx) error { return pipeline.Delete(t.Context(), tx, first.Name) })
	third := b.wait(b.rerun("third", second.Name, ir, b.asClient(second.Name, "d")...))
	if third.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || f.started() != "a b c c d d" {
		t.Fatalf("%s: %s, started %s", third.State, third.Error.GetMessage(), f.started())
	}
	// One that was taken over runs again for who names it.
	fourth := b.wait(b.rerun("fourth", third.Name, ir, append(b.asClient(third.Name), &pb.PipelineTaskRerunConfig{TaskName: "b"})...))
	if fourth.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || f.started() != "a b c c d d b" {
		t.Fatalf("%s: %s, started %s", fourth.State, fourth.Error.GetMessage(), f.started())
	}
}

// TestRerunOfOneTask is what debugging does: one task with its inputs, nothing else.
func TestRerunOfOneTask(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"a": write, "b": write, "c": write})
	b := newBench(t, makeRuntime)
	ir := onePipeline(true, "a", "b", "c")
	first := b.wait(b.submit("first", ir, nil))
	changed := []byte(strings.Replace(string(ir), `"b","{{$.outputs`, `"B","{{$.outputs`, 1))
	second := b.wait(b.rerun("second", first.Name, changed,
		&pb.PipelineTaskRerunConfig{TaskName: "a", SkipTask: true},
		&pb.PipelineTaskRerunConfig{TaskName: "b", SkipDownstreamTasks: true}))
	if second.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || f.started() != "a b c b" {
		t.Fatalf("%s, started %s", second.State, f.started())
	}
	tasks := b.tasks(second.Name)
	if tasks["b"].Outputs.Parameters["out"] != "start a B" || tasks["c"].State != pipeline.NotTriggered || !strings.Contains(tasks["c"].Reason, "left out") {
		t.Errorf("tasks %+v", tasks)
	}
	if was := b.tasks(first.Name)["b"]; was.Outputs.Parameters["out"] != "start a b" {
		t.Errorf("the original became %+v", was)
	}
}

func TestRerunOfAnIteration(t *testing.T) {
	t.Parallel()
	var fixed atomic.Bool
	makeRuntime, f := withFake(map[string]program{"work": func(ctx context.Context, b *bench, args []string) runtime.Exit {
		if args[0] == "1" && !fixed.Load() {
			return runtime.Exit{Code: 3, Message: "exit code 3"}
		}
		return write(ctx, b, args)
	}})
	b := newBench(t, makeRuntime)
	plan, err := pipeline.ParseJSON(pipeline.LoopIR(0))
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]any{"items": []any{0.0, 1.0, 2.0}}
	first := b.wait(b.submit("first", pipeline.LoopIR(0), params))
	if first.State != pb.PipelineState_PIPELINE_STATE_FAILED {
		t.Fatalf("%s", first.State)
	}
	fixed.Store(true)
	configs := b.asClient(first.Name)
	b.update(func(tx store.Tx) error {
		return pipeline.TakeOver(t.Context(), tx, plan, first.Name, jobParent+"/pipelineJobs/second", configs)
	})
	second := b.wait(b.submit("second", pipeline.LoopIR(0), params))
	if second.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", second.State, second.Error.GetMessage())
	}
	if got := strings.Count(f.started(), "work"); got != 4 {
		t.Errorf("%d programs were started, want 3 and 1 again", got)
	}
	if out, _ := b.tasks(second.Name)["loop"].Outputs.Parameters["out"].([]any); len(out) != 3 || out[1] != 1.0 {
		t.Errorf("outputs %v", out)
	}
}

// TestRerunAfterARestart: what is taken over is durable with the
// run.
func TestRerunAfterARestart(t *testing.T) {
	t.Parallel()
	var fixed atomic.Bool
	makeRuntime, f := withFake(map[string]program{"a": write, "b": failing(&fixed)})
	b := newBench(t, makeRuntime)
	ir := onePipeline(false, "a", "b")
	first := b.wait(b.submit("first", ir, nil))
	fixed.Store(true)
	b.stop()
	name := b.rerun("second", first.Name, ir, b.asClient(first.Name)...)
	b.update(func(tx store.Tx) error { return pipeline.Delete(t.Context(), tx, first.Name) })
	b.start()
	if job := b.wait(name); job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || f.started() != "a b b" {
		t.Errorf("%s: %s, started %s", job.State, job.Error.GetMessage(), f.started())
	}
}

func TestRerunWithOtherParameters(t *testing.T) {
	t.Parallel()
	makeRuntime, _ := withFake(map[string]program{"a": write, "b": write})
	b := newBench(t, makeRuntime)
	ir := onePipeline(false, "a", "b")
	first := b.wait(b.submit("first", ir, nil))
	config := func(name string, v *structpb.Value) *pb.PipelineTaskRerunConfig {
		return &pb.PipelineTaskRerunConfig{TaskName: "b", Inputs: &pb.PipelineTaskRerunConfig_Inputs{ParameterValues: map[string]*structpb.Value{name: v}}}
	}
	second := b.wait(b.rerun("second", first.Name, ir, &pb.PipelineTaskRerunConfig{TaskName: "a", SkipTask: true}, config("in", structpb.NewStringValue("other"))))
	if got := b.tasks(second.Name)["b"].Outputs.Parameters["out"]; got != "other b" {
		t.Errorf("output %v", got)
	}
	plan, err := pipeline.ParseJSON(ir)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]*pb.PipelineTaskRerunConfig{
		`no parameter "im"`:   config("im", structpb.NewStringValue("x")),
		"want STRING":         config("in", structpb.NewNumberValue(1)),
		`no task "z"`:         {TaskName: "z"},
		"no task with the id": {TaskId: 1},
	} {
		err := b.store.Update(t.Context(), func(tx store.Tx) error {
			return pipeline.TakeOver(t.Context(), tx, plan, first.Name, jobParent+"/pipelineJobs/third", []*pb.PipelineTaskRerunConfig{c})
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", c, err, want)
		}
	}
}
