package aiplatform

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// model is a data plane with one answer; it notes what it was asked.
type model struct {
	status int
	header http.Header
	body   string
	err    error
	asked  serving.Request
	closed int

	endpoint string
	limited  bool
}

type counted struct {
	io.Reader
	m *model
}

func (c counted) Close() error {
	c.m.closed++
	return nil
}

func (m *model) Predict(ctx context.Context, endpoint string, r serving.Request) (*serving.Response, error) {
	m.asked, m.endpoint = r, endpoint
	_, m.limited = ctx.Deadline()
	if m.err != nil {
		return nil, m.err
	}
	h := m.header
	if h == nil {
		h = http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(m.body))}}
	}
	return &serving.Response{
		Endpoint: endpoint, DeployedModel: "9", Model: "projects/p/locations/l/models/1", ModelVersion: "2", ModelDisplay: `the "m"`,
		Status: m.status, Header: h, Body: counted{strings.NewReader(m.body), m},
	}, nil
}

func post(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// writes counts those of an answer.
type writes struct {
	*httptest.ResponseRecorder

	n int
}

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return w.ResponseRecorder.Write(p)
}

func TestPredictHTTPSplices(t *testing.T) {
	t.Parallel()
	p := &Prediction{} // one: what it keeps must not show in the next answer
	const identity = `"deployedModelId":"9","model":"projects/p/locations/l/models/1","modelVersionId":"2","modelDisplayName":"the \"m\""`
	for body, want := range map[string]string{
		`{"predictions":[1]}`:        `{` + identity + `,"predictions":[1]}`,
		" {\n \"predictions\": [] }": `{` + identity + `,"predictions": [] }`,
		`{}`:                         `{` + identity + `}`,
		`{ }`:                        `{` + identity + `}`,
		`{"predictions":[` + strings.Repeat("1,", 2*smallAnswer) + `1]}`: `{` + identity + `,"predictions":[` + strings.Repeat("1,", 2*smallAnswer) + `1]}`,
	} {
		m, w := &model{status: 200, body: body}, &writes{ResponseRecorder: httptest.NewRecorder()}
		p.predictor = m
		if err := p.predictHTTP(t.Context(), w, post(`{"instances":[1]}`), "e"); err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); got != want || w.Header().Get("Content-Length") != strconv.Itoa(len(got)) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q: got %s (%s bytes), want %s", body, got, w.Header().Get("Content-Length"), want)
		}
		if small := len(body) <= smallAnswer; small != (w.n == 1) {
			t.Errorf("%.40q: %d writes", body, w.n)
		}
		if string(m.asked.Body) != `{"instances":[1]}` || m.closed != 1 {
			t.Errorf("%q: asked %s, closed %d times", body, m.asked.Body, m.closed)
		}
	}
}

func TestPredictBadAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   codes.Code
	}{
		{200, `[1]`, codes.FailedPrecondition},
		{200, ``, codes.FailedPrecondition},
		{400, `wrong shape`, codes.InvalidArgument},
		{404, `no route`, codes.NotFound},
		{429, `busy`, codes.ResourceExhausted},
		{500, `Traceback: boom`, codes.FailedPrecondition},
		{503, `loading`, codes.Unavailable},
	} {
		m, w := &model{status: c.status, body: c.body}, httptest.NewRecorder()
		err := NewPrediction(m).predictHTTP(t.Context(), w, post(`{}`), "e")
		if resource.CodeOf(err) != c.want || c.status != 200 && !strings.Contains(err.Error(), c.body) {
			t.Errorf("%d %q over REST: %v, want %v", c.status, c.body, err, c.want)
		}
		if w.Body.Len() > 0 || m.closed != 1 {
			t.Errorf("%d: wrote %q, closed %d times", c.status, w.Body, m.closed)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (c.want == codes.Unavailable || c.want == codes.ResourceExhausted) {
			t.Errorf("%d: Retry-After %q", c.status, retry)
		}
		if _, err := NewPrediction(m).predict(t.Context(), &pb.PredictRequest{}); resource.CodeOf(err) != c.want {
			t.Errorf("%d %q over gRPC: %v, want %v", c.status, c.body, err, c.want)
		}
	}
}

func TestPredictMessages(t *testing.T) {
	t.Parallel()
	instances, err := structpb.NewList([]any{1, 2.5, -1e300, "a\"\n\u00e9", nil, true, []any{}, map[string]any{"k": []any{1}}})
	if err != nil {
		t.Fatal(err)
	}
	m := &model{status: 200, body: `{"predictions":[[1,{"a":null}]],"extra":1}`}
	resp, err := NewPrediction(m).predict(t.Context(), &pb.PredictRequest{Endpoint: "e", Instances: instances.Values, Parameters: structpb.NewNumberValue(3)})
	if err != nil {
		t.Fatal(err)
	}
	if resp.DeployedModelId != "9" || resp.ModelVersionId != "2" || resp.ModelDisplayName != `the "m"` || len(resp.Predictions) != 1 {
		t.Errorf("got %v", resp)
	}
	// What the model was given reads back as what was asked.
	back := &pb.PredictRequest{}
	if err := protojson.Unmarshal(m.asked.Body, back); err != nil {
		t.Fatalf("%s: %v", m.asked.Body, err)
	}
	for i, v := range back.Instances {
		if v.String() != instances.Values[i].String() {
			t.Errorf("instance %d is %v, want %v", i, v, instances.Values[i])
		}
	}
	if !strings.HasPrefix(string(m.asked.Body), `{"instances":[1,2.5,`) {
		t.Errorf("whole numbers have fractions: %s", m.asked.Body)
	}
	_, err = NewPrediction(m).predict(t.Context(), &pb.PredictRequest{Instances: []*structpb.Value{structpb.NewNumberValue(math.NaN())}})
	if resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("NaN: %v", err)
	}
}

func TestRawPredictPasses(t *testing.T) {
	t.Parallel()
	m := &model{status: 418, body: "tea\x00", header: http.Header{"Content-Type": {"text/x"}, "X-Mine": {"1"}, "Set-Cookie": {"a=b"}, "Connection": {"close"}}}
	r := post("any \xff bytes")
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("X-Trace", "t")
	w := httptest.NewRecorder()
	if err := NewPrediction(m).rawPredictHTTP(t.Context(), w, r, "e"); err != nil {
		t.Fatal(err)
	}
	if w.Code != 418 || w.Body.String() != "tea\x00" || w.Header().Get("X-Mine") != "1" || w.Header().Get("X-Vertex-Ai-Deployed-Model-Id") != "9" {
		t.Errorf("got %d %q %v", w.Code, w.Body, w.Header())
	}
	if w.Header().Get("Set-Cookie") != "" || m.asked.Header.Get("Authorization") != "" {
		t.Error("credentials went through")
	}
	if string(m.asked.Body) != "any \xff bytes" || m.asked.Header.Get("X-Trace") != "t" || m.asked.Stream || m.closed != 1 {
		t.Errorf("asked %+v, closed %d", m.asked, m.closed)
	}
}

func TestRawPredictMessages(t *testing.T) {
	t.Parallel()
	m := &model{status: 200, body: "out", header: http.Header{"Content-Type": {"text/x"}}}
	p := NewPrediction(m)
	body := &httpbody.HttpBody{ContentType: "text/y", Data: []byte("in")}
	got, err := p.rawPredict(t.Context(), &pb.RawPredictRequest{Endpoint: "e", HttpBody: body})
	if err != nil || got.ContentType != "text/x" || string(got.Data) != "out" || m.asked.Header.Get("Content-Type") != "text/y" {
		t.Errorf("got %v, %v", got, err)
	}
	var parts []string
	err = p.streamRawPredict(t.Context(), &pb.StreamRawPredictRequest{Endpoint: "e", HttpBody: body}, func(b *httpbody.HttpBody) error {
		parts = append(parts, string(b.Data))
		return nil
	})
	if err != nil || strings.Join(parts, "") != "out" || !m.asked.Stream {
		t.Errorf("got %v, %v", parts, err)
	}
	m.status = 500
	err = p.streamRawPredict(t.Context(), &pb.StreamRawPredictRequest{HttpBody: body}, func(*httpbody.HttpBody) error { return nil })
	if resource.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("a bad status of a stream: %v", err)
	}
	if m.closed != 3 {
		t.Errorf("%d bodies were closed", m.closed)
	}
}

// TestStreamFlushes reads the first part while the model still holds the second.
func TestStreamFlushes(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	plane := predictorFunc(func() *serving.Response {
		return &serving.Response{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: in}
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := NewPrediction(plane).streamRawPredictHTTP(t.Context(), w, r, "e"); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	next := make(chan struct{})
	go func() {
		defer out.Close()
		_, _ = io.WriteString(out, "one")
		<-next
		_, _ = io.WriteString(out, "two")
	}()
	resp, err := server.Client().Post(server.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "one" {
		t.Fatalf("first part %q, %v", first, err)
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two" {
		t.Fatalf("rest %q, %v", rest, err)
	}
}

type predictorFunc func() *serving.Response

func (f predictorFunc) Predict(context.Context, string, serving.Request) (*serving.Response, error) {
	return f(), nil
}
