package pipeline

import (
	"time"

	"tategu/internal/resource"
)

// State of a task; the names are those of PipelineTaskDetail.State.
type State string

// States. Skipped is a cache hit; NotTriggered covers a false condition and a
// task that cannot run because one before it failed (then Reason says which).
const (
	Pending      State = "PENDING"
	Running      State = "RUNNING"
	Succeeded    State = "SUCCEEDED"
	Cancelled    State = "CANCELLED"
	Failed       State = "FAILED"
	Skipped      State = "SKIPPED"
	NotTriggered State = "NOT_TRIGGERED"
)

func (s State) done() bool { return s != Pending && s != Running }

func (s State) ok() bool { return s == Succeeded || s == Skipped }

// Kinds of task.
const (
	kindRoot      = "root"
	kindGraph     = "dag"
	kindLoop      = "loop"
	kindContainer = "container"
	kindImporter  = "importer"
)

// Task is one row of a run: an instance of a task, or the run itself (Path "").
// It is stored as JSON; Get joins the rows into job_detail.
type Task struct {
	ID     int64  `json:"id"`
	Parent int64  `json:"parent,omitempty"`
	Path   string `json:"path"` // names of tasks from the root, joined with "/"; "#2" in it: second attempt of a DAG
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // why it was not run
	Index  int    `json:"index,omitempty"`  // of an iteration, from 0
	Round  int    `json:"round,omitempty"`  // the attempt of its parent that it is of

	// Blocked says that a task before it failed, so that no default of an optional
	// input can help those that wait for this one.
	Blocked bool `json:"blocked,omitempty"`
	// LeftOut says that a rerun was asked to end before it.
	LeftOut bool `json:"leftOut,omitempty"`

	Warnings []string `json:"warnings,omitempty"` // of the run: what it asked for and did not get

	Inputs  Values `json:"inputs"` // of an iteration only its own item, the rest is its loop's
	Outputs Values `json:"outputs"`

	Attempt  int       `json:"attempt,omitempty"` // 1 = the first
	Lost     int       `json:"lost,omitempty"`    // attempts that count for nothing: their launcher was killed
	RetryAt  time.Time `json:"retryAt,omitzero"`
	Workload []string  `json:"workload,omitempty"` // one id an attempt
	CacheKey string    `json:"cacheKey,omitempty"`
	Cached   string    `json:"cached,omitempty"` // row of the task that the outputs are from

	Created time.Time    `json:"created"`
	Started time.Time    `json:"started,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	Failure *Failure     `json:"failure,omitempty"`
	History []Transition `json:"history,omitempty"`
}

// Values are the inputs or outputs of a task. A parameter that is absent has no
// entry.
type Values struct {
	Parameters map[string]any        `json:"parameters,omitempty"`
	Artifacts  map[string][]Artifact `json:"artifacts,omitempty"`
}

func newValues() Values {
	return Values{Parameters: map[string]any{}, Artifacts: map[string][]Artifact{}}
}

// fill makes the maps that an empty JSON object leaves nil.
func (v *Values) fill() {
	if v.Parameters == nil {
		v.Parameters = map[string]any{}
	}
	if v.Artifacts == nil {
		v.Artifacts = map[string][]Artifact{}
	}
}

// Artifact is one typed object that tasks hand on.
type Artifact struct {
	Name     string         `json:"name"` // resource name in the metadata store
	URI      string         `json:"uri"`
	Schema   Schema         `json:"schema"`
	Metadata map[string]any `json:"metadata,omitempty"`
	// Content says that something lay at URI when the task ended; a cache entry
	// whose content is gone does not count.
	Content bool `json:"content,omitempty"`
}

// Schema is the type of an artifact; exactly one of Title, URI and Instance is set.
type Schema struct {
	Title    string `json:"title,omitempty"`
	Version  string `json:"version,omitempty"`
	URI      string `json:"uri,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// Failure says why a task failed.
type Failure struct {
	Message  string         `json:"message"`
	Hint     string         `json:"hint,omitempty"`
	Cause    resource.Cause `json:"cause"`
	Reason   string         `json:"reason,omitempty"`
	ExitCode int            `json:"exitCode,omitempty"` // resource.NeverStarted; 0 = it is not about an exit
	Signal   string         `json:"signal,omitempty"`
	Tail     []string       `json:"tail,omitempty"`
}

// Transition is a state that a task was in, for pipeline_task_status.
type Transition struct {
	Time    time.Time `json:"time"`
	State   State     `json:"state"`
	Failure *Failure  `json:"failure,omitempty"`
}
