package aiplatform

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// fill makes n endpoints, e000 being the oldest.
func fill(tb testing.TB, s *server, n int) {
	tb.Helper()
	for i := range n {
		err := s.store.Update(tb.Context(), func(tx store.Tx) error {
			id := fmt.Sprintf("e%03d", i)
			e := &pb.Endpoint{DisplayName: fmt.Sprintf("name-%d", i%3), Description: id, Labels: map[string]string{"n": strconv.Itoa(i % 2)}}
			return s.std.Insert(tb.Context(), tx, location, id, e, "")
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func listAll(tb testing.TB, s *server, req *pb.ListEndpointsRequest, between func()) []string {
	tb.Helper()
	var out []string
	for req = proto.CloneOf(req); ; {
		resp := call[*pb.ListEndpointsResponse](tb, s, "ListEndpoints", req)
		for _, e := range resp.Endpoints {
			out = append(out, e.Description)
		}
		if resp.NextPageToken == "" {
			return out
		}
		if req.PageSize > 0 && len(resp.Endpoints) != int(req.PageSize) {
			tb.Errorf("a page in the middle has %d rows", len(resp.Endpoints))
		}
		req.PageToken = resp.NextPageToken
		if between != nil {
			between()
		}
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fill(t, s, 23)
	newest := make([]string, 23)
	for i := range newest {
		newest[i] = fmt.Sprintf("e%03d", 22-i)
	}
	odd := slices.DeleteFunc(slices.Clone(newest), func(id string) bool { return (id[3]-'0')%2 == 0 })
	byName := slices.Clone(newest)
	slices.Reverse(byName)
	for name, tt := range map[string]struct {
		req  *pb.ListEndpointsRequest
		want []string
	}{
		"one page":    {&pb.ListEndpointsRequest{}, newest},
		"pages":       {&pb.ListEndpointsRequest{PageSize: 5}, newest},
		"exact pages": {&pb.ListEndpointsRequest{PageSize: 23}, newest},
		"filter":      {&pb.ListEndpointsRequest{PageSize: 4, Filter: `labels.n=1`}, odd},
		"wildcard":    {&pb.ListEndpointsRequest{Parent: "projects/p/locations/-", PageSize: 10}, newest},
		"id":          {&pb.ListEndpointsRequest{Filter: `endpoint=e007`}, []string{"e007"}},
		"camel case":  {&pb.ListEndpointsRequest{Filter: `displayName="name-1" AND description:"e00*"`}, []string{"e007", "e004", "e001"}},
		"none":        {&pb.ListEndpointsRequest{Filter: `display_name=x`}, nil},
		"elsewhere":   {&pb.ListEndpointsRequest{Parent: "projects/p/locations/eu"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.req.Parent == "" {
				tt.req.Parent = location
			}
			if got := listAll(t, s, tt.req, nil); !slices.Equal(got, tt.want) {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestPagesHoldWhileRowsAreAdded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fill(t, s, 7)
	n := 0
	got := listAll(t, s, &pb.ListEndpointsRequest{Parent: location, PageSize: 3}, func() {
		n++
		createEndpoint(t, s, fmt.Sprintf("new%d", n))
	})
	if want := []string{"e006", "e005", "e004", "e003", "e002", "e001", "e000"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestListOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	list := func(order string, size int) []string {
		var out []string
		for req := (&pb.ListContextsRequest{Parent: defaultStore, OrderBy: order, PageSize: int32(size)}); ; {
			resp := call[*pb.ListContextsResponse](t, s, "ListContexts", req)
			out = append(out, names(resp.Contexts)...)
			if req.PageToken = resp.NextPageToken; req.PageToken == "" {
				return out
			}
		}
	}
	for i, c := range []*pb.Context{{DisplayName: "b"}, {DisplayName: "a"}, {DisplayName: "b", Metadata: metadataOf(t, map[string]any{"k": 2})}} {
		call[*pb.Context](t, s, "CreateContext", &pb.CreateContextRequest{Parent: defaultStore, ContextId: fmt.Sprintf("c%d", i), Context: c})
	}
	for order, want := range map[string][]string{
		"":                               {"c2", "c1", "c0"},
		"create_time":                    {"c0", "c1", "c2"},
		"display_name, create_time desc": {"c1", "c2", "c0"},
		"display_name desc, createTime":  {"c0", "c2", "c1"},
		"metadata.k desc, display_name":  {"c2", "c1", "c0"},
	} {
		if got := list(order, 1); !slices.Equal(got, want) {
			t.Errorf("order %q = %v, want %v", order, got, want)
		}
	}
}

func TestListIsChecked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fill(t, s, 3)
	token := call[*pb.ListEndpointsResponse](t, s, "ListEndpoints", &pb.ListEndpointsRequest{Parent: location, PageSize: 1}).NextPageToken
	for name, tt := range map[string]struct {
		req  *pb.ListEndpointsRequest
		part string
	}{
		"parent":           {&pb.ListEndpointsRequest{Parent: "projects/p"}, "projects/p"},
		"any project":      {&pb.ListEndpointsRequest{Parent: "projects/-/locations/x"}, "projects/-"},
		"size":             {&pb.ListEndpointsRequest{Parent: location, PageSize: -1}, "page_size"},
		"token":            {&pb.ListEndpointsRequest{Parent: location, PageToken: "garbage"}, "page token"},
		"token of another": {&pb.ListEndpointsRequest{Parent: location, PageToken: token, Filter: "endpoint=1"}, "page token"},
		"damaged token":    {&pb.ListEndpointsRequest{Parent: location, PageToken: token[1:]}, "page token"},
		"filter field":     {&pb.ListEndpointsRequest{Parent: location, Filter: "no_field=1"}, "no_field"},
		"filter syntax":    {&pb.ListEndpointsRequest{Parent: location, Filter: "display_name="}, "character 14"},
		"read mask":        {&pb.ListEndpointsRequest{Parent: location, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"nope"}}}, "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse(t, s, "ListEndpoints", tt.req, codes.InvalidArgument, tt.part)
		})
	}
}

func TestReadMask(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fill(t, s, 1)
	l := call[*pb.ListEndpointsResponse](t, s, "ListEndpoints",
		&pb.ListEndpointsRequest{Parent: location, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"name", "labels.n"}}}).Endpoints
	want := &pb.Endpoint{Name: location + "/endpoints/e000", Labels: map[string]string{"n": "0"}}
	if len(l) != 1 || !proto.Equal(l[0], want) {
		t.Errorf("list = %v", l)
	}
}

func BenchmarkListOf10000(b *testing.B) {
	s := newServer(b)
	err := s.store.Update(b.Context(), func(tx store.Tx) error {
		for i := range 10000 {
			if err := s.std.Insert(b.Context(), tx, location, fmt.Sprintf("e%d", i), &pb.Endpoint{DisplayName: "x"}, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, req := range map[string]*pb.ListEndpointsRequest{
		"page":   {Parent: location},
		"filter": {Parent: location, Filter: "display_name=y"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.do(context.Background(), "ListEndpoints", req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
