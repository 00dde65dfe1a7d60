// Command vector drives the unmodified cloud.google.com/go/aiplatform through the life
// of an index on a running server, over gRPC:
//
//	go run ./vector http://127.0.0.1:8090
//
// It prints a line a check and "N passed, N failed"; each check needs those before it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	parent   = "projects/p/locations/us-central1"
	deployed = "go_vectors"
)

type probe struct {
	indexes         *aiplatform.IndexClient
	endpoints       *aiplatform.IndexEndpointClient
	match           *aiplatform.MatchClient
	index, endpoint string
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./vector BASE_URL")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p, err := connect(ctx, strings.TrimPrefix(os.Args[1], "http://"))
	if err != nil {
		panic(err)
	}
	passed, failed := 0, 0
	for _, check := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"create index", p.create},
		{"deploy index", p.deploy},
		{"upsert", p.upsert},
		{"neighbours by vector", p.byVector},
		{"neighbours by id", p.byID},
		{"restricts", p.restricts},
		{"read datapoints", p.read},
		{"remove datapoints", p.remove},
		{"an index that is not there", p.missing},
		{"undeploy and delete", p.drop},
	} {
		if err := check.run(ctx); err != nil {
			failed++
			fmt.Printf("fail  go vectors, %s: %v\n", check.name, err)
			continue
		}
		passed++
		fmt.Printf("ok    go vectors, %s\n", check.name)
	}
	if err := errors.Join(p.indexes.Close(), p.endpoints.Close(), p.match.Close()); err != nil {
		panic(err)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func connect(ctx context.Context, address string) (*probe, error) {
	opts := []option.ClientOption{
		option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	p := &probe{}
	var errs [3]error
	p.indexes, errs[0] = aiplatform.NewIndexClient(ctx, opts...)
	p.endpoints, errs[1] = aiplatform.NewIndexEndpointClient(ctx, opts...)
	p.match, errs[2] = aiplatform.NewMatchClient(ctx, opts...)
	return p, errors.Join(errs[:]...)
}

func (p *probe) create(ctx context.Context) error {
	metadata, err := structpb.NewValue(map[string]any{"config": map[string]any{
		"dimensions": 3, "approximateNeighborsCount": 10, "distanceMeasureType": "SQUARED_L2_DISTANCE",
		"algorithmConfig": map[string]any{"treeAhConfig": map[string]any{}},
	}})
	if err != nil {
		return err
	}
	op, err := p.indexes.CreateIndex(ctx, &aiplatformpb.CreateIndexRequest{Parent: parent, Index: &aiplatformpb.Index{
		DisplayName: "go", Metadata: metadata, IndexUpdateMethod: aiplatformpb.Index_STREAM_UPDATE,
	}})
	if err != nil {
		return err
	}
	index, err := op.Wait(ctx)
	if err != nil {
		return err
	}
	p.index = index.GetName()
	got, err := p.indexes.GetIndex(ctx, &aiplatformpb.GetIndexRequest{Name: p.index})
	if err != nil || got.GetDisplayName() != "go" {
		return fmt.Errorf("got %q, %w", got.GetDisplayName(), err)
	}
	return nil
}

func (p *probe) deploy(ctx context.Context) error {
	op, err := p.endpoints.CreateIndexEndpoint(ctx, &aiplatformpb.CreateIndexEndpointRequest{
		Parent: parent, IndexEndpoint: &aiplatformpb.IndexEndpoint{DisplayName: "go", PublicEndpointEnabled: true},
	})
	if err != nil {
		return err
	}
	endpoint, err := op.Wait(ctx)
	if err != nil {
		return err
	}
	p.endpoint = endpoint.GetName()
	deploying, err := p.endpoints.DeployIndex(ctx, &aiplatformpb.DeployIndexRequest{
		IndexEndpoint: p.endpoint, DeployedIndex: &aiplatformpb.DeployedIndex{Id: deployed, Index: p.index},
	})
	if err != nil {
		return err
	}
	got, err := deploying.Wait(ctx)
	if err != nil || got.GetDeployedIndex().GetId() != deployed {
		return fmt.Errorf("deployed %q, %w", got.GetDeployedIndex().GetId(), err)
	}
	return nil
}

func (p *probe) upsert(ctx context.Context) error {
	color := func(c string) []*aiplatformpb.IndexDatapoint_Restriction {
		return []*aiplatformpb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{c}}}
	}
	_, err := p.indexes.UpsertDatapoints(ctx, &aiplatformpb.UpsertDatapointsRequest{Index: p.index, Datapoints: []*aiplatformpb.IndexDatapoint{
		{DatapointId: "a", FeatureVector: []float32{1, 0, 0}, Restricts: color("red")},
		{DatapointId: "b", FeatureVector: []float32{1, 0, 0.5}, Restricts: color("blue")},
		{DatapointId: "c", FeatureVector: []float32{0, 3, 0}, Restricts: color("blue")},
		{DatapointId: "d", FeatureVector: []float32{0, 0, 9}, Restricts: color("red")},
	}})
	return err
}

// find asks for two neighbours and compares their ids, and the distance of the first.
func (p *probe) find(ctx context.Context, point *aiplatformpb.IndexDatapoint, distance float64, want ...string) error {
	resp, err := p.match.FindNeighbors(ctx, &aiplatformpb.FindNeighborsRequest{
		IndexEndpoint: p.endpoint, DeployedIndexId: deployed,
		Queries: []*aiplatformpb.FindNeighborsRequest_Query{{Datapoint: point, NeighborCount: 2}},
	})
	if err != nil {
		return err
	}
	if n := len(resp.GetNearestNeighbors()); n != 1 {
		return fmt.Errorf("%d answers to one query", n)
	}
	found := resp.GetNearestNeighbors()[0].GetNeighbors()
	var got []string
	for _, n := range found {
		got = append(got, n.GetDatapoint().GetDatapointId())
	}
	if !slices.Equal(got, want) || len(found) == 0 || found[0].GetDistance() != distance {
		return fmt.Errorf("found %v, want %q, the first at %v", found, want, distance)
	}
	return nil
}

func (p *probe) byVector(ctx context.Context) error {
	return p.find(ctx, &aiplatformpb.IndexDatapoint{FeatureVector: []float32{2, 0, 0}}, 1, "a", "b")
}

func (p *probe) byID(ctx context.Context) error {
	return p.find(ctx, &aiplatformpb.IndexDatapoint{DatapointId: "b"}, 0, "b", "a")
}

func (p *probe) restricts(ctx context.Context) error {
	return p.find(ctx, &aiplatformpb.IndexDatapoint{
		FeatureVector: []float32{1, 0, 0}, Restricts: []*aiplatformpb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{"blue"}}},
	}, 0.25, "b", "c")
}

func (p *probe) points(ctx context.Context, ids ...string) ([]*aiplatformpb.IndexDatapoint, error) {
	resp, err := p.match.ReadIndexDatapoints(ctx, &aiplatformpb.ReadIndexDatapointsRequest{IndexEndpoint: p.endpoint, DeployedIndexId: deployed, Ids: ids})
	return resp.GetDatapoints(), err
}

func (p *probe) read(ctx context.Context) error {
	got, err := p.points(ctx, "c", "a")
	if err != nil {
		return err
	}
	if len(got) != 2 || got[0].GetDatapointId() != "c" || !slices.Equal(got[0].GetFeatureVector(), []float32{0, 3, 0}) ||
		got[1].GetDatapointId() != "a" || got[1].GetRestricts()[0].GetAllowList()[0] != "red" {
		return fmt.Errorf("read %v", got)
	}
	return nil
}

func (p *probe) remove(ctx context.Context) error {
	if _, err := p.indexes.RemoveDatapoints(ctx, &aiplatformpb.RemoveDatapointsRequest{Index: p.index, DatapointIds: []string{"a"}}); err != nil {
		return err
	}
	if _, err := p.points(ctx, "a"); status.Code(err) != codes.NotFound {
		return fmt.Errorf("reading what was removed: %w, want NotFound", err)
	}
	return p.find(ctx, &aiplatformpb.IndexDatapoint{FeatureVector: []float32{1, 0, 0}}, 0.25, "b", "c")
}

func (p *probe) missing(ctx context.Context) error {
	if _, err := p.indexes.GetIndex(ctx, &aiplatformpb.GetIndexRequest{Name: parent + "/indexes/1"}); status.Code(err) != codes.NotFound {
		return fmt.Errorf("got %w, want NotFound", err)
	}
	return nil
}

func (p *probe) drop(ctx context.Context) error {
	if op, err := p.indexes.DeleteIndex(ctx, &aiplatformpb.DeleteIndexRequest{Name: p.index}); err == nil {
		if err := op.Wait(ctx); err == nil {
			return errors.New("an index that is deployed was deleted")
		}
	}
	undeploying, err := p.endpoints.UndeployIndex(ctx, &aiplatformpb.UndeployIndexRequest{IndexEndpoint: p.endpoint, DeployedIndexId: deployed})
	if err != nil {
		return err
	}
	if _, err := undeploying.Wait(ctx); err != nil {
		return err
	}
	op, err := p.indexes.DeleteIndex(ctx, &aiplatformpb.DeleteIndexRequest{Name: p.index})
	if err != nil {
		return err
	}
	return op.Wait(ctx)
}
