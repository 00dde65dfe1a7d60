// Package operation keeps long-running operations. An operation is finished in
// the same transaction as the resource it is about, so that a client that sees
// done=true also sees the resource. It has no policy of its own.
//
// google.longrunning.Operations has no API version, so an operation remembers the
// version of the call that made it: the type URLs inside the stored operation are
// of that version (resource.WithVersion; v1beta1 outside a call). The bytes of the
// messages are the same in both.
package operation

import (
	"context"
	"fmt"

	"tategu/internal/resource"
	"tategu/internal/store"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Kind of the rows; the key is the operation's full name, the parent its resource.
const Kind store.Kind = "operation"

// Row states.
const (
	StateRunning = "RUNNING"
	StateDone    = "DONE"
)

// Start records an operation on the named resource that is not done yet.
// metadata is the v1beta1 metadata message of the method.
func Start(ctx context.Context, tx store.Tx, on string, metadata proto.Message) (*longrunningpb.Operation, error) {
	id, chosen := resource.IDFor(ctx)
	op := &longrunningpb.Operation{Name: on + "/operations/" + id}
	if chosen {
		if _, err := tx.Get(ctx, Kind, op.Name); err == nil {
			return nil, resource.Errorf(codes.AlreadyExists, "%s already exists", op.Name).WithResource(op.Name)
		} else if !resource.IsNotFound(err) {
			return nil, err
		}
	}
	if metadata != nil {
		packed, err := pack(metadata, resource.Version(ctx))
		if err != nil {
			return nil, err
		}
		op.Metadata = packed
	}
	return op, put(ctx, tx, op, on)
}

// Done records an operation that is done at once with response.
func Done(ctx context.Context, tx store.Tx, on string, metadata, response proto.Message) (*longrunningpb.Operation, error) {
	op, err := Start(ctx, tx, on, metadata)
	if err != nil {
		return nil, err
	}
	return Finish(ctx, tx, op.Name, response)
}

// Finish sets the response of a running operation.
func Finish(ctx context.Context, tx store.Tx, name string, response proto.Message) (*longrunningpb.Operation, error) {
	packed, err := pack(response, resource.Version(ctx))
	if err != nil {
		return nil, err
	}
	return finish(ctx, tx, name, func(op *longrunningpb.Operation) {
		// Whoever finishes it, an engine perhaps, answers in the maker's version.
		packed.TypeUrl = resource.TypeURLIn(packed.TypeUrl, resource.TypeURLVersion(op.GetMetadata().GetTypeUrl()))
		op.Result = &longrunningpb.Operation_Response{Response: packed}
	})
}

func pack(m proto.Message, version string) (*anypb.Any, error) {
	packed, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	packed.TypeUrl = resource.TypeURLIn(packed.TypeUrl, version)
	return packed, nil
}

// Fail ends a running operation with an error, which has a cause and a next step
// then, whatever it was.
func Fail(ctx context.Context, tx store.Tx, name string, cause error) (*longrunningpb.Operation, error) {
	return finish(ctx, tx, name, func(op *longrunningpb.Operation) {
		op.Result = &longrunningpb.Operation_Error{Error: resource.Outcome(cause).GRPCStatus().Proto()}
	})
}

// Get reads an operation.
func Get(ctx context.Context, r store.Reader, name string) (*longrunningpb.Operation, error) {
	op := &longrunningpb.Operation{}
	_, err := store.GetMessage(ctx, r, Kind, name, op)
	return op, err
}

func finish(ctx context.Context, tx store.Tx, name string, set func(*longrunningpb.Operation)) (*longrunningpb.Operation, error) {
	op := &longrunningpb.Operation{}
	row, err := store.GetMessage(ctx, tx, Kind, name, op)
	if err != nil {
		return nil, err
	}
	if op.Done {
		return op, nil // a cancelled or already finished operation keeps its result
	}
	op.Done = true
	set(op)
	return op, put(ctx, tx, op, row.Parent)
}

func put(ctx context.Context, tx store.Tx, op *longrunningpb.Operation, on string) error {
	state := StateRunning
	if op.Done {
		state = StateDone
	}
	return store.PutMessage(ctx, tx, store.Row{Kind: Kind, Key: op.Name, Parent: on, State: state}, op)
}

// Describe replaces the metadata of an operation; their version stays.
func Describe(ctx context.Context, tx store.Tx, name string, metadata proto.Message) error {
	op := &longrunningpb.Operation{}
	row, err := store.GetMessage(ctx, tx, Kind, name, op)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("metadata of %s: %w", name, err)
	}
	if op.Metadata == nil {
		return fmt.Errorf("operation %s has no metadata to replace", name)
	}
	op.Metadata.Value = data
	return put(ctx, tx, op, row.Parent)
}
