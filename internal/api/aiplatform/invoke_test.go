package aiplatform

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// rights knows project p, whose number is 42, and lets nobody into another.
type rights struct{}

func (rights) Authorize(_ context.Context, _ identity.Principal, project, permission string) error {
	if project != "p" || permission != "aiplatform.endpoints.predict" {
		return resource.Errorf(codes.PermissionDenied, "not in %s", project)
	}
	return nil
}

func (rights) ProjectID(_ context.Context, number string) (string, error) {
	if number == "42" {
		return "p", nil
	}
	return "", resource.NotFound(number)
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	const base = "/v1/projects/p/locations/l/endpoints/7"
	for path, want := range map[string]struct{ endpoint, model, route string }{
		base + "/invoke/v1/chat/completions?a=b&c":                  {"projects/p/locations/l/endpoints/7", "", "/v1/chat/completions?a=b&c"},
		base + "/deployedModels/9/invoke/foo":                       {"projects/p/locations/l/endpoints/7", "9", "/foo"},
		"/v1beta1/projects/42/locations/l/endpoints/7/invoke/a%2Fb": {"projects/p/locations/l/endpoints/7", "", "/a%2Fb"},
		base + "/invoke/deployedModels/9/invoke/x":                  {"projects/p/locations/l/endpoints/7", "", "/deployedModels/9/invoke/x"},
	} {
		m, w := &model{status: 201, body: "out"}, httptest.NewRecorder()
		i := NewInvoke(m, rights{})
		r := httptest.NewRequest(http.MethodPut, path, strings.NewReader("in"))
		if !i.Owns(r) {
			t.Errorf("%s is nobody's", path)
			continue
		}
		if err := i.Serve(w, r); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if m.endpoint != want.endpoint || m.asked.Route != want.route || m.asked.DeployedModel != want.model || m.asked.Method != http.MethodPut || !m.asked.Again || string(m.asked.Body) != "in" {
			t.Errorf("%s: asked %s %+v", path, m.endpoint, m.asked)
		}
		if w.Code != 201 || w.Body.String() != "out" || w.Header().Get("X-Vertex-AI-Deployed-Model-Id") != "9" || !w.Flushed {
			t.Errorf("%s: %d %q %v", path, w.Code, w.Body, w.Header())
		}
	}
	for _, path := range []string{base, base + "/invoke", base + "/invoke/", base + "/other/x", base + "/deployedModels/9/x/y", "/v1/projects//locations/l/endpoints/7/invoke/x", "/v2/projects/p/locations/l/endpoints/7/invoke/x"} {
		if NewInvoke(&model{}, rights{}).Owns(httptest.NewRequest(http.MethodPost, path, http.NoBody)) {
			t.Errorf("%s is taken for an invocation", path)
		}
	}
	for _, project := range []string{"q", "43"} {
		m := &model{}
		err := NewInvoke(m, rights{}).Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v1/projects/"+project+"/locations/l/endpoints/7/invoke/x", http.NoBody))
		if resource.CodeOf(err) != codes.PermissionDenied || m.endpoint != "" {
			t.Errorf("project %s: %v", project, err)
		}
	}
}

// TestContained: what a model's server answers to a browser is no page of ours, and
// what belongs to one connection is not passed on, in either direction.
func TestContained(t *testing.T) {
	t.Parallel()
	m := &model{status: 200, body: "<script>", header: http.Header{
		"Content-Type": {"text/html"}, "Content-Security-Policy": {"default-src *"}, "Connection": {"keep-alive, X-Hop"}, "X-Hop": {"1"}, "X-End": {"1"},
		"Access-Control-Allow-Origin": {"*"},
	}}
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/projects/p/locations/l/endpoints/7/invoke/x", http.NoBody)
	r.Header = http.Header{"Connection": {"close", "x-mine"}, "X-Mine": {"1"}, "X-Other": {"1"}}
	if err := NewInvoke(m, rights{}).Serve(w, r); err != nil {
		t.Fatal(err)
	}
	if h := w.Header(); h.Get("Content-Security-Policy") != "sandbox" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Hop") != "" || h.Get("X-End") != "1" {
		t.Errorf("answered with %v", h)
	}
	if h := m.asked.Header; len(h) != 1 || h.Get("X-Other") != "1" {
		t.Errorf("asked with %v", h)
	}
	for token, want := range map[string]string{"": "", "Bearer x": "*"} { // who shows one lends it to the page
		w = httptest.NewRecorder()
		r.Header.Set("Authorization", token)
		if err := NewInvoke(m, rights{}).Serve(w, r); err != nil || w.Header().Get("Access-Control-Allow-Origin") != want {
			t.Errorf("with %q: %v, %v", token, w.Header(), err)
		}
	}
}

func TestUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	r := post("")
	r.Header.Set("Upgrade", "WebSocket")
	if err := NewPrediction(&model{}).rawPredictHTTP(t.Context(), httptest.NewRecorder(), r, "e"); resource.CodeOf(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

// TestCallersTime: a caller that says how long it waits is not kept longer.
func TestCallersTime(t *testing.T) {
	t.Parallel()
	m := &model{status: 200, body: "{}"}
	r := post("{}")
	r.Header.Set("X-Server-Timeout", "2.5")
	if err := NewPrediction(m).predictHTTP(t.Context(), httptest.NewRecorder(), r, "e"); err != nil || !m.limited {
		t.Errorf("%v, limited %v", err, m.limited)
	}
	for _, bad := range []string{"x", "0", "-1", "NaN"} {
		r := post("{}")
		r.Header.Set("X-Server-Timeout", bad)
		if err := NewPrediction(m).predictHTTP(t.Context(), httptest.NewRecorder(), r, "e"); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzInvocation: what is read of a path is the path again.
func FuzzInvocation(f *testing.F) {
	f.Add("/v1/projects/p/locations/l/endpoints/7/invoke/a/b")
	f.Add("/v1beta1/projects/p/locations/l/endpoints/7/deployedModels/9/invoke/a")
	f.Fuzz(func(t *testing.T, path string) {
		v, ok := parseInvocation(path)
		if !ok {
			return
		}
		want := "/projects/" + v.project + "/locations/" + v.location + "/endpoints/" + v.endpoint
		if v.model != "" {
			want += "/deployedModels/" + v.model
		}
		if rest := strings.TrimPrefix(strings.TrimPrefix(path, "/v1beta1"), "/v1"); rest != want+"/invoke"+v.route && v.model != "" {
			t.Fatalf("%q became %+v", path, v)
		}
	})
}
