// Package lineage records which artifacts went into and came out of which
// executions, and which context they belong to, and answers questions about it.
// The nodes are ordinary resource rows (kinds artifacts, executions, contexts)
// that their owners write; this package owns the rows of the edges. It has no
// policy and no API of its own.
package lineage

import (
	"context"
	"slices"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Edges are kept in both directions, so that each question is one list by
// parent. A key is the two names joined by "|", which no name holds.
const (
	kindMembers        store.Kind = "contextMembers"  // parent = context, data = member
	kindMemberships    store.Kind = "memberships"     // parent = member, data = context
	kindEvents         store.Kind = "executionEvents" // parent = execution, data = Event
	kindArtifactEvents store.Kind = "artifactEvents"  // parent = artifact, data = Event
)

// maxNodes of one kind in an answer, as the API documents for its queries.
const maxNodes = 1000

func edge(from, to string) string { return from + "|" + to }

// AddToContext puts artifacts and executions, which must exist, into a context.
func AddToContext(ctx context.Context, tx store.Tx, contextName string, members ...string) error {
	if _, err := tx.Get(ctx, resource.KindContexts, contextName); err != nil {
		return err
	}
	for _, m := range members {
		if err := exists(ctx, tx, m); err != nil {
			return err
		}
		to := store.Row{Kind: kindMembers, Key: edge(contextName, m), Parent: contextName, Data: []byte(m)}
		from := store.Row{Kind: kindMemberships, Key: edge(m, contextName), Parent: m, Data: []byte(contextName)}
		if err := putBoth(ctx, tx, to, from); err != nil {
			return err
		}
	}
	return nil
}

func putBoth(ctx context.Context, tx store.Tx, a, b store.Row) error {
	if err := tx.Put(ctx, a); err != nil {
		return err
	}
	return tx.Put(ctx, b)
}

// exists wants the row of an artifact, an execution or a context.
func exists(ctx context.Context, r store.Reader, name string) error {
	n, err := resource.ParseName(name)
	if err != nil {
		return err
	}
	kinds := []string{resource.KindArtifacts, resource.KindExecutions, resource.KindContexts}
	if !slices.Contains(kinds, n.Collection()) {
		return resource.Invalid("name", "%q is not an artifact, an execution or a context", name)
	}
	_, err = r.Get(ctx, store.Kind(n.Collection()), name)
	return err
}

// Members gives the names of the artifacts and executions of a context.
func Members(ctx context.Context, r store.Reader, contextName string) ([]string, error) {
	return names(ctx, r, kindMembers, contextName)
}

// Contexts gives the names of the contexts that an artifact or execution is in.
func Contexts(ctx context.Context, r store.Reader, member string) ([]string, error) {
	return names(ctx, r, kindMemberships, member)
}

func names(ctx context.Context, r store.Reader, kind store.Kind, parent string) ([]string, error) {
	rows, err := r.List(ctx, store.Query{Kind: kind, Parent: parent, Order: store.ByCreated})
	if err != nil {
		return nil, err
	}
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = string(row.Data)
	}
	return out, nil
}

// AddChildren makes contexts children of another one. A context never becomes
// its own ancestor. The children's etags stay: clients update a context with the
// etag from before it got its parent (google-cloud-aiplatform 2.7.0,
// experiment_run_resource.py).
func AddChildren(ctx context.Context, tx store.Tx, parent string, children ...string) error {
	ancestors, err := ancestorsOf(ctx, tx, parent)
	if err != nil {
		return err
	}
	for _, child := range children {
		if slices.Contains(ancestors, child) {
			return resource.Invalid("child_contexts", "%s is %s or one of its ancestors", child, parent)
		}
		err := changeContext(ctx, tx, child, func(c *pb.Context) {
			if !slices.Contains(c.ParentContexts, parent) {
				c.ParentContexts = append(c.ParentContexts, parent)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// RemoveChildren undoes AddChildren.
func RemoveChildren(ctx context.Context, tx store.Tx, parent string, children ...string) error {
	if _, err := tx.Get(ctx, resource.KindContexts, parent); err != nil {
		return err
	}
	for _, child := range children {
		err := changeContext(ctx, tx, child, func(c *pb.Context) {
			c.ParentContexts = slices.DeleteFunc(c.ParentContexts, func(p string) bool { return p == parent })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func changeContext(ctx context.Context, tx store.Tx, name string, change func(*pb.Context)) error {
	c := &pb.Context{}
	row, err := store.GetMessage(ctx, tx, resource.KindContexts, name, c)
	if err != nil {
		return err
	}
	change(c)
	return store.PutMessage(ctx, tx, row, c)
}

// ancestorsOf gives a context and everything above it.
func ancestorsOf(ctx context.Context, r store.Reader, name string) ([]string, error) {
	seen := []string{name}
	for i := 0; i < len(seen); i++ {
		c := &pb.Context{}
		_, err := store.GetMessage(ctx, r, resource.KindContexts, seen[i], c)
		if i > 0 && resource.IsNotFound(err) {
			continue // a parent that was deleted
		}
		if err != nil {
			return nil, err
		}
		for _, p := range c.ParentContexts {
			if !slices.Contains(seen, p) {
				seen = append(seen, p)
			}
		}
	}
	return seen, nil
}

// AddEvents records that an execution used or made artifacts, all of which must
// exist. A pair that has an event keeps it.
func AddEvents(ctx context.Context, tx store.Tx, execution string, at time.Time, events ...*pb.Event) error {
	if _, err := tx.Get(ctx, resource.KindExecutions, execution); err != nil {
		return err
	}
	for _, given := range events {
		if given.GetType() != pb.Event_INPUT && given.GetType() != pb.Event_OUTPUT {
			return resource.Invalid("events", "the event of %s is neither INPUT nor OUTPUT", given.GetArtifact())
		}
		if _, err := tx.Get(ctx, resource.KindArtifacts, given.GetArtifact()); err != nil {
			return err
		}
		switch _, err := tx.Get(ctx, kindEvents, edge(execution, given.Artifact)); {
		case err == nil:
			continue
		case !resource.IsNotFound(err):
			return err
		}
		e := proto.CloneOf(given)
		e.Execution, e.EventTime = execution, timestamppb.New(at)
		if err := putEvent(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

func putEvent(ctx context.Context, tx store.Tx, e *pb.Event) error {
	byExecution := store.Row{Kind: kindEvents, Key: edge(e.Execution, e.Artifact), Parent: e.Execution}
	if err := store.PutMessage(ctx, tx, byExecution, e); err != nil {
		return err
	}
	byArtifact := store.Row{Kind: kindArtifactEvents, Key: edge(e.Artifact, e.Execution), Parent: e.Artifact}
	return store.PutMessage(ctx, tx, byArtifact, e)
}

func events(ctx context.Context, r store.Reader, kind store.Kind, node string) ([]*pb.Event, error) {
	rows, err := r.List(ctx, store.Query{Kind: kind, Parent: node, Order: store.ByCreated})
	if err != nil {
		return nil, err
	}
	out := make([]*pb.Event, len(rows))
	for i, row := range rows {
		out[i] = &pb.Event{}
		if err := store.Unmarshal(row, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Forget removes every edge of a node that is being deleted.
func Forget(ctx context.Context, tx store.Tx, name string) error {
	for _, pair := range [][2]store.Kind{
		{kindMembers, kindMemberships},
		{kindMemberships, kindMembers},
		{kindEvents, kindArtifactEvents},
		{kindArtifactEvents, kindEvents},
	} {
		rows, err := tx.List(ctx, store.Query{Kind: pair[0], Parent: name})
		if err != nil {
			return err
		}
		for _, row := range rows {
			other := row.Key[len(name)+1:]
			if err := tx.Delete(ctx, pair[0], row.Key); err != nil {
				return err
			}
			if err := tx.Delete(ctx, pair[1], edge(other, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func tooMany(what, of string) error {
	return resource.Errorf(codes.FailedPrecondition, "the lineage of %s has more than %d %s", of, maxNodes, what).WithResource(of).
		WithHint("ask for fewer hops, or with a filter")
}

func get[T proto.Message](ctx context.Context, r store.Reader, kind store.Kind, name string, msg T) (T, error) {
	_, err := store.GetMessage(ctx, r, kind, name, msg)
	return msg, err
}
