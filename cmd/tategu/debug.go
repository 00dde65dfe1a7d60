package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

// debugLabel marks a run of debug: it is no run of the pipeline to compare with.
const debugLabel = "tategu-debug"

type debugFlags struct {
	rerun, shell, port bool
	change             change
}

func debugCommand() *cobra.Command {
	var f debugFlags
	cmd := &cobra.Command{
		Use: "debug RUN TASK", Short: "Re-enter a task of a run: with its inputs, environment and image", Args: cobra.RangeArgs(1, 3),
		Long: `debug runs one task of a run again, as a run of its own: the same inputs, image or Python environment,
variables, size and service account. Tasks before it are taken over and not run, none after it run,
and its outputs go to a place of their own. Its output is shown as it is made, and its exit code is
the program's.

  --rerun   as it was
  --edit    with a changed source: in $EDITOR, or the content of FILE; --image for another image
  --shell   a shell where the program would have started (on the server's machine); ./tategu-task starts it
  --port    a Python component waits for a debugger (debugpy) on a port`,
		Example: "  tategu debug train-20260102 fit-model --rerun\n  tategu debug train-20260102 fit-model --edit fit.py\n  tategu debug train-20260102 fit-model --shell\n  tategu debug train-20260102/fit-model --port",
		RunE:    f.debug,

		ValidArgsFunction: completeRuns,
	}
	cmd.Flags().BoolVar(&f.rerun, "rerun", false, "run it as it was")
	cmd.Flags().BoolVar(&f.shell, "shell", false, "open a shell in its place")
	cmd.Flags().BoolVar(&f.port, "port", false, "let it wait for a debugger")
	f.change.add(cmd)
	return cmd
}

// debugger is one task that is entered again.
type debugger struct {
	*runner
	old  *pb.PipelineJob
	at   string // path of the task
	hold string // names the program that a shell waits in
}

func (f *debugFlags) debug(cmd *cobra.Command, args []string) error {
	switch {
	case f.shell && f.port:
		return resource.Invalid("debug", "--shell and --port are two things")
	case !f.shell && !f.port && !f.rerun && !f.change.wanted():
		return resource.Invalid("debug", "what is to be done with the task?").WithHint("add --rerun, --edit, --shell or --port")
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	old, named, err := c.fetchRun(cmd.Context(), args[0], true)
	if err != nil {
		return err
	}
	args = args[1:]
	if named == "" {
		if len(args) == 0 {
			return resource.Invalid("task", "a task of the run is missing").WithHint("`tategu why %s` names those that failed", path.Base(old.Name))
		}
		named, args = args[0], args[1:]
	}
	if err := f.change.file(args); err != nil {
		return err
	}
	task, err := taskOf(old, named)
	if err != nil {
		return err
	}
	if err := ran(old, task); err != nil {
		return err
	}
	d := &debugger{runner: &runner{cmd: cmd, c: c, parent: path.Dir(path.Dir(old.Name))}, old: old, at: task.TaskUniqueName}
	job, err := f.job(d)
	if err != nil {
		return err
	}
	if err := d.create(resource.KindPipelineJobs, job); err != nil {
		return err
	}
	d.say("debug run %s", d.name)
	if f.shell {
		return d.enter()
	}
	return d.heed(d.watch)
}

// ran refuses what has no inputs to be run with.
func ran(job *pb.PipelineJob, t *pb.PipelineTaskDetail) error {
	switch {
	case t.State == pb.PipelineTaskDetail_RUNNING:
		return resource.Invalid("task", "the task %s still runs", t.TaskUniqueName).WithHint("follow it: `tategu logs -f %s/%s`", path.Base(job.Name), t.TaskUniqueName)
	case t.State == pb.PipelineTaskDetail_SKIPPED || t.StartTime != nil:
		return nil
	}
	return resource.Invalid("task", "the task %s was not run: %s", t.TaskUniqueName, or(reasonOf(t), strings.ToLower(stateOf(t)))).
		WithHint("`tategu why %s` shows what kept it", path.Base(job.Name))
}

// job is the run of the one task.
func (f *debugFlags) job(d *debugger) (*pb.PipelineJob, error) {
	job, err := successor(d.old)
	if err != nil {
		return nil, err
	}
	plan, err := pipeline.Parse(d.old.PipelineSpec)
	if err != nil {
		return nil, err
	}
	if f.change.wanted() {
		if err := f.change.apply(d.cmd, plan, job.PipelineSpec, d.at); err != nil {
			return nil, err
		}
	}
	container, err := executorOf(plan, job.PipelineSpec, d.at)
	if err != nil {
		return nil, err
	}
	switch {
	case f.shell:
		d.hold = resource.NewID()
		err = holdBack(container, d.hold)
	case f.port:
		err = awaitDebugger(container)
	}
	if err != nil {
		return nil, err
	}
	once(plan, job.PipelineSpec, d.at)
	job.DisplayName = clipLine("debug "+d.at, 100)
	job.Labels[debugLabel] = "true"
	job.RuntimeConfig.FailurePolicy = pb.PipelineFailurePolicy_PIPELINE_FAILURE_POLICY_FAIL_SLOW
	job.PipelineTaskRerunConfigs = alone(plan, d.old, d.at)
	return job, nil
}

// alone takes over all but one task, and ends after it.
func alone(plan *pipeline.Plan, old *pb.PipelineJob, at string) []*pb.PipelineTaskRerunConfig {
	after := map[string]bool{}
	for _, p := range plan.After(at) {
		after[p] = true
	}
	out := []*pb.PipelineTaskRerunConfig{{TaskName: at, SkipDownstreamTasks: true}}
	tasks := old.GetJobDetail().GetTaskDetails()
	for _, t := range tasks[min(1, len(tasks)):] {
		around := t.TaskUniqueName == at || strings.HasPrefix(at, t.TaskUniqueName+"/")
		if !around && !inside(after, t.TaskUniqueName) {
			out = append(out, &pb.PipelineTaskRerunConfig{TaskName: t.TaskUniqueName, SkipTask: true})
		}
	}
	return out
}

// once takes away the retries of a task.
func once(plan *pipeline.Plan, spec *structpb.Struct, at string) {
	e, _ := plan.ExecutorOf(at)
	component := spec.GetFields()["root"].GetStructValue()
	if e.Graph != "root" {
		component = spec.GetFields()["components"].GetStructValue().GetFields()[e.Graph].GetStructValue()
	}
	task := component.GetFields()["dag"].GetStructValue().GetFields()["tasks"].GetStructValue().GetFields()[e.Task].GetStructValue()
	delete(task.GetFields(), "retryPolicy")
}

// watch shows the task's output, and then how it ended.
func (d *debugger) watch(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	told, stop := context.WithCancel(ctx)
	defer stop()
	beside.Go(func() { d.tell(told) })
	t, err := d.appeared(ctx)
	if err == nil {
		err = d.copyTask(ctx, d.name+"/tasks/"+strconv.FormatInt(t.TaskId, 10))
	}
	stop()
	if err != nil {
		return err
	}
	job, err := d.show(ctx, &board{out: io.Discard})
	if err != nil {
		return err
	}
	if t, err = taskOf(job, d.at); err != nil {
		return err
	}
	return d.verdict(job, t)
}

// appeared waits until the task has come to its turn.
func (d *debugger) appeared(ctx context.Context) (*pb.PipelineTaskDetail, error) {
	for {
		var job *pb.PipelineJob
		err := d.again(ctx, func() (err error) {
			job, _, err = d.client().fetchRun(ctx, d.name, false)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, t := range job.GetJobDetail().GetTaskDetails() {
			if t.TaskUniqueName == d.at && (t.StartTime != nil || t.EndTime != nil) {
				return t, nil
			}
		}
		if pipeline.Finished(job.State) {
			return nil, fmt.Errorf("the task %s did not come to its turn: %s", d.at, or(job.GetError().GetMessage(), "tasks around it ended first"))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// copyTask writes the output of a task as it comes; a line of its label is before it.
func (d *debugger) copyTask(ctx context.Context, task string) error {
	body, err := d.client().do(ctx, http.MethodGet, "/tategu/v1/logs", url.Values{"resource": {task}, "follow": {"1"}}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read to its end
	text := bufio.NewReader(body)
	first, err := text.ReadString('\n')
	if !strings.HasPrefix(first, "==> ") {
		if err := d.print(first); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(d.cmd.OutOrStdout(), text)
	return err
}

// verdict tells how the task ended, with the program's own exit code.
func (d *debugger) verdict(job *pb.PipelineJob, t *pb.PipelineTaskDetail) error {
	if t.State == pb.PipelineTaskDetail_CANCELLED {
		return &exit{code: exitCancelled, err: errors.New("the task was cancelled")}
	}
	if t.State == pb.PipelineTaskDetail_SUCCEEDED {
		d.say("the task succeeded in %s", spent(t, time.Now()))
		fields := t.GetExecution().GetMetadata().GetFields()
		for _, k := range slices.Sorted(maps.Keys(fields)) {
			if name, ok := strings.CutPrefix(k, "output:"); ok {
				d.say("output %s: %s", name, clipLine(jsonText(fields[k]), 200))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(t.Outputs)) {
			for _, a := range t.Outputs[k].Artifacts {
				d.say("output %s: %s", k, a.Uri)
			}
		}
		d.say("go on with the run: tategu rerun %s --from %s, with the same --edit", path.Base(d.old.Name), d.at)
		return nil
	}
	message, _, _ := strings.Cut(or(t.GetError().GetMessage(), job.GetError().GetMessage()), "\nlast lines of its output:") // they were shown
	code, err := strconv.Atoi(problemOf(t.Error).exitCode)
	if err != nil || code < 1 || code > 255 {
		code = 1
	}
	return &exit{code: code, err: errors.New(message)}
}
