package pipeline

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// record keeps the metadata store in step with a task, in the same transaction:
// its execution and its output artifacts.
func (m *machine) record(ctx context.Context, tx store.Tx, n *node) error {
	if n.Started.IsZero() && n.State != Skipped {
		return nil
	}
	metadata := metadataStore(m.run.project, m.run.location)
	execution, err := n.execution(metadata)
	if err != nil {
		return err
	}
	if err := put(ctx, tx, resource.KindExecutions, execution.Name, metadata, execution.State.String(), execution); err != nil {
		return err
	}
	if n.graph != nil || n.State != Succeeded {
		return nil // the artifacts of a graph, or of a cache hit, are recorded by the task that made them
	}
	for _, k := range sortedKeys(n.Outputs.Artifacts) {
		for _, a := range n.Outputs.Artifacts[k] {
			msg := a.message(k)
			msg.CreateTime, msg.UpdateTime = timestamppb.New(n.Ended), timestamppb.New(n.Ended)
			if err := put(ctx, tx, resource.KindArtifacts, a.Name, metadata, msg.State.String(), msg); err != nil {
				return err
			}
		}
	}
	return nil
}

func put(ctx context.Context, tx store.Tx, kind store.Kind, key, parent, state string, msg proto.Message) error {
	return store.PutMessage(ctx, tx, store.Row{Kind: kind, Key: key, Parent: parent, State: state}, msg)
}
