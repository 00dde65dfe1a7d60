package main

import (
	"path"
	"slices"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

func rerunCommand() *cobra.Command {
	var from string
	var change change
	var detach bool
	cmd := &cobra.Command{
		Use: "rerun RUN [FILE]", Short: "Go on with a run that failed, with no task run again that succeeded", Args: cobra.RangeArgs(1, 2),
		Long: `rerun starts a new run of the same pipeline that takes over what succeeded in the old one: tasks that
failed, those that never ran and all after them are run. With --from, TASK runs again too, and all
after it. --edit changes the source of the task that failed (or of --from) on the way: in $EDITOR, or
to the content of FILE.`,
		Example: "  tategu rerun train-20260102\n  tategu rerun train-20260102 --edit fit.py\n  tategu rerun train-20260102 --from fit-model",
		RunE: func(cmd *cobra.Command, args []string) error {
			return rerun(cmd, args, from, &change, detach)
		},
		ValidArgsFunction: completeRuns,
	}
	cmd.Flags().StringVar(&from, "from", "", "task to run again, with all after it")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the new run's name and do not wait for it")
	change.add(cmd)
	return cmd
}

func rerun(cmd *cobra.Command, args []string, from string, ch *change, detach bool) error {
	if err := ch.file(args[1:]); err != nil {
		return err
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	old, named, err := c.fetchRun(cmd.Context(), args[0], true)
	if err != nil {
		return err
	}
	from = or(from, named) // RUN/TASK
	plan, err := pipeline.Parse(old.PipelineSpec)
	if err != nil {
		return err
	}
	at := ""
	if from != "" {
		task, err := taskOf(old, from)
		if err != nil {
			return err
		}
		at = task.TaskUniqueName
	}
	job, err := successor(old)
	if err != nil {
		return err
	}
	if ch.wanted() {
		target := at
		if target == "" {
			failed := failedTasks(old)
			if len(failed) != 1 {
				return resource.Invalid("edit", "%d tasks of the run failed", len(failed)).WithHint("name the one to change with --from")
			}
			target = failed[0].TaskUniqueName
		}
		if err := ch.apply(cmd, plan, job.PipelineSpec, target); err != nil {
			return err
		}
	}
	job.PipelineTaskRerunConfigs = goOn(plan, old, at)
	r := &runner{cmd: cmd, c: c, parent: path.Dir(path.Dir(old.Name))}
	return r.launch(job, detach)
}

// successor is a run like another one that goes on with it.
func successor(old *pb.PipelineJob) (*pb.PipelineJob, error) {
	number, err := strconv.ParseInt(old.Labels[pipeline.RunNumberLabel], 10, 64)
	if err != nil {
		return nil, resource.Invalid("run", "the run %s has no number in its label %s", old.Name, pipeline.RunNumberLabel)
	}
	job := &pb.PipelineJob{
		DisplayName: old.DisplayName, ServiceAccount: old.ServiceAccount, OriginalPipelineJobId: number,
		PipelineSpec: proto.CloneOf(old.PipelineSpec), RuntimeConfig: proto.CloneOf(old.RuntimeConfig), Labels: map[string]string{},
	}
	for k, v := range old.Labels {
		if k != pipeline.RunNumberLabel && k != debugLabel {
			job.Labels[k] = v
		}
	}
	return job, nil
}

// goOn skips what succeeded, but for what comes after a task that runs.
func goOn(plan *pipeline.Plan, old *pb.PipelineJob, from string) []*pb.PipelineTaskRerunConfig {
	tasks := old.GetJobDetail().GetTaskDetails()
	again := map[string]bool{}
	mark := func(at string) {
		again[at] = true
		for _, after := range plan.After(at) {
			again[after] = true
		}
	}
	if from != "" {
		mark(from)
	}
	for _, t := range failedTasks(old) {
		mark(t.TaskUniqueName)
	}
	out := make([]*pb.PipelineTaskRerunConfig, 0, len(tasks))
	for _, t := range tasks[min(1, len(tasks)):] {
		done := t.State == pb.PipelineTaskDetail_SUCCEEDED || t.State == pb.PipelineTaskDetail_SKIPPED
		out = append(out, &pb.PipelineTaskRerunConfig{TaskName: t.TaskUniqueName, SkipTask: done && !inside(again, t.TaskUniqueName)})
	}
	return out
}

// inside reports a path that is marked, or in one that is.
func inside(marks map[string]bool, at string) bool {
	for p := at; p != "." && p != "/"; p = path.Dir(p) {
		if marks[p] {
			return true
		}
	}
	return false
}

// taskOf finds a task of a run by its path or its name.
func taskOf(job *pb.PipelineJob, name string) (*pb.PipelineTaskDetail, error) {
	tasks := job.GetJobDetail().GetTaskDetails()
	tasks = tasks[min(1, len(tasks)):]
	var found []*pb.PipelineTaskDetail
	var known []string
	for _, t := range tasks {
		if t.TaskUniqueName == name {
			return t, nil
		}
		if t.TaskName == name {
			found = append(found, t)
		}
		known = append(known, t.TaskUniqueName)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		slices.Sort(known)
		return nil, resource.Invalid("task", "the run %s has no task %q", path.Base(job.Name), name).WithHint("its tasks are: %s", strings.Join(known[:min(len(known), 30)], " "))
	default:
		return nil, resource.Invalid("task", "%d tasks of the run are called %q", len(found), name).WithHint("name one by its path, such as %s", found[0].TaskUniqueName)
	}
}

// executorOf gives the container that a task runs, as the spec has it.
func executorOf(plan *pipeline.Plan, spec *structpb.Struct, at string) (*structpb.Struct, error) {
	e, ok := plan.ExecutorOf(at)
	c := spec.GetFields()["deploymentSpec"].GetStructValue().GetFields()["executors"].GetStructValue().GetFields()[e.Label].GetStructValue().GetFields()["container"].GetStructValue()
	if !ok || e.Label == "" || c == nil {
		return nil, resource.Invalid("task", "the task %s runs no program of its own", at).WithHint("name a task in it")
	}
	return c, nil
}
