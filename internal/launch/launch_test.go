package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/launch"
	"tategu/internal/resource"
)

const parent = "projects/p/locations/l"

// server answers as the API does, as far as launchers see it: it makes what has an
// id once, and remembers it.
type server struct {
	mu     sync.Mutex
	made   map[string]any // by name: jobs, operations, endpoints
	calls  []string
	answer func(method, path string, body map[string]any) (status int, answer any) // 0 = as the API would
	states []string                                                                // that a job is found in, one look each; the last stays
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var body map[string]any
	if text, err := io.ReadAll(r.Body); err != nil || len(text) > 0 && json.Unmarshal(text, &body) != nil {
		http.Error(w, "not JSON", http.StatusTeapot)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.calls = append(s.calls, r.Method+" "+strings.TrimPrefix(path, parent+"/"))
	status, answer := 0, any(nil)
	if s.answer != nil {
		status, answer = s.answer(r.Method, path, body)
	}
	if status == 0 {
		status, answer = s.usual(r.Method, path, r.Header.Get(resource.IDHeader))
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(err)
	}
}

func apiError(status int, code, message string) (int, any) {
	return status, map[string]any{"error": map[string]any{"code": status, "status": code, "message": message}}
}

func (s *server) usual(method, path, id string) (int, any) {
	switch {
	case method == http.MethodPost && strings.HasSuffix(path, ":cancel"):
		return http.StatusOK, map[string]any{}
	case method == http.MethodPost && strings.HasSuffix(path, "Jobs"):
		name := path + "/" + id
		if s.made[name] != nil {
			return apiError(http.StatusConflict, "ALREADY_EXISTS", name+" already exists")
		}
		s.made[name] = map[string]any{"name": name, "state": "JOB_STATE_QUEUED"}
		return http.StatusOK, s.made[name]
	case method == http.MethodGet:
		found := s.made[path]
		if found == nil {
			return apiError(http.StatusNotFound, "NOT_FOUND", path+" was not found")
		}
		if job, ok := found.(map[string]any); ok && strings.Contains(path, "Jobs/") && len(s.states) > 0 {
			job["state"] = s.states[0]
			s.states = s.states[min(1, len(s.states)-1):]
		}
		return http.StatusOK, found
	}
	return apiError(http.StatusNotImplemented, "UNIMPLEMENTED", method+" "+path)
}

// world is a server and a directory for what launchers write.
type world struct {
	*server
	dir string
	api *launch.API
	log strings.Builder
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{server: &server{made: map[string]any{}}, dir: t.TempDir()}
	h := httptest.NewServer(w.server)
	t.Cleanup(h.Close)
	w.api = &launch.API{
		Base: h.URL, HTTP: h.Client(),
		Token: func(context.Context, bool) (string, error) { return "token", nil },
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	return w
}

func (w *world) run(ctx context.Context, attempt int, module string, args ...string) error {
	return launch.Run(ctx, launch.Config{
		API: w.api, Module: gcpc.Prefix + module, Args: append(args, "--gcp_resources", "/gcs/b/task/gcp_resources"),
		Task: "task", Attempt: attempt, Labels: `{"run": "7"}`, GCS: w.dir, Log: &w.log,
	})
}

func (w *world) customJob(ctx context.Context, attempt int) error {
	return w.run(ctx, attempt, gcpc.CustomJob, "--type", "CustomJob", "--payload", `{"display_name": "d"}`, "--project", "p", "--location", "l")
}

// read gives what the launcher wrote into its task's directory.
func (w *world) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "b", "task", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (w *world) jobs() int {
	n := 0
	for name := range w.made {
		if strings.Contains(name, "Jobs/") {
			n++
		}
	}
	return n
}

func TestCustomJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.states = []string{"JOB_STATE_RUNNING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"}
	if err := w.customJob(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var name string
	for name = range w.made {
	}
	want := `{"resources":[{"resourceType":"CustomJob","resourceUri":"https://l-aiplatform.googleapis.com/v1/` + name + `"}]}`
	if got := w.read(t, "gcp_resources"); got != want {
		t.Errorf("gcp_resources = %s, want %s", got, want)
	}
	if got := strings.Count(w.log.String(), "JOB_STATE_RUNNING"); got != 1 {
		t.Errorf("a state is said when it changes:\n%s", w.log.String())
	}
}

// TestOneJobATask: whatever happened to earlier starts, there is one job, until it
// has failed and a later attempt makes another.
func TestOneJobATask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.states = []string{"JOB_STATE_SUCCEEDED"}
	for _, attempt := range []int{1, 1, 2} {
		if err := w.customJob(t.Context(), attempt); err != nil || w.jobs() != 1 {
			t.Fatalf("attempt %d: %d jobs, %v", attempt, w.jobs(), err)
		}
	}
	w.states = []string{"JOB_STATE_FAILED"}
	if err := w.customJob(t.Context(), 1); err == nil || w.jobs() != 1 {
		t.Fatalf("the same attempt again: %d jobs, %v", w.jobs(), err)
	}
	w.states = []string{"JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"}
	if err := w.customJob(t.Context(), 2); err != nil || w.jobs() != 2 {
		t.Fatalf("the next attempt: %d jobs, %v", w.jobs(), err)
	}
}

// TestLostAnswer: the job is made, and nobody hears of it.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.states = []string{"JOB_STATE_SUCCEEDED"}
	lost := 3
	w.answer = func(method, path string, _ map[string]any) (int, any) {
		if lost--; method == http.MethodPost && lost >= 0 {
			w.usual(method, path, resource.IDOf("task\x001"))
			return apiError(http.StatusServiceUnavailable, "UNAVAILABLE", "restarting")
		}
		return 0, nil
	}
	if err := w.customJob(t.Context(), 1); err != nil || w.jobs() != 1 {
		t.Fatalf("%d jobs, %v", w.jobs(), err)
	}
}

func TestFailedJobTellsItsCause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inner := &resource.Error{
		Code: codes.FailedPrecondition, Message: "replica 0-0: the program ended", Cause: resource.CauseUserCode, Reason: "EXIT", Hint: "see `tategu logs 1`",
		Program: &resource.Program{ExitCode: 17, Tail: []string{"no room", "for the index"}},
	}
	w.answer = func(method, path string, _ map[string]any) (int, any) {
		if method != http.MethodGet {
			return 0, nil
		}
		return http.StatusOK, map[string]any{"name": path, "state": "JOB_STATE_FAILED", "error": map[string]any{
			"code": 9, "message": inner.Error(), "details": []any{
				map[string]any{"reason": "EXIT", "metadata": map[string]string{"cause": "user code", "exitCode": "17"}},
				map[string]any{"links": []any{map[string]string{"description": inner.Hint}}},
			},
		}}
	}
	err := w.customJob(t.Context(), 1)
	e, ok := errors.AsType[*resource.Error](err)
	if !ok || !strings.Contains(e.Message, "customJobs/") || !strings.HasSuffix(e.Message, "failed: "+inner.Message) {
		t.Fatalf("%v", err)
	}
	f := gcpc.ParseFault([]byte(w.read(t, gcpc.FaultFile)))
	if f == nil || f.Cause != resource.CauseUserCode || f.ExitCode != 17 || f.Reason != "EXIT" || f.Hint != inner.Hint || strings.Join(f.Tail, "|") != "no room|for the index" {
		t.Errorf("%+v", f)
	}
}

func TestCancelledTaskCancelsItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.answer = func(method, _ string, _ map[string]any) (int, any) {
		if method == http.MethodGet {
			cancel()
		}
		return 0, nil
	}
	err := w.customJob(ctx, 1)
	if resource.CodeOf(err) != codes.Canceled {
		t.Fatalf("%v", err)
	}
	if last := w.calls[len(w.calls)-1]; !strings.HasPrefix(last, "POST customJobs/") || !strings.HasSuffix(last, ":cancel") {
		t.Errorf("the last call was %s", last)
	}
	before := len(w.calls)
	if err := w.customJob(ctx, 1); resource.CodeOf(err) != codes.Canceled || len(w.calls) != before {
		t.Errorf("a launch that was cancelled before it began called %v: %v", w.calls[before:], err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		module string
		args   []string
		code   codes.Code
		say    string
	}{
		"no JSON":        {gcpc.CustomJob, []string{"--type", "CustomJob", "--payload", `{"a": "b"c"}`, "--project", "p", "--location", "l"}, codes.InvalidArgument, "--payload is not JSON"},
		"no project":     {gcpc.CustomJob, []string{"--type", "CustomJob", "--payload", `{}`, "--project", "", "--location", "l"}, codes.InvalidArgument, "--project"},
		"a path":         {gcpc.CustomJob, []string{"--type", "CustomJob", "--payload", `{}`, "--project", "p/../q", "--location", "l"}, codes.InvalidArgument, "--project"},
		"no endpoint":    {gcpc.DeployModel, []string{"--type", "DeployModel", "--payload", `{"endpoint": ""}`, "--project", "", "--location", ""}, codes.InvalidArgument, "endpoint is"},
		"no model":       {gcpc.DeleteModel, []string{"--type", "DeleteModel", "--payload", `{"model": "models/1"}`, "--project", "", "--location", ""}, codes.InvalidArgument, "model is"},
		"executor input": {gcpc.CreateEndpoint, []string{"--type", "CreateEndpoint", "--payload", `{}`, "--project", "p", "--location", "l", "--executor_input", "x"}, codes.InvalidArgument, "--executor_input"},
		"a dataflow job": {gcpc.WaitResources, []string{"--type", "Wait", "--payload", `{"resources": [{"resourceType": "DataflowJob"}]}`, "--project", "", "--location", ""}, codes.Unimplemented, "DataflowJob"},
		"not a module":   {"container.v1.bigquery.query_job.launcher", nil, codes.Unimplemented, "bigquery"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			err := w.run(t.Context(), 1, tc.module, tc.args...)
			if resource.CodeOf(err) != tc.code || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%v, want %q", err, tc.say)
			}
			if len(w.calls) != 0 {
				t.Errorf("called %v", w.calls)
			}
		})
	}
}

// TestForbidden: the answer's own words, once; a token that is refused is renewed.
func TestForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	renewed := 0
	w.api.Token = func(_ context.Context, renew bool) (string, error) {
		if renew {
			renewed++
		}
		return "token", nil
	}
	w.answer = func(method, _ string, _ map[string]any) (int, any) {
		if renewed == 0 {
			return apiError(http.StatusUnauthorized, "UNAUTHENTICATED", "expired")
		}
		return apiError(http.StatusForbidden, "PERMISSION_DENIED", "reader@p may not "+method)
	}
	err := w.customJob(t.Context(), 1)
	if resource.CodeOf(err) != codes.PermissionDenied || renewed == 0 || strings.Count(err.Error(), "reader@p may not POST") != 1 {
		t.Errorf("renewed %d times: %v", renewed, err)
	}
	if f := gcpc.ParseFault([]byte(w.read(t, gcpc.FaultFile))); f == nil || f.Cause != resource.CauseInput {
		t.Errorf("%+v", f)
	}
}

// operations makes the server's changes start operations that have ended, under the
// ids that callers choose.
func (w *world) operations(response map[string]any) {
	w.answer = func(method, path string, _ map[string]any) (int, any) {
		on, _, _ := strings.Cut(strings.TrimSuffix(path, ":upload"), ":")
		if method == http.MethodGet || strings.Contains(path, "/operations/") {
			return 0, nil
		}
		id := resource.IDOf("task\x001")
		switch {
		case strings.HasSuffix(on, "/models"), strings.HasSuffix(on, "/endpoints"):
			on += "/" + id
		}
		name := on + "/operations/" + id
		if w.made[name] != nil {
			return apiError(http.StatusConflict, "ALREADY_EXISTS", name)
		}
		w.made[name] = map[string]any{"name": name, "done": true, "response": response}
		return http.StatusOK, w.made[name]
	}
}

const executorInput = `{"outputs": {"outputFile": "/gcs/b/task/executor_output.json", "artifacts": {
	"model": {"artifacts": [{"name": "m", "uri": "gs://b/task/model"}]}, "endpoint": {"artifacts": [{"name": "e"}]}}}}`

// TestChangesHappenOnce: a second start finds the operation of the first and writes
// the same outputs.
func TestChangesHappenOnce(t *testing.T) {
	t.Parallel()
	endpoint, model := parent+"/endpoints/5", parent+"/models/6"
	place := []string{"--project", "p", "--location", "l", "--executor_input", executorInput}
	for name, tc := range map[string]struct {
		module   string
		args     []string
		response map[string]any
		first    string // what is called
		artifact string // the resource that the output names
	}{
		"upload": {
			gcpc.UploadModel, append([]string{"--type", "UploadModel", "--payload", `{"display_name": "d"}`}, place...),
			map[string]any{"model": model, "modelVersionId": "1"},
			"POST models:upload", model + "@1",
		},
		"endpoint":        {gcpc.CreateEndpoint, append([]string{"--type", "CreateEndpoint", "--payload", `{}`}, place...), map[string]any{"name": endpoint}, "POST endpoints", endpoint},
		"deploy":          {gcpc.DeployModel, append([]string{"--type", "DeployModel", "--payload", `{"endpoint": "` + endpoint + `"}`}, place...), nil, "POST endpoints/5:deployModel", ""},
		"delete":          {gcpc.DeleteModel, append([]string{"--type", "DeleteModel", "--payload", `{"model": "` + model + `@3"}`}, place...), nil, "DELETE models/6", ""},
		"delete endpoint": {gcpc.DeleteEndpoint, append([]string{"--type", "DeleteEndpoint", "--payload", `{"endpoint": "` + endpoint + `"}`}, place...), nil, "DELETE endpoints/5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.operations(tc.response)
			for start := range 3 {
				if err := w.run(t.Context(), start+1, tc.module, tc.args...); err != nil {
					t.Fatalf("start %d: %v", start, err)
				}
			}
			if len(w.made) != 1 || w.calls[0] != tc.first {
				t.Errorf("made %v by %v", w.made, w.calls)
			}
			if got := w.read(t, "gcp_resources"); !strings.Contains(got, `"VertexLro"`) || !strings.Contains(got, "/operations/"+resource.IDOf("task\x001")) {
				t.Errorf("gcp_resources = %s", got)
			}
			if tc.artifact != "" {
				if got := w.read(t, "executor_output.json"); !strings.Contains(got, fmt.Sprintf(`"resourceName":%q`, tc.artifact)) {
					t.Errorf("the output says %s", got)
				}
			}
		})
	}
}

func TestUndeployFindsTheVersion(t *testing.T) {
	t.Parallel()
	model := parent + "/models/6"
	w := newWorld(t)
	w.operations(nil)
	w.made[parent+"/endpoints/5"] = map[string]any{"deployedModels": []any{
		map[string]string{"id": "10", "model": model, "modelVersionId": "1"}, map[string]string{"id": "20", "model": model, "modelVersionId": "2"},
	}}
	var asked map[string]any
	usual := w.answer
	w.answer = func(method, path string, body map[string]any) (int, any) {
		if method == http.MethodPost {
			asked = body
		}
		return usual(method, path, body)
	}
	undeploy := func(model string) error {
		return w.run(t.Context(), 1, gcpc.UndeployModel, "--type", "UndeployModel", "--project", "", "--location", "",
			"--payload", `{"endpoint": "`+parent+`/endpoints/5", "model": "`+model+`", "traffic_split": {"10": 100}}`)
	}
	if err := undeploy(model + "@3"); resource.CodeOf(err) != codes.NotFound || !strings.Contains(err.Error(), "@3 is not deployed") {
		t.Errorf("%v", err)
	}
	if err := undeploy(model + "@2"); err != nil || asked["deployed_model_id"] != "20" || asked["traffic_split"] == nil {
		t.Errorf("asked for %v: %v", asked, err)
	}
}

func TestServerThatStaysAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pauses := 0
	w.api.Base = "http://127.0.0.1:1"
	w.api.Sleep = func(context.Context, time.Duration) error { pauses++; return nil }
	err := w.customJob(t.Context(), 1)
	if err == nil || pauses < 100 || strings.Count(w.log.String(), "trying again") != 2 || // to make the job, and to find it
		!strings.Contains(err.Error(), "no answer from the server") {
		t.Errorf("%v after %d pauses", err, pauses)
	}
}
