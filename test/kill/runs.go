package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
)

//go:embed testdata/*.yaml
var compiled embed.FS

// wanted is the largest number that a task of each pipeline gives.
func wanted() map[string]float64 {
	return map[string]float64{"chain": 5, "fan": 101, "retry": 3, "python": 3}
}

// runs submits pipeline runs and keeps how they ended.
type runs struct {
	*client
	specs map[string]any

	mu    sync.Mutex
	ended map[string]*runDetail // by run id
}

type runDetail struct {
	Name      string
	State     string
	Error     struct{ Message string }
	JobDetail struct{ TaskDetails []taskDetail }
}

type taskDetail struct {
	TaskID         string `json:"taskId"`
	TaskName       string `json:"taskName"`
	State          string `json:"state"`
	Execution      struct{ Metadata map[string]any }
	ExecutorDetail struct {
		ContainerDetail struct {
			MainJob        string
			FailedMainJobs []string
		}
	}
}

func newRuns(c *client) (*runs, error) {
	r := &runs{client: c, specs: map[string]any{}, ended: map[string]*runDetail{}}
	for name := range wanted() {
		text, err := compiled.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			return nil, err
		}
		var spec any
		if err := yaml.Unmarshal(text, &spec); err != nil {
			return nil, err
		}
		r.specs[name] = spec
	}
	return r, nil
}

// run submits one run after the other, of the pipelines in turn.
func (r *runs) run(ctx context.Context, drained <-chan struct{}, id string, random *rand.Rand, pipelines ...string) error {
	for n := 0; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		run := fmt.Sprintf("%s-%d", id, n)
		if err := r.one(ctx, pipelines[n%len(pipelines)], run, random); err != nil {
			return fmt.Errorf("run %s: %w", run, err)
		}
	}
}

// one submits a run and follows it to its end. A submission that a kill cut off
// was done or not: the run is there or it is submitted again.
func (r *runs) one(ctx context.Context, pipeline, run string, random *rand.Rand) error {
	parameters := map[string]any{
		"run": run, "quick": float64(random.IntN(200)) / 1000, "slow": 0.2 + float64(random.IntN(1800))/1000,
	}
	if pipeline == "python" {
		parameters["ledger"] = r.server.ledger
	}
	body := map[string]any{
		"displayName": pipeline, "pipelineSpec": r.specs[pipeline],
		"runtimeConfig": map[string]any{"gcsOutputDirectory": "gs://" + firstBucket + "/runs", "parameterValues": parameters},
	}
	for {
		_, err := r.call(ctx, http.MethodPost, api+"pipelineJobs?pipelineJobId="+run, body, nil)
		if err == nil {
			r.book.acked.Add(1)
			break
		}
		if !errors.Is(err, errKilled) {
			return err
		}
		r.book.settled.Add(1)
		status, err := r.get(ctx, api+"pipelineJobs/"+run, nil, http.StatusNotFound)
		if err != nil {
			return err
		}
		if status == http.StatusOK {
			break
		}
	}
	return r.follow(ctx, pipeline, run)
}

func (r *runs) follow(ctx context.Context, pipeline, run string) error {
	for {
		detail := &runDetail{}
		status, err := r.get(ctx, api+"pipelineJobs/"+run, detail, http.StatusNotFound)
		if err != nil {
			return err
		}
		if status == http.StatusNotFound {
			r.book.isLost("run %s was acknowledged and there is none", run)
			return nil
		}
		switch detail.State {
		case "PIPELINE_STATE_SUCCEEDED":
			r.mu.Lock()
			r.ended[run] = detail
			r.mu.Unlock()
			if got := detail.largest(); got != wanted()[pipeline] {
				r.book.problem("run %s of %s: its largest output is %v, want %v", run, pipeline, got, wanted()[pipeline])
			}
			return nil
		case "PIPELINE_STATE_FAILED", "PIPELINE_STATE_CANCELLED":
			r.book.problem("run %s of %s ended %s: %s", run, pipeline, detail.State, detail.Error.Message)
			return nil
		}
		if err := pause(ctx, 120*time.Millisecond); err != nil {
			return err
		}
	}
}

// largest is the largest output of the tasks.
func (d *runDetail) largest() float64 {
	most := 0.0
	for _, t := range d.JobDetail.TaskDetails {
		for _, name := range []string{"output:total", "output:Output"} {
			if n, ok := t.Execution.Metadata[name].(float64); ok {
				most = max(most, n)
			}
		}
	}
	return most
}

// attempt names one start of one program.
type attempt struct{ run, task, number string }

// check compares what the API says of a run's tasks with the ledger that the
// tasks wrote: each attempt began once, and the one that counts committed once.
func (r *runs) check(ledger *taskLedger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for run, detail := range r.ended {
		for _, t := range detail.JobDetail.TaskDetails {
			main := t.ExecutorDetail.ContainerDetail.MainJob
			if main == "" {
				continue // a graph, or not triggered
			}
			_, number, _ := strings.Cut(strings.TrimPrefix(main, "task-"), "-")
			last, err := strconv.Atoi(number)
			if err != nil || t.State != "SUCCEEDED" {
				r.book.problem("run %s, task %s: %s with workload %q", run, t.TaskName, t.State, main)
				continue
			}
			if want := 1 + strings.Count(t.TaskName, "flaky"); last != want {
				r.book.problem("run %s, task %s: succeeded at attempt %d, want %d", run, t.TaskName, last, want)
			}
			for n := 1; n <= last; n++ {
				ledger.expect(r.book, attempt{run, t.TaskID, strconv.Itoa(n)}, n == last)
			}
		}
	}
}
