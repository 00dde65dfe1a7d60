package aiplatform

import (
	"context"
	"errors"
	"strings"
	"time"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
)

// maxWait bounds WaitOperation, however long the client would.
const maxWait = 10 * time.Minute

// Operations is google.longrunning.Operations over the operation rows.
type Operations struct{ std *Standard }

// NewOperations makes the service.
func NewOperations(std *Standard) *Operations { return &Operations{std: std} }

// Methods gives the rows of the dispatch table.
func (s *Operations) Methods() ([]api.Method, error) {
	const service = "google.longrunning.Operations/"
	return []api.Method{
		api.Unary(service+"GetOperation", "aiplatform.operations.get", s.get),
		api.Unary(service+"ListOperations", "aiplatform.operations.list", s.list),
		api.Unary(service+"WaitOperation", "aiplatform.operations.wait", s.wait),
		api.Unary(service+"CancelOperation", "aiplatform.operations.cancel", s.cancel),
		api.Unary(service+"DeleteOperation", "aiplatform.operations.delete", s.delete),
	}, nil
}

func (s *Operations) get(ctx context.Context, req *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	return operation.Get(ctx, s.std.store, req.Name)
}

// list gives the operations on a resource and everything below it. Clients name
// the resource, with or without the collection behind it.
func (s *Operations) list(ctx context.Context, req *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	parent := strings.TrimSuffix(req.Name, "/operations")
	if name, err := resource.ParseName(parent); err != nil || name.Project() == "" || name.Project() == "-" {
		return nil, resource.Invalid("name", "%q is not the name of a location or a resource", req.Name)
	}
	resp := &longrunningpb.ListOperationsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Kind: operation.Kind, Prefix: parent + "/"})
}

// wait answers as soon as the operation is done, or as it is when the time is up.
func (s *Operations) wait(ctx context.Context, req *longrunningpb.WaitOperationRequest) (*longrunningpb.Operation, error) {
	limit := maxWait
	if req.Timeout != nil {
		limit = min(limit, max(0, req.Timeout.AsDuration()))
	}
	w := s.std.store.Watch(operation.Kind)
	defer w.Close()
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		op, err := operation.Get(ctx, s.std.store, req.Name)
		if err != nil || op.Done {
			return op, err
		}
		_, err = w.Next(waiting)
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return op, nil
		default:
			return nil, err
		}
	}
}

// cancel ends a running operation with CANCELLED and takes back what it had
// begun. An operation that is done stays as it is.
func (s *Operations) cancel(ctx context.Context, req *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		op, err := operation.Get(ctx, tx, req.Name)
		if err != nil || op.Done {
			return err
		}
		on, _, _ := strings.Cut(op.Name, "/operations/")
		if err := cancelDeploy(ctx, tx, on, op.Name); err != nil {
			return err
		}
		_, err = operation.Fail(ctx, tx, op.Name, resource.Errorf(codes.Canceled, "the operation was cancelled").WithResource(on))
		return err
	})
}

// cancelDeploy turns the deployment that the operation is about into one to take
// down; the serving engine removes it.
func cancelDeploy(ctx context.Context, tx store.Tx, endpoint, op string) error {
	waiting, err := tx.List(ctx, store.Query{Kind: resource.KindDeploymentOps, Parent: endpoint})
	if err != nil {
		return err
	}
	for _, w := range waiting {
		if string(w.Data) != op {
			continue
		}
		row, err := tx.Get(ctx, resource.KindDeployments, w.Key)
		if resource.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		row.State = resource.StateUndeploying
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
		return tx.Delete(ctx, w.Kind, w.Key)
	}
	return nil
}

func (s *Operations) delete(ctx context.Context, req *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		op, err := operation.Get(ctx, tx, req.Name)
		if err != nil {
			return err
		}
		if !op.Done {
			return resource.Errorf(codes.FailedPrecondition, "%s is still running", op.Name).WithResource(op.Name).WithHint("cancel it first")
		}
		return tx.Delete(ctx, operation.Kind, op.Name)
	})
}
