package aiplatform

import (
	"context"
	"testing"
	"time"

	"tategu/internal/operation"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

const operationsService = "google.longrunning.Operations/"

func startOperation(tb testing.TB, s *server) string {
	tb.Helper()
	var name string
	err := s.store.Update(tb.Context(), func(tx store.Tx) error {
		op, err := operation.Start(tb.Context(), tx, location+"/endpoints/e", nil)
		name = op.GetName()
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return name
}

func TestWaitOperation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	name := startOperation(t, s)
	wait := func(timeout time.Duration) *longrunningpb.WaitOperationRequest {
		return &longrunningpb.WaitOperationRequest{Name: name, Timeout: durationpb.New(timeout)}
	}
	if op := call[*longrunningpb.Operation](t, s, operationsService+"WaitOperation", wait(time.Millisecond)); op.Done {
		t.Error("the operation is done before it was finished")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.do(ctx, operationsService+"WaitOperation", wait(time.Hour)); err == nil {
		t.Error("a caller that left got an answer")
	}
	done := make(chan *longrunningpb.Operation, 1)
	go func() {
		m, _ := s.table.Lookup(operationsService + "WaitOperation")
		resp, err := m.Unary(t.Context(), wait(time.Hour))
		if err != nil {
			t.Error(err)
		}
		op, _ := resp.(*longrunningpb.Operation)
		done <- op
	}()
	err := s.store.Update(t.Context(), func(tx store.Tx) error {
		_, err := operation.Finish(t.Context(), tx, name, &pb.Endpoint{Name: "x"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if op := <-done; !op.GetDone() {
		t.Errorf("wait answered %v", op)
	}
	refuse(t, s, operationsService+"WaitOperation", &longrunningpb.WaitOperationRequest{Name: name + "x"}, codes.NotFound)
}

func TestListOperations(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	startOperation(t, s)
	createEndpoint(t, s, "e")
	upload(t, s, "m", "", &pb.Model{})
	for _, tt := range []struct {
		name, filter string
		want         int
	}{
		{location, "", 3},
		{location + "/operations", "", 3},
		{location, "done=true", 2},
		{location, "NOT done=true", 1},
		{location + "/endpoints/e", "", 2},
		{location + "/endpoints/f", "", 0},
		{"projects/q/locations/us-central1", "", 0},
	} {
		l := call[*longrunningpb.ListOperationsResponse](t, s, operationsService+"ListOperations",
			&longrunningpb.ListOperationsRequest{Name: tt.name, Filter: tt.filter})
		if len(l.Operations) != tt.want {
			t.Errorf("%s %s: %d operations, want %d", tt.name, tt.filter, len(l.Operations), tt.want)
		}
	}
	refuse(t, s, operationsService+"ListOperations", &longrunningpb.ListOperationsRequest{Name: "operations"}, codes.InvalidArgument)
	refuse(t, s, operationsService+"ListOperations", &longrunningpb.ListOperationsRequest{Name: location, Filter: "metadata.x=1"}, codes.InvalidArgument)
	refuse(t, s, operationsService+"GetOperation", &longrunningpb.GetOperationRequest{Name: location + "/operations/1"}, codes.NotFound)
}
