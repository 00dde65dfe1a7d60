package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/pipeline"
)

// mostLines is how many tasks a table in place shows: it must fit a screen.
const mostLines = 20

// Codes of a terminal: cut long lines, and no longer do.
const (
	noWrap = "\x1b[?7l"
	wrap   = "\x1b[?7h"
)

// board shows the tasks of a run as they change.
type board struct {
	out      io.Writer
	terminal bool
	drawn    int               // lines of the table on the screen
	said     map[string]string // by task: what its line said last
}

// fetchRun reads a run, by any name that people know, and the path of the task when
// the name is that of one.
func (c *client) fetchRun(ctx context.Context, name string, spec bool) (*pb.PipelineJob, string, error) {
	q := url.Values{"resource": {name}}
	if !spec {
		q.Set("spec", "0")
	}
	var reply struct {
		Task string          `json:"task"`
		Job  json.RawMessage `json:"job"`
	}
	if err := c.call(ctx, http.MethodGet, "/tategu/v1/run?"+q.Encode(), nil, &reply); err != nil {
		return nil, "", err
	}
	job := &pb.PipelineJob{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(reply.Job, job); err != nil {
		return nil, "", fmt.Errorf("read the run: %w", err)
	}
	return job, reply.Task, nil
}

// attend shows a run until it has ended.
func (r *runner) attend(p *board) error {
	return r.heed(func(ctx context.Context) error {
		job, err := r.show(ctx, p)
		if err != nil {
			return err
		}
		return runVerdict(job)
	})
}

// show draws until the run has ended, and gives it.
func (r *runner) show(ctx context.Context, p *board) (*pb.PipelineJob, error) {
	for pause := lookFirst; ; pause = min(2*pause, lookEvery) {
		var job *pb.PipelineJob
		err := r.again(ctx, func() (err error) {
			job, _, err = r.client().fetchRun(ctx, r.name, false)
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := p.draw(job, time.Now()); err != nil {
			return nil, err
		}
		if pipeline.Finished(job.State) {
			return job, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func runVerdict(job *pb.PipelineJob) error {
	switch job.State {
	case pb.PipelineState_PIPELINE_STATE_SUCCEEDED:
		return nil
	case pb.PipelineState_PIPELINE_STATE_CANCELLED:
		return &exit{code: exitCancelled, err: errors.New("the run was cancelled")}
	default:
		message, _, _ := strings.Cut(job.GetError().GetMessage(), "\n")
		return &exit{code: 1, err: fmt.Errorf("the run failed: %s\n`tategu why %s` says more", message, path.Base(job.Name))}
	}
}

// draw shows what is new. It never shows a run itself, only its tasks.
func (p *board) draw(job *pb.PipelineJob, now time.Time) error {
	if p.said == nil {
		p.said = map[string]string{}
	}
	var text strings.Builder
	tasks := job.GetJobDetail().GetTaskDetails()
	tasks = tasks[min(1, len(tasks)):]
	if p.terminal {
		p.table(&text, tasks, now)
	} else {
		for _, t := range tasks {
			line := stateOf(t)
			if line == p.said[t.TaskUniqueName] || t.State == pb.PipelineTaskDetail_PENDING && len(t.PipelineTaskStatus) < 2 {
				continue // what only waits for others is no news
			}
			p.said[t.TaskUniqueName] = line
			fmt.Fprintf(&text, "%s  %s  %s\n", now.Format(time.TimeOnly), t.TaskUniqueName, strings.TrimRight(line+"  "+spent(t, now)+"  "+reasonOf(t), " "))
		}
	}
	_, err := io.WriteString(p.out, text.String())
	return err
}

// table draws over the table before it: what runs and what failed first, when not
// all fits.
func (p *board) table(text *strings.Builder, tasks []*pb.PipelineTaskDetail, now time.Time) {
	if p.drawn > 0 {
		fmt.Fprintf(text, "\x1b[%dA\x1b[J", p.drawn)
	}
	text.WriteString(noWrap) // a line that wraps would be two to draw over
	defer text.WriteString(wrap)
	shown := tasks
	if len(tasks) > mostLines {
		shown = nil
		for _, calm := range []bool{false, true} {
			for _, t := range tasks {
				done := t.State != pb.PipelineTaskDetail_RUNNING && t.State != pb.PipelineTaskDetail_FAILED
				if done == calm && len(shown) < mostLines {
					shown = append(shown, t)
				}
			}
		}
	}
	w := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	for _, t := range shown {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.TaskUniqueName, stateOf(t), spent(t, now), clipLine(reasonOf(t), 60)) // into memory
	}
	_ = w.Flush() // likewise
	p.drawn = len(shown)
	if more := len(tasks) - len(shown); more > 0 {
		fmt.Fprintf(text, "and %d more\n", more)
		p.drawn++
	}
}

func clipLine(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// stateOf is a task's state in a word.
func stateOf(t *pb.PipelineTaskDetail) string {
	switch t.State {
	case pb.PipelineTaskDetail_SKIPPED:
		return "TAKEN OVER" // from the cache, or from the run that this one goes on with
	case pb.PipelineTaskDetail_NOT_TRIGGERED:
		return "NOT RUN"
	default:
		return t.State.String()
	}
}

// spent is how long a task has run.
func spent(t *pb.PipelineTaskDetail, now time.Time) string {
	if t.StartTime == nil {
		return ""
	}
	end := now
	if t.EndTime != nil {
		end = t.EndTime.AsTime()
	}
	return max(end.Sub(t.StartTime.AsTime()), 0).Round(100 * time.Millisecond).String()
}

// reasonOf is why a task failed, or what it waits for, in one line.
func reasonOf(t *pb.PipelineTaskDetail) string {
	message := t.GetError().GetMessage()
	if n := len(t.PipelineTaskStatus); message == "" && n > 0 && t.State == pb.PipelineTaskDetail_PENDING {
		message = t.PipelineTaskStatus[n-1].GetError().GetMessage()
	}
	line, _, _ := strings.Cut(message, "\n")
	return line
}

// problem is what an error of a task tells besides its text.
type problem struct {
	cause, exitCode string
	hint            string
}

func problemOf(st *spb.Status) problem {
	var p problem
	for _, d := range st.GetDetails() {
		info, help := &errdetails.ErrorInfo{}, &errdetails.Help{}
		switch {
		case d.UnmarshalTo(info) == nil:
			p.cause, p.exitCode = info.Metadata["cause"], info.Metadata["exitCode"]
		case d.UnmarshalTo(help) == nil && len(help.Links) > 0:
			p.hint = help.Links[0].Description
		}
	}
	return p
}
