package lineage

import (
	"context"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// OfContext gives the artifacts and executions of a context and the events
// between them.
func OfContext(ctx context.Context, r store.Reader, contextName string) (*pb.LineageSubgraph, error) {
	if _, err := r.Get(ctx, resource.KindContexts, contextName); err != nil {
		return nil, err
	}
	members, err := Members(ctx, r, contextName)
	if err != nil {
		return nil, err
	}
	g := newGraph(r, contextName)
	for _, m := range members {
		if err := g.add(ctx, m); err != nil {
			return nil, err
		}
	}
	for _, e := range g.out.Executions {
		found, err := events(ctx, r, kindEvents, e.Name)
		if err != nil {
			return nil, err
		}
		for _, ev := range found {
			if g.seen[ev.Artifact] {
				g.out.Events = append(g.out.Events, ev)
			}
		}
	}
	return g.out, nil
}

// OfExecution gives an execution with its inputs and outputs.
func OfExecution(ctx context.Context, r store.Reader, execution string) (*pb.LineageSubgraph, error) {
	g := newGraph(r, execution)
	if err := g.add(ctx, execution); err != nil {
		return nil, err
	}
	found, err := events(ctx, r, kindEvents, execution)
	if err != nil {
		return nil, err
	}
	for _, ev := range found {
		if err := g.add(ctx, ev.Artifact); err != nil {
			return nil, err
		}
	}
	g.out.Events = found
	return g.out, nil
}

// OfArtifact walks from an artifact over events in both directions, at most
// hops of them (0 = all). keep, when given, says which other artifacts to walk
// to.
func OfArtifact(ctx context.Context, r store.Reader, artifact string, hops int, keep func(*pb.Artifact) (bool, error)) (*pb.LineageSubgraph, error) {
	g := newGraph(r, artifact)
	if err := g.add(ctx, artifact); err != nil {
		return nil, err
	}
	g.keep = keep
	frontier := []string{artifact}
	for n := 0; len(frontier) > 0 && (hops == 0 || n < hops); n++ {
		var next []string
		for _, node := range frontier {
			reached, err := g.expand(ctx, node)
			if err != nil {
				return nil, err
			}
			next = append(next, reached...)
		}
		frontier = next
	}
	return g.out, nil
}

// graph collects nodes once each, within the limits.
type graph struct {
	r    store.Reader
	of   string
	out  *pb.LineageSubgraph
	seen map[string]bool // nodes, and edges by their key
	keep func(*pb.Artifact) (bool, error)
}

func newGraph(r store.Reader, of string) *graph {
	return &graph{r: r, of: of, out: &pb.LineageSubgraph{}, seen: map[string]bool{}}
}

// add puts a node into the answer unless it is there or keep refuses it.
func (g *graph) add(ctx context.Context, name string) error {
	if g.seen[name] {
		return nil
	}
	if strings.Contains(name, "/executions/") {
		e, err := get(ctx, g.r, resource.KindExecutions, name, &pb.Execution{})
		if err != nil {
			return err
		}
		if g.out.Executions = append(g.out.Executions, e); len(g.out.Executions) > maxNodes {
			return tooMany("executions", g.of)
		}
		g.seen[name] = true
		return nil
	}
	a, err := get(ctx, g.r, resource.KindArtifacts, name, &pb.Artifact{})
	if err != nil {
		return err
	}
	if g.keep != nil {
		if ok, err := g.keep(a); !ok || err != nil {
			return err
		}
	}
	if g.out.Artifacts = append(g.out.Artifacts, a); len(g.out.Artifacts) > maxNodes {
		return tooMany("artifacts", g.of)
	}
	g.seen[name] = true
	return nil
}

// expand follows the events of a node and gives the nodes that are new.
func (g *graph) expand(ctx context.Context, node string) ([]string, error) {
	kind := kindArtifactEvents
	if strings.Contains(node, "/executions/") {
		kind = kindEvents
	}
	found, err := events(ctx, g.r, kind, node)
	if err != nil {
		return nil, err
	}
	var reached []string
	for _, ev := range found {
		other := ev.Execution
		if other == node {
			other = ev.Artifact
		}
		isNew := !g.seen[other]
		if err := g.add(ctx, other); err != nil {
			return nil, err
		}
		if !g.seen[other] {
			continue
		}
		if key := edge(ev.Execution, ev.Artifact); !g.seen[key] {
			g.seen[key] = true
			if g.out.Events = append(g.out.Events, ev); len(g.out.Events) > maxNodes {
				return nil, tooMany("events", g.of)
			}
		}
		if isNew {
			reached = append(reached, other)
		}
	}
	return reached, nil
}
