package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
)

// deployed is an index that answers.
type deployed struct {
	server          *server
	index, endpoint string
	match           pb.MatchServiceClient
	upserts         pb.IndexServiceClient
}

// The last part of names: of a deployed index, of its files' folder.
const (
	deployedID = "bench"
	bucketName = "bench-vectors"
)

// build makes an index of a folder and deploys it: what `build_s` counts.
func (s *server) build(ctx context.Context, endpoint, folder string) (*deployed, error) {
	d := &deployed{server: s, endpoint: endpoint, match: pb.NewMatchServiceClient(s.conn), upserts: pb.NewIndexServiceClient(s.writes)}
	config := map[string]any{
		"dimensions": dims, "approximateNeighborsCount": 100, "distanceMeasureType": "SQUARED_L2_DISTANCE",
		"algorithmConfig": map[string]any{"treeAhConfig": map[string]any{}},
	}
	var err error
	d.index, err = s.operate(ctx, "/v1/"+location+"/indexes", map[string]any{
		"displayName": folder, "indexUpdateMethod": "STREAM_UPDATE",
		"metadata": map[string]any{"contentsDeltaUri": "gs://" + bucketName + "/" + folder, "config": config},
	})
	if err != nil {
		return nil, err
	}
	_, err = s.operate(ctx, "/v1/"+endpoint+":deployIndex", map[string]any{"deployedIndex": map[string]any{"id": deployedID, "index": d.index}})
	return d, err
}

// update builds the index once more of a folder.
func (d *deployed) update(ctx context.Context, folder string) error {
	var op operation
	err := d.server.call(ctx, http.MethodPatch, "/v1/"+d.index+"?updateMask=metadata", map[string]any{
		"metadata": map[string]any{"contentsDeltaUri": "gs://" + bucketName + "/" + folder, "isCompleteOverwrite": true},
	}, &op)
	if err != nil {
		return err
	}
	_, err = d.server.await(ctx, op)
	return err
}

func (s *server) endpoint(ctx context.Context) (string, error) {
	return s.operate(ctx, "/v1/"+location+"/indexEndpoints", map[string]any{"displayName": "bench", "publicEndpointEnabled": true})
}

// drop takes an index down and deletes it.
func (d *deployed) drop(ctx context.Context) error {
	if _, err := d.server.operate(ctx, "/v1/"+d.endpoint+":undeployIndex", map[string]any{"deployedIndexId": deployedID}); err != nil {
		return err
	}
	var op struct{ Name string }
	return d.server.call(ctx, http.MethodDelete, "/v1/"+d.index, nil, &op)
}

// protocol asks for the neighbours of the n-th query.
type protocol struct {
	name string
	do   func(ctx context.Context, n int) error
	ids  func(ctx context.Context, n int) ([]string, error)
}

// protocols have their requests made before.
func (d *deployed) protocols(queries [][]float32) ([]protocol, error) {
	messages, bodies := make([]*pb.FindNeighborsRequest, len(queries)), make([][]byte, len(queries))
	for i, q := range queries {
		messages[i] = &pb.FindNeighborsRequest{
			IndexEndpoint: d.endpoint, DeployedIndexId: deployedID,
			Queries: []*pb.FindNeighborsRequest_Query{{Datapoint: &pb.IndexDatapoint{FeatureVector: q}, NeighborCount: neighbors}},
		}
		var err error
		if bodies[i], err = json.Marshal(map[string]any{"deployedIndexId": deployedID, "queries": []any{
			map[string]any{"datapoint": map[string]any{"featureVector": q}, "neighborCount": neighbors},
		}}); err != nil {
			return nil, err
		}
	}
	grpc := func(ctx context.Context, n int) (*pb.FindNeighborsResponse, error) {
		return d.match.FindNeighbors(d.server.as(ctx), messages[n%len(messages)])
	}
	rest := func(ctx context.Context, n int) ([]byte, error) {
		return d.server.send(ctx, http.MethodPost, "/v1/"+d.endpoint+":findNeighbors", "application/json", bytes.NewReader(bodies[n%len(bodies)]))
	}
	return []protocol{
		{
			name: "gRPC",
			do: func(ctx context.Context, n int) error {
				resp, err := grpc(ctx, n)
				if got := len(resp.GetNearestNeighbors()); err == nil && got != 1 {
					err = fmt.Errorf("%d answers to a query", got)
				}
				return err
			},
			ids: func(ctx context.Context, n int) ([]string, error) {
				resp, err := grpc(ctx, n)
				var ids []string
				for _, x := range resp.GetNearestNeighbors() {
					for _, found := range x.GetNeighbors() {
						ids = append(ids, found.GetDatapoint().GetDatapointId())
					}
				}
				return ids, err
			},
		},
		{
			name: "REST",
			do: func(ctx context.Context, n int) error {
				_, err := rest(ctx, n)
				return err
			},
			ids: func(ctx context.Context, n int) ([]string, error) {
				text, err := rest(ctx, n)
				if err != nil {
					return nil, err
				}
				var resp struct {
					NearestNeighbors []struct {
						Neighbors []struct{ Datapoint struct{ DatapointID string } }
					}
				}
				if err := json.Unmarshal(text, &resp); err != nil {
					return nil, err
				}
				var ids []string
				for _, x := range resp.NearestNeighbors {
					for _, found := range x.Neighbors {
						ids = append(ids, found.Datapoint.DatapointID)
					}
				}
				return ids, nil
			},
		},
	}, nil
}

// recall of a protocol's answers, over the queries whose truth is known.
func recall(ctx context.Context, p protocol, truth *exact) (float64, error) {
	sum := 0.0
	for n := range truth.queries {
		ids, err := p.ids(ctx, n)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.name, err)
		}
		sum += truth.found(n, ids)
	}
	return sum / float64(len(truth.queries)), nil
}

// upsert adds n new datapoints in one request.
func (d *deployed) upsert(ctx context.Context, next func([]float32), from, n int) error {
	req := &pb.UpsertDatapointsRequest{Index: d.index}
	for i := range n {
		v := make([]float32, dims)
		next(v)
		req.Datapoints = append(req.Datapoints, &pb.IndexDatapoint{DatapointId: fmt.Sprintf("u%d", from+i), FeatureVector: v})
	}
	_, err := d.upserts.UpsertDatapoints(d.server.as(ctx), req)
	return err
}

// info is what the server says of an index.
type info struct {
	Recall   float64
	Method   string
	Unmerged int
	Segments int
	Bytes    int64 // in memory
}

func (d *deployed) info(ctx context.Context) (i info, err error) {
	return i, d.server.call(ctx, http.MethodGet, "/tategu/v1/index?index="+d.index, nil, &i)
}
