package wire

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api"
)

func TestParseTemplate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"/v1/{name=projects/*/models/*}", "[v1 projects * models *]  [{name 1 5}]"},
		{"/v1/{a}/x/{b=**}:do", "[v1 * x **] do [{a 1 2} {b 3 4}]"},
		{"/v1/{model.name=models/*}", "[v1 models *]  [{model.name 1 3}]"},
		{"/v1/**", "[v1 **]  []"},
		{"v1", "error"},
		{"", "error"},
		{"/", "error"},
		{"/v1/", "error"},
		{"/v1//x", "error"},
		{"/v1/{", "error"},
		{"/v1/{a", "error"},
		{"/v1/{a}b", "error"},
		{"/v1/{}", "error"},
		{"/v1/{=x}", "error"},
		{"/v1/{a=}", "error"},
		{"/v1/**/x", "error"},
		{"/v1/x*", "error"},
		{"/v1/{a=x/**}/y", "error"},
		{"/v1:", "error"},
		{"/v1/{a={b}}", "error"},
		{"/v1/{a}:b/c", "error"},
	} {
		tm, err := parseTemplate(tt.in)
		got := fmt.Sprint(tm.segments, " ", tm.verb, " ", tm.vars)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("parseTemplate(%q) = %s (%v), want %s", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, s := range []string{"/v1/{name=projects/*/models/*}:do", "/v1/{a}/{b=**}", "/{", "/{a=*/**}", "/:x", "/}{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tm, err := parseTemplate(s)
		if err != nil {
			return
		}
		for _, v := range tm.vars {
			if v.field == "" || v.start < 0 || v.start >= v.end || v.end > len(tm.segments) {
				t.Fatalf("%q: variable %+v of %d segments", s, v, len(tm.segments))
			}
		}
		for _, seg := range tm.segments {
			if seg == "" || strings.Contains(seg, "/") {
				t.Fatalf("%q: segment %q", s, seg)
			}
		}
	})
}

func fuzzRouter(f *testing.F) (*router, *methods) {
	f.Helper()
	table, err := api.NewTable()
	if err != nil {
		f.Fatal(err)
	}
	ms, err := newMethods(table)
	if err != nil {
		f.Fatal(err)
	}
	r, err := newRouter(ms)
	if err != nil {
		f.Fatal(err)
	}
	return r, ms
}

// FuzzDecode throws paths, queries and bodies at the transcoder: no panic, and a
// bound name never gains a segment that was not one in the path.
func FuzzDecode(f *testing.F) {
	r, ms := fuzzRouter(f)
	for _, s := range []struct{ method, path, query, body string }{
		{"GET", "/v1/projects/p/locations/l/models/1%401", "%24alt=json%3Benum-encoding%3Dint", ""},
		{"GET", "/v1/projects/p/locations/l/models", "filter=a&pageSize=3&readMask=displayName,labels", ""},
		{"POST", "/v1/projects/p/locations/l/models:upload", "", `{"model":{"displayName":"x"}}`},
		{"PATCH", "/v1/projects/p/locations/l/models/1", "updateMask=labels", `{"labels":{"a":"b"}}`},
		{"POST", "/v1/projects/p/locations/l/endpoints/1:rawPredict", "$alt=json;enum-encoding=int", `{"httpBody":{"data":"YQ=="}}`},
		{"POST", "/v1/projects/p/locations/l/endpoints/1:predict", "alt=sse", `{"instances":[1e400]}`},
		{"GET", "/ui/projects/p/locations/l/a/1/operations/2", "name=x&unknown.path=1", ""},
		{"GET", "/v1/projects/%ff/locations/l/models", "readMask=%ff", ""},
		{"GET", "/v1/projects/p%2Fq/locations/%00/models/%zz", "a=%", ""},
	} {
		f.Add(s.method, s.path, s.query, s.body)
	}
	f.Fuzz(func(t *testing.T, method, path, rawQuery, body string) {
		rt, segments := r.find(method, path)
		if rt == nil {
			return
		}
		query, a, err := parseQuery(rawQuery)
		if err != nil {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange{route: rt, segments: segments, query: query, alt: a, types: ms.types}
		m, err := x.decode(req)
		if err != nil {
			if code, text := errorBody(err); code != http.StatusBadRequest {
				t.Fatalf("%d %s: a bad request is the caller's fault", code, text)
			}
			return
		}
		for _, v := range rt.vars {
			value, err := rt.bound(v, segments)
			if err != nil {
				t.Fatal(err)
			}
			want := v.end - v.start
			if rt.segments[v.end-1] == "**" {
				want = len(segments) - v.start
			}
			if want > 1 && strings.Count(value, "/") != want-1 {
				t.Fatalf("%q bound %q", path, value)
			}
		}
		if _, err := proto.Marshal(m); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzSetPath(f *testing.F) {
	for _, s := range [][2]string{{"read_mask", "a,b"}, {"parent", "x"}, {"page_size", "9"}, {"model.labels", "x"}, {"model.createTime", "2020-01-01T00:00:00Z"}, {"model.explanation_spec.parameters.top_k", "1"}, {"model.supported_deployment_resources_types", "1"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(_ *testing.T, path, value string) {
		_ = setPath((&pb.ListModelsRequest{}).ProtoReflect(), path, value, true)
		_ = setPath((&pb.UpdateModelRequest{}).ProtoReflect(), path, value, false)
	})
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, want string }{
		{"", "map[] {false false false}"},
		{"$alt=json;enum-encoding=int&a=b", "map[a:[b]] {true true false}"},
		{"%24alt=json%3Benum-encoding%3Dint", "map[] {true true false}"},
		{"alt=json", "map[] {false false false}"},
		{"alt=sse&key=k", "map[] {false false true}"},
		{"alt=xml", "error"},
		{"%zz", "error"},
	} {
		q, a, err := parseQuery(tt.raw)
		got := fmt.Sprint(map[string][]string(q), " ", a)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("parseQuery(%q) = %s, want %s", tt.raw, got, tt.want)
		}
	}
}
