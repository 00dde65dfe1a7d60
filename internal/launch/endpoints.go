package launch

import (
	"context"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

func (l *launcher) createEndpoint(ctx context.Context) error {
	parent, err := l.parent()
	if err != nil {
		return err
	}
	endpoint, err := gcpc.EndpointOf(l.args.Payload, l.Labels)
	if err != nil {
		return err
	}
	var response struct {
		Name string `json:"name"`
	}
	err = l.operate(ctx, change{
		what: "creation of the endpoint",
		name: func(id string) string { return parent + "/endpoints/" + id + "/operations/" + id },
		send: func(id string) (*operation, error) {
			return l.start(ctx, http.MethodPost, parent+"/endpoints", id, endpoint)
		},
	}, &response)
	if err != nil {
		return err
	}
	return l.artifact("endpoint", response.Name)
}

func (l *launcher) deleteEndpoint(ctx context.Context) error {
	name, _, err := l.subject("endpoint", "endpoints")
	if err != nil {
		return err
	}
	return l.remove(ctx, "deletion of "+name, name)
}

func (l *launcher) deployModel(ctx context.Context) error {
	name, request, err := l.subject("endpoint", "endpoints")
	if err != nil {
		return err
	}
	delete(request, "endpoint") // it is in the path
	return l.operate(ctx, change{
		what: "deployment on " + name,
		name: func(id string) string { return name + "/operations/" + id },
		send: func(id string) (*operation, error) {
			return l.start(ctx, http.MethodPost, name+":deployModel", id, request)
		},
	}, nil)
}

// undeployModel takes a model off an endpoint: the version that is named, or any.
func (l *launcher) undeployModel(ctx context.Context) error {
	name, request, err := l.subject("endpoint", "endpoints")
	if err != nil {
		return err
	}
	model, _ := request["model"].(string)
	base, version, _ := strings.Cut(model, "@")
	if err := checkName("model", base, "models"); err != nil {
		return err
	}
	return l.operate(ctx, change{
		what: "undeployment from " + name,
		name: func(id string) string { return name + "/operations/" + id },
		send: func(id string) (*operation, error) {
			deployed, err := l.deployed(ctx, name, base, version)
			if err != nil {
				return nil, err
			}
			body := map[string]any{"deployed_model_id": deployed}
			if split, ok := request["traffic_split"]; ok {
				body["traffic_split"] = split
			}
			return l.start(ctx, http.MethodPost, name+":undeployModel", id, body)
		},
	}, nil)
}

// deployed finds the id of a model on an endpoint.
func (l *launcher) deployed(ctx context.Context, endpoint, model, version string) (string, error) {
	var e struct {
		Deployed []struct {
			ID      string `json:"id"`
			Model   string `json:"model"`
			Version string `json:"modelVersionId"`
		} `json:"deployedModels"`
	}
	if err := l.API.call(context.WithoutCancel(ctx), http.MethodGet, "/v1/"+endpoint, "", nil, &e); err != nil {
		return "", err
	}
	for _, d := range e.Deployed {
		if d.Model == model && (version == "" || version == d.Version) {
			return d.ID, nil
		}
	}
	if version != "" {
		model += "@" + version
	}
	return "", resource.Errorf(codes.NotFound, "%s is not deployed on %s", model, endpoint).WithResource(endpoint)
}

// waitFor waits for what the gcp_resources of another task names.
func (l *launcher) waitFor(ctx context.Context) error {
	r, name, err := gcpc.ParseResource(l.args.Payload)
	if err != nil {
		return err
	}
	if err := l.write(l.args.GCPResources, []byte(l.args.Payload)); err != nil {
		return err
	}
	if r.Type == gcpc.TypeLro {
		op := &operation{}
		if err := l.API.call(ctx, http.MethodGet, "/v1/"+name, "", nil, op); err != nil {
			return err
		}
		if op, err = l.await(ctx, op); err == nil && op.Error != nil {
			err = failed(name+" failed", *op.Error)
		}
		return err
	}
	j := &job{}
	if err := l.API.call(ctx, http.MethodGet, "/v1/"+name, "", nil, j); err != nil {
		return err
	}
	_, err = l.follow(ctx, r.Type, j)
	return err
}
