package aiplatform

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

const (
	location = "projects/p/locations/us-central1"
	ownAddr  = "127.0.0.1:8090"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is the dispatch table over a real store.
type server struct {
	store store.Store
	std   *Standard
	table *api.Table
}

// accounts lets "ok@" accounts be used.
type accounts struct{}

func (accounts) ServiceAccount(_ context.Context, email string) (project, canonical string, err error) {
	return "p", email, nil
}

func (accounts) ActAs(_ context.Context, _ identity.Principal, email string) error {
	if !strings.HasPrefix(email, "ok@") {
		return resource.Errorf(codes.PermissionDenied, "not as %s", email)
	}
	return nil
}

func (accounts) Authorize(ctx context.Context, _ identity.Principal, _, permission string) error {
	if identity.FromContext(ctx).Email == "reader@p" {
		return resource.Errorf(codes.PermissionDenied, "permission %q denied", permission)
	}
	return nil
}

// images keeps one image for itself.
type images struct{}

func (images) MayRun(_ context.Context, image string) error {
	if image == "theirs/secret" {
		return resource.Errorf(codes.PermissionDenied, "image %s is not for you", image)
	}
	return nil
}

func (images) MayRead(_ context.Context, uri string) error {
	if strings.HasPrefix(uri, "gs://theirs/") {
		return resource.Errorf(codes.PermissionDenied, "%s is not for you", uri)
	}
	return nil
}

func (images) MayWrite(_ context.Context, uri string) error {
	if strings.HasPrefix(uri, "gs://theirs/") {
		return resource.Errorf(codes.PermissionDenied, "%s is not to be written by you", uri)
	}
	return nil
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	st, err := sqlite.Open(tb.Context(), filepath.Join(tb.TempDir(), "t.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	std := NewStandard(st, time.Now)
	var groups [][]api.Method
	for _, s := range []interface{ Methods() ([]api.Method, error) }{
		NewModels(std), NewEndpoints(std, accounts{}, images{}, nil, func() string { return ownAddr }), NewPools(std), NewMetadata(std), NewOperations(std),
	} {
		methods, err := s.Methods()
		if err != nil {
			tb.Fatal(err)
		}
		groups = append(groups, methods)
	}
	table, err := api.NewTable(groups...)
	if err != nil {
		tb.Fatal(err)
	}
	return &server{store: st, std: std, table: table}
}

func (s *server) do(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
	if !strings.Contains(method, "/") {
		for _, service := range []string{modelService, endpointService, poolService, metadataService} {
			if name := MethodName(service, method); hasMethod(s.table, name) {
				method = name
			}
		}
	}
	m, ok := s.table.Lookup(method)
	if !ok {
		return nil, resource.Unimplemented(method)
	}
	return m.Unary(ctx, req)
}

func hasMethod(t *api.Table, name string) bool {
	_, ok := t.Lookup(name)
	return ok
}

// call wants success. An operation that is done is unpacked when T is its response.
func call[T proto.Message](tb testing.TB, s *server, method string, req proto.Message) T {
	tb.Helper()
	var want T
	resp, err := s.do(tb.Context(), method, req)
	if err != nil {
		tb.Fatalf("%s: %v", method, err)
	}
	if op, ok := resp.(*longrunningpb.Operation); ok && any(want) != any((*longrunningpb.Operation)(nil)) {
		if _, isOp := any(want).(*longrunningpb.Operation); isOp {
			return resp.(T)
		}
		if !op.Done || op.GetResponse() == nil {
			tb.Fatalf("%s: the operation has no response: %v", method, op)
		}
		msg, err := op.GetResponse().UnmarshalNew()
		if err != nil {
			tb.Fatal(err)
		}
		resp = msg
	}
	typed, ok := resp.(T)
	if !ok {
		tb.Fatalf("%s: got %T", method, resp)
	}
	return typed
}

// refuse wants an error of a code whose text holds every part.
func refuse(tb testing.TB, s *server, method string, req proto.Message, code codes.Code, parts ...string) {
	tb.Helper()
	_, err := s.do(tb.Context(), method, req)
	if resource.CodeOf(err) != code {
		tb.Fatalf("%s: got %v (%v), want %v", method, resource.CodeOf(err), err, code)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			tb.Errorf("%s: %q does not name %q", method, err, p)
		}
	}
}
