package vector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Update is a batch update that an API call asked for: the data of a row of
// resource.KindIndexUpdates.
type Update struct {
	Operation string `json:"operation"`
	URI       string `json:"uri"`
	Overwrite bool   `json:"overwrite"`
	// Creates says that the index goes when the update fails.
	Creates bool `json:"creates"`
}

// Put records an update in the transaction that starts its operation.
func (u Update) Put(ctx context.Context, tx store.Tx, index string) error {
	data, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("record a batch update: %w", err)
	}
	return tx.Put(ctx, store.Row{Kind: resource.KindIndexUpdates, Key: index + "/updates/" + resource.NewID(), Parent: index, Data: data})
}

// update does one batch update, and ends its operation.
func (e *Engine) update(ctx context.Context, row store.Row) error {
	// The list that it is from may be older than its end.
	switch _, err := e.cfg.Store.Get(ctx, row.Kind, row.Key); {
	case resource.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	var u Update
	if err := json.Unmarshal(row.Data, &u); err != nil {
		return fmt.Errorf("decode %s: %w", row.Key, err)
	}
	report := newReport()
	err := e.apply(ctx, row, u, report)
	if err == nil || isEnd(ctx, err) {
		return err
	}
	e.cfg.Log.WarnContext(ctx, "a batch update failed", slog.String("index", row.Parent), slog.Any("error", err))
	return e.cfg.Store.Update(ctx, func(tx store.Tx) error { return e.fail(ctx, tx, row, u, report, err) })
}

func (e *Engine) apply(ctx context.Context, row store.Row, u Update, report *report) error {
	index, err := e.Index(ctx, row.Parent)
	if err != nil {
		return err
	}
	src, err := e.open(ctx, index, u.URI, report)
	if err != nil {
		return err
	}
	err = e.cfg.Backend.Replace(ctx, index, u.Overwrite || u.Creates, src, func(ctx context.Context, tx store.Tx, now Stats) error {
		return e.finish(ctx, tx, row, u, report, now)
	})
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// errGone undoes an update whose operation or index is not there any more.
var errGone = errors.New("the index or its operation was deleted meanwhile")

// finish ends the operation well, with the index as it is then.
func (e *Engine) finish(ctx context.Context, tx store.Tx, row store.Row, u Update, report *report, now Stats) error {
	index, err := e.saveStats(ctx, tx, row.Parent, now)
	if resource.IsNotFound(err) {
		return errGone
	}
	if err != nil {
		return err
	}
	if err := e.describe(ctx, tx, u.Operation, report); err != nil {
		return err
	}
	if _, err := operation.Finish(ctx, tx, u.Operation, index); err != nil {
		return err
	}
	return tx.Delete(ctx, row.Kind, row.Key)
}

// saveStats writes what the API says of an index's contents, and the time at which
// its deployed indexes were in step with them.
func (e *Engine) saveStats(ctx context.Context, tx store.Tx, name string, now Stats) (*pb.Index, error) {
	index := &pb.Index{}
	row, err := store.GetMessage(ctx, tx, resource.KindIndexes, name, index)
	if err != nil {
		return nil, err
	}
	at := timestamppb.New(e.cfg.Now())
	index.UpdateTime = at
	index.IndexStats = &pb.IndexStats{VectorsCount: now.Vectors, SparseVectorsCount: now.Sparse, ShardsCount: 1}
	if err := setEtag(index); err != nil {
		return nil, err
	}
	return index, store.PutMessage(ctx, tx, store.Row{Kind: row.Kind, Key: row.Key, Parent: row.Parent, State: row.State}, index)
}

func setEtag(index *pb.Index) error {
	index.Etag = ""
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(index)
	if err != nil {
		return fmt.Errorf("etag: %w", err)
	}
	index.Etag = resource.ETag(data)
	return nil
}

// fail ends the operation with what went wrong.
func (e *Engine) fail(ctx context.Context, tx store.Tx, row store.Row, u Update, report *report, cause error) error {
	if err := e.describe(ctx, tx, u.Operation, report); err != nil && !resource.IsNotFound(err) {
		return err
	}
	if _, err := operation.Fail(ctx, tx, u.Operation, cause); err != nil && !resource.IsNotFound(err) {
		return err
	}
	if u.Creates {
		if err := e.cfg.Backend.Drop(ctx, tx, row.Parent); err != nil {
			return err
		}
		if err := tx.Delete(ctx, resource.KindIndexes, row.Parent); err != nil {
			return err
		}
	}
	return tx.Delete(ctx, row.Kind, row.Key)
}

// describe writes what was read into the operation's metadata, whose type it keeps.
func (e *Engine) describe(ctx context.Context, tx store.Tx, name string, report *report) error {
	op, err := operation.Get(ctx, tx, name)
	if err != nil {
		return err
	}
	// Both metadata have the same fields under the same numbers.
	meta := &pb.UpdateIndexOperationMetadata{}
	if err := proto.Unmarshal(op.GetMetadata().GetValue(), meta); err != nil {
		return fmt.Errorf("metadata of %s: %w", name, err)
	}
	if meta.GenericMetadata == nil {
		meta.GenericMetadata = &pb.GenericOperationMetadata{}
	}
	meta.GenericMetadata.UpdateTime = timestamppb.New(e.cfg.Now())
	meta.NearestNeighborSearchOperationMetadata = report.message()
	return operation.Describe(ctx, tx, name, meta)
}

// Rollback brings the generation before the current one back, and says what is there then.
func (e *Engine) Rollback(ctx context.Context, name string) (now Stats, err error) {
	index, err := e.Index(ctx, name)
	if err != nil {
		return Stats{}, err
	}
	// The row of a batch update goes when its operation is done: who has waited for that may roll back.
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindIndexUpdates, Parent: name, Limit: 1})
	if err != nil {
		return Stats{}, err
	}
	if len(rows) > 0 {
		return Stats{}, resource.Errorf(codes.FailedPrecondition, "%s is being updated", name).WithResource(name).WithHint("wait for the operation to end")
	}
	err = e.cfg.Backend.Rollback(ctx, index, func(ctx context.Context, tx store.Tx, stats Stats) error {
		now = stats
		_, err := e.saveStats(ctx, tx, name, stats)
		return err
	})
	return now, err
}
