package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

const (
	aRun      = "projects/p/locations/l/pipelineJobs/r"
	secondTry = "second try <script>alert(1)</script>\n"
)

// irOf is a pipeline of containers; each name may be followed by those it waits for:
// "b a" runs b after a. A name that starts with loop is a loop over one container
// named body.
func irOf(t *testing.T, steps ...string) *structpb.Struct {
	t.Helper()
	tasks := map[string]any{}
	for _, s := range steps {
		words := strings.Fields(s)
		task := map[string]any{"taskInfo": map[string]any{"name": words[0]}, "componentRef": map[string]any{"name": "comp-x"}}
		if strings.HasPrefix(words[0], "loop") {
			task["componentRef"] = map[string]any{"name": "comp-loop"}
			task["parameterIterator"] = map[string]any{"itemInput": "item", "items": map[string]any{"raw": "[1, 2, 3]"}}
		}
		if len(words) > 1 {
			after := make([]any, 0, len(words))
			for _, w := range words[1:] {
				after = append(after, w)
			}
			task["dependentTasks"] = after
		}
		tasks[words[0]] = task
	}
	item := map[string]any{"parameters": map[string]any{"item": map[string]any{"parameterType": "NUMBER_INTEGER"}}}
	body := map[string]any{"body": map[string]any{"taskInfo": map[string]any{"name": "body"}, "componentRef": map[string]any{"name": "comp-x"}}}
	spec, err := structpb.NewStruct(map[string]any{
		"schemaVersion": "2.1.0", "pipelineInfo": map[string]any{"name": "line"},
		"root": map[string]any{"dag": map[string]any{"tasks": tasks}},
		"components": map[string]any{
			"comp-x":    map[string]any{"executorLabel": "x"},
			"comp-loop": map[string]any{"inputDefinitions": item, "dag": map[string]any{"tasks": body}},
		},
		"deploymentSpec": map[string]any{"executors": map[string]any{"x": map[string]any{"container": map[string]any{"image": "shell", "command": []any{"true"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// world is a store with runs, and the pages over it.
type world struct {
	t      *testing.T
	rows   store.Store
	output *output
	server *httptest.Server
	end    func()
	begin  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	rows, o, s, end := serveUntil(t)
	return &world{t: t, rows: rows, output: o, server: s, end: end, begin: time.Now().Add(-time.Minute)}
}

// run writes a run.
func (w *world) run(job *pb.PipelineJob) {
	w.t.Helper()
	if job.CreateTime == nil {
		job.CreateTime = timestamppb.New(w.begin)
	}
	err := w.rows.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindPipelineJobs, Key: job.Name, State: job.State.String()}, job)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// task writes tasks of a run; what they are in is found by their paths.
func (w *world) task(run string, tasks ...pipeline.Task) {
	w.t.Helper()
	err := w.rows.Update(w.t.Context(), func(tx store.Tx) error {
		for _, task := range tasks {
			task.ID = idOf(task.Path)
			if i := strings.LastIndexByte(task.Path, '/'); task.Path != "" {
				task.Parent, task.Name = idOf(task.Path[:max(i, 0)]), task.Path[i+1:]
			}
			if task.Kind == "" {
				task.Kind = pipeline.KindContainer
			}
			task.Created = w.begin
			data, err := json.Marshal(task)
			if err != nil {
				return err
			}
			if err := tx.Put(w.t.Context(), store.Row{Kind: pipeline.KindTasks, Key: taskName(run, task.ID), Parent: run, State: string(task.State), Data: data}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func idOf(path string) int64 {
	n := int64(7)
	for _, c := range path {
		n = n*131 + int64(c)
	}
	return n & (1<<52 - 1)
}

func (w *world) page(query string) string {
	w.t.Helper()
	code, text := get(w.t, w.server.URL+"/console/"+aRun+query)
	if code != http.StatusOK {
		w.t.Fatalf("%s: %d %s", query, code, text)
	}
	return text
}

// contains checks what is on a page, and what is not ("!...").
func contains(t *testing.T, what, page string, want ...string) {
	t.Helper()
	for _, s := range want {
		text, not := strings.CutPrefix(s, "!")
		if strings.Contains(page, text) == not {
			t.Errorf("%s: on the page %v: %q", what, !not, text)
		}
	}
}

// failedRun is a run whose task fit failed after two attempts.
func (w *world) failedRun() {
	w.run(&pb.PipelineJob{
		Name: aRun, DisplayName: "nightly", State: pb.PipelineState_PIPELINE_STATE_FAILED, PipelineSpec: irOf(w.t, "load", "loop load", "fit load", "report fit"),
		StartTime: timestamppb.New(w.begin), EndTime: timestamppb.New(w.begin.Add(10 * time.Second)),
	})
	at := func(s int) time.Time { return w.begin.Add(time.Duration(s) * time.Second) }
	why := &pipeline.Failure{
		Message: "it ended with ValueError", Hint: "read `tategu logs r/fit`", Cause: resource.CauseUserCode, ExitCode: 3,
		Tail: []string{"Traceback (most recent call last):", "ValueError: <b>no rows</b>", ""},
	}
	w.task(
		aRun,
		pipeline.Task{Kind: pipeline.KindRun, State: pipeline.Failed, Attempt: 1, Started: at(0), Ended: at(10), Inputs: pipeline.Values{Parameters: map[string]any{"epochs": 3}}},
		pipeline.Task{
			Path: "load", State: pipeline.Skipped, CacheKey: "k", Cached: "projects/p/locations/l/pipelineJobs/before/tasks/1", Round: 1, Ended: at(1),
			Outputs: pipeline.Values{Artifacts: map[string][]pipeline.Artifact{"rows": {{Name: "projects/p/locations/l/metadataStores/default/artifacts/9", URI: "gs://b/rows", Schema: pipeline.Schema{Title: "system.Dataset"}}}}},
		},
		pipeline.Task{
			Path: "fit", State: pipeline.Failed, Round: 1, Attempt: 2, Started: at(1), Ended: at(9), Workload: []string{"w1", "w2"}, Failure: why,
			History: []pipeline.Transition{{Time: at(1), State: pipeline.Running}, {Time: at(3), State: pipeline.Failed, Failure: why}, {Time: at(3), State: pipeline.Pending}, {Time: at(5), State: pipeline.Running}, {Time: at(9), State: pipeline.Failed, Failure: why}},
		},
		pipeline.Task{Path: "report", State: pipeline.NotTriggered, Reason: `task "fit" before it did not succeed`, Round: 1, Ended: at(9)},
		pipeline.Task{Path: "loop", Kind: pipeline.KindLoop, State: pipeline.Succeeded, Round: 1, Started: at(1), Ended: at(2)},
	)
	for i := range 3 {
		path := "loop/loop-" + strconv.Itoa(i)
		w.task(
			aRun,
			pipeline.Task{Path: path, Kind: pipeline.KindGraph, State: pipeline.Succeeded, Attempt: 1, Index: i, Started: at(1), Ended: at(2), Inputs: pipeline.Values{Parameters: map[string]any{"item": i + 40}}},
			pipeline.Task{Path: path + "/body", State: pipeline.Succeeded, Round: 1, Attempt: 1, Started: at(1), Ended: at(2), Workload: []string{"b" + strconv.Itoa(i)}},
		)
	}
	w.output.add(taskName(aRun, idOf("fit"))+"|w1", "first try\n")
	w.output.add(taskName(aRun, idOf("fit"))+"|w2", secondTry)
}

// TestRunPage: the page of a failed run says which task, why and what next, shows the
// log, and links lead to attempts, groups, iterations and pages.
func TestRunPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.failedRun()
	page := w.page("")
	contains(
		t, "failed", page,
		"nightly", "ValueError: &lt;b&gt;no rows&lt;/b&gt;", "cause: user code", "exit code 3", "tategu why r/fit", "tategu debug r fit", "read <code>tategu logs r/fit</code>",
		`aria-label="fit: Failed"`, `aria-label="load: Taken over"`, `aria-label="report: Not run"`, `aria-label="loop: Succeeded, 3/3"`,
		"second try &lt;script&gt;alert(1)&lt;/script&gt;", "!<script>alert", "!style=", "!onclick", "!http-equiv", "Show log 1", "6 of 6", fmt.Sprintf("data-end=\"%d\"", len(secondTry)),
		"!loop-1/body: ", `in loop/loop-1`,
	)
	if i, j := strings.Index(page, "ValueError"), strings.Index(page, "<svg role="); i < 0 || i > j {
		t.Errorf("the failing line is not first: %d, the graph %d", i, j)
	}
	contains(t, "an attempt", w.page("?task=fit&attempt=1"), "first try", "!second try", "Show log 2")
	contains(t, "cached", w.page("?step=load"), "From the cache, of", `href="/console/projects/p/locations/l/pipelineJobs/before"`, "gs://b/rows", "Dataset", "metadataStores/default/artifacts/9")
	contains(t, "open", w.page("?open=loop"), `data-step="loop/body"`, `aria-label="body: Succeeded, 3/3"`, "Hide the tasks in loop")
	contains(t, "a loop", w.page("?step=loop"), "3 iterations", "loop-2", "42")
	contains(t, "a step in a loop", w.page("?step=loop%2Fbody"), "3 tasks", "loop/loop-1")
	contains(t, "an iteration", w.page("?task=loop%2Floop-1"), ">41<", "iteration")
	contains(t, "filter", w.page("?state=failed"), "1–1 of 1")
	contains(t, "filter by name", w.page("?find=body"), "1–3 of 3")
	contains(t, "nothing like it", w.page("?find=nowhere"), "No tasks like this")
	contains(t, "a task that is not there", w.page("?task=nowhere"), "ValueError")
	contains(t, "a step that is not there", w.page("?step=nowhere"), "has not come to this task")
	contains(t, "what changes", w.page("?part=live"), "!<svg role=", `id="panel"`, `id="tasks"`)
	for _, query := range []string{"?page=0", "?page=x", "?state=odd", "?width=-1", "?attempt=99999999999"} {
		if code, text := get(t, w.server.URL+"/console/"+aRun+query); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
}

// TestPageHeaders: nothing may be run that is not a file of this server.
func TestPageHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.failedRun()
	for _, path := range []string{"/", "/console/runs", "/console/" + aRun} {
		resp := request(t, w.server.URL+path, nil)
		text, err := readAll(resp)
		resp.Body.Close()
		csp := resp.Header.Get("Content-Security-Policy")
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(csp, "default-src 'none'; script-src 'self'") || strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v %v", path, resp.StatusCode, resp.Header, err)
		}
		for rest := text; ; {
			_, after, more := strings.Cut(rest, `"/console/assets/`)
			if !more {
				break
			}
			asset, tail, _ := strings.Cut(after, `"`)
			rest = tail
			resp := request(t, w.server.URL+"/console/assets/"+asset, nil)
			body, err := readAll(resp)
			resp.Body.Close()
			kind := resp.Header.Get("Content-Type")
			if err != nil || resp.StatusCode != http.StatusOK || body == "" || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") || strings.HasSuffix(asset, ".js") && !strings.Contains(kind, "javascript") || strings.HasSuffix(asset, ".css") && !strings.Contains(kind, "css") {
				t.Errorf("%s: %d %s %v", asset, resp.StatusCode, kind, resp.Header)
			}
		}
		for _, not := range []string{"<style", " style=", "<script>", "javascript:", "http://", "https://"} {
			if strings.Contains(text, not) {
				t.Errorf("%s has %q", path, not)
			}
		}
	}
	if code, _ := get(t, w.server.URL+"/console/assets/x/none.js"); code != http.StatusNotFound {
		t.Errorf("a file that is not there: %d", code)
	}
}

func request(t *testing.T, address string, header map[string]string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestPictureStays: where nodes are depends on the pipeline and on what is open, and
// not on how the run goes.
func TestPictureStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := irOf(t, "a", "b a", "c a", "d b c", "loop a")
	w.run(&pb.PipelineJob{Name: aRun, State: pb.PipelineState_PIPELINE_STATE_RUNNING, PipelineSpec: spec})
	w.task(aRun, pipeline.Task{Kind: pipeline.KindRun, State: pipeline.Running, Attempt: 1})
	node := regexp.MustCompile(`<g class="node[^>]* data-step="([^"]*)"[^>]* transform="([^"]*)"`)
	places := func() string {
		var out []string
		for _, m := range node.FindAllStringSubmatch(w.page("?open=loop"), -1) {
			out = append(out, m[1]+" "+m[2])
		}
		return strings.Join(out, "\n")
	}
	before := places()
	if strings.Count(before, "translate") != 6 {
		t.Fatalf("drawn are %s", before)
	}
	for _, state := range []pipeline.State{pipeline.Pending, pipeline.Running, pipeline.Failed, pipeline.Succeeded} {
		w.task(aRun, pipeline.Task{Path: "a", State: state, Round: 1, Started: w.begin}, pipeline.Task{Path: "b", State: pipeline.Pending, Round: 1})
		if after := places(); after != before {
			t.Errorf("with a %s nodes are at\n%s, before at\n%s", state, after, before)
		}
	}
}

// TestOddNames: names and texts of people are text wherever they are shown.
func TestOddNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	odd := `"><img src=x onerror=alert(1)>'&{{.}}`
	w.run(&pb.PipelineJob{Name: aRun, DisplayName: odd, State: pb.PipelineState_PIPELINE_STATE_FAILED, PipelineSpec: irOf(t, "a"), Labels: map[string]string{"l": odd}, ServiceAccount: odd})
	w.task(
		aRun,
		pipeline.Task{Kind: pipeline.KindRun, State: pipeline.Failed, Attempt: 1, Warnings: []string{odd}, Inputs: pipeline.Values{Parameters: map[string]any{odd: odd}}},
		pipeline.Task{Path: odd, State: pipeline.Failed, Round: 1, Attempt: 1, Reason: odd, Workload: []string{odd}, Failure: &pipeline.Failure{Message: odd, Hint: odd + "`" + odd + "`", Tail: []string{odd}, Signal: odd}},
	)
	w.output.add(taskName(aRun, idOf(odd))+"|"+odd, odd)
	for _, query := range []string{"", "?part=live", "?task=" + url.QueryEscape(odd), "?step=" + url.QueryEscape(odd), "?find=" + url.QueryEscape(odd), "?open=" + url.QueryEscape(odd)} {
		contains(t, query, w.page(query), "!<img", "!onerror=alert(1)>", "&gt;&lt;img")
	}
	code, text := get(t, w.server.URL+"/console/runs?find="+url.QueryEscape("onerror"))
	if code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	contains(t, "runs", text, "!<img", "&lt;img")
}

// TestRunsPage: pages of runs, newest first, by state and name; other projects' runs
// are not on them.
func TestRunsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 120 {
		job := &pb.PipelineJob{Name: fmt.Sprintf("projects/p/locations/l/pipelineJobs/run-%03d", i), DisplayName: "even", State: pb.PipelineState_PIPELINE_STATE_SUCCEEDED}
		if i%2 == 1 {
			job.DisplayName, job.State = "odd", pb.PipelineState_PIPELINE_STATE_FAILED
		}
		w.run(job)
		w.run(&pb.PipelineJob{Name: fmt.Sprintf("projects/other/locations/l/pipelineJobs/secret-%03d", i), DisplayName: "even secret"})
	}
	for query, want := range map[string]int{"": 120, "?state=failed": 60, "?find=EVEN": 60, "?find=run-01": 10, "?state=running": 0, "?find=secret": 0} {
		found, pages, next := 0, 0, "/console/runs"+query
		for next != "" {
			code, text := get(t, w.server.URL+next)
			if code != http.StatusOK || strings.Contains(text, "secret-") {
				t.Fatalf("%s: %d %s", next, code, text)
			}
			found += strings.Count(text, `href="/console/projects/p/`)
			pages++
			next = ""
			if _, after, ok := strings.Cut(text, `">Older<`); ok {
				before := text[:len(text)-len(after)-len(`">Older<`)]
				next = strings.ReplaceAll(before[strings.LastIndex(before, `"`)+1:], "&amp;", "&")
			}
		}
		if found != want || want > 0 && pages != (want+49)/50 {
			t.Errorf("%q: %d runs on %d pages, want %d", query, found, pages, want)
		}
	}
	for _, query := range []string{"?state=odd", "?beyond=x"} {
		if code, _ := get(t, w.server.URL+"/console/runs"+query); code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, code)
		}
	}
}
