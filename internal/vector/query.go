package vector

import (
	"context"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/vector/datapoint"
)

// Bounds of one request, so that no answer takes all of the memory.
const (
	maxQueries   = 10_000
	maxNeighbors = 10_000
	maxIDs       = 100_000
)

// Find answers queries of a deployed index.
func (e *Engine) Find(ctx context.Context, endpoint, deployed string, queries []Query, full bool) (_ [][]Neighbor, err error) {
	started := e.cfg.Now()
	t, err := e.deployed(ctx, endpoint, deployed)
	if err != nil {
		return nil, err
	}
	defer func() { e.metrics.observe(t.index.Name, len(queries), e.cfg.Now().Sub(started), err) }()
	return e.find(ctx, t.index, queries, full)
}

// FindIn answers queries of an index that need not be deployed.
func (e *Engine) FindIn(ctx context.Context, name string, queries []Query, full bool) ([][]Neighbor, error) {
	index, err := e.Index(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.find(ctx, index, queries, full)
}

func (e *Engine) find(ctx context.Context, index Index, queries []Query, full bool) ([][]Neighbor, error) {
	if len(queries) > maxQueries {
		return nil, resource.Invalid("queries", "the request has %d queries; %d is the most", len(queries), maxQueries)
	}
	resolved := slices.Clone(queries)
	for i := range resolved {
		if err := resolved[i].check(index); err != nil {
			return nil, err
		}
	}
	if err := e.byID(ctx, index, resolved); err != nil {
		return nil, err
	}
	return e.cfg.Backend.Find(ctx, index, resolved, full)
}

func (q *Query) check(index Index) error {
	switch {
	case q.Point == nil:
		return resource.Invalid("queries.datapoint", "a query has no datapoint")
	case q.Neighbors < 0 || q.Neighbors > maxNeighbors:
		return resource.Invalid("queries.neighbor_count", "%d neighbours are not between 1 and %d", q.Neighbors, maxNeighbors)
	case q.PerCrowding < 0:
		return resource.Invalid("queries.per_crowding_attribute_neighbor_count", "%d is not a number of neighbours", q.PerCrowding)
	case q.Approximate < 0 || q.Approximate > 100*maxNeighbors:
		return resource.Invalid("queries.approximate_neighbor_count", "%d candidates are not between 1 and %d", q.Approximate, 100*maxNeighbors)
	case !(q.LeafFraction >= 0 && q.LeafFraction <= 1):
		return resource.Invalid("queries.fraction_leaf_nodes_to_search_override", "%v is not between 0 and 1", q.LeafFraction)
	case !(q.Alpha >= 0 && q.Alpha <= 1):
		return resource.Invalid("queries.rrf.alpha", "%v is not between 0 and 1", q.Alpha)
	}
	if q.Neighbors == 0 {
		q.Neighbors = DefaultNeighbors
	}
	if q.Approximate == 0 {
		q.Approximate = index.Config.Approximate
	}
	if q.LeafFraction == 0 {
		q.LeafFraction = index.Config.LeafPart
	}
	if wrong := datapoint.CheckQuery(q.Point, index.Config.Dimensions); wrong != nil {
		return resource.Invalid("queries.datapoint", "%s (%s)", wrong.Message, wrong.Type)
	}
	return nil
}

// byID puts the datapoint in the place of a query's id.
func (e *Engine) byID(ctx context.Context, index Index, queries []Query) error {
	var at []int
	var ids []string
	for i, q := range queries {
		if len(q.Point.GetFeatureVector())+len(q.Point.GetSparseEmbedding().GetValues()) > 0 {
			continue
		}
		if q.Point.GetDatapointId() == "" {
			return resource.Invalid("queries.datapoint", "a query has neither a feature vector, nor a sparse embedding, nor the id of a datapoint")
		}
		at, ids = append(at, i), append(ids, q.Point.GetDatapointId())
	}
	if len(ids) == 0 {
		return nil
	}
	points, err := e.cfg.Backend.Get(ctx, index, ids)
	if err != nil {
		return err
	}
	for n, p := range points {
		if p == nil {
			return missing(index.Name, ids[n])
		}
		q := &queries[at[n]]
		own := &pb.IndexDatapoint{
			DatapointId: ids[n], FeatureVector: p.GetFeatureVector(), SparseEmbedding: p.GetSparseEmbedding(),
			Restricts: q.Point.GetRestricts(), NumericRestricts: q.Point.GetNumericRestricts(),
		}
		if !q.Joint && len(own.FeatureVector) > 0 {
			own.SparseEmbedding = nil
		}
		q.Point = own
	}
	return nil
}

func missing(index, id string) error {
	return resource.Errorf(codes.NotFound, "%s has no datapoint %q", index, id).WithResource(index).
		WithHint("`tategu index scan %s` lists what is there", index)
}

// Read gives datapoints of a deployed index; one that is not there is an error.
func (e *Engine) Read(ctx context.Context, endpoint, deployed string, ids []string) ([]*pb.IndexDatapoint, error) {
	if len(ids) > maxIDs {
		return nil, resource.Invalid("ids", "the request has %d ids; %d is the most", len(ids), maxIDs)
	}
	t, err := e.deployed(ctx, endpoint, deployed)
	if err != nil {
		return nil, err
	}
	points, err := e.cfg.Backend.Get(ctx, t.index, ids)
	if err != nil {
		return nil, err
	}
	for i, p := range points {
		if p == nil {
			return nil, missing(t.index.Name, ids[i])
		}
	}
	return points, nil
}

// Endpoints that have a deployed index of an id, in whatever project: for who is not
// told which, and has to see whose vectors may be asked.
func (e *Engine) Endpoints(ctx context.Context, deployed string) ([]string, error) {
	e.mu.RLock()
	names, ok := e.places[deployed]
	epoch := e.epoch
	e.mu.RUnlock()
	if ok {
		return names, nil
	}
	err := e.eachDeployed(ctx, "", func(name string, d *pb.DeployedIndex) error {
		if d.GetId() == deployed {
			names = append(names, name)
		}
		return nil
	})
	if err != nil || len(names) == 0 {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch == epoch {
		e.places[deployed] = names
	}
	return names, nil
}

// Scan gives up to limit datapoints of an index in the order of their ids, after one.
func (e *Engine) Scan(ctx context.Context, name, after string, limit int) ([]*pb.IndexDatapoint, error) {
	index, err := e.Index(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.cfg.Backend.Scan(ctx, index, after, limit)
}

// Upsert adds datapoints, or replaces those of the same ids; of one id the last wins.
func (e *Engine) Upsert(ctx context.Context, name string, points []*pb.IndexDatapoint, mask Mask) error {
	index, err := e.Index(ctx, name)
	if err != nil {
		return err
	}
	for i, p := range points {
		if err := checkUpsert(p, index, mask); err != nil {
			return resource.Invalid("datapoints", "datapoints[%d]: %s (%s)", i, err.Error(), err.Type)
		}
	}
	if len(points) == 0 {
		return nil
	}
	err = e.cfg.Backend.Upsert(ctx, index, lastOfEach(points), mask)
	e.metrics.changed(name, "upsert", len(points), err)
	return err
}

// checkUpsert: what a mask leaves alone need not be sent.
func checkUpsert(p *pb.IndexDatapoint, index Index, mask Mask) *datapoint.RecordError {
	if !mask.Partial() {
		return datapoint.Check(p, index.Config.Dimensions)
	}
	shown := mask.Apply(&pb.IndexDatapoint{DatapointId: p.GetDatapointId()}, p)
	shown.FeatureVector = make([]float32, index.Config.Dimensions)
	return datapoint.Check(shown, index.Config.Dimensions)
}

func lastOfEach(points []*pb.IndexDatapoint) []*pb.IndexDatapoint {
	last := make(map[string]int, len(points))
	for i, p := range points {
		last[p.GetDatapointId()] = i
	}
	if len(last) == len(points) {
		return points
	}
	out := make([]*pb.IndexDatapoint, 0, len(last))
	for i, p := range points {
		if last[p.GetDatapointId()] == i {
			out = append(out, p)
		}
	}
	return out
}

// Remove forgets datapoints; one that is not there is no error.
func (e *Engine) Remove(ctx context.Context, name string, ids []string) error {
	index, err := e.Index(ctx, name)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return nil
	}
	err = e.cfg.Backend.Remove(ctx, index, ids)
	e.metrics.changed(name, "remove", len(ids), err)
	return err
}
