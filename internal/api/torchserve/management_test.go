package torchserve_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden holds an answer against a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	if err := os.WriteFile(filepath.Join(store, "there.mar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(_ *engine.Listen, d *api.Deps) { d.Store = store })
	for _, tt := range []struct {
		method, path string
		status       int
		kind, text   string // the type of an error, its message or the status
	}{
		{"POST", "/models", 400, "BadRequestException", "Parameter url is required."},
		{"POST", "/models?url=echo.mar&model_name=new&runtime=python4", 400, "BadRequestException", "Invalid RuntimeType value: python4"},
		{"POST", "/models?url=echo.mar&model_name=new", 200, "", `Model "new" Version: 1.0 registered with 0 initial workers. Use scale workers API to add workers for the model.`},
		{"POST", "/models?url=echo.mar&model_name=new&initial_workers=-1", 200, "", `Model "new" Version: 1.0 registered with 0 initial workers. Use scale workers API to add workers for the model.`},
		{"POST", "/models?url=echo.mar&model_name=new&initial_workers=2", 200, "", `Model "new" Version: 1.0 registered with 2 initial workers`},
		{"POST", "/models?url=echo.mar&model_name=new&initial_workers=2&synchronous=false", 202, "", "Processing worker updates..."},
		{"POST", "/models?url=http://127.0.0.1:1/a/there.mar", 500, "InternalServerException", "Model file already exists there.mar"},
		{"PUT", "/models/echo?min_worker=-1", 500, "IndexOutOfBoundsException", ""},
		{"PUT", "/models/echo?max_worker=-1", 400, "BadRequestException", "max_worker cannot be less than min_worker."},
		{"PUT", "/models/echo?min_worker=2&max_worker=1", 400, "BadRequestException", "max_worker cannot be less than min_worker."},
		{"PUT", "/models/echo?min_worker=1&synchronous=true", 200, "", "Workers scaled to 1 for model: echo"},
		{"PUT", "/models/echo/1.0?min_worker=1&synchronous=true", 200, "", "Workers scaled to 1 for model: echo, version: 1.0"},
		{"PUT", "/models/echo?min_worker=nan&synchronous=nan", 202, "", "Processing worker updates..."},
		{"PUT", "/models/nope?min_worker=1", 404, "ModelNotFoundException", "Model not found: nope"},
		{"PUT", "/models/echo/2.0?min_worker=1", 404, "ModelVersionNotFoundException", ""},
		{"PUT", "/models/echo/1.0/set-default", 200, "", `Default version successfully updated for model "echo" to "1.0"`},
		{"PUT", "/models/echo/2.0/set-default", 404, "ModelVersionNotFoundException", ""},
		{"GET", "/models/echo/1.0/set-default", 405, "MethodNotAllowedException", ""},
		{"GET", "/models/nope", 404, "ModelNotFoundException", "Model not found: nope"},
		{"PATCH", "/models", 405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document."},
		{"PATCH", "/models/echo", 405, "MethodNotAllowedException", ""},
		{"DELETE", "/models/echo/?synchronous=true", 200, "", `Model "echo" unregistered`},
		{"DELETE", "/models/nope", 404, "ModelNotFoundException", "Model not found: nope"},
		{"GET", "/nope", 404, "ResourceNotFoundException", ""},
		{"GET", "/metrics", 404, "ResourceNotFoundException", ""},
		{"GET", "/token?type=inference", 404, "ResourceNotFoundException", ""},
		{"POST", "/workflows", 400, "BadRequestException", "Parameter url is required."},
		{"POST", "/workflows?url=malformed_url,?", 404, "WorkflowNotFoundException", "Workflow not found in workflow store: malformed_url,?"},
		{"GET", "/workflows/nope", 404, "WorkflowNotFoundException", "Workflow not found: nope"},
		{"DELETE", "/workflows/nope", 404, "WorkflowNotFoundException", ""},
		{"PUT", "/workflows/nope", 405, "MethodNotAllowedException", ""},
		{"POST", "/v1/models/echo", 405, "MethodNotAllowedException", ""},
		{"GET", "/", 405, "MethodNotAllowedException", ""},
	} {
		got := ask(t, tt.method, s.management.URL+tt.path, "", "")
		var e struct {
			Code          int
			Type, Message string
			Status        string
		}
		if err := json.Unmarshal([]byte(got.body), &e); err != nil {
			t.Errorf("%s %s: %v in %q", tt.method, tt.path, err, got.body)
		}
		if got.StatusCode != tt.status || e.Type != tt.kind || tt.text != "" && e.Message+e.Status != tt.text || tt.kind != "" && e.Code != tt.status {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, got.StatusCode, got.body)
		}
	}
}

// TestForms: descriptions and lists, field by field as stock TorchServe has them.
func TestForms(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for name, path := range map[string]string{
		"models.json": "/models", "page.json": "/models?limit=1", "model.json": "/models/echo", "ready.json": "/v1/models/echo",
	} {
		got := ask(t, http.MethodGet, s.management.URL+path, "", "")
		golden(t, name, got.body)
	}
	golden(t, "empty.json", ask(t, http.MethodGet, s.management.URL+"/models/echo?customized=true", "", "").body)
	s.engine.customized = []byte(`{"labels": ["a<b"]}`)
	golden(t, "customized.json", ask(t, http.MethodGet, s.management.URL+"/models/echo?customized=true", "", "").body)
	golden(t, "noworkflows.json", ask(t, http.MethodGet, s.management.URL+"/workflows", "", "").body)
	golden(t, "registered.json", ask(t, http.MethodPost, s.management.URL+"/workflows?url=wf.war", "", "").body)
	golden(t, "workflows.json", ask(t, http.MethodGet, s.management.URL+"/workflows?limit=1", "", "").body)
	golden(t, "workflow.json", ask(t, http.MethodGet, s.management.URL+"/workflows/wf", "", "").body)
	golden(t, "ping.json", ask(t, http.MethodGet, s.inference.URL+"/ping", "", "").body)
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for query, want := range map[string]string{
		"": "echo idle|", "?limit=1": "echo|1", "?limit=2": "echo idle|2", "?limit=0": "|0", "?limit=-1": "echo idle|", "?limit=1000": "echo idle|",
		"?limit=x": "echo idle|", "?next_page_token=1": "idle|", "?limit=1&next_page_token=1": "idle|2", "?next_page_token=12": "|", "?limit=1&next_page_token=-1": "echo|1",
		"?limit=100&next_page_token=2147483647": "|",
	} {
		var page struct {
			NextPageToken string
			Models        []struct{ ModelName string }
		}
		got := ask(t, http.MethodGet, s.management.URL+"/models"+query, "", "")
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range page.Models {
			names = append(names, m.ModelName)
		}
		if text := strings.Join(names, " ") + "|" + page.NextPageToken; text != want {
			t.Errorf("/models%s: %s, want %s", query, text, want)
		}
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	two, delay, five, none := 2, 3*time.Millisecond, 5*time.Second, time.Duration(0)
	want := engine.Registration{
		URL: "echo.mar", ModelName: "b", Handler: "h.py:f", Runtime: "python", BatchSize: 4, MaxBatchDelay: &delay, InitialWorkers: &two, ResponseTimeout: &five, StartupTimeout: &none,
		Synchronous: true,
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string][3]string{
		"URL":                {"?url=echo.mar&model_name=b&handler=h.py:f&runtime=python&batch_size=4&max_batch_delay=3&initial_workers=2&response_timeout=5&startup_timeout=0&synchronous=TRUE", "", ""},
		"JSON":               {"", "application/json", `{"url":"echo.mar","model_name":"b","handler":"h.py:f","runtime":"python","batch_size":4,"max_batch_delay":3,"initial_workers":2,"response_timeout":5,"startup_timeout":0}`},
		"JSON with all text": {"", "application/json; charset=utf-8", `{"url":"echo.mar","model_name":"b","handler":"h.py:f","runtime":"python","batch_size":"4","max_batch_delay":"3","initial_workers":"2","response_timeout":"5","startup_timeout":"0","synchronous":"true","s3_sse_kms":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil)
			if got := ask(t, http.MethodPost, s.management.URL+"/models"+request[0], request[1], request[2]); got.StatusCode != http.StatusOK {
				t.Fatalf("%d %s", got.StatusCode, got.body)
			}
			got, err := json.Marshal(s.engine.registered[0])
			if err != nil || string(got) != string(wanted) {
				t.Errorf("registered %s, want %s (%v)", got, wanted, err)
			}
		})
	}
	s := serve(t, nil)
	for _, body := range []string{"", "null", `{"url":`, "[]"} {
		if got := ask(t, http.MethodPost, s.management.URL+"/models", "application/json", body); got.StatusCode != http.StatusBadRequest {
			t.Errorf("body %q: %d %s", body, got.StatusCode, got.body)
		}
	}
	for _, route := range []string{"/models?url=https://b.s3.amazonaws.com/a.mar", "/workflows?url=https://b.s3.amazonaws.com/a.war"} {
		if got := ask(t, http.MethodPost, s.management.URL+route+"&s3_sse_kms=true", "", ""); got.StatusCode != http.StatusBadRequest || !strings.Contains(got.body, "s3://BUCKET/NAME") {
			t.Errorf("s3_sse_kms of %s: %d %s", route, got.StatusCode, got.body)
		}
	}
	ask(t, http.MethodPost, s.management.URL+"/models?url=a.mar&s3_sse_kms=true&batch_size=dd&max_batch_delay=junk&response_timeout=-1", "", "")
	if r := s.engine.registered[0]; r.BatchSize != 0 || r.MaxBatchDelay != nil || r.ResponseTimeout != nil || r.InitialWorkers != nil {
		t.Errorf("values that are no numbers are not left to the defaults: %+v", r)
	}
}

func TestModelAPIOff(t *testing.T) {
	t.Parallel()
	s := serve(t, func(l *engine.Listen, _ *api.Deps) { l.ModelAPI = false })
	for method, path := range map[string]string{http.MethodPost: "/models?url=echo.mar", http.MethodDelete: "/models/echo"} {
		if got := ask(t, method, s.management.URL+path, "", ""); got.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d", method, path, got.StatusCode)
		}
	}
	if got := ask(t, http.MethodPut, s.management.URL+"/models/echo?min_worker=1", "", ""); got.StatusCode != http.StatusAccepted {
		t.Errorf("scaling: %d", got.StatusCode)
	}
	if len(s.engine.registered)+len(s.engine.unregister) > 0 {
		t.Error("the engine was asked all the same")
	}
}

func TestDescriptions(t *testing.T) {
	t.Parallel()
	s := serve(t, func(l *engine.Listen, _ *api.Deps) { l.OpenInference = true })
	for url, path := range map[string]string{
		s.inference.URL + "/":                 "/predictions/{model_name}",
		s.management.URL + "/":                "/models/{model_name}/{model_version}/set-default",
		s.metric.URL + "/":                    "/metrics",
		s.inference.URL + "/predictions/echo": "/predictions/echo",
		s.management.URL + "/models/echo":     "/models/{model_name}",
	} {
		var d struct {
			OpenAPI string
			Info    struct{ Title, Version string }
			Paths   map[string]any
		}
		got := ask(t, http.MethodOptions, url, "", "")
		if err := json.Unmarshal([]byte(got.body), &d); err != nil || got.StatusCode != http.StatusOK || d.OpenAPI != "3.0.1" || d.Info.Version == "" || d.Paths[path] == nil {
			t.Errorf("%s: %d, %v, paths %v", url, got.StatusCode, err, d.Paths)
		}
	}
	if got := ask(t, http.MethodOptions, s.inference.URL+"/predictions/nope", "", ""); got.StatusCode != http.StatusNotFound {
		t.Errorf("the description of no model: %d", got.StatusCode)
	}
	if got := ask(t, http.MethodGet, s.inference.URL+"/api-description", "", ""); got.StatusCode != http.StatusOK {
		t.Errorf("/api-description: %d", got.StatusCode)
	}
}

// TestOneAddress: all APIs at one address, as where inference_address is management_address.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	f := &fake{}
	tokens, err := api.NewTokens(filepath.Join(t.TempDir(), "key_file.json"), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	a := api.New(listen(), api.Deps{Engine: f, Tokens: tokens, Metrics: api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus})})
	keys := readKeys(t, tokens.Path())
	s := newServer(t, a.All(true, true, true))
	for _, tt := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/ping", "inference", 200},
		{"GET", "/ping", "management", 400},
		{"POST", "/predictions/echo", "inference", 200},
		{"POST", "/models/echo/invoke", "inference", 200},
		{"POST", "/v1/models/echo:predict", "inference", 200},
		{"GET", "/models/echo", "management", 200},
		{"GET", "/models/echo", "inference", 400},
		{"PUT", "/models/echo/1.0/set-default", "management", 200},
		{"GET", "/v1/models/echo", "management", 200},
		{"GET", "/workflows", "management", 200},
		{"GET", "/metrics", "", 200},
		{"GET", "/token?type=inference", "management", 400},
	} {
		if got := ask(t, tt.method, s+tt.path, "", "", "Authorization", "Bearer "+keys[tt.key]); got.StatusCode != tt.status {
			t.Errorf("%s %s with the key of %q: %d %s", tt.method, tt.path, tt.key, got.StatusCode, got.body)
		}
	}
}
