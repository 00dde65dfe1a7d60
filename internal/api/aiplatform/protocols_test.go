package aiplatform

import (
	"context"
	"encoding/binary"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/oip"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// served is a model whose endpoint has these deployed models.
type served struct {
	*model

	deployed []serving.Deployed
}

func (s served) Deployed(_ context.Context, endpoint string) ([]serving.Deployed, error) {
	s.endpoint = endpoint
	if endpoint != "projects/p/locations/l/endpoints/7" {
		return nil, resource.NotFound(endpoint)
	}
	return append([]serving.Deployed(nil), s.deployed...), nil
}

const protocolBase = "/v1/projects/42/locations/l/endpoints/7"

// ask sends a request to an endpoint of two models.
func ask(t *testing.T, m *model, method, path, contentType, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	p := NewProtocols(served{m, []serving.Deployed{
		{ID: "9", DisplayName: "new", Model: "projects/p/locations/l/models/m", Version: "2", Ready: true, Features: 2, Outputs: 1},
		{ID: "8", DisplayName: "old", Model: "projects/p/locations/l/models/m", Version: "1", Ready: true},
	}}, rights{}, "v1.2")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if !p.Owns(r) {
		t.Fatalf("%s is nobody's", path)
	}
	w := httptest.NewRecorder()
	if err := p.Serve(w, r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return w
}

func TestInvocations(t *testing.T) {
	t.Parallel()
	m := &model{status: 200, body: `{"predictions": [0.5, [1, 2]]}`}
	w := ask(t, m, http.MethodPost, protocolBase+"/invocations", "application/json", `{"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}`)
	if w.Code != 200 || w.Body.String() != m.body || w.Header().Get("X-Vertex-AI-Deployed-Model-Id") != "9" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	if string(m.asked.Body) != `{"instances":[{"a":1},{"a":2}]}` || !m.asked.Again || m.endpoint != "projects/p/locations/l/endpoints/7" {
		t.Errorf("asked %s %+v", m.endpoint, m.asked)
	}
	w = ask(t, m, http.MethodPost, protocolBase+"/invocations", "text/csv", "1,2\n", "Accept", "text/csv")
	if w.Code != 200 || w.Body.String() != "0.5\n1,2\n" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv") {
		t.Errorf("CSV: %d %q", w.Code, w.Body)
	}
	for _, c := range []struct {
		m            *model
		method, body string
		status       int
		code         string
	}{
		{&model{}, http.MethodPost, `{}`, 400, "BAD_REQUEST"},
		{&model{}, http.MethodGet, ``, 405, "BAD_REQUEST"},
		{&model{status: 500, body: "boom"}, http.MethodPost, `{"instances": []}`, 400, "BAD_REQUEST"},
		{&model{err: resource.Errorf(codes.Unavailable, "starting")}, http.MethodPost, `{"instances": []}`, 503, "TEMPORARILY_UNAVAILABLE"},
	} {
		w := ask(t, c.m, c.method, protocolBase+"/invocations", "application/json", c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), `"error_code":"`+c.code+`"`) {
			t.Errorf("%s %s: %d %s", c.method, c.body, w.Code, w.Body)
		}
	}
	if w := ask(t, &model{}, http.MethodGet, protocolBase+"/ping", "", ""); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("ping: %d %s", w.Code, w.Body)
	}
	if w := ask(t, &model{}, http.MethodGet, "/v1beta1/projects/p/locations/l/endpoints/5/ping", "", ""); w.Code != 404 {
		t.Errorf("ping of what is not there: %d %s", w.Code, w.Body)
	}
}

func TestInference(t *testing.T) {
	t.Parallel()
	const body = `{"id": "a", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}], "parameters": {"raw_score": true, "binary_data_output": false}}`
	m := &model{status: 200, body: `{"predictions": [0.5, 1]}`}
	w := ask(t, m, http.MethodPost, protocolBase+"/v2/models/m/versions/1/infer", "", body)
	want := `{"model_name":"m","model_version":"2","id":"a","outputs":[{"name":"predictions","datatype":"FP64","shape":[2],"data":[0.5,1]}]}`
	if got := strings.ReplaceAll(w.Body.String(), " ", ""); w.Code != 200 || sorted(got) != sorted(want) {
		t.Errorf("%d %s", w.Code, got)
	}
	if string(m.asked.Body) != `{"instances":[[1,2],[3,4]],"parameters":{"raw_score":true}}` || m.asked.DeployedModel != "8" {
		t.Errorf("asked %+v of %s", m.asked, m.asked.Body)
	}
	ask(t, m, http.MethodPost, protocolBase+"/v2/models/7/infer", "", body)
	if m.asked.DeployedModel != "" {
		t.Errorf("the endpoint's id asks %s", m.asked.DeployedModel)
	}
	head := `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP64","parameters":{"binary_data_size":8}}],"outputs":[{"name":"predictions","parameters":{"binary_data":true}}]}`
	in := string(binary.LittleEndian.AppendUint64([]byte(head), math.Float64bits(2.5)))
	w = ask(t, m, http.MethodPost, protocolBase+"/v2/models/new/infer", oip.ContentBinary, in, oip.HeaderLength, strconv.Itoa(len(head)))
	n, err := strconv.Atoi(w.Header().Get(oip.HeaderLength))
	if err != nil || w.Code != 200 || string(m.asked.Body) != `{"instances":[[2.5]]}` || math.Float64frombits(binary.LittleEndian.Uint64(w.Body.Bytes()[n:])) != 0.5 {
		t.Errorf("binary: %d %q %v, asked %s", w.Code, w.Body, err, m.asked.Body)
	}
	for path, want := range map[string]string{
		"GET /v2":                           `200 {"name":"tategu","version":"v1.2","extensions":["binary_tensor_data"]}`,
		"GET /v2/health/live":               `200 {"live":true}`,
		"GET /v2/health/ready":              `200 {"ready":true}`,
		"GET /v2/models/9/ready":            `200 {"name":"9","ready":true}`,
		"GET /v2/models/new":                `200 {"name":"new","versions":["2"],"platform":"tategu","inputs":[{"name":"instances","datatype":"FP64","shape":[-1,2]}],"outputs":[{"name":"predictions","datatype":"FP64","shape":[-1]}]}`,
		"GET /v2/models/7":                  `200 {"name":"7","versions":["2","1"],"platform":"vertex_json","inputs":[],"outputs":[]}`,
		"GET /v2/models/m":                  `400 {"error":"\"m\" of endpoint`,
		"GET /v2/models/m/versions/3/ready": `404 {"error":"endpoint`,
		"GET /v2/models/x":                  `404 {"error":"endpoint`,
		"GET /v2/models/9/infer":            `405 {"error":"GET is not`,
		"POST /v2/health/live":              `405 {"error":"POST is not`,
		"GET /v2/models/9/stats":            `501 {"error":"/v2/models/9/stats of the Open Inference Protocol is not supported`,
		"POST /v2/repository/index":         `501 {"error":"/v2/repository/index`,
		"POST /v2/models/9/infer":           `400 {"error":`,
	} {
		method, rest, _ := strings.Cut(path, " ")
		w := ask(t, &model{}, method, protocolBase+rest, "", "")
		if got := strconv.Itoa(w.Code) + " " + w.Body.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

// sorted makes texts equal whose members are in another order.
func sorted(s string) string {
	words := strings.Split(strings.Trim(s, "{}"), ",")
	for i := range words {
		for j := i; j > 0 && words[j] < words[j-1]; j-- {
			words[j], words[j-1] = words[j-1], words[j]
		}
	}
	return strings.Join(words, ",")
}

func TestProtocolsOwn(t *testing.T) {
	t.Parallel()
	p := NewProtocols(served{model: &model{}}, rights{}, "")
	for _, path := range []string{protocolBase, protocolBase + "/", protocolBase + "/ping/x", protocolBase + "/v3", "/v2/projects/p/locations/l/endpoints/7/ping", "/v2/health/live", "/v1/projects//locations/l/endpoints/7/ping", protocolBase + ":predict"} {
		if p.Owns(httptest.NewRequest(http.MethodGet, path, http.NoBody)) {
			t.Errorf("%s is taken", path)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/projects/q/locations/l/endpoints/7/v2/health/live", http.NoBody)
	if err := p.Serve(httptest.NewRecorder(), r); resource.CodeOf(err) != codes.PermissionDenied {
		t.Errorf("a stranger's project: %v", err)
	}
	if w := ask(t, &model{}, http.MethodGet, "/v1/projects/p/locations/l/endpoints/5/v2/health/live", "", ""); w.Code != 404 {
		t.Errorf("an endpoint that is not there: %d %s", w.Code, w.Body)
	}
}
