package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"tategu/internal/wire"
)

func (f *fixture) dial(t *testing.T, creds credentials.TransportCredentials, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+f.addr, append(opts, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	for name, creds := range map[string]credentials.TransportCredentials{
		"h2c": insecure.NewCredentials(),
		"TLS": credentials.NewTLS(&tls.Config{RootCAs: f.ca.Pool(), MinVersion: tls.VersionTLS12}),
		"TLS under an intercepted name": credentials.NewTLS(&tls.Config{
			RootCAs: f.ca.Pool(), ServerName: "us-central1-aiplatform.googleapis.com", MinVersion: tls.VersionTLS12,
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := f.dial(t, creds)
			unaryBothVersions(t, conn)
			streams(t, conn)
		})
	}
}

func unaryBothVersions(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx := t.Context()
	m, err := v1.NewModelServiceClient(conn).GetModel(ctx, &v1.GetModelRequest{Name: strings.Replace(model, "/p/", "/123/", 1)}, grpc.UseCompressor(gzip.Name))
	if err != nil || m.Name != model || len(m.SupportedDeploymentResourcesTypes) != 1 {
		t.Errorf("v1 GetModel = %v, %v", m, err)
	}
	mb, err := pb.NewModelServiceClient(conn).GetModel(ctx, &pb.GetModelRequest{Name: model})
	if err != nil || mb.Name != model {
		t.Errorf("v1beta1 GetModel = %v, %v", mb, err)
	}
	op, err := v1.NewModelServiceClient(conn).UploadModel(ctx, &v1.UploadModelRequest{Parent: "projects/p/locations/l", ModelId: "m", Model: &v1.Model{DisplayName: "d", VersionId: "9"}})
	if err != nil {
		t.Fatal(err)
	}
	var uploaded v1.UploadModelResponse
	if err := op.GetResponse().UnmarshalTo(&uploaded); err != nil || uploaded.Model != "projects/p/locations/l/models/m" {
		t.Errorf("v1 response = %v, %v", &uploaded, err)
	}
	if err := op.GetMetadata().UnmarshalTo(&v1.UploadModelOperationMetadata{}); err != nil {
		t.Error(err)
	}
	op, err = pb.NewModelServiceClient(conn).UploadModel(ctx, &pb.UploadModelRequest{Parent: "projects/p/locations/l", Model: &pb.Model{DisplayName: "d"}})
	if err != nil || op.GetResponse().UnmarshalTo(&pb.UploadModelResponse{}) != nil {
		t.Errorf("v1beta1 operation = %v, %v", op, err)
	}
	_, err = v1.NewModelServiceClient(conn).UploadModel(ctx, &v1.UploadModelRequest{Parent: "projects/p/locations/l"})
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || len(st.Details()) == 0 {
		t.Errorf("missing model: %v", err)
	}
	_, err = v1.NewFeaturestoreServiceClient(conn).GetFeaturestore(ctx, &v1.GetFeaturestoreRequest{Name: model})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "google.cloud.aiplatform.v1.FeaturestoreService/GetFeaturestore") {
		t.Errorf("method out of the table: %v", err)
	}
	if err := conn.Invoke(ctx, "/no.such.Service/Method", &v1.GetModelRequest{}, &v1.Model{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown service: %v", err)
	}
	if err := conn.Invoke(ctx, "/google.cloud.aiplatform.v1.ModelService/GetModel", &anypb.Any{TypeUrl: "\x00", Value: []byte{255}}, &v1.Model{}); status.Code(err) == codes.Internal {
		t.Errorf("strange bytes are the caller's fault: %v", err)
	}
	bad := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer evil")
	if _, err := pb.NewModelServiceClient(conn).GetModel(bad, &pb.GetModelRequest{Name: model}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("bad token: %v", err)
	}
	good := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer good")
	if _, err := pb.NewModelServiceClient(conn).GetModel(good, &pb.GetModelRequest{Name: "projects/q/locations/l/models/1"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("other project: %v", err)
	}
	if _, err := pb.NewModelServiceClient(conn).GetModel(ctx, &pb.GetModelRequest{Name: "projects/p/locations/l/models/panic"}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("panic: %v", err)
	}
	if op, err := longrunningpb.NewOperationsClient(conn).GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: model + "/operations/1"}); err != nil || op.Name == "" {
		t.Errorf("GetOperation = %v, %v", op, err)
	}
}

func streams(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	stream, err := v1.NewPredictionServiceClient(conn).StreamRawPredict(t.Context(), &v1.StreamRawPredictRequest{
		Endpoint: "projects/p/locations/l/endpoints/1", HttpBody: &httpbody.HttpBody{Data: []byte("a,b,c")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(part.Data))
	}
	if !slices.Equal(parts, []string{"a", "b", "c"}) {
		t.Errorf("parts = %q", parts)
	}
}

func TestMessageSizeIsBounded(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) { c.MaxMessage = 1 << 10 })
	client := pb.NewModelServiceClient(f.dial(t, insecure.NewCredentials()))
	_, err := client.GetModel(t.Context(), &pb.GetModelRequest{Name: strings.Repeat("x", 2<<10)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("GetModel with a huge name: %v", err)
	}
}

func TestReflectionAndHealth(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) { c.LoopbackTokens = true; c.Ready = func() error { return errors.New("no") } })
	conn := f.dial(t, insecure.NewCredentials())
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health = %v, %v", health, err)
	}
	ask := func(ctx context.Context) (*reflectionpb.ServerReflectionResponse, error) {
		stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err != nil {
			return nil, err
		}
		list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
		if err := stream.Send(list); err != nil && !errors.Is(err, io.EOF) { // refused already: Recv says why
			return nil, err
		}
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		return answer, stream.CloseSend()
	}
	if _, err := ask(t.Context()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("reflection without a token: %v", err)
	}
	answer, err := ask(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer good"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.Name)
	}
	if !slices.Contains(names, "google.cloud.aiplatform.v1.ModelService") || slices.Contains(names, "google.cloud.aiplatform.v1.FeaturestoreService") {
		t.Errorf("services = %q", names)
	}
}

// TestShutdown lets a running request finish and then takes no more.
func TestShutdown(t *testing.T) {
	t.Parallel()
	cfg, _, _ := newConfig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	cfg.Routes = []wire.Route{{Name: "slow", Prefixes: []string{"/slow"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = w.Write([]byte("done"))
	})}}
	s, err := wire.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	f := &fixture{Server: s, ca: cfg.CA, addr: ln.Addr().String()}
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.addr) // says nothing and must not hold us up
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	body := make(chan string, 1)
	go func() {
		_, text := f.do(t, "GET", "/slow", "")
		body <- text
	}()
	<-entered
	cancel()
	close(release)
	if got := <-body; got != "done" {
		t.Errorf("running request got %q", got)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("Serve = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve did not return")
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.addr); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

// TestNothingIsOpenByAccident calls every method of every service: those out of
// the table are refused by name, the others to a caller of another project.
func TestNothingIsOpenByAccident(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	conn := f.dial(t, insecure.NewCredentials())
	listed := map[string]bool{}
	for _, m := range fakes() {
		listed[m.Name] = true
		listed[strings.Replace(m.Name, beta, "google.cloud.aiplatform.v1.", 1)] = true
	}
	stranger := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer good")
	for _, name := range wire.MethodNames(f.Server) {
		err := conn.Invoke(t.Context(), "/"+name, &emptypb.Empty{}, &emptypb.Empty{})
		if unimplemented := status.Code(err) == codes.Unimplemented; unimplemented == listed[name] || unimplemented && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, in the table: %v", name, err, listed[name])
		}
		if strings.HasSuffix(name, "Projects/GetProject") {
			continue // public
		}
		err = conn.Invoke(stranger, "/"+name, &emptypb.Empty{}, &emptypb.Empty{})
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unimplemented {
			t.Errorf("%s to a caller without a role where it is about: %v", name, err)
		}
	}
}
