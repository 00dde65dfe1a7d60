package aiplatform

import (
	"context"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
)

// references are the deployed models by model and version.
type references map[string][]*pb.DeployedModelRef

// references reads the endpoints of the project of a model's name. The endpoints
// are the truth; a model's deployed_models repeat them on each read.
func (s *Models) references(ctx context.Context, model string) (references, error) {
	refs := references{}
	err := eachDeployed(ctx, s.std.store, model, func(endpoint string, d *pb.DeployedModel) error {
		key := resource.VersionName(d.Model, d.ModelVersionId)
		refs[key] = append(refs[key], &pb.DeployedModelRef{Endpoint: endpoint, DeployedModelId: d.Id})
		return nil
	})
	return refs, err
}

func (r references) fill(m *pb.Model) {
	m.DeployedModels = r[resource.VersionName(m.Name, m.VersionId)]
}

// eachDeployed visits the deployed models of all endpoints of the project.
func eachDeployed(ctx context.Context, r store.Reader, name string, visit func(endpoint string, d *pb.DeployedModel) error) error {
	endpoints, err := r.List(ctx, store.Query{Kind: resource.KindEndpoints, Prefix: projectPrefix(name)})
	if err != nil {
		return err
	}
	for _, row := range endpoints {
		e := &pb.Endpoint{}
		if err := store.Unmarshal(row, e); err != nil {
			return err
		}
		for _, d := range e.DeployedModels {
			if err := visit(row.Key, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func projectPrefix(name string) string {
	project, _, _ := strings.Cut(strings.TrimPrefix(name, "projects/"), "/")
	return "projects/" + project + "/"
}

// notDeployed refuses while an endpoint has the model, or is about to get it.
// An empty version means any.
func notDeployed(ctx context.Context, r store.Reader, model, version string) error {
	refuse := func(endpoint string, d *pb.DeployedModel) error {
		if d.Model != model || version != "" && d.ModelVersionId != version {
			return nil
		}
		name := resource.VersionName(model, d.ModelVersionId)
		return resource.Errorf(codes.FailedPrecondition, "%s is deployed on %s as %s", name, endpoint, d.Id).
			WithResource(model).WithHint("undeploy it from %s first", endpoint)
	}
	if err := eachDeployed(ctx, r, model, refuse); err != nil {
		return err
	}
	pending, err := r.List(ctx, store.Query{
		Kind: resource.KindDeployments, Prefix: projectPrefix(model), States: []string{resource.StateDeploying},
	})
	if err != nil {
		return err
	}
	for _, row := range pending {
		req := &pb.DeployModelRequest{}
		if err := store.Unmarshal(row, req); err != nil {
			return err
		}
		if err := refuse(row.Parent, req.GetDeployedModel()); err != nil {
			return err
		}
	}
	return nil
}
