package wire_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

// squeeze drops white space, which protojson varies on purpose.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

func TestREST(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	const (
		loc      = "/v1/projects/p/locations/us-central1"
		endpoint = loc + "/endpoints/7"
		intAlt   = "$alt=json;enum-encoding=int"
	)
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		want                     string // squeezed body contains
	}{
		{"get", "GET", "/v1/" + model, "", nil, 200, `"name":"` + model + `"`},
		{"get v1beta1", "GET", "/v1beta1/" + model, "", nil, 200, `"name":"` + model + `"`},
		{"encoded segment", "GET", loc + "/models/1%401", "", nil, 200, `/models/1@1"`},
		{"encoded slash stays one segment", "GET", loc + "/models/a%2Fb", "", nil, 200, `/models/a%2Fb"`},
		{"enum names", "GET", "/v1/" + model, "", nil, 200, `["DEDICATED_RESOURCES"]`},
		{"enum numbers", "GET", "/v1/" + model + "?%24alt=json%3Benum-encoding%3Dint", "", nil, 200, `Types":[1]`},
		{"enum numbers, plain semicolon", "GET", "/v1/" + model + "?" + intAlt, "", nil, 200, `Types":[1]`},
		{"system parameters", "GET", "/v1/" + model + "?alt=json&prettyPrint=true&key=k&quotaUser=q&%24.xgafv=2", "", nil, 200, `"name"`},
		{"unknown alt", "GET", "/v1/" + model + "?alt=yaml", "", nil, 400, `INVALID_ARGUMENT`},
		{"query fields", "GET", loc + "/models?filter=a%3Db&pageSize=3&readMask=name,displayName&nonsense=1", "", nil, 200, `"a=b|3|[namedisplay_name]"`},
		{"bad query value", "GET", loc + "/models?pageSize=many", "", nil, 400, `"field":"pageSize"`},
		{"bad query encoding", "GET", loc + "/models?filter=%zz", "", nil, 400, `INVALID_ARGUMENT`},
		{"project number", "GET", "/v1/projects/123/locations/x/models", "", nil, 200, `"displayName":"projects/p/locations/x"`},
		{"unknown number", "GET", "/v1/projects/999/locations/x/models", "", nil, 404, `NOT_FOUND`},
		{"post", "POST", loc + "/models:upload", `{"model":{"displayName":"d","versionId":"9"},"modelId":"m","nonsense":{}}`, nil, 200, `"done":true`},
		{"v1 types in operations", "POST", loc + "/models:upload", `{"model":{"displayName":"d"}}`, nil, 200, `aiplatform.v1.UploadModelResponse`},
		{"v1 types in metadata", "POST", loc + "/models:upload", `{"model":{"displayName":"d"}}`, nil, 200, `aiplatform.v1.UploadModelOperationMetadata`},
		{"v1beta1 types in operations", "POST", strings.Replace(loc, "v1", "v1beta1", 1) + "/models:upload", `{"model":{"displayName":"d"}}`, nil, 200, `aiplatform.v1beta1.UploadModelResponse`},
		{"version of the call", "POST", loc + "/models:upload", `{"model":{"displayName":"d"}}`, nil, 200, `/operations/v1"`},
		{"required", "POST", loc + "/models:upload", `{}`, nil, 400, `"fieldViolations":[{"field":"model"`},
		{"required below", "POST", loc + "/models:upload", `{"model":{"containerSpec":{}}}`, nil, 400, `"field":"model.container_spec.image_uri"`},
		{"all at once", "POST", loc + "/models:upload", `{"model":{"containerSpec":{}}}`, nil, 400, `"field":"model.display_name"`},
		{"not JSON", "POST", loc + "/models:upload", `{"model":`, nil, 400, `INVALID_ARGUMENT`},
		{"wrong JSON type", "POST", loc + "/models:upload", `{"model":[]}`, nil, 400, `INVALID_ARGUMENT`},
		{"patch, body field, mask", "PATCH", "/v1/" + model + "?updateMask=labels,displayName", `{"labels":{"a":"b"}}`, nil, 200, `"description":"labels,display_name"`},
		{"patch binds the nested name", "PATCH", "/v1/" + strings.Replace(model, "/p/", "/123/", 1) + "?updateMask=labels", `{"labels":{"a":"b"}}`, nil, 200, `"name":"` + model + `"`},
		{"operation under ui", "GET", "/ui/" + model + "/operations/5", "", nil, 200, `/models/1/operations/5"`},
		{"operation as it was made", "GET", "/ui/" + model + "/operations/5", "", nil, 200, `aiplatform.v1beta1.UploadModelOperationMetadata`},
		{"operation below v1", "GET", "/v1/" + model + "/operations/5", "", nil, 200, `aiplatform.v1.UploadModelOperationMetadata`},
		{"operation at a location", "GET", loc + "/operations/5", "", nil, 200, `operations/5"`},
		{"operation four deep", "GET", loc + "/a/1/b/2/c/3/d/4/operations/5", "", nil, 200, `d/4/operations/5"`},
		{"operation too deep", "GET", loc + "/a/1/b/2/c/3/d/4/e/5/operations/5", "", nil, 404, `NOT_FOUND`},
		{"iam", "POST", "/v1/" + model + ":setIamPolicy", `{"policy":{"version":3}}`, nil, 200, `{"version":3}`},
		{"resourcemanager", "GET", "/v3/projects/p", "", []string{"Host", "cloudresourcemanager.googleapis.com"}, 200, `"name":"projects/p"`},
		{"not in the table", "GET", loc + "/featurestores", "", nil, 501, `google.cloud.aiplatform.v1.FeaturestoreService/ListFeaturestores`},
		{"no such path", "GET", "/v1/nothing", "", nil, 404, `NOT_FOUND`},
		{"no such verb", "POST", loc + "/models:bake", "", nil, 404, `NOT_FOUND`},
		{"bytes that are no text, path", "GET", loc + "/models/%ff", "", nil, 400, `UTF-8`},
		{"bytes that are no text, query", "GET", loc + "/models?filter=%ff", "", nil, 400, `UTF-8`},
		{"empty segment", "GET", "/v1/projects//locations/x/models", "", nil, 404, `NOT_FOUND`},
		{"fast path", "POST", endpoint + ":predict", `{"instances":[1]}`, nil, 200, `fastprojects/p/locations/us-central1/endpoints/7{"instances":[1]}`},
		{"fast path for generated clients", "POST", endpoint + ":predict?" + intAlt, `{"instances":[1]}`, nil, 200, `fast`},
		{"fast path resolves numbers", "POST", "/v1/projects/123/locations/x/endpoints/7:predict", `1`, nil, 200, `fastprojects/p/`},
		{"fast path error", "POST", endpoint + ":predict", ``, nil, 400, `"field":"instances"`},
		{"raw, fast", "POST", endpoint + ":rawPredict", `a,b`, []string{"Content-Type", "text/csv"}, 418, `a,b`},
		{"raw, wrapped", "POST", endpoint + ":rawPredict?" + intAlt, `{"httpBody":{"contentType":"text/csv","data":"YSxi"}}`, nil, 200, `{"contentType":"text/x","data":"dGV4dC9jc3Y6YSxi"}`},
		{"raw, not wrapped, nor the answer", "POST", endpoint + ":rawPredict?" + intAlt, `a,b`, []string{"Content-Type", "text/csv"}, 200, `text/csv:a,b`},
		{"raw stream", "POST", endpoint + ":streamRawPredict", `a,b`, nil, 200, `ab`},
		{"raw stream, wrapped", "POST", endpoint + ":streamRawPredict?" + intAlt, `{"httpBody":{"data":"YSxi"}}`, nil, 200, `[{"contentType":"text/csv","data":"YQ=="},{"contentType":"text/csv","data":"Yg=="}]`},
		{"stream as an array", "POST", endpoint + ":serverStreamingPredict", `{"inputs":[{},{}]}`, nil, 200, `[{"outputs":[{"dtype":"BOOL"}]},{"outputs":[{"dtype":"BOOL"}]}]`},
		{"stream of nothing", "POST", endpoint + ":serverStreamingPredict", `{}`, nil, 200, `[]`},
		{"stream as events", "POST", endpoint + ":serverStreamingPredict?alt=sse", `{"inputs":[{}]}`, nil, 200, `data:{"outputs"`},
		{"stream that breaks", "POST", loc + "/endpoints/breaks:serverStreamingPredict", `{"inputs":[{}]}`, nil, 200, `"status":"ABORTED"`},
		{"stream that fails at once", "POST", loc + "/endpoints/breaks:serverStreamingPredict", `{}`, nil, 409, `"status":"ABORTED"`},
		{"wrapped error", "GET", loc + "/models/wrapped", "", nil, 404, `lookelsewhere`},
		{"retry hint", "GET", loc + "/models/busy", "", nil, 503, `UNAVAILABLE`},
		{"disk full", "GET", loc + "/models/full", "", nil, 507, `RESOURCE_EXHAUSTED`},
		{"too large", "POST", loc + "/models:upload", `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, `bucket`},
		{"unknown encoding", "POST", loc + "/models:upload", `{}`, []string{"Content-Encoding", "br"}, 400, `gzip`},
		{"bad gzip", "POST", loc + "/models:upload", `{}`, []string{"Content-Encoding", "gzip"}, 400, `gzip`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := f.do(t, tt.method, tt.path, tt.body, tt.headers...)
			if resp.StatusCode != tt.code || !strings.Contains(squeeze(body), squeeze(tt.want)) {
				t.Errorf("%s %s = %d %s\nwant %d with %s", tt.method, tt.path, resp.StatusCode, body, tt.code, tt.want)
			}
			if resp.Header.Get("X-Request-Id") == "" {
				t.Error("no request id")
			}
		})
	}
}

func TestSecretsStayInTheLog(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"panic", "broken", "wrapped"} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			f := start(t, nil)
			resp, body := f.do(t, "GET", "/v1/projects/p/locations/us-central1/models/"+id, "")
			if strings.Contains(body, "secret") {
				t.Errorf("the answer tells internals: %s", body)
			}
			if id == "wrapped" {
				return
			}
			if resp.StatusCode != http.StatusInternalServerError || !strings.Contains(body, resp.Header.Get("X-Request-Id")) {
				t.Errorf("%d %s: want INTERNAL with the request id", resp.StatusCode, body)
			}
			if log := f.log.String(); !strings.Contains(log, "secret") || !strings.Contains(log, resp.Header.Get("X-Request-Id")) {
				t.Errorf("the log lacks the cause: %s", log)
			}
		})
	}
}

// TestHalfAnAnswer: a client must see that an answer broke off.
func TestHalfAnAnswer(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.addr+"/v1/projects/p/locations/l/endpoints/cut:predict", strings.NewReader("1"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client(t).Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks like a whole one")
	}
}

func TestGzipBodies(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	pack := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const path = "/v1/projects/p/locations/us-central1/models:upload"
	resp, body := f.do(t, "POST", path, pack(`{"model":{"displayName":"d"}}`), "Content-Encoding", "gzip")
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	resp, body = f.do(t, "POST", path, pack(`{"x":"`+strings.Repeat("x", 2<<20)+`"}`), "Content-Encoding", "gzip")
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a bomb: %d %s, want 413", resp.StatusCode, body)
	}
}
