package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/telemetry"
	"tategu/internal/wire"
)

const (
	beta  = "google.cloud.aiplatform.v1beta1."
	model = "projects/p/locations/us-central1/models/1"
)

// gate is an identity with three tokens: "good" is a user of project p, "bad" is
// refused, and "panic" shows what becomes of a panic.
type gate struct {
	mu      sync.Mutex
	entries []identity.AuditEntry
	broken  bool // the audit trail cannot be written
}

func (g *gate) Authenticate(_ context.Context, bearer string) (identity.Principal, error) {
	if bearer != "good" {
		return identity.Principal{}, resource.Errorf(codes.Unauthenticated, "no such token")
	}
	return identity.Principal{Email: "ann@example.com", Grants: map[string]identity.Role{"p": identity.User}}, nil
}

func (g *gate) Authorize(_ context.Context, p identity.Principal, project, permission string) error {
	if p.Operator || p.Grants[project] != "" && !strings.HasSuffix(permission, "setIamPolicy") {
		return nil
	}
	return resource.Errorf(codes.PermissionDenied, "%s denied to %q on %q", permission, p.Email, project)
}

func (g *gate) ProjectID(_ context.Context, id string) (string, error) {
	if id == "123" {
		return "p", nil
	}
	return "", resource.NotFound("projects/" + id)
}

func (g *gate) Audit(_ context.Context, e identity.AuditEntry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken {
		return errors.New("no space")
	}
	g.entries = append(g.entries, e)
	return nil
}

func (g *gate) trail() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var lines []string
	for _, e := range g.entries {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s", e.Principal, e.Method, e.Project, e.Resource, e.Code))
	}
	return lines
}

// fakes is a small table over real descriptors.
func fakes() []api.Method {
	get := func(_ context.Context, req *pb.GetModelRequest) (*pb.Model, error) {
		switch {
		case strings.HasSuffix(req.Name, "/panic"):
			panic("a secret in a panic")
		case strings.HasSuffix(req.Name, "/broken"):
			return nil, errors.New("a secret in an error")
		case strings.HasSuffix(req.Name, "/full"):
			return nil, fmt.Errorf("write: %w", syscall.ENOSPC)
		case strings.HasSuffix(req.Name, "/wrapped"):
			return nil, fmt.Errorf("a secret around it: %w", resource.NotFound(req.Name).WithHint("look elsewhere"))
		case strings.HasSuffix(req.Name, "/busy"):
			return nil, resource.Errorf(codes.Unavailable, "starting")
		}
		return &pb.Model{Name: req.Name, DisplayName: "m", SupportedDeploymentResourcesTypes: []pb.Model_DeploymentResourcesType{pb.Model_DEDICATED_RESOURCES}}, nil
	}
	upload := func(ctx context.Context, req *pb.UploadModelRequest) (*longrunningpb.Operation, error) {
		if req.Model.VersionId != "" {
			return nil, errors.New("version_id is OUTPUT_ONLY and came through")
		}
		response, err := anypb.New(&pb.UploadModelResponse{Model: req.Parent + "/models/" + req.ModelId})
		if err != nil {
			return nil, err
		}
		metadata, err := anypb.New(&pb.UploadModelOperationMetadata{})
		if err != nil {
			return nil, err
		}
		name := req.Parent + "/operations/" + resource.Version(ctx)
		return &longrunningpb.Operation{Name: name, Done: true, Metadata: metadata, Result: &longrunningpb.Operation_Response{Response: response}}, nil
	}
	return []api.Method{
		api.Unary(beta+"ModelService/GetModel", "aiplatform.models.get", get),
		api.Unary(beta+"ModelService/UploadModel", "aiplatform.models.upload", upload),
		api.Unary(beta+"ModelService/ListModels", "aiplatform.models.list", func(_ context.Context, req *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
			m := &pb.Model{DisplayName: req.Parent, Description: fmt.Sprint(req.Filter, "|", req.PageSize, "|", req.ReadMask.GetPaths())}
			return &pb.ListModelsResponse{Models: []*pb.Model{m}}, nil
		}),
		api.Unary(beta+"ModelService/UpdateModel", "aiplatform.models.update", func(_ context.Context, req *pb.UpdateModelRequest) (*pb.Model, error) {
			req.Model.Description = strings.Join(req.UpdateMask.GetPaths(), ",")
			return req.Model, nil
		}),
		api.Unary(beta+"EndpointService/DeployModel", "aiplatform.endpoints.deploy", func(context.Context, *pb.DeployModelRequest) (*longrunningpb.Operation, error) {
			return &longrunningpb.Operation{Name: "x"}, nil
		}),
		predict(),
		rawPredict(),
		api.Stream(beta+"PredictionService/StreamRawPredict", "aiplatform.endpoints.predict", func(_ context.Context, req *pb.StreamRawPredictRequest, send func(*httpbody.HttpBody) error) error {
			for part := range bytes.SplitSeq(req.HttpBody.GetData(), []byte(",")) {
				if err := send(&httpbody.HttpBody{ContentType: "text/csv", Data: part}); err != nil {
					return err
				}
			}
			return nil
		}),
		api.Stream(beta+"PredictionService/ServerStreamingPredict", "aiplatform.endpoints.predict", func(_ context.Context, req *pb.StreamingPredictRequest, send func(*pb.StreamingPredictResponse) error) error {
			for range req.Inputs {
				if err := send(&pb.StreamingPredictResponse{Outputs: []*pb.Tensor{{Dtype: pb.Tensor_BOOL}}}); err != nil {
					return err
				}
			}
			if strings.HasSuffix(req.Endpoint, "/breaks") {
				return resource.Errorf(codes.Aborted, "broke off")
			}
			return nil
		}),
		api.Unary("google.longrunning.Operations/GetOperation", "aiplatform.operations.get", func(_ context.Context, req *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
			metadata, err := anypb.New(&pb.UploadModelOperationMetadata{})
			return &longrunningpb.Operation{Name: req.Name, Metadata: metadata}, err
		}),
		api.Unary("google.iam.v1.IAMPolicy/SetIamPolicy", "aiplatform.models.setIamPolicy", func(_ context.Context, req *iampb.SetIamPolicyRequest) (*iampb.Policy, error) {
			return req.Policy, nil
		}),
		api.Unary("google.cloud.resourcemanager.v3.Projects/GetProject", api.Public, func(_ context.Context, req *resourcemanagerpb.GetProjectRequest) (*resourcemanagerpb.Project, error) {
			return &resourcemanagerpb.Project{Name: req.Name}, nil
		}),
	}
}

func predict() api.Method {
	m := api.Unary(beta+"PredictionService/Predict", "aiplatform.endpoints.predict", func(_ context.Context, req *pb.PredictRequest) (*pb.PredictResponse, error) {
		return &pb.PredictResponse{Predictions: req.Instances}, nil
	})
	m.HTTP = func(_ context.Context, w http.ResponseWriter, r *http.Request, name string) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return resource.Invalid("instances", "nothing to predict")
		}
		_, err = fmt.Fprintf(w, "fast %s %s", name, body)
		if strings.HasSuffix(name, "/cut") {
			return errors.New("the replica went away")
		}
		return err
	}
	return m
}

func rawPredict() api.Method {
	m := api.Unary(beta+"PredictionService/RawPredict", "aiplatform.endpoints.predict", func(_ context.Context, req *pb.RawPredictRequest) (*httpbody.HttpBody, error) {
		return &httpbody.HttpBody{ContentType: "text/x", Data: append([]byte(req.HttpBody.GetContentType()+":"), req.HttpBody.GetData()...)}, nil
	})
	m.HTTP = func(_ context.Context, w http.ResponseWriter, r *http.Request, _ string) error {
		w.WriteHeader(http.StatusTeapot)
		_, err := io.Copy(w, r.Body)
		return err
	}
	return m
}

// fixture is a running server on loopback.
type fixture struct {
	*wire.Server
	gate *gate
	ca   *wire.CA
	addr string
	log  *syncBuffer
	port string
}

func newConfig(t *testing.T) (wire.Config, *gate, *syncBuffer) {
	t.Helper()
	table, err := api.NewTable(fakes())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := wire.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	g, out := &gate{}, &syncBuffer{}
	log, err := telemetry.NewLogger(out, telemetry.Text, "info")
	if err != nil {
		t.Fatal(err)
	}
	return wire.Config{
		Table: table, Identity: g, Log: log, Now: time.Now, Registry: telemetry.NewRegistry("test"), CA: ca,
		MaxBody: 1 << 20, Drain: 2 * time.Second,
	}, g, out
}

func start(t *testing.T, change func(*wire.Config)) *fixture {
	t.Helper()
	cfg, g, out := newConfig(t)
	if change != nil {
		change(&cfg)
	}
	s, err := wire.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		s.Close()
	})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return &fixture{Server: s, gate: g, ca: cfg.CA, addr: ln.Addr().String(), log: out, port: port}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// client speaks HTTP/1.1 or, over TLS, h2, and trusts our authority alone.
func (f *fixture) client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.ca.Pool()}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// answer is what is left of a response whose body was read.
type answer struct {
	StatusCode int
	Header     http.Header
}

// do sends one request and reads the whole answer.
func (f *fixture) do(t *testing.T, method, target, body string, headers ...string) (answer, string) {
	t.Helper()
	if strings.HasPrefix(target, "/") {
		target = "http://" + f.addr + target
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := f.client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header}, string(data)
}
