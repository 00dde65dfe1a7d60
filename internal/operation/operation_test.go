package operation

import (
	"path/filepath"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
)

const on = "projects/p/locations/l/endpoints/e"

func open(t *testing.T) store.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func change(t *testing.T, st store.Store, f func(tx store.Tx) (*longrunningpb.Operation, error)) *longrunningpb.Operation {
	t.Helper()
	var op *longrunningpb.Operation
	err := st.Update(t.Context(), func(tx store.Tx) (err error) {
		op, err = f(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func TestOperationEndsOnce(t *testing.T) {
	t.Parallel()
	st, ctx := open(t), t.Context()
	op := change(t, st, func(tx store.Tx) (*longrunningpb.Operation, error) {
		return Start(ctx, tx, on, &pb.DeployModelOperationMetadata{})
	})
	name := op.Name
	if rows, err := st.List(ctx, store.Query{Kind: Kind, Parent: on, States: []string{StateRunning}}); err != nil || len(rows) != 1 {
		t.Fatalf("running operations: %v, %v", rows, err)
	}
	failed := change(t, st, func(tx store.Tx) (*longrunningpb.Operation, error) {
		return Fail(ctx, tx, name, resource.Errorf(codes.FailedPrecondition, "no room").WithHint("make some"))
	})
	if !failed.Done || codes.Code(failed.GetError().GetCode()) != codes.FailedPrecondition || len(failed.GetError().Details) == 0 {
		t.Errorf("failed operation = %v", failed)
	}
	late := change(t, st, func(tx store.Tx) (*longrunningpb.Operation, error) {
		return Finish(ctx, tx, name, &pb.DeployModelResponse{})
	})
	if late.GetError() == nil {
		t.Errorf("the result was replaced: %v", late)
	}
	if rows, err := st.List(ctx, store.Query{Kind: Kind, States: []string{StateRunning}}); err != nil || len(rows) != 0 {
		t.Errorf("still running: %v, %v", rows, err)
	}
}

func TestDoneCarriesTheResponse(t *testing.T) {
	t.Parallel()
	st, ctx := open(t), t.Context()
	op := change(t, st, func(tx store.Tx) (*longrunningpb.Operation, error) {
		return Done(ctx, tx, on, nil, &pb.Endpoint{Name: on})
	})
	got, err := Get(ctx, st, op.Name)
	if err != nil || !got.Done || got.Metadata != nil {
		t.Fatalf("operation = %v, %v", got, err)
	}
	e := &pb.Endpoint{}
	if err := got.GetResponse().UnmarshalTo(e); err != nil || e.Name != on {
		t.Errorf("response = %v, %v", e, err)
	}
	if _, err := Get(ctx, st, on+"/operations/1"); !resource.IsNotFound(err) {
		t.Errorf("unknown operation: %v", err)
	}
}

// TestChosenOperation: who repeats a call with the id that it chose starts nothing.
func TestChosenOperation(t *testing.T) {
	t.Parallel()
	st := open(t)
	ctx, err := resource.WithID(t.Context(), "42")
	if err != nil {
		t.Fatal(err)
	}
	op := change(t, st, func(tx store.Tx) (*longrunningpb.Operation, error) { return Start(ctx, tx, on, nil) })
	if op.Name != on+"/operations/42" {
		t.Errorf("name %s", op.Name)
	}
	err = st.Update(ctx, func(tx store.Tx) error {
		_, err := Done(ctx, tx, on, nil, &pb.Endpoint{})
		return err
	})
	if resource.CodeOf(err) != codes.AlreadyExists {
		t.Errorf("again: %v", err)
	}
	if got, err := Get(ctx, st, op.Name); err != nil || got.Done {
		t.Errorf("it was changed: %v, %v", got, err)
	}
}
