package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
)

// flowPrefix begins the id of every run whose programs are killed, also of those
// that a schedule starts.
const flowPrefix = "flow-"

// flows submits runs whose programs are killed: it cancels, reruns and deletes some,
// and judges all.
type flows struct {
	*client
	specs map[string]any

	mu      sync.Mutex
	judged  map[string]*flowRun // by id
	deleted map[string]bool
	counts  map[string]int // of ends
}

func newFlows(c *client) (*flows, error) {
	f := &flows{client: c, specs: map[string]any{}, judged: map[string]*flowRun{}, deleted: map[string]bool{}, counts: map[string]int{}}
	for name := range shapes() {
		text, err := compiled.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			return nil, err
		}
		var spec any
		if err := yaml.Unmarshal(text, &spec); err != nil {
			return nil, err
		}
		f.specs[name] = spec
	}
	return f, nil
}

// flowRun is a run with all that was read of it once it had ended.
type flowRun struct {
	id, pipeline string
	original     *flowRun // that it goes on with
	earlier      *flowRun // of the same original, whose results it may find in the cache
	alone        string   // the one program of it that is entered again; "" = all that did not succeed
	cancelled    bool     // that was asked for
	detail       *flowDetail
	data         map[string]string   // content of made/data, by the artifact's URI
	files        map[string][]string // names below the artifact's URI
	log          string
}

// run submits one run after the other until the loop is drained.
func (f *flows) run(ctx context.Context, drained <-chan struct{}, id string, random *rand.Rand, pipelines ...string) error {
	for n := 0; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		r := &flowRun{id: fmt.Sprintf("%s%s-%d", flowPrefix, id, n), pipeline: pipelines[n%len(pipelines)]}
		if err := f.whole(ctx, r, random); err != nil {
			return fmt.Errorf("run %s: %w", r.id, err)
		}
	}
}

// whole runs one, with what its fate is by the seed.
func (f *flows) whole(ctx context.Context, r *flowRun, random *rand.Rand) error {
	body := map[string]any{
		"displayName": r.pipeline, "pipelineSpec": f.specs[r.pipeline],
		"runtimeConfig": map[string]any{"gcsOutputDirectory": "gs://" + firstBucket + "/flows", "parameterValues": map[string]any{
			"run": r.id, "ledger": f.server.flows, "quick": float64(random.IntN(100)) / 1000,
			"slow": float64(f.server.pace.Load()) * (0.2 + float64(random.IntN(900))/1000), // so that programs outlive a restart
		}},
	}
	cancel, again, remove := random.IntN(6) == 0, random.IntN(4) > 0, random.IntN(4) == 0
	moment := time.Duration(random.IntN(2500)) * time.Millisecond
	if err := f.submit(ctx, r.id, body); err != nil {
		return err
	}
	if cancel {
		if err := f.cancel(ctx, r, moment); err != nil {
			return err
		}
	}
	if err := f.follow(ctx, r); err != nil {
		return err
	}
	var alone, next *flowRun
	if again && r.detail.State == runFailed {
		var err error
		if alone, err = f.debug(ctx, r, body); err != nil {
			return fmt.Errorf("debug: %w", err)
		}
		next = &flowRun{id: r.id + "-again", pipeline: r.pipeline, original: r, earlier: alone}
		if err := f.rerun(ctx, next, body); err != nil {
			return fmt.Errorf("rerun: %w", err)
		}
	}
	if !remove {
		return nil
	}
	for _, gone := range []*flowRun{alone, next, r} { // a rerun does not need its original
		if gone == nil {
			continue
		}
		if err := f.remove(ctx, gone); err != nil {
			return err
		}
	}
	return nil
}

// submit repeats what a kill cut off; that it exists by then says that it was done.
func (f *flows) submit(ctx context.Context, id string, body any) error {
	for {
		_, err := f.call(ctx, http.MethodPost, api+"pipelineJobs?pipelineJobId="+id, body, nil, http.StatusConflict)
		if err == nil {
			f.book.acked.Add(1)
			return nil
		}
		if !errors.Is(err, errKilled) {
			return err
		}
		f.book.settled.Add(1)
	}
}

// insist repeats a call that may be done twice.
func (f *flows) insist(ctx context.Context, method, path string, in, out any, allowed ...int) (int, error) {
	for {
		status, err := f.call(ctx, method, path, in, out, allowed...)
		if !errors.Is(err, errKilled) {
			f.book.acked.Add(1)
			return status, err
		}
		f.book.settled.Add(1)
	}
}

func (f *flows) cancel(ctx context.Context, r *flowRun, after time.Duration) error {
	if err := pause(ctx, after); err != nil {
		return err
	}
	r.cancelled = true
	_, err := f.insist(ctx, http.MethodPost, api+"pipelineJobs/"+r.id+":cancel", map[string]any{}, nil)
	return err
}

// debug enters a program that failed again, as the verb debug does: by a run that takes
// over what succeeded and ends after that program. It is nil where none failed.
func (f *flows) debug(ctx context.Context, failed *flowRun, body map[string]any) (*flowRun, error) {
	for _, t := range failed.detail.JobDetail.TaskDetails {
		if t.isProgram() && t.State == taskFailed && t.TaskName != nameFinish && len(t.workloads()) > 0 {
			f.mu.Lock()
			f.counts["tasks entered again"]++
			f.mu.Unlock()
			r := &flowRun{id: failed.id + "-debug", pipeline: failed.pipeline, original: failed, alone: t.TaskUniqueName}
			return r, f.rerun(ctx, r, body)
		}
	}
	return nil, nil
}

// rerun goes on with a run that failed: what succeeded is not run again.
func (f *flows) rerun(ctx context.Context, r *flowRun, body map[string]any) error {
	var configs []any
	for _, t := range r.original.detail.JobDetail.TaskDetails {
		if t.TaskUniqueName == r.alone {
			configs = append(configs, map[string]any{"taskName": t.TaskUniqueName, "skipDownstreamTasks": true})
			continue
		}
		if t.ParentTaskID != "" && t.ParentTaskID != "0" {
			configs = append(configs, map[string]any{"taskName": t.TaskUniqueName, "skipTask": t.State == taskSucceeded && t.isProgram() && t.TaskName != nameFinish})
		}
	}
	body = maps.Clone(body)
	body["originalPipelineJobId"] = r.original.detail.Labels["vertex-ai-pipelines-run-billing-id"]
	body["pipelineTaskRerunConfigs"] = configs
	if err := f.submit(ctx, r.id, body); err != nil {
		return err
	}
	return f.follow(ctx, r)
}

// remove deletes a run that has ended.
func (f *flows) remove(ctx context.Context, r *flowRun) error {
	if _, err := f.insist(ctx, http.MethodDelete, api+"pipelineJobs/"+r.id, nil, nil, http.StatusNotFound); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	f.mu.Lock()
	f.deleted[r.id] = true
	f.mu.Unlock()
	return f.isGone(ctx, r.id)
}

func (f *flows) isGone(ctx context.Context, id string) error {
	status, err := f.get(ctx, api+"pipelineJobs/"+id, nil, http.StatusNotFound)
	if err == nil && status != http.StatusNotFound {
		f.book.isLost("the deletion of run %s was acknowledged and it is there", id)
	}
	return err
}

// flowPatience is for how long nothing may happen in a run on a slow machine.
const flowPatience = 4 * time.Minute

// follow waits for the end of a run, then reads and judges it.
func (f *flows) follow(ctx context.Context, r *flowRun) error {
	began, open := time.Now(), ""
	for {
		r.detail = &flowDetail{}
		status, err := f.get(ctx, api+"pipelineJobs/"+r.id, r.detail, http.StatusNotFound)
		if err != nil {
			return err
		}
		if status == http.StatusNotFound {
			f.book.isLost("run %s was acknowledged and there is none", r.id)
			return nil
		}
		if r.detail.ended() {
			break
		}
		if now := r.detail.open(); now != open {
			began, open = time.Now(), now
		}
		if time.Since(began) > flowPatience {
			return fmt.Errorf("it does not end: %s, and for %v nothing happened with %s", r.detail.State, flowPatience, open)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := f.read(ctx, r); err != nil {
		return err
	}
	ledger, err := readTraces(f.server.flows)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judged[r.id] = r
	f.counts[r.detail.State]++
	for _, problem := range r.judge(ledger) {
		f.book.problem("run %s of %s: %s", r.id, r.pipeline, problem)
	}
	return nil
}

// read gets the log and the artifacts of a run that has ended.
func (f *flows) read(ctx context.Context, r *flowRun) error {
	text, err := f.text(ctx, "/tategu/v1/logs?resource="+url.QueryEscape(r.detail.Name))
	if err != nil {
		return err
	}
	r.log = text
	r.data, r.files = map[string]string{}, map[string][]string{}
	for _, t := range r.detail.JobDetail.TaskDetails {
		for _, a := range t.Outputs["made"].Artifacts {
			if _, done := r.files[a.URI]; done || t.State != taskSucceeded {
				continue
			}
			if err := f.readArtifact(ctx, r, a.URI); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *flows) readArtifact(ctx context.Context, r *flowRun, uri string) error {
	bucket, name, _ := strings.Cut(strings.TrimPrefix(uri, "gs://"), "/")
	var list struct{ Items []struct{ Name string } }
	if _, err := f.get(ctx, "/storage/v1/b/"+bucket+"/o?prefix="+url.QueryEscape(name), &list); err != nil {
		return err
	}
	r.files[uri] = []string{}
	for _, o := range list.Items {
		r.files[uri] = append(r.files[uri], strings.TrimPrefix(o.Name, name))
		if o.Name != name && o.Name != name+"/data" {
			continue
		}
		text, err := f.text(ctx, "/storage/v1/b/"+bucket+"/o/"+url.PathEscape(o.Name)+"?alt=media")
		if err != nil {
			return err
		}
		r.data[uri] = text
	}
	slices.Sort(r.files[uri])
	return nil
}

// text reads what is no JSON, as often as it takes until no kill comes between.
func (f *flows) text(ctx context.Context, path string) (string, error) {
	for {
		a, err := f.do(ctx, request{method: http.MethodGet, path: path})
		switch {
		case errors.Is(err, errKilled):
		case err != nil:
			return "", err
		case a.status != http.StatusOK:
			return "", fmt.Errorf("GET %s: %s", path, a)
		default:
			return string(a.body), nil
		}
	}
}
