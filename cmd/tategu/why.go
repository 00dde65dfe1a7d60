package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/pipeline"
)

// How far back a good run is looked for.
const (
	mostRuns = 500 // runs of any pipeline
	mostGood = 20  // runs of this one that are read
)

func whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "why RUN|BATCHJOB|ENDPOINT", Short: "Say why a run or a batch prediction failed and what to do, or why an endpoint has its replicas", Args: cobra.ExactArgs(1),
		Long: `why shows each task of a run that failed: whose turn it is, the exit code, the last lines of its
output and the next step. Then it shows what differs from the last run of the same pipeline in which the
same task succeeded: inputs, source, packages, variables, image. RUN/TASK asks about one task.

Of a BATCHJOB, by its id or display name, it says how many records failed, the first reasons, whose turn
it is and where the results are.

Of an ENDPOINT, by its id or display name, it says for each deployed model how many replicas are
ready, how many are wanted, and why.`,
		Example:           "  tategu why train-20260102\n  tategu why train-20260102/fit-model\n  tategu why nightly-scores\n  tategu why my-endpoint",
		RunE:              func(cmd *cobra.Command, args []string) error { return why(cmd, args[0]) },
		ValidArgsFunction: completeWhy,
	}
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

func why(cmd *cobra.Command, name string) error {
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	job, named, err := c.fetchRun(cmd.Context(), name, true)
	if isMissing(err) {
		return whyEndpoint(cmd, c, name, err)
	}
	if err != nil {
		return err
	}
	failed := failedTasks(job)
	if named != "" {
		failed = slices.DeleteFunc(failed, func(t *pb.PipelineTaskDetail) bool { return t.TaskUniqueName != named })
	}
	var text strings.Builder
	fmt.Fprintf(&text, "run %s: %s\n", path.Base(job.Name), shortState(job.State.String()))
	switch {
	case len(failed) == 0 && named != "":
		fmt.Fprintf(&text, "task %s did not fail\n", named)
	case len(failed) == 0 && job.Error != nil:
		tell(&text, "the run", job.Error.GetMessage(), problemOf(job.Error))
	case len(failed) == 0:
		text.WriteString("none of its tasks failed\n")
	}
	good := &goodRuns{c: c, of: job}
	for _, t := range failed[:min(len(failed), mostGood)] {
		tell(&text, "task "+t.TaskUniqueName, t.GetError().GetMessage(), problemOf(t.Error))
		if err := good.compare(cmd.Context(), &text, t); err != nil {
			return err
		}
	}
	if more := len(failed) - mostGood; more > 0 {
		fmt.Fprintf(&text, "\nand %d more failed tasks: tategu why RUN/TASK\n", more)
	}
	if len(failed) > 0 {
		id, task := path.Base(job.Name), failed[0].TaskUniqueName
		fmt.Fprintf(&text, "\ngo on once it is fixed: tategu rerun %s --from %s\n", id, task)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text.String())
	return err
}

// tell writes one failure.
func tell(w *strings.Builder, what, message string, p problem) {
	message, tail, _ := strings.Cut(message, "\nlast lines of its output:")
	fmt.Fprintf(w, "\n%s failed: %s\n", what, strings.TrimSpace(message))
	if p.cause != "" && !strings.Contains(message, "cause: "+p.cause) {
		fmt.Fprintf(w, "  cause: %s\n", p.cause)
	}
	if p.exitCode != "" && !strings.Contains(message, "exit code") {
		fmt.Fprintf(w, "  exit code: %s\n", p.exitCode)
	}
	if tail = strings.Trim(tail, "\n"); tail != "" {
		w.WriteString("  last lines of its output:\n")
		for line := range strings.SplitSeq(tail, "\n") {
			w.WriteString("    " + line + "\n")
		}
	}
	if p.hint != "" && !strings.Contains(message, p.hint) {
		fmt.Fprintf(w, "  next: %s\n", p.hint)
	}
}

// goodRuns finds runs to compare with.
type goodRuns struct {
	c     *client
	of    *pb.PipelineJob
	names []string                   // earlier runs of the pipeline, newest first; nil = not listed
	read  map[string]*pb.PipelineJob // by name
}

// pipelineOf is the name of a run's pipeline: its context in the metadata store is
// called so.
func pipelineOf(job *pb.PipelineJob) string {
	return path.Base(job.GetJobDetail().GetPipelineContext().GetName())
}

func (g *goodRuns) list(ctx context.Context) error {
	if g.read != nil {
		return nil
	}
	g.read = map[string]*pb.PipelineJob{}
	project := strings.Split(g.of.Name, "/")[1]
	jobs, err := g.c.listRuns(ctx, project, "", "name,create_time,labels,job_detail.pipeline_context", mostRuns)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		earlier := job.Labels[debugLabel] == "" && job.CreateTime.AsTime().Before(g.of.CreateTime.AsTime())
		if earlier && pipelineOf(job) == pipelineOf(g.of) && len(g.names) < mostGood {
			g.names = append(g.names, job.Name)
		}
	}
	return nil
}

// find gives the last run before in which a task succeeded; nil = there is none.
func (g *goodRuns) find(ctx context.Context, task string) (*pb.PipelineJob, *pb.PipelineTaskDetail, error) {
	if err := g.list(ctx); err != nil {
		return nil, nil, err
	}
	for _, name := range g.names {
		job := g.read[name]
		if job == nil {
			var err error
			if job, _, err = g.c.fetchRun(ctx, name, true); err != nil {
				return nil, nil, err
			}
			g.read[name] = job
		}
		for _, t := range job.GetJobDetail().GetTaskDetails() {
			ok := t.State == pb.PipelineTaskDetail_SUCCEEDED || t.State == pb.PipelineTaskDetail_SKIPPED
			if ok && t.TaskUniqueName == task {
				return job, t, nil
			}
		}
	}
	return nil, nil, nil
}

// compare writes what differs from the last good run of a task.
func (g *goodRuns) compare(ctx context.Context, w *strings.Builder, t *pb.PipelineTaskDetail) error {
	job, before, err := g.find(ctx, t.TaskUniqueName)
	if err != nil {
		return err
	}
	if job == nil {
		fmt.Fprintf(w, "  no earlier run of %s in which it succeeded\n", pipelineOf(g.of))
		return nil
	}
	lines := differences(ofTask(job, before), ofTask(g.of, t))
	since := fmt.Sprintf("%s, of %s", path.Base(job.Name), job.CreateTime.AsTime().Local().Format(time.DateTime))
	if len(lines) == 0 {
		fmt.Fprintf(w, "  nothing differs from the last good run (%s): inputs, source, packages, variables and image are the same\n", since)
		return nil
	}
	fmt.Fprintf(w, "  what differs from the last good run (%s):\n", since)
	for _, line := range lines {
		w.WriteString("    " + line + "\n")
	}
	return nil
}

// side is a task of a run, as it is compared.
type side struct {
	inputs  map[string]string
	program pipeline.Program
}

func ofTask(job *pb.PipelineJob, t *pb.PipelineTaskDetail) side {
	s := side{inputs: map[string]string{}}
	for k, v := range t.GetExecution().GetMetadata().GetFields() {
		if name, ok := strings.CutPrefix(k, "input:"); ok {
			s.inputs[name] = jsonText(v)
		}
	}
	for k, list := range t.Inputs {
		uris := make([]string, 0, len(list.Artifacts))
		for _, a := range list.Artifacts {
			uris = append(uris, a.Uri)
		}
		s.inputs[k] = strings.Join(uris, " ")
	}
	if plan, err := pipeline.Parse(job.PipelineSpec); err == nil { // it was accepted once
		s.program, _ = plan.ProgramOf(t.TaskUniqueName)
	}
	return s
}
