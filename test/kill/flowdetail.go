package main

import (
	"fmt"
	"strings"
	"time"
)

// States of runs and tasks, as the API names them.
const (
	runSucceeded = "PIPELINE_STATE_SUCCEEDED"
	runFailed    = "PIPELINE_STATE_FAILED"
	runCancelled = "PIPELINE_STATE_CANCELLED"

	taskSucceeded    = "SUCCEEDED"
	taskFailed       = "FAILED"
	taskCancelled    = "CANCELLED"
	taskSkipped      = "SKIPPED"
	taskNotTriggered = "NOT_TRIGGERED"
)

// nameFinish is the exit task of a flow.
const nameFinish = "finish"

// flowDetail is a run as the API shows it.
type flowDetail struct {
	Name, State                    string
	CreateTime, StartTime, EndTime time.Time
	ScheduleName                   string
	Labels                         map[string]string
	Error                          *flowError
	JobDetail                      struct{ TaskDetails []*flowTask }
}

type flowError struct{ Message string }

type flowTask struct {
	TaskID             string `json:"taskId"`
	ParentTaskID       string `json:"parentTaskId"`
	TaskName           string
	TaskUniqueName     string
	State              string
	CreateTime         time.Time
	StartTime, EndTime time.Time
	Error              *flowError
	PipelineTaskStatus []flowStatus
	Outputs            map[string]struct{ Artifacts []struct{ URI string } }
	Execution          struct{ Metadata map[string]any }
	ExecutorDetail     struct {
		ContainerDetail struct {
			MainJob        string
			FailedMainJobs []string
		}
	}
}

// flowStatus is a state that a task was in.
type flowStatus struct {
	UpdateTime time.Time
	State      string
	Error      *flowError
}

func (d *flowDetail) ended() bool {
	return d.State == runSucceeded || d.State == runFailed || d.State == runCancelled
}

// open names the tasks that have not ended.
func (d *flowDetail) open() string {
	var names []string
	for _, t := range d.JobDetail.TaskDetails {
		if t.EndTime.IsZero() {
			names = append(names, fmt.Sprintf("%s %s (attempt %d)", t.TaskUniqueName, t.State, len(t.workloads())))
		}
	}
	return strings.Join(names, ", ")
}

// workloads gives the attempts of a task that runs a program, in order.
func (t *flowTask) workloads() []string {
	c := t.ExecutorDetail.ContainerDetail
	if c.MainJob == "" {
		return nil
	}
	return append(append([]string{}, c.FailedMainJobs...), c.MainJob)
}

// isProgram reports a task that runs a program, or took over what one gave.
func (t *flowTask) isProgram() bool {
	name := t.TaskName
	return name == nameFinish || name == "item" || name == "gather" || strings.HasPrefix(name, "step")
}

// role is the name that the ledger has of a task.
func (t *flowTask) role() string {
	if name, ok := t.Execution.Metadata["input:name"].(string); ok {
		return name
	}
	return t.TaskName
}

// said is the output by which a program says who it was.
func (t *flowTask) said() string {
	for _, k := range []string{"output:token", "output:Output"} {
		if v, ok := t.Execution.Metadata[k].(string); ok {
			return v
		}
	}
	return ""
}
