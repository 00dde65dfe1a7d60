package pipeline

import (
	"context"
	"strconv"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/lineage"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// record keeps the metadata store in step with a task, in the same transaction:
// its execution, its artifacts, what it took and gave, and that all of them belong
// to the run. What a user deleted from the metadata store meanwhile stays deleted.
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
	var members []string
	if !n.recorded { // whoever took it out of the context meanwhile meant it
		members = []string{execution.Name}
		n.recorded = true // of this commit; if it fails the rows are read again
	}
	var events []*pb.Event
	if n.leaf() { // what a graph takes and gives is told by its tasks
		events = artifactEvents(n.inputs.Artifacts, pb.Event_INPUT)
		if n.State == Succeeded {
			if err := m.putArtifacts(ctx, tx, metadata, n); err != nil {
				return err
			}
		}
		if n.State.ok() {
			outputs := artifactEvents(n.Outputs.Artifacts, pb.Event_OUTPUT)
			for _, e := range outputs {
				members = append(members, e.Artifact)
			}
			events = append(events, outputs...)
		}
	}
	for _, member := range members {
		if err := lineage.AddToContext(ctx, tx, m.run.context, member); err != nil && !resource.IsNotFound(err) {
			return err
		}
	}
	for _, e := range events {
		if err := lineage.AddEvents(ctx, tx, execution.Name, m.now, e); err != nil && !resource.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// putArtifacts writes the outputs of a task that ran.
func (m *machine) putArtifacts(ctx context.Context, tx store.Tx, metadata string, n *node) error {
	for _, k := range sortedKeys(n.Outputs.Artifacts) {
		for i, a := range n.Outputs.Artifacts[k] {
			if a.Name != m.artifactName(n, k, i) {
				continue // it was there before
			}
			msg := a.message(k)
			msg.CreateTime, msg.UpdateTime = timestamppb.New(n.Ended), timestamppb.New(n.Ended)
			if err := put(ctx, tx, resource.KindArtifacts, a.Name, metadata, msg.State.String(), msg); err != nil {
				return err
			}
		}
	}
	return nil
}

func artifactEvents(lists map[string][]Artifact, typ pb.Event_Type) []*pb.Event {
	var events []*pb.Event
	for _, k := range sortedKeys(lists) {
		for i, a := range lists[k] {
			events = append(events, &pb.Event{Artifact: a.Name, Type: typ, Labels: map[string]string{"name": k, "index": strconv.Itoa(i)}})
		}
	}
	return events
}

func put(ctx context.Context, tx store.Tx, kind store.Kind, key, parent, state string, msg proto.Message) error {
	return store.PutMessage(ctx, tx, store.Row{Kind: kind, Key: key, Parent: parent, State: state}, msg)
}
