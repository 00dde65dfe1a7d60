package aiplatform

import (
	"slices"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
)

const defaultStore = location + "/metadataStores/default"

func metadataOf(tb testing.TB, fields map[string]any) *structpb.Struct {
	tb.Helper()
	m, err := structpb.NewStruct(fields)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func artifact(tb testing.TB, s *server, id string, a *pb.Artifact) string {
	tb.Helper()
	return call[*pb.Artifact](tb, s, "CreateArtifact", &pb.CreateArtifactRequest{Parent: defaultStore, ArtifactId: id, Artifact: a}).Name
}

func execution(tb testing.TB, s *server, id string) string {
	tb.Helper()
	return call[*pb.Execution](tb, s, "CreateExecution", &pb.CreateExecutionRequest{
		Parent: defaultStore, ExecutionId: id, Execution: &pb.Execution{SchemaTitle: "system.Run", State: pb.Execution_RUNNING},
	}).Name
}

func contextOf(tb testing.TB, s *server, id string) string {
	tb.Helper()
	return call[*pb.Context](tb, s, "CreateContext", &pb.CreateContextRequest{
		Parent: defaultStore, ContextId: id, Context: &pb.Context{DisplayName: id, SchemaTitle: "system.Experiment"},
	}).Name
}

func names[T interface{ GetName() string }](items []T) []string {
	out := make([]string, len(items))
	for i, it := range items {
		n := it.GetName()
		out[i] = n[len(n)-2:]
	}
	slices.Sort(out)
	return out
}

func TestMetadataStores(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	refuse(t, s, "GetMetadataStore", &pb.GetMetadataStoreRequest{Name: defaultStore}, codes.NotFound)
	create := &pb.CreateArtifactRequest{Parent: location + "/metadataStores/other", Artifact: &pb.Artifact{}}
	refuse(t, s, "CreateArtifact", create, codes.NotFound, "other")
	artifact(t, s, "a1", &pb.Artifact{})
	call[*pb.MetadataStore](t, s, "GetMetadataStore", &pb.GetMetadataStoreRequest{Name: defaultStore})
	req := &pb.CreateMetadataStoreRequest{Parent: location, MetadataStoreId: "other", MetadataStore: &pb.MetadataStore{}}
	if st := call[*pb.MetadataStore](t, s, "CreateMetadataStore", req); st.Name != create.Parent {
		t.Errorf("store = %v", st)
	}
	refuse(t, s, "CreateMetadataStore", req, codes.AlreadyExists)
	call[*pb.Artifact](t, s, "CreateArtifact", create)
	if l := call[*pb.ListMetadataStoresResponse](t, s, "ListMetadataStores", &pb.ListMetadataStoresRequest{Parent: location}); len(l.MetadataStores) != 2 {
		t.Errorf("stores = %v", l)
	}
	refuse(t, s, "DeleteMetadataStore", &pb.DeleteMetadataStoreRequest{Name: defaultStore}, codes.FailedPrecondition, "artifacts")
	call[*emptypb.Empty](t, s, "DeleteArtifact", &pb.DeleteArtifactRequest{Name: defaultStore + "/artifacts/a1"})
	call[*emptypb.Empty](t, s, "DeleteMetadataStore", &pb.DeleteMetadataStoreRequest{Name: defaultStore})
}

func TestUpdateContextWithoutMask(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	name := contextOf(t, s, "c1")
	got := call[*pb.Context](t, s, "GetContext", &pb.GetContextRequest{Name: name})
	// The SDK sends the whole message without a mask.
	sent := proto.CloneOf(got)
	sent.Metadata = metadataOf(t, map[string]any{"lr": 0.1})
	updated := call[*pb.Context](t, s, "UpdateContext", &pb.UpdateContextRequest{Context: sent})
	if updated.Metadata.Fields["lr"].GetNumberValue() != 0.1 || updated.DisplayName != "c1" || updated.Etag == got.Etag {
		t.Errorf("update = %v", updated)
	}
	refuse(t, s, "UpdateContext", &pb.UpdateContextRequest{Context: sent}, codes.Aborted)
	refuse(t, s, "UpdateContext", &pb.UpdateContextRequest{
		Context: &pb.Context{Name: name}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata.lr.x"}},
	}, codes.InvalidArgument, "metadata.lr.x")
	missing := &pb.UpdateContextRequest{Context: &pb.Context{Name: defaultStore + "/contexts/c2", DisplayName: "two"}}
	refuse(t, s, "UpdateContext", missing, codes.NotFound, "c2")
	missing.AllowMissing = true
	if c := call[*pb.Context](t, s, "UpdateContext", missing); c.Name != missing.Context.Name || c.DisplayName != "two" {
		t.Errorf("created %v", c)
	}
	refuse(t, s, "DeleteContext", &pb.DeleteContextRequest{Name: name, Etag: got.Etag}, codes.Aborted)
}

func TestContextTree(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, b, c := contextOf(t, s, "ca"), contextOf(t, s, "cb"), contextOf(t, s, "cc")
	etag := call[*pb.Context](t, s, "GetContext", &pb.GetContextRequest{Name: b}).Etag
	add := func(parent string, children ...string) *pb.AddContextChildrenRequest {
		return &pb.AddContextChildrenRequest{Context: parent, ChildContexts: children}
	}
	call[*pb.AddContextChildrenResponse](t, s, "AddContextChildren", add(a, b))
	call[*pb.AddContextChildrenResponse](t, s, "AddContextChildren", add(b, c))
	refuse(t, s, "AddContextChildren", add(c, a), codes.InvalidArgument, "ancestors")
	refuse(t, s, "AddContextChildren", add(a, a), codes.InvalidArgument)
	refuse(t, s, "AddContextChildren", add(a, a+"x"), codes.NotFound)
	refuse(t, s, "AddContextChildren", add(a, "projects/q/locations/us-central1/metadataStores/default/contexts/x"), codes.InvalidArgument)
	if got := call[*pb.Context](t, s, "GetContext", &pb.GetContextRequest{Name: b}); got.Etag != etag || !slices.Equal(got.ParentContexts, []string{a}) {
		t.Errorf("child = %v", got)
	}
	for filter, want := range map[string][]string{
		`parent_contexts:"` + a + `"`:                                                 {"cb"},
		`parent_contexts:"` + a + `","` + b + `"`:                                     {"cb", "cc"},
		`child_contexts:"` + c + `"`:                                                  {"cb"},
		`schema_title="system.Experiment" AND parent_contexts:"` + b + `"`:            {"cc"},
		`(schema_title="x" OR display_name="ca") AND NOT parent_contexts:"` + a + `"`: {"ca"},
	} {
		l := call[*pb.ListContextsResponse](t, s, "ListContexts", &pb.ListContextsRequest{Parent: defaultStore, Filter: filter})
		if got := names(l.Contexts); !slices.Equal(got, want) {
			t.Errorf("%s = %v, want %v", filter, got, want)
		}
	}
	call[*pb.RemoveContextChildrenResponse](t, s, "RemoveContextChildren", &pb.RemoveContextChildrenRequest{Context: a, ChildContexts: []string{b}})
	call[*pb.AddContextChildrenResponse](t, s, "AddContextChildren", add(c, a))
}

func TestLineage(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	in, mid, out := artifact(t, s, "a1", &pb.Artifact{Uri: "gs://b/x"}), artifact(t, s, "a2", &pb.Artifact{}), artifact(t, s, "a3", &pb.Artifact{SchemaTitle: "system.Model"})
	first, second, c := execution(t, s, "e1"), execution(t, s, "e2"), contextOf(t, s, "c1")
	events := func(e, in, out string) *pb.AddExecutionEventsRequest {
		return &pb.AddExecutionEventsRequest{Execution: e, Events: []*pb.Event{
			{Artifact: in, Type: pb.Event_INPUT}, {Artifact: out, Type: pb.Event_OUTPUT},
		}}
	}
	call[*pb.AddExecutionEventsResponse](t, s, "AddExecutionEvents", events(first, in, mid))
	call[*pb.AddExecutionEventsResponse](t, s, "AddExecutionEvents", events(first, mid, in)) // skipped: they have events
	call[*pb.AddExecutionEventsResponse](t, s, "AddExecutionEvents", events(second, mid, out))
	refuse(t, s, "AddExecutionEvents", events(first, in, out+"x"), codes.NotFound)
	refuse(t, s, "AddExecutionEvents", &pb.AddExecutionEventsRequest{Execution: first, Events: []*pb.Event{{Artifact: in}}}, codes.InvalidArgument)
	call[*pb.AddContextArtifactsAndExecutionsResponse](t, s, "AddContextArtifactsAndExecutions",
		&pb.AddContextArtifactsAndExecutionsRequest{Context: c, Artifacts: []string{in}, Executions: []string{first}})

	check := func(what string, g *pb.LineageSubgraph, artifacts, executions []string, events int) {
		t.Helper()
		if !slices.Equal(names(g.Artifacts), artifacts) || !slices.Equal(names(g.Executions), executions) || len(g.Events) != events {
			t.Errorf("%s: artifacts %v executions %v, %d events", what, names(g.Artifacts), names(g.Executions), len(g.Events))
		}
	}
	query := func(method string, req proto.Message) *pb.LineageSubgraph {
		return call[*pb.LineageSubgraph](t, s, method, req)
	}
	g := query("QueryExecutionInputsAndOutputs", &pb.QueryExecutionInputsAndOutputsRequest{Execution: first})
	check("execution", g, []string{"a1", "a2"}, []string{"e1"}, 2)
	if g.Events[0].Execution != first || g.Events[0].EventTime == nil {
		t.Errorf("event = %v", g.Events[0])
	}
	check("context", query("QueryContextLineageSubgraph", &pb.QueryContextLineageSubgraphRequest{Context: c}), []string{"a1"}, []string{"e1"}, 1)
	of := func(hops int32, filter string) *pb.LineageSubgraph {
		return query("QueryArtifactLineageSubgraph", &pb.QueryArtifactLineageSubgraphRequest{Artifact: in, MaxHops: hops, Filter: filter})
	}
	check("all hops", of(0, ""), []string{"a1", "a2", "a3"}, []string{"e1", "e2"}, 4)
	check("two hops", of(2, ""), []string{"a1", "a2"}, []string{"e1"}, 2)
	check("filter", of(0, `schema_title="system.Model"`), []string{"a1"}, []string{"e1"}, 1)
	refuse(t, s, "QueryArtifactLineageSubgraph", &pb.QueryArtifactLineageSubgraphRequest{Artifact: in, MaxHops: -1}, codes.InvalidArgument)
	refuse(t, s, "QueryContextLineageSubgraph", &pb.QueryContextLineageSubgraphRequest{Context: c + "x"}, codes.NotFound)

	list := func(filter string) []string {
		return names(call[*pb.ListArtifactsResponse](t, s, "ListArtifacts", &pb.ListArtifactsRequest{Parent: defaultStore, Filter: filter}).Artifacts)
	}
	if got := list(`in_context("` + c + `")`); !slices.Equal(got, []string{"a1"}) {
		t.Errorf("in_context = %v", got)
	}
	if got := list(`uri="gs://b/x" OR schema_title="system.Model"`); !slices.Equal(got, []string{"a1", "a3"}) {
		t.Errorf("OR = %v", got)
	}
	call[*emptypb.Empty](t, s, "DeleteArtifact", &pb.DeleteArtifactRequest{Name: mid})
	check("after delete", query("QueryExecutionInputsAndOutputs", &pb.QueryExecutionInputsAndOutputsRequest{Execution: first}), []string{"a1"}, []string{"e1"}, 1)
}

func TestPurge(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	run := execution(t, s, "e1")
	in := contextOf(t, s, "c1")
	for _, id := range []string{"a1", "a2", "a3"} {
		artifact(t, s, id, &pb.Artifact{SchemaTitle: "system.Dataset", Metadata: metadataOf(t, map[string]any{"id": id})})
	}
	call[*pb.AddContextArtifactsAndExecutionsResponse](t, s, "AddContextArtifactsAndExecutions", &pb.AddContextArtifactsAndExecutionsRequest{
		Context: in, Artifacts: []string{defaultStore + "/artifacts/a1", defaultStore + "/artifacts/a2"}, Executions: []string{run},
	})
	purge := func(filter string, force bool) *pb.PurgeArtifactsResponse {
		return call[*pb.PurgeArtifactsResponse](t, s, "PurgeArtifacts", &pb.PurgeArtifactsRequest{Parent: defaultStore, Filter: filter, Force: force})
	}
	left := func() []string {
		return names(call[*pb.ListArtifactsResponse](t, s, "ListArtifacts", &pb.ListArtifactsRequest{Parent: defaultStore}).Artifacts)
	}
	if r := purge(`in_context("`+in+`")`, false); r.PurgeCount != 2 || len(r.PurgeSample) != 2 || len(left()) != 3 {
		t.Errorf("a purge without force: %v, left %v", r, left())
	}
	if r := purge(`in_context("`+in+`") AND metadata.id.string_value="a1"`, true); r.PurgeCount != 1 || len(r.PurgeSample) != 0 {
		t.Errorf("purged %v", r)
	}
	if got := left(); !slices.Equal(got, []string{"a2", "a3"}) {
		t.Errorf("left %v", got)
	}
	graph := call[*pb.LineageSubgraph](t, s, "QueryContextLineageSubgraph", &pb.QueryContextLineageSubgraphRequest{Context: in})
	if got := names(graph.Artifacts); !slices.Equal(got, []string{"a2"}) {
		t.Errorf("the context still has %v", got)
	}
	if r := call[*pb.PurgeExecutionsResponse](t, s, "PurgeExecutions", &pb.PurgeExecutionsRequest{Parent: defaultStore, Filter: "state=RUNNING", Force: true}); r.PurgeCount != 1 {
		t.Errorf("purged executions %v", r)
	}
	if r := call[*pb.PurgeContextsResponse](t, s, "PurgeContexts", &pb.PurgeContextsRequest{Parent: defaultStore, Filter: `display_name="c1"`, Force: true}); r.PurgeCount != 1 {
		t.Errorf("purged contexts %v", r)
	}
	refuse(t, s, "PurgeArtifacts", &pb.PurgeArtifactsRequest{Parent: defaultStore}, codes.InvalidArgument, "filter")
	refuse(t, s, "PurgeArtifacts", &pb.PurgeArtifactsRequest{Parent: defaultStore, Filter: "nothing=1"}, codes.InvalidArgument, "nothing")
	refuse(t, s, "PurgeArtifacts", &pb.PurgeArtifactsRequest{Parent: location + "/metadataStores/other", Filter: "state=LIVE"}, codes.NotFound, "other")
}
