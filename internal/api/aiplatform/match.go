package aiplatform

import (
	"context"

	"tategu/internal/api"
	"tategu/internal/vector"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

const matchService = "MatchService"

// Match is the MatchService: queries of deployed indexes, at the host of the region and
// at an index endpoint's own.
type Match struct{ engine *vector.Engine }

// NewMatch makes the service.
func NewMatch(engine *vector.Engine) *Match { return &Match{engine: engine} }

// Methods gives the rows of the dispatch table.
func (s *Match) Methods() ([]api.Method, error) {
	return []api.Method{
		api.Unary(MethodName(matchService, "FindNeighbors"), "aiplatform.indexEndpoints.queryVectors", s.find).Within(streamed),
		api.Unary(MethodName(matchService, "ReadIndexDatapoints"), "aiplatform.indexEndpoints.queryVectors", s.read),
	}, nil
}

// defaultAlpha is the weight of the dense ranking where a query does not say (the SDK's
// default, HybridQuery.rrf_ranking_alpha).
const defaultAlpha = 0.5

func (s *Match) find(ctx context.Context, req *pb.FindNeighborsRequest) (*pb.FindNeighborsResponse, error) {
	queries := make([]vector.Query, len(req.GetQueries()))
	for i, q := range req.GetQueries() {
		queries[i] = vector.Query{
			Point: q.GetDatapoint(), Neighbors: int(q.GetNeighborCount()), PerCrowding: int(q.GetPerCrowdingAttributeNeighborCount()),
			Approximate: int(q.GetApproximateNeighborCount()), LeafFraction: q.GetFractionLeafNodesToSearchOverride(), Alpha: defaultAlpha,
		}
		if rrf := q.GetRrf(); rrf != nil {
			queries[i].Alpha, queries[i].Joint = float64(rrf.GetAlpha()), true
		}
	}
	found, err := s.engine.Find(ctx, req.GetIndexEndpoint(), req.GetDeployedIndexId(), queries, req.GetReturnFullDatapoint())
	if err != nil {
		return nil, err
	}
	resp := &pb.FindNeighborsResponse{NearestNeighbors: make([]*pb.FindNeighborsResponse_NearestNeighbors, len(found))}
	for i, neighbors := range found {
		out := &pb.FindNeighborsResponse_NearestNeighbors{Id: req.GetQueries()[i].GetDatapoint().GetDatapointId()}
		for _, n := range neighbors {
			out.Neighbors = append(out.Neighbors, &pb.FindNeighborsResponse_Neighbor{Datapoint: n.Datapoint, Distance: n.Distance, SparseDistance: n.SparseDistance})
		}
		resp.NearestNeighbors[i] = out
	}
	return resp, nil
}

func (s *Match) read(ctx context.Context, req *pb.ReadIndexDatapointsRequest) (*pb.ReadIndexDatapointsResponse, error) {
	points, err := s.engine.Read(ctx, req.GetIndexEndpoint(), req.GetDeployedIndexId(), req.GetIds())
	if err != nil {
		return nil, err
	}
	return &pb.ReadIndexDatapointsResponse{Datapoints: points}, nil
}
