package torchserve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

const (
	inferenceOf  = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
	managementOf = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
	oipOf        = "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/"
)

// caller is a client of the services by their descriptors.
type caller struct {
	methods               map[string]protoreflect.MethodDescriptor
	inference, management *grpc.ClientConn
}

func dial(t *testing.T, s *grpc.Server) *grpc.ClientConn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func newCaller(t *testing.T, f *fake, change func(*engine.Listen, *api.Deps)) *caller {
	t.Helper()
	methods, err := api.Methods()
	if err != nil {
		t.Fatal(err)
	}
	cfg := listen()
	deps := api.Deps{Engine: f, Metrics: api.NewMetrics(api.MetricsConfig{})}
	if change != nil {
		change(&cfg, &deps)
	}
	a := api.New(cfg, deps)
	inference, err := a.GRPCInference()
	if err != nil {
		t.Fatal(err)
	}
	management, err := a.GRPCManagement()
	if err != nil {
		t.Fatal(err)
	}
	return &caller{methods, dial(t, inference), dial(t, management)}
}

func (c *caller) conn(method string) *grpc.ClientConn {
	if strings.Contains(method, "management") {
		return c.management
	}
	return c.inference
}

// call sends a request written as JSON and gives the answers so.
func (c *caller) call(ctx context.Context, t *testing.T, method string, requests ...string) ([]string, error) {
	t.Helper()
	m := c.methods[method]
	stream, err := c.conn(method).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		in := dynamicpb.NewMessage(m.Input())
		if err := protojson.Unmarshal([]byte(r), in); err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var out []string
	for {
		got := dynamicpb.NewMessage(m.Output())
		if err := stream.RecvMsg(got); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return out, err
		}
		text, err := protojson.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.ReplaceAll(string(text), " ", ""))
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	c := newCaller(t, &fake{}, nil)
	for _, tt := range []struct {
		method  string
		request []string
		want    string // the answers, between bars
		code    codes.Code
		message string
	}{
		{inferenceOf + "Ping", []string{"{}"}, `{"health":"{\n\"status\":\"PartialHealthy\"\n}"}`, codes.OK, ""},
		{inferenceOf + "Predictions", []string{`{"model_name":"echo","input":{"b":"Mg==","a":"MQ=="}}`}, `{"prediction":"YVtdPTEgYltdPTI="}`, codes.OK, ""},
		{inferenceOf + "Predictions", []string{`{}`}, "", codes.InvalidArgument, "Parameter model_name is required.\nBadRequestException"},
		{inferenceOf + "Predictions", []string{`{"model_name":"nope"}`}, "", codes.NotFound, "Model not found: nope\nModelNotFoundException"},
		{inferenceOf + "Predictions", []string{`{"model_name":"idle"}`}, "", codes.Unavailable, ""},
		{inferenceOf + "Predictions", []string{`{"model_name":"echo","input":{"body":"dGVhcG90"}}`}, "", codes.Internal, "x\nInternalServerException"},
		{inferenceOf + "StreamPredictions", []string{`{"model_name":"echo","input":{"body":"c3RyZWFt"}}`}, `{"prediction":"czAg"}|{"prediction":"czEg"}|{"prediction":"czIg"}|{"prediction":"ZW5k"}`, codes.OK, ""},
		{
			inferenceOf + "StreamPredictions2",
			[]string{`{"model_name":"echo","sequence_id":"s","input":{"a":"MQ=="}}`, `{"model_name":"nope","sequence_id":"s"}`, `{"model_name":"echo"}`, `{"model_name":"echo","sequence_id":"s","input":{"a":"Mg=="}}`},
			`{"prediction":"YVtdPTE=","sequenceId":"s"}|{"sequenceId":"s","status":{"code":5,"message":"Modelnotfound:nope"}}|{"sequenceId":"","status":{"code":3,"message":"ParametersequenceIdisrequired."}}|{"prediction":"YVtdPTI=","sequenceId":"s"}`,
			codes.OK, "",
		},
		{managementOf + "ListModels", []string{`{"limit":1}`}, `{"msg":"{\n\"nextPageToken\":\"1\",\n\"models\":[\n{\n\"modelName\":\"echo\",\n\"modelUrl\":\"echo.mar\"\n}\n]\n}"}`, codes.OK, ""},
		{managementOf + "RegisterModel", []string{`{"url":"a.mar","model_name":"a","initial_workers":1}`}, `{"msg":"Processingworkerupdates..."}`, codes.OK, ""},
		{managementOf + "RegisterModel", []string{`{"url":"a.mar","model_name":"a","initial_workers":1,"synchronous":true}`}, `{"msg":"Model\"a\"Version:1.0registeredwith1initialworkers"}`, codes.OK, ""},
		{managementOf + "RegisterModel", []string{`{}`}, "", codes.InvalidArgument, "Parameter url is required.\nBadRequestException"},
		{managementOf + "ScaleWorker", []string{`{"model_name":"echo","synchronous":true}`}, `{"msg":"Workersscaledto1formodel:echo"}`, codes.OK, ""},
		{managementOf + "ScaleWorker", []string{`{"model_name":"echo","min_worker":2,"max_worker":1}`}, "", codes.InvalidArgument, ""},
		{managementOf + "SetDefault", []string{`{"model_name":"echo","model_version":"2.0"}`}, "", codes.NotFound, ""},
		{managementOf + "SetDefault", []string{`{"model_name":"echo","model_version":"1.0"}`}, `{"msg":"Defaultversionsuccessfullyupdatedformodel\"echo\"to\"1.0\""}`, codes.OK, ""},
		{managementOf + "UnregisterModel", []string{`{"model_name":"echo"}`}, `{"msg":"Model\"echo\"unregistered"}`, codes.OK, ""},
		{managementOf + "UnregisterModel", []string{`{}`}, "", codes.InvalidArgument, ""},
		{managementOf + "DescribeModel", []string{`{"model_name":"nope"}`}, "", codes.NotFound, ""},
		{oipOf + "ServerLive", []string{`{}`}, `{"live":true}`, codes.OK, ""},
		{oipOf + "ServerReady", []string{`{}`}, `{"ready":true}`, codes.OK, ""},
		{oipOf + "ServerMetadata", []string{`{}`}, `{"name":"Torchserve","version":"0.12.0","extensions":["kserve","kubeflow"]}`, codes.OK, ""},
		{oipOf + "ModelReady", []string{`{"name":"echo"}`}, `{"ready":true}`, codes.OK, ""},
		{oipOf + "ModelReady", []string{`{"name":"idle"}`}, `{}`, codes.OK, ""},
		{oipOf + "ModelMetadata", []string{`{"name":"echo"}`}, `{"name":"echo","versions":["1.0"]}`, codes.OK, ""},
		{oipOf + "ModelInfer", []string{`{"model_name":"echo","raw_input_contents":["AA=="]}`}, "", codes.Unimplemented, ""},
		{oipOf + "ModelInfer", []string{`{"model_name":"echo","inputs":[{"name":"x","datatype":"FP16"}]}`}, "", codes.InvalidArgument, ""},
	} {
		got, err := c.call(t.Context(), t, tt.method, tt.request...)
		if text := strings.Join(got, "|"); text != tt.want || status.Code(err) != tt.code || tt.message != "" && status.Convert(err).Message() != tt.message {
			t.Errorf("%s %v:\n got %s %v\nwant %s %v %q", tt.method, tt.request, text, err, tt.want, tt.code, tt.message)
		}
	}
	err := c.inference.Invoke(t.Context(), "/a.B/C", dynamicpb.NewMessage(c.methods[oipOf+"ServerLive"].Input()), dynamicpb.NewMessage(c.methods[oipOf+"ServerLive"].Output()))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("no method: %v", err)
	}
}

// inferring answers infer requests with tensors.
type inferring struct {
	fake
	asked string
}

func (f *inferring) Predict(_ context.Context, _, _ string, r engine.Request, emit func(engine.Frame) error) error {
	f.asked = told(r)
	return emit(engine.Frame{Status: http.StatusOK, Body: []byte(`{"id":"7","model_name":"echo","model_version":"1.0","outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[1.5,2]},{"name":"z","shape":[1],"datatype":"BYTES","data":["aGk="]}]}`)})
}

func TestInfer(t *testing.T) {
	t.Parallel()
	f := &inferring{}
	methods, err := api.Methods()
	if err != nil {
		t.Fatal(err)
	}
	server, err := api.New(listen(), api.Deps{Engine: f}).GRPCInference()
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{methods: methods, inference: dial(t, server)}
	got, err := c.call(t.Context(), t, oipOf+"ModelInfer", `{"model_name":"echo","id":"7","inputs":[{"name":"x","datatype":"INT64","shape":[2],"contents":{"int64_contents":["1","2"]}},{"name":"s","datatype":"BYTES","shape":[1],"contents":{"bytes_contents":["aGk="]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"modelName":"echo","modelVersion":"1.0","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":["2"],"contents":{"fp32Contents":[1.5,2]}},{"name":"z","datatype":"BYTES","shape":["1"],"contents":{"bytesContents":["aGk="]}}]}`
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if want := `body[application/json]={"id":"7","model_name":"echo","inputs":[{"name":"x","shape":[2],"datatype":"INT64","data":[1,2]},{"name":"s","shape":[1],"datatype":"BYTES","data":["aGk="]}]}`; f.asked != want {
		t.Errorf("the handler was asked %s, want %s", f.asked, want)
	}
}

func TestGRPCTokens(t *testing.T) {
	t.Parallel()
	tokens, err := api.NewTokens(filepath.Join(t.TempDir(), "key_file.json"), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	keys := readKeys(t, tokens.Path())
	c := newCaller(t, &fake{}, func(l *engine.Listen, d *api.Deps) { d.Tokens, l.ModelAPI = tokens, false })
	for _, tt := range []struct {
		method, request, key string
		want                 codes.Code
	}{
		{inferenceOf + "Ping", "{}", "", codes.PermissionDenied},
		{inferenceOf + "Ping", "{}", "management", codes.PermissionDenied},
		{inferenceOf + "Ping", "{}", "inference", codes.OK},
		{managementOf + "ListModels", "{}", "inference", codes.PermissionDenied},
		{managementOf + "ListModels", "{}", "management", codes.OK},
		{managementOf + "RegisterModel", `{"url":"a.mar"}`, "management", codes.PermissionDenied},
		{managementOf + "UnregisterModel", `{"model_name":"echo"}`, "management", codes.PermissionDenied},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+keys[tt.key])
		if _, err := c.call(ctx, t, tt.method, tt.request); status.Code(err) != tt.want {
			t.Errorf("%s with the key of %q: %v, want %v", tt.method, tt.key, err, tt.want)
		}
	}
}

// TestReflection: clients without the .proto files find the services.
func TestReflection(t *testing.T) {
	t.Parallel()
	c := newCaller(t, &fake{}, nil)
	stream, err := reflectionpb.NewServerReflectionClient(c.inference).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*reflectionpb.ServerReflectionRequest{
		{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}},
		{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "org.pytorch.serve.grpc.inference.InferenceAPIsService"}},
	} {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e := got.GetErrorResponse(); e != nil {
			t.Errorf("%v: %v", r, e)
		}
		if l := got.GetListServicesResponse(); l != nil && len(l.GetService()) != 2 {
			t.Errorf("services: %v", l.GetService())
		}
	}
}
