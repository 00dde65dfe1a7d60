package torchserve_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

const form = "--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"a.bin\"\r\nContent-Type: image/png\r\n\r\npixels\r\n" +
	"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n"

const noResource = "{\n  \"code\": 404,\n  \"type\": \"ResourceNotFoundException\",\n  \"message\": \"Requested resource is not found, please refer to API document.\"\n}\n"

// TestPredictions: what stock TorchServe 0.12 answered to the same requests, its handler
// writing what it was given.
func TestPredictions(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, tt := range []struct {
		name, path, kind, body string
		status                 int
		want                   string
	}{
		{"no body", "/predictions/echo", "", "", 200, "body[]="},
		{"a body", "/predictions/echo", "text/plain; charset=utf-8", "hello", 200, "body[text/plain]=hello"},
		{"a version", "/predictions/echo/1.0", "text/plain", "hello", 200, "body[text/plain]=hello"},
		{"what follows", "/predictions/echo/1.0/extra/path", "text/plain", "hello", 200, "path=extra/path body[text/plain]=hello"},
		{"a query is not the handler's", "/predictions/echo?a=1&b=2", "application/json", `{"x":1}`, 200, `body[application/json]={"x":1}`},
		{"a form with a file", "/predictions/echo", "multipart/form-data; boundary=b", form, 200, "data[image/png]=pixels x[]=1"},
		{"an encoded form", "/predictions/echo", "application/x-www-form-urlencoded", "a=1&b=%202&a=3", 200, "a[]=1 b[]= 2 a[]=3"},
		{"explain", "/explanations/echo", "text/plain", "x", 200, "explain body[text/plain]=x"},
		{"legacy", "/echo/predict?a=1", "text/plain", "x", 200, "a[]=1 body[text/plain]=x"},
		{"legacy with a version", "/echo/1.0/predict?a=1", "text/plain", "x", 200, "a[]=1 body[text/plain]=x"},
		{"SageMaker", "/models/echo/invoke?a=1", "text/plain", "x", 200, "a[]=1 body[text/plain]=x"},
		{"SageMaker with a name", "/invocations?model_name=echo", "text/plain", "x", 200, "model_name[]=echo body[text/plain]=x"},
		{"SageMaker with the only model of the start", "/invocations", "text/plain", "x", 200, "body[text/plain]=x"},
		{"KServe v1", "/v1/models/echo:predict", "application/json", `{"instances":[1]}`, 200, `body[application/json]={"instances":[1]}`},
		{"KServe v1 explain", "/v1/models/echo:explain", "application/json", `{}`, 200, `explain body[application/json]={}`},
		{"KServe v2", "/v2/models/echo/infer", "application/json", `{}`, 200, `body[application/json]={}`},
		{"KServe v2 explain", "/v2/models/echo/explain", "application/json", `{}`, 200, `explain body[application/json]={}`},
		{"no such model", "/predictions/nope", "", "x", 404, "{\n  \"code\": 404,\n  \"type\": \"ModelNotFoundException\",\n  \"message\": \"Model not found: nope\"\n}\n"},
		{"no such version", "/predictions/echo/2.0", "", "x", 404, "{\n  \"code\": 404,\n  \"type\": \"ModelVersionNotFoundException\",\n  \"message\": \"Model version: 2.0 does not exist for model: echo\"\n}\n"},
		{"no worker", "/predictions/idle", "", "x", 503, "{\n  \"code\": 503,\n  \"type\": \"ServiceUnavailableException\",\n  \"message\": \"no worker\"\n}\n"},
		{"no model", "/predictions", "", "x", 404, noResource},
		{"another verb of KServe", "/v1/models/echo:other", "", "x", 404, noResource},
		{"another verb of SageMaker", "/models/echo/other", "", "x", 404, noResource},
		{"OIP is off", "/v2/health/live", "", "", 404, noResource},
		{"nothing is there", "/nope/nope", "", "x", 404, noResource},
		{"a form that ends early", "/predictions/echo", "multipart/form-data; boundary=b", form[:60], 400, "BadRequestException"},
		{"a form that is encoded wrongly", "/predictions/echo", "application/x-www-form-urlencoded", "a=%zz", 400, "Parameter a is not encoded"},
		{"too large", "/predictions/echo", "text/plain", strings.Repeat("x", 1<<20+1), 413, "max_request_size=1048576"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, http.MethodPost, s.inference.URL+tt.path, tt.kind, tt.body)
			if got.StatusCode != tt.status {
				t.Errorf("status %d, want %d", got.StatusCode, tt.status)
			}
			if got.body != tt.want && (tt.status < 400 || !strings.Contains(got.body, tt.want)) {
				t.Errorf("body %q, want %q", got.body, tt.want)
			}
			if got.Header.Get("X-Request-Id") == "" || got.Header.Get("Pragma") != "no-cache" {
				t.Errorf("headers of every answer are missing: %v", got.Header)
			}
		})
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	got := ask(t, http.MethodPost, s.inference.URL+"/predictions/echo", "text/plain", "stream")
	if got.body != "s0 s1 s2 end" || got.TransferEncoding == nil || got.Header["Content-Type"] != nil {
		t.Errorf("a stream: %q, %v, %v", got.body, got.TransferEncoding, got.Header)
	}
	got = ask(t, http.MethodPost, s.inference.URL+"/predictions/echo", "text/plain", "teapot")
	if got.StatusCode != http.StatusTeapot || got.body != "x" || got.Header.Get("X-A") != "b" || len(got.Header.Values("Content-Type")) != 1 || got.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("a handler's own status: %d %q %v", got.StatusCode, got.body, got.Header)
	}
	if got = ask(t, http.MethodPost, s.inference.URL+"/predictions/echo", "text/plain", "nothing"); got.StatusCode != http.StatusOK || got.body != "" {
		t.Errorf("no frame: %d %q", got.StatusCode, got.body)
	}
	// A stream that fails is cut off, so that nobody takes it for a whole one.
	resp, err := http.Post(s.inference.URL+"/predictions/echo", "text/plain", strings.NewReader("break"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a stream that failed ends as if it were whole: %q", text)
	}
}

func TestHeadersReachHandlers(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	s := serve(t, nil)
	s.engine.workflows = []engine.Workflow{{Name: "wf"}}
	got := ask(t, http.MethodPost, s.inference.URL+"/wfpredict/wf?q=1", "text/plain", "x", "X-Mine", "7")
	if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("a workflow: %d %v %s", got.StatusCode, got.Header, got.body)
	}
	for _, h := range s.engine.forWorkflow.Headers {
		seen[h.Name] = append(seen[h.Name], h.Value)
	}
	for _, name := range []string{"X-Mine", "x-mine", "Content-Type", "content-type", "Host", "User-Agent"} {
		if len(seen[name]) != 1 {
			t.Errorf("the handler sees %s %d times: %v", name, len(seen[name]), seen)
		}
	}
	if got.Header.Get("X-Request-Id") != s.engine.forWorkflow.ID {
		t.Errorf("the handler's request id is %q, the client's %q", s.engine.forWorkflow.ID, got.Header.Get("X-Request-Id"))
	}
	if ask(t, http.MethodPost, s.inference.URL+"/wfpredict/none", "", "x").StatusCode != http.StatusNotFound {
		t.Error("a workflow that is not there answers")
	}
}

func TestOpenInference(t *testing.T) {
	t.Parallel()
	s := serve(t, func(l *engine.Listen, _ *api.Deps) { l.OpenInference = true })
	for _, tt := range []struct {
		path   string
		status int
		want   string
	}{
		{"/v2", 200, "{\n  \"name\": \"Torchserve\",\n  \"version\": \"0.12.0\",\n  \"extenstion\": [\n    \"kserve\",\n    \"kubeflow\"\n  ]\n}\n"},
		{"/v2/health/live", 200, "{\n  \"live\": true\n}\n"},
		{"/v2/health/ready", 200, "{\n  \"ready\": true\n}\n"},
		{"/v2/models/echo/ready", 200, "{\n  \"name\": \"echo\",\n  \"ready\": true\n}\n"},
		{"/v2/models/idle/ready", 200, "{\n  \"name\": \"idle\",\n  \"ready\": false\n}\n"},
		{"/v2/models/echo", 200, "{\n  \"name\": \"echo\",\n  \"versions\": [\n    \"1.0\"\n  ],\n  \"platform\": \"\",\n  \"inputs\": [],\n  \"outputs\": []\n}\n"},
		{"/v2/models/echo/versions/2.0", 404, "{\n  \"code\": 404,\n  \"type\": \"ModelVersionNotFoundException\",\n  \"message\": \"Model version: 2.0 does not exist for model: echo\"\n}\n"},
	} {
		if got := ask(t, http.MethodGet, s.inference.URL+tt.path, "", ""); got.StatusCode != tt.status || got.body != tt.want {
			t.Errorf("%s: %d %s, want %d %s", tt.path, got.StatusCode, got.body, tt.status, tt.want)
		}
	}
	if got := ask(t, http.MethodPost, s.inference.URL+"/v2/models/echo/versions/1.0/infer", "text/plain", "x"); got.body != "body[text/plain]=x" {
		t.Errorf("infer of a version: %s", got.body)
	}
}
