package aiplatform

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"
)

// TestAskFollow: labels say what is followed, and who sets them is written down; who may
// not deploy may not ask.
func TestAskFollow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ctx := identity.NewContext(t.Context(), identity.Principal{Email: "ann@p"})
	create := func(labels map[string]string) (*pb.Endpoint, error) {
		_, err := s.do(ctx, "CreateEndpoint", &pb.CreateEndpointRequest{Parent: location, EndpointId: "7", Endpoint: &pb.Endpoint{DisplayName: "e", Labels: labels}})
		return &pb.Endpoint{Name: location + "/endpoints/7"}, err
	}
	if _, err := create(map[string]string{"tategu-follow": "4"}); resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "a version itself does not move") {
		t.Errorf("a version: %v", err)
	}
	e, err := create(map[string]string{"tategu-follow": "champion"})
	if err != nil {
		t.Fatal(err)
	}
	asked := func() (email, at string) {
		row, err := s.store.Get(t.Context(), resource.KindFollows, e.GetName())
		if err != nil {
			t.Fatal(err)
		}
		var state struct {
			Asker struct{ Email string }
			Asked string
		}
		if err := json.Unmarshal(row.Data, &state); err != nil {
			t.Fatal(err)
		}
		return state.Asker.Email, state.Asked
	}
	email, at := asked()
	if email != "ann@p" {
		t.Errorf("%q asked", email)
	}
	update := func(who string, labels map[string]string) error {
		e.Labels = labels
		_, err := s.do(identity.NewContext(t.Context(), identity.Principal{Email: who}), "UpdateEndpoint", &pb.UpdateEndpointRequest{Endpoint: e, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}})
		return err
	}
	if err := update("reader@p", map[string]string{"tategu-follow": "champion"}); resource.CodeOf(err) != codes.PermissionDenied {
		t.Errorf("who may not deploy: %v", err)
	}
	if err := update("bob@p", map[string]string{"tategu-follow": "champion", "team": "x"}); err != nil {
		t.Fatal(err)
	}
	if who, now := asked(); who != "ann@p" || now != at {
		t.Errorf("a label that has nothing to do with it: %s asked at %s", who, now)
	}
	if err := update("bob@p", map[string]string{"tategu-follow": "champion", "tategu-follow-model": "ranker"}); err != nil {
		t.Fatal(err)
	}
	if who, _ := asked(); who != "bob@p" {
		t.Errorf("%q asked for another model", who)
	}
	if _, err := s.do(ctx, "DeleteEndpoint", &pb.DeleteEndpointRequest{Name: e.GetName()}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Get(t.Context(), resource.KindFollows, e.GetName()); !resource.IsNotFound(err) {
		t.Errorf("it goes with the endpoint: %v", err)
	}
}

// TestUndeployWhileFollowing: to undeploy what a version on its way is to replace ends its
// deployment, so that the endpoint can be deleted; that version can be undeployed itself.
func TestUndeployWhileFollowing(t *testing.T) {
	t.Parallel()
	for _, undeployed := range []string{"1", "2"} {
		s := newServer(t)
		e := call[*pb.Endpoint](t, s, "CreateEndpoint", &pb.CreateEndpointRequest{Parent: location, EndpointId: "7", Endpoint: &pb.Endpoint{DisplayName: "e"}})
		e.DeployedModels, e.TrafficSplit = []*pb.DeployedModel{{Id: "1"}}, map[string]int32{"1": 100}
		err := s.store.Update(t.Context(), func(tx store.Tx) error {
			coming := &pb.DeployedModel{Id: "2", SystemLabels: map[string]string{serving.ReplacesLabel: "1"}}
			return errors.Join(
				s.std.Save(t.Context(), tx, e, ""),
				store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindDeployments, Key: e.GetName() + "/deployedModels/1", Parent: e.GetName(), State: resource.StateDeployed}, &pb.DeployModelRequest{}),
				store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindDeployments, Key: e.GetName() + "/deployedModels/2", Parent: e.GetName(), State: resource.StateDeploying}, &pb.DeployModelRequest{DeployedModel: coming}),
				tx.Put(t.Context(), store.Row{Kind: resource.KindFollows, Key: e.GetName(), Data: []byte(`{"old": "1", "new": "2"}`)}),
			)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.do(t.Context(), "UndeployModel", &pb.UndeployModelRequest{Endpoint: e.GetName(), DeployedModelId: undeployed}); err != nil {
			t.Fatal(err)
		}
		row, err := s.store.Get(t.Context(), resource.KindDeployments, e.GetName()+"/deployedModels/2")
		if err != nil || row.State != resource.StateUndeploying {
			t.Errorf("without %s the deployment is %s, %v", undeployed, row.State, err)
		}
		_, err = s.do(t.Context(), "DeleteEndpoint", &pb.DeleteEndpointRequest{Name: e.GetName()})
		if (err == nil) != (undeployed == "1") {
			t.Errorf("delete without %s: %v", undeployed, err)
		}
	}
}
