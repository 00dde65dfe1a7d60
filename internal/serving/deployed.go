package serving

import (
	"context"
	"fmt"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Deployed is what is to be known of a deployed model.
type Deployed struct {
	ID, DisplayName string
	Model, Version  string // resource name and version id
	// Ready says that requests are taken: held, perhaps, until a replica has started.
	Ready bool
	// Features and Outputs are the numbers of an instance and of a prediction of a
	// model that is evaluated in this process; 0 = not known.
	Features, Outputs int
}

// Deployed lists the models of an endpoint.
func (e *Engine) Deployed(ctx context.Context, name string) ([]Deployed, error) {
	endpoint := &pb.Endpoint{}
	if _, err := store.GetMessage(ctx, e.cfg.Store, resource.KindEndpoints, name, endpoint); err != nil {
		return nil, fmt.Errorf("deployed models: %w", err)
	}
	out := make([]Deployed, 0, len(endpoint.GetDeployedModels()))
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, dm := range endpoint.GetDeployedModels() {
		d := Deployed{ID: dm.GetId(), DisplayName: dm.GetDisplayName(), Model: dm.GetModel(), Version: dm.GetModelVersionId()}
		if running := e.running[resource.DeploymentKey(name, d.ID)]; running != nil {
			d.Ready, d.Model, d.Version = true, running.model.GetName(), running.model.GetVersionId()
			if running.native != nil {
				d.Features, d.Outputs = running.native.Shape()
			}
		}
		out = append(out, d)
	}
	return out, nil
}
