package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

func runsCommand() *cobra.Command {
	var state, project string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "runs", Short: "List runs of pipelines, newest first", Args: cobra.NoArgs,
		Long:    "runs lists the runs of pipelines: state, start, how long they took, and of those that failed\nthe first failed task and its cause. `tategu why RUN` says more.",
		Example: "  tategu runs\n  tategu runs --state failed --limit 5\n  tategu runs --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 1000 {
				return resource.Invalid("limit", "--limit %d is not from 1 to 1000", limit)
			}
			filter, err := stateFilter(state)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			jobs, err := c.listRuns(cmd.Context(), or(project, c.project), filter, "", limit)
			if err != nil {
				return err
			}
			lines := make([]runLine, len(jobs))
			for i, job := range jobs {
				lines[i] = lineOf(job)
				lines[i].Page = c.page(job.Name)
			}
			if err := printRuns(cmd.OutOrStdout(), lines, asJSON, time.Now()); err != nil || asJSON {
				return err
			}
			if page := c.page("runs"); page != "" {
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "pages %s\n", page)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "only runs in this state: pending, running, succeeded, failed, cancelled")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"pending", "running", "succeeded", "failed", "cancelled"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	f.IntVar(&limit, "limit", 20, "most runs to show")
	f.StringVar(&project, "project", "", "project of the runs (default: the server's)")
	f.BoolVar(&asJSON, "json", false, "print a JSON list")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

func stateFilter(state string) (string, error) {
	if state == "" {
		return "", nil
	}
	name := "PIPELINE_STATE_" + strings.ToUpper(state)
	if _, ok := pb.PipelineState_value[name]; !ok {
		return "", resource.Invalid("state", "--state %.40q is not a state", state).WithHint("pending, running, succeeded, failed, cancelled")
	}
	return "state=\"" + name + "\"", nil
}

// listRuns gives the newest runs. The mask "" is all of them but what they run.
func (c *client) listRuns(ctx context.Context, project, filter, mask string, limit int) ([]*pb.PipelineJob, error) {
	q := url.Values{"filter": {filter}, "orderBy": {"create_time desc"}}
	q.Set("readMask", or(mask, "name,display_name,state,create_time,start_time,end_time,error,job_detail"))
	var out []*pb.PipelineJob
	for {
		q.Set("pageSize", strconv.Itoa(min(limit-len(out), 100)))
		var page struct {
			PipelineJobs  []json.RawMessage `json:"pipelineJobs"`
			NextPageToken string            `json:"nextPageToken"`
		}
		if err := c.call(ctx, http.MethodGet, "/v1beta1/projects/"+url.PathEscape(project)+"/locations/-/pipelineJobs?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		for _, text := range page.PipelineJobs {
			job := &pb.PipelineJob{}
			if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, job); err != nil {
				return nil, fmt.Errorf("read a run: %w", err)
			}
			out = append(out, job)
		}
		if page.NextPageToken == "" || len(out) >= limit {
			return out, nil
		}
		q.Set("pageToken", page.NextPageToken)
	}
}

// runLine is a run as `tategu runs --json` prints it.
type runLine struct {
	Run     string    `json:"run"`
	Name    string    `json:"name"`
	Title   string    `json:"displayName"`
	State   string    `json:"state"`
	Created time.Time `json:"createTime"`
	Started time.Time `json:"startTime,omitzero"`
	Ended   time.Time `json:"endTime,omitzero"`
	Failed  string    `json:"failedTask,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Message string    `json:"message,omitempty"`
	Page    string    `json:"page,omitempty"` // in a browser
}

func lineOf(job *pb.PipelineJob) runLine {
	l := runLine{
		Run: path.Base(job.Name), Name: job.Name, Title: job.DisplayName, State: shortState(job.State.String()),
		Created: job.CreateTime.AsTime(),
	}
	if job.StartTime != nil {
		l.Started = job.StartTime.AsTime()
	}
	if job.EndTime != nil {
		l.Ended = job.EndTime.AsTime()
	}
	if failed := failedTasks(job); len(failed) > 0 {
		l.Failed, l.Cause, l.Message = failed[0].TaskUniqueName, problemOf(failed[0].Error).cause, reasonOf(failed[0])
	} else if job.State == pb.PipelineState_PIPELINE_STATE_FAILED {
		l.Cause = problemOf(job.Error).cause
		l.Message, _, _ = strings.Cut(job.GetError().GetMessage(), "\n")
	}
	return l
}

// failedTasks gives the tasks that failed themselves, in their order: not the
// graphs around them.
func failedTasks(job *pb.PipelineJob) []*pb.PipelineTaskDetail {
	var out []*pb.PipelineTaskDetail
	tasks := job.GetJobDetail().GetTaskDetails()
	guilty := map[int64]bool{} // have a failed task below them
	for _, t := range tasks {
		if t.State == pb.PipelineTaskDetail_FAILED {
			guilty[t.ParentTaskId] = true
		}
	}
	for _, t := range tasks {
		if t.State == pb.PipelineTaskDetail_FAILED && !guilty[t.TaskId] && t.ParentTaskId != 0 {
			out = append(out, t)
		}
	}
	return out
}

func printRuns(w io.Writer, lines []runLine, asJSON bool, now time.Time) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(lines)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "RUN\tSTATE\tSTARTED\tTOOK\tFAILED TASK\tCAUSE") // a tabwriter reports at Flush
	for _, l := range lines {
		started, took := "-", "-"
		if !l.Started.IsZero() {
			end := now
			if !l.Ended.IsZero() {
				end = l.Ended
			}
			started, took = l.Started.Local().Format(time.DateTime), max(end.Sub(l.Started), 0).Round(100*time.Millisecond).String()
		}
		cause := l.Cause
		if l.Message != "" {
			cause += ": " + clipLine(l.Message, 80)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Run, l.State, started, took, or(l.Failed, "-"), or(cause, "-"))
	}
	return t.Flush()
}

// completeRuns offers runs of pipelines, and after one the tasks that it has.
func completeRuns(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	if len(args) == 0 {
		jobs, err := c.listRuns(cmd.Context(), c.project, "", "name,display_name,state", 100)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, job := range jobs {
			names = append(names, cobra.CompletionWithDesc(path.Base(job.Name), shortState(job.State.String())+" "+job.DisplayName))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) > 1 || cmd.Name() != "debug" {
		return nil, cobra.ShellCompDirectiveDefault // a file of --edit
	}
	job, _, err := c.fetchRun(cmd.Context(), args[0], false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, t := range job.GetJobDetail().GetTaskDetails() {
		if t.ParentTaskId != 0 {
			names = append(names, cobra.CompletionWithDesc(t.TaskUniqueName, stateOf(t)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
