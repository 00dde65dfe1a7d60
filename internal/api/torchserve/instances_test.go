package torchserve_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

// graph is a workflow that says what it was given: the content type and the bytes, but for
// some words.
type graph struct{ fake }

func (*graph) PredictWorkflow(_ context.Context, name string, r engine.Request, emit func(engine.Frame) error) error {
	if name != "wf" || len(r.Parts) != 1 {
		return errors.New("it asks for another")
	}
	body := r.Parts[0].ContentType + " " + string(r.Parts[0].Value)
	switch text := string(r.Parts[0].Value); text {
	case `"json"`:
		body = " {\"a\": [1.50]}\n"
	case `"bytes"`:
		body = "\xff"
	case `"none"`:
		body = ""
	case `"broken"`:
		return &engine.Error{Code: http.StatusServiceUnavailable, Type: engine.ServiceUnavailable, Message: "no worker"}
	}
	return emit(engine.Frame{Status: http.StatusOK, Body: []byte(body)})
}

func TestInstances(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(api.New(listen(), api.Deps{Engine: &graph{}}).Instances("/.x/instances", "wf"))
	t.Cleanup(s.Close)
	for _, c := range []struct {
		kind, body string
		status     int
		want       string
	}{
		{"application/json", `{"instances": [1, "json", {"b64": "AGE="}, {"a": {"b64": "eA=="}}, "none"]}`, 200, `{"predictions":["application/json1",{"a":[1.50]},"\u0000a","application/json{\"a\":{\"b64\":\"eA==\"}}",""]}`},
		{"application/json; charset=utf-8", `{"instances": []}`, 200, `{"predictions":[]}`},
		{"image/png", "PNG", 200, "image/pngPNG"},
		{"application/json", `{"instances": [1, "broken"]}`, 503, "instance2:noworker"},
		{"application/json", `{"instances": ["broken"]}`, 503, `"message":"noworker"`},
		{"application/json", `{"instances": ["bytes"]}`, 500, "neitherJSONnortext"},
		{"application/json", `{"instances": [{"b64": "="}]}`, 400, "instance1:b64"},
		{"application/json", `{"instances": [{"b64": 3}]}`, 400, "instance1:b64isnotext"},
		{"application/json", `{"instances": null}`, 400, `want{\"instances\":[...]}`},
		{"application/json", `[1]`, 400, "noJSONobject"},
		{"application/json", ``, 400, "noJSONobject"},
	} {
		got := ask(t, http.MethodPost, s.URL+"/.x/instances", c.kind, c.body)
		if text := strings.NewReplacer(" ", "", "\n", "").Replace(got.body); got.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %d with %s", c.body, got.StatusCode, text, c.status, c.want)
		}
	}
	if got := ask(t, http.MethodGet, s.URL+"/.x/instances", "", ""); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.StatusCode)
	}
	if got := ask(t, http.MethodGet, s.URL+"/ping", "", ""); got.StatusCode != http.StatusOK {
		t.Errorf("the rest of the API: %d", got.StatusCode)
	}
}
