package aiplatform

import (
	"context"

	"tategu/internal/api"
	"tategu/internal/lineage"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"
)

const (
	purgeSamples = 100 // what the API documents
	purgeBatch   = 512 // deletions a transaction, so that other writers go on between
)

// purgeRequest is what the three purge requests have in common.
type purgeRequest interface {
	proto.Message
	GetParent() string
	GetFilter() string
	GetForce() bool
}

// purge deletes what a filter matches, or only counts it.
type purge struct {
	*Metadata
	new    func() proto.Message
	kind   store.Kind
	calls  []string
	call   func(store.Reader) filterCall
	filter *resource.Filter
}

func (s *Metadata) purges() []api.Method {
	name := func(m string) string { return MethodName(metadataService, m) }
	return []api.Method{
		api.Unary(name("PurgeArtifacts"), "aiplatform.artifacts.purge", func(ctx context.Context, req *pb.PurgeArtifactsRequest) (*longrunningpb.Operation, error) {
			p := &purge{Metadata: s, new: func() proto.Message { return &pb.Artifact{} }, kind: resource.KindArtifacts, calls: []string{"in_context"}, call: inContext}
			return p.run(ctx, req, "PurgeArtifactsMetadata", func(n int64, sample []string) proto.Message {
				return &pb.PurgeArtifactsResponse{PurgeCount: n, PurgeSample: sample}
			})
		}),
		api.Unary(name("PurgeExecutions"), "aiplatform.executions.purge", func(ctx context.Context, req *pb.PurgeExecutionsRequest) (*longrunningpb.Operation, error) {
			p := &purge{Metadata: s, new: func() proto.Message { return &pb.Execution{} }, kind: resource.KindExecutions, calls: []string{"in_context"}, call: inContext}
			return p.run(ctx, req, "PurgeExecutionsMetadata", func(n int64, sample []string) proto.Message {
				return &pb.PurgeExecutionsResponse{PurgeCount: n, PurgeSample: sample}
			})
		}),
		api.Unary(name("PurgeContexts"), "aiplatform.contexts.purge", func(ctx context.Context, req *pb.PurgeContextsRequest) (*longrunningpb.Operation, error) {
			p := &purge{Metadata: s, new: func() proto.Message { return &pb.Context{} }, kind: resource.KindContexts, calls: []string{"parent_contexts", "child_contexts"}, call: contextCalls}
			return p.run(ctx, req, "PurgeContextsMetadata", func(n int64, sample []string) proto.Message {
				return &pb.PurgeContextsResponse{PurgeCount: n, PurgeSample: sample}
			})
		}),
	}
}

func (p *purge) run(ctx context.Context, req purgeRequest, metadata string, answer func(int64, []string) proto.Message) (*longrunningpb.Operation, error) {
	if req.GetFilter() == "" {
		return nil, resource.Invalid("filter", "filter is not set").WithHint("create_time>\"1970-01-01T00:00:00Z\" matches everything")
	}
	if err := p.std.Load(ctx, p.std.store, req.GetParent(), &pb.MetadataStore{}); err != nil {
		return nil, err
	}
	typ, err := typeOf(p.new().ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	schema := resource.Schema{Message: p.new().ProtoReflect().Descriptor(), Calls: p.calls, Aliases: typ.aliases(nil)}
	if p.filter, err = resource.ParseFilter(req.GetFilter(), schema); err != nil {
		return nil, err
	}
	names, err := p.find(ctx, req.GetParent())
	if err != nil {
		return nil, err
	}
	count, sample := int64(len(names)), names[:min(len(names), purgeSamples)]
	if req.GetForce() {
		if count, err = p.remove(ctx, names); err != nil {
			return nil, err
		}
		sample = nil
	}
	var op *longrunningpb.Operation
	err = p.std.store.Update(ctx, func(tx store.Tx) error {
		op, err = operation.Done(ctx, tx, req.GetParent(), p.std.Metadata(metadata), answer(count, sample))
		return err
	})
	return op, err
}

// find lists the names of what matches.
func (p *purge) find(ctx context.Context, parent string) ([]string, error) {
	var names []string
	call := p.call(p.std.store)
	q := store.Query{Kind: p.kind, Parent: parent, Limit: scanBatch}
	for {
		rows, err := p.std.store.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			switch ok, err := p.matches(ctx, row, call); {
			case err != nil:
				return nil, err
			case ok:
				names = append(names, row.Key)
			}
		}
		if len(rows) < q.Limit {
			return names, nil
		}
		q.After = rows[len(rows)-1].Key
	}
}

func (p *purge) matches(ctx context.Context, row store.Row, call filterCall) (bool, error) {
	msg := p.new()
	if err := store.Unmarshal(row, msg); err != nil {
		return false, err
	}
	return p.filter.Match(msg.ProtoReflect(), func(name string, args []string) (bool, error) { return call(ctx, msg, name, args) })
}

// remove deletes what still matches.
func (p *purge) remove(ctx context.Context, names []string) (count int64, err error) {
	for len(names) > 0 {
		batch := names[:min(len(names), purgeBatch)]
		names = names[len(batch):]
		removed := int64(0)
		err := p.std.store.Update(ctx, func(tx store.Tx) error {
			call := p.call(tx)
			var gone []string // all are looked at before one goes: a filter may look at the others
			for _, name := range batch {
				row, err := tx.Get(ctx, p.kind, name)
				if resource.IsNotFound(err) {
					continue
				}
				if err != nil {
					return err
				}
				ok, err := p.matches(ctx, row, call)
				if err != nil {
					return err
				}
				if ok {
					gone = append(gone, name)
				}
			}
			for _, name := range gone {
				if err := tx.Delete(ctx, p.kind, name); err != nil {
					return err
				}
				if err := lineage.Forget(ctx, tx, name); err != nil {
					return err
				}
			}
			removed = int64(len(gone))
			return nil
		})
		if err != nil {
			return count, err
		}
		count += removed
	}
	return count, nil
}
