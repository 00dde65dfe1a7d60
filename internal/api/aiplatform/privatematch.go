package aiplatform

import (
	"context"
	"strconv"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/vector"
	"tategu/internal/vector/matchpb"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// privateMatch is the service of private index endpoints, whose protocol the SDK has
// (google-cloud-aiplatform, matching_engine/_protos/match_service.proto).
const privateMatch = "google.cloud.aiplatform.container.v1.MatchService/"

// Authorizer says whether a caller has a permission in a project.
type Authorizer interface {
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
}

// PrivateMatch is that service. Its requests name a deployed index and no project, so
// that the permission is asked for here, in the project of the endpoint that has it.
type PrivateMatch struct {
	engine *vector.Engine
	auth   Authorizer
}

// NewPrivateMatch makes the service.
func NewPrivateMatch(engine *vector.Engine, auth Authorizer) *PrivateMatch {
	return &PrivateMatch{engine: engine, auth: auth}
}

// Methods gives the rows of the dispatch table.
func (s *PrivateMatch) Methods() ([]api.Method, error) {
	return []api.Method{
		api.Unary(privateMatch+"Match", api.Public, s.match).Within(streamed),
		api.Unary(privateMatch+"BatchMatch", api.Public, s.batchMatch).Within(streamed),
		api.Unary(privateMatch+"BatchGetEmbeddings", api.Public, s.embeddings),
	}, nil
}

// may finds the endpoint of a deployed index whose vectors the caller may query. Ids are
// unique in a project: those of projects that the caller may not query are left out, so
// that nobody is in another's way, nor learns of another's indexes.
func (s *PrivateMatch) may(ctx context.Context, deployed string) (string, error) {
	endpoints, err := s.engine.Endpoints(ctx, deployed)
	if err != nil {
		return "", err
	}
	var open []string
	for _, endpoint := range endpoints {
		name, err := resource.ParseName(endpoint)
		if err != nil {
			return "", err
		}
		err = s.auth.Authorize(ctx, identity.FromContext(ctx), name.Project(), "aiplatform.indexEndpoints.queryVectors")
		switch resource.CodeOf(err) {
		case codes.OK:
			open = append(open, endpoint)
		case codes.PermissionDenied:
		default:
			return "", err
		}
	}
	switch len(open) {
	case 0:
		return "", resource.Errorf(codes.NotFound, "no index endpoint that you may query has a deployed index %q", deployed).
			WithHint("deploy the index, or name the id that it was deployed with")
	case 1:
		return open[0], nil
	}
	return "", resource.Errorf(codes.FailedPrecondition, "%d index endpoints have a deployed index %q", len(open), deployed).
		WithHint("call the public endpoint, which names its index endpoint")
}

func (s *PrivateMatch) match(ctx context.Context, req *matchpb.MatchRequest) (*matchpb.MatchResponse, error) {
	out, err := s.matchAll(ctx, req.GetDeployedIndexId(), []*matchpb.MatchRequest{req})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

func (s *PrivateMatch) batchMatch(ctx context.Context, req *matchpb.BatchMatchRequest) (*matchpb.BatchMatchResponse, error) {
	resp := &matchpb.BatchMatchResponse{}
	size := 0
	for _, r := range req.GetRequests() {
		one := &matchpb.BatchMatchResponse_BatchMatchResponsePerIndex{DeployedIndexId: r.GetDeployedIndexId(), Status: &spb.Status{}}
		var err error
		if one.Responses, err = s.matchAll(ctx, r.GetDeployedIndexId(), r.GetRequests()); err != nil {
			one.Status = status.Convert(err).Proto()
		}
		if size += proto.Size(one); size > maxBatchMatch {
			return nil, resource.Invalid("requests", "the answer has more than %d MiB", maxBatchMatch>>20).WithHint("ask for fewer at a time")
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, one)
	}
	return resp, nil
}

// maxBatchMatch bounds the bytes of an answer; each index's part has a bound of its own.
const maxBatchMatch = 256 << 20

func (s *PrivateMatch) matchAll(ctx context.Context, deployed string, reqs []*matchpb.MatchRequest) ([]*matchpb.MatchResponse, error) {
	endpoint, err := s.may(ctx, deployed)
	if err != nil {
		return nil, err
	}
	queries := make([]vector.Query, len(reqs))
	full := false
	for i, r := range reqs {
		if other := r.GetDeployedIndexId(); other != "" && other != deployed {
			return nil, resource.Invalid("requests.deployed_index_id", "a request for %q is among those for %q", other, deployed)
		}
		queries[i] = privateQuery(r)
		full = full || r.GetEmbeddingEnabled()
	}
	found, err := s.engine.Find(ctx, endpoint, deployed, queries, full)
	if err != nil {
		return nil, err
	}
	out := make([]*matchpb.MatchResponse, len(found))
	for i, r := range reqs {
		out[i] = privateAnswer(found[i], r.GetEmbeddingEnabled())
	}
	return out, nil
}

func privateAnswer(neighbors []vector.Neighbor, full bool) *matchpb.MatchResponse {
	out := &matchpb.MatchResponse{}
	for _, n := range neighbors {
		out.Neighbor = append(out.Neighbor, &matchpb.MatchResponse_Neighbor{
			Id: n.Datapoint.GetDatapointId(), Distance: n.Distance, SparseDistance: n.SparseDistance, CrowdingAttribute: crowdingNumber(n.Datapoint),
		})
		if full {
			out.Embeddings = append(out.Embeddings, embedding(n.Datapoint))
		}
	}
	return out
}

func privateQuery(r *matchpb.MatchRequest) vector.Query {
	p := &pb.IndexDatapoint{DatapointId: r.GetEmbeddingId(), FeatureVector: r.GetFloatVal()}
	if sparse := r.GetSparseEmbedding(); sparse != nil {
		p.SparseEmbedding = &pb.IndexDatapoint_SparseEmbedding{Values: sparse.GetFloatVal(), Dimensions: sparse.GetDimension()}
	}
	for _, x := range r.GetRestricts() {
		p.Restricts = append(p.Restricts, &pb.IndexDatapoint_Restriction{Namespace: x.GetName(), AllowList: x.GetAllowTokens(), DenyList: x.GetDenyTokens()})
	}
	for _, x := range r.GetNumericRestricts() {
		p.NumericRestricts = append(p.NumericRestricts, privateNumeric(x))
	}
	q := vector.Query{
		Point: p, Neighbors: int(r.GetNumNeighbors()), PerCrowding: int(r.GetPerCrowdingAttributeNumNeighbors()), Approximate: int(r.GetApproxNumNeighbors()),
		LeafFraction: r.GetFractionLeafNodesToSearchOverride(), Alpha: defaultAlpha,
	}
	if percent := r.GetLeafNodesToSearchPercentOverride(); percent > 0 && q.LeafFraction == 0 {
		q.LeafFraction = float64(percent) / 100
	}
	if rrf := r.GetRrf(); rrf != nil {
		q.Alpha, q.Joint = float64(rrf.GetAlpha()), true
	}
	return q
}

func privateNumeric(x *matchpb.NumericNamespace) *pb.IndexDatapoint_NumericRestriction {
	n := &pb.IndexDatapoint_NumericRestriction{Namespace: x.GetName(), Op: pb.IndexDatapoint_NumericRestriction_Operator(x.GetOp())}
	switch v := x.GetValue().(type) {
	case *matchpb.NumericNamespace_ValueInt:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: v.ValueInt}
	case *matchpb.NumericNamespace_ValueFloat:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: v.ValueFloat}
	case *matchpb.NumericNamespace_ValueDouble:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: v.ValueDouble}
	}
	return n
}

func (s *PrivateMatch) embeddings(ctx context.Context, req *matchpb.BatchGetEmbeddingsRequest) (*matchpb.BatchGetEmbeddingsResponse, error) {
	endpoint, err := s.may(ctx, req.GetDeployedIndexId())
	if err != nil {
		return nil, err
	}
	points, err := s.engine.Read(ctx, endpoint, req.GetDeployedIndexId(), req.GetId())
	if err != nil {
		return nil, err
	}
	resp := &matchpb.BatchGetEmbeddingsResponse{}
	for _, p := range points {
		resp.Embeddings = append(resp.Embeddings, embedding(p))
	}
	return resp, nil
}

func embedding(p *pb.IndexDatapoint) *matchpb.Embedding {
	e := &matchpb.Embedding{Id: p.GetDatapointId(), FloatVal: p.GetFeatureVector(), CrowdingAttribute: crowdingNumber(p), EmbeddingMetadata: p.GetEmbeddingMetadata()}
	if sparse := p.GetSparseEmbedding(); sparse != nil {
		e.SparseEmbedding = &matchpb.SparseEmbedding{FloatVal: sparse.GetValues(), Dimension: sparse.GetDimensions()}
	}
	for _, x := range p.GetRestricts() {
		e.Restricts = append(e.Restricts, &matchpb.Namespace{Name: x.GetNamespace(), AllowTokens: x.GetAllowList(), DenyTokens: x.GetDenyList()})
	}
	for _, x := range p.GetNumericRestricts() {
		n := &matchpb.NumericNamespace{Name: x.GetNamespace()}
		switch v := x.GetValue().(type) {
		case *pb.IndexDatapoint_NumericRestriction_ValueInt:
			n.Value = &matchpb.NumericNamespace_ValueInt{ValueInt: v.ValueInt}
		case *pb.IndexDatapoint_NumericRestriction_ValueFloat:
			n.Value = &matchpb.NumericNamespace_ValueFloat{ValueFloat: v.ValueFloat}
		case *pb.IndexDatapoint_NumericRestriction_ValueDouble:
			n.Value = &matchpb.NumericNamespace_ValueDouble{ValueDouble: v.ValueDouble}
		}
		e.NumericRestricts = append(e.NumericRestricts, n)
	}
	return e
}

// crowdingNumber is the tag as this protocol has it; one that is no number is 0 here.
func crowdingNumber(p *pb.IndexDatapoint) int64 {
	n, err := strconv.ParseInt(p.GetCrowdingTag().GetCrowdingAttribute(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
