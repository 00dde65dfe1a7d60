package aiplatform

import (
	"context"
	"slices"

	"tategu/internal/lineage"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"
)

type filterCall = func(ctx context.Context, msg proto.Message, name string, args []string) (bool, error)

// inContext answers in_context("CONTEXT", ...) for artifacts and executions: in
// any of them. The members of a context are read once a list.
func inContext(r store.Reader) filterCall {
	members := map[string]map[string]bool{}
	return func(ctx context.Context, msg proto.Message, _ string, args []string) (bool, error) {
		for _, c := range args {
			if members[c] == nil {
				names, err := lineage.Members(ctx, r, c)
				if err != nil {
					return false, err
				}
				members[c] = make(map[string]bool, len(names))
				for _, n := range names {
					members[c][n] = true
				}
			}
			if members[c][getString(msg.ProtoReflect(), "name")] {
				return true, nil
			}
		}
		return false, nil
	}
}

// contextCalls answers parent_contexts:"A","B" (a child of any of them) and
// child_contexts:"A" (a parent of any of them) for contexts.
func contextCalls(r store.Reader) filterCall {
	parents := map[string][]string{}
	return func(ctx context.Context, msg proto.Message, name string, args []string) (bool, error) {
		c, ok := msg.(*pb.Context)
		if !ok {
			return false, nil
		}
		if name == "parent_contexts" {
			return slices.ContainsFunc(c.ParentContexts, func(p string) bool { return slices.Contains(args, p) }), nil
		}
		for _, child := range args {
			if _, ok := parents[child]; !ok {
				m := &pb.Context{}
				_, err := store.GetMessage(ctx, r, resource.KindContexts, child, m)
				if err != nil && !resource.IsNotFound(err) {
					return false, err
				}
				parents[child] = m.ParentContexts
			}
			if slices.Contains(parents[child], c.Name) {
				return true, nil
			}
		}
		return false, nil
	}
}
