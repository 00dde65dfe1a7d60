package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/load"
)

// only is the one deployed model that answers; nil when there are several.
func (l *loader) only() *pb.DeployedModel {
	var found *pb.DeployedModel
	for _, d := range l.endpoint.GetDeployedModels() {
		if l.endpoint.GetTrafficSplit()[d.GetId()] > 0 {
			if found != nil {
				return nil
			}
			found = d
		}
	}
	return found
}

// native reports that a model is evaluated in the server itself.
func native(d *pb.DeployedModel) bool {
	return strings.HasPrefix(d.GetStatus().GetMessage(), "served in process")
}

// replicas counts those of the model that answers.
func (l *loader) replicas(ctx context.Context) int {
	e, err := l.client.fetchEndpoint(ctx, l.endpoint.GetName())
	if err != nil || e == nil {
		return 0 // not known: the load goes on, and says what fails
	}
	l.endpoint = e
	if d := l.only(); d != nil && !native(d) {
		return int(d.GetStatus().GetAvailableReplicaCount())
	}
	return 0
}

// advise says what should be set.
func (l *loader) advise(r *load.Result, a load.Advice, sizes []load.Size) []string {
	if r.Knee == 0 {
		return nil
	}
	var out []string
	switch d := l.only(); {
	case d == nil:
		out = append(out, "Several models answer: of one endpoint for each it can be told how many replicas they need.")
	case native(d):
		out = append(out, "The model is evaluated in the server itself: it has no replicas to set.")
	default:
		out = append(out, fmt.Sprintf("Replicas: 1 for each %s requests a second (%.0f%% of the knee, with %d ready).", load.Rate(a.PerReplica), 100*load.WorkShare, max(1, r.At.Replicas)))
		if a.Replicas > 0 {
			out = append(out, fmt.Sprintf("For %s requests a second: %d.", load.Rate(l.wanted), a.Replicas))
		}
		out = append(out, fmt.Sprintf("Concurrency: %d requests of a replica at a time. It is learned; to fix it, set TATEGU_CONCURRENCY=%d in the env of the model's container.", a.Concurrency, a.Concurrency))
	}
	if len(sizes) > 0 && a.Batch > 0 {
		first, best := sizes[0], sizes[0]
		for _, s := range sizes {
			if s.Instances == a.Batch {
				best = s
			}
		}
		out = append(out, fmt.Sprintf("Batch: %d instances in a request, %s each (one alone takes %s).", a.Batch, load.Told(best.Median/time.Duration(best.Instances)), load.Told(first.Median)))
	}
	return out
}

// set writes the replica counts to the deployed model.
func (l *loader) set(ctx context.Context, r *load.Result, a load.Advice) error {
	d := l.only()
	switch {
	case d == nil:
		return errors.New("nothing was set: several deployed models answer, and which of them needs more cannot be told; send all traffic to one")
	case native(d):
		return errors.New("nothing was set: the model is evaluated in the server itself and has no replicas")
	case a.Replicas == 0 || r.Beyond == 0 || !r.Confirmed:
		return errors.New("nothing was set: the knee was not found; allow a higher --max-rate or a longer --duration")
	}
	kind, least := "dedicatedResources", d.GetDedicatedResources().GetMinReplicaCount()
	if d.GetDedicatedResources() == nil {
		kind, least = "automaticResources", d.GetAutomaticResources().GetMinReplicaCount()
	}
	least = min(least, int32(a.Replicas))
	body := map[string]any{
		"deployedModel": map[string]any{"id": d.GetId(), kind: map[string]any{"minReplicaCount": least, "maxReplicaCount": a.Replicas}},
		"updateMask":    kind + ".minReplicaCount," + kind + ".maxReplicaCount",
	}
	if err := l.client.call(ctx, http.MethodPost, "/v1beta1/"+l.endpoint.GetName()+":mutateDeployedModel", body, nil); err != nil {
		return fmt.Errorf("set the replicas of deployed model %s: %w", d.GetId(), err)
	}
	l.say(fmt.Sprintf("Set: deployed model %s has %d to %d replicas.", d.GetId(), least, a.Replicas))
	return nil
}
