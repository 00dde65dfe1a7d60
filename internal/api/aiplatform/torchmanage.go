package aiplatform

import (
	"context"
	"net/http"
	"strings"

	"tategu/internal/api"
	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// TorchManager is what manages the models of a deployed TorchServe; serving.Engine is one.
type TorchManager interface {
	Manage(ctx context.Context, endpoint string, r serving.Request) (*modelformat.TorchAnswer, error)
}

// TorchManagement is TorchServe's management API of a deployed model, below
// ENDPOINT/deployedModels/ID/torchserve: /models, /workflows and /metrics there are
// those of TorchServe.
type TorchManagement struct {
	manager TorchManager
	rights  Rights
	bodies  api.Bodies
}

// NewTorchManagement makes the handler.
func NewTorchManagement(m TorchManager, rights Rights) *TorchManagement {
	return &TorchManagement{manager: m, rights: rights}
}

// Permissions of TorchServe's management: reads, and changes, which bring code.
const (
	torchReadPermission   = "aiplatform.endpoints.get"
	torchChangePermission = "aiplatform.models.upload"
)

// parseTorchManagement reads an escaped path.
func parseTorchManagement(path string) (v invocation, ok bool) {
	const known = 11 // "", version, projects, P, locations, L, endpoints, E, deployedModels, D, torchserve
	seg := strings.SplitN(path, "/", known+1)
	if len(seg) != known+1 || seg[0] != "" || seg[1] != resource.V1 && seg[1] != resource.V1beta1 ||
		seg[2] != "projects" || seg[4] != "locations" || seg[6] != "endpoints" || seg[8] != "deployedModels" || seg[10] != "torchserve" {
		return v, false
	}
	v = invocation{project: seg[3], location: seg[5], endpoint: seg[7], model: seg[9], route: "/" + seg[11]}
	return v, v.project != "" && v.location != "" && v.endpoint != "" && v.model != ""
}

// Owns reports a request that is for this handler.
func (*TorchManagement) Owns(r *http.Request) bool {
	_, ok := parseTorchManagement(r.URL.EscapedPath())
	return ok
}

// torchRoute refuses by name what is not there of TorchServe's management API.
func torchRoute(method, route string) error {
	first, below, _ := strings.Cut(strings.TrimPrefix(route, "/"), "/")
	switch {
	case first == "models", first == "workflows", first == "metrics" && below == "" && method == http.MethodGet:
		return nil
	case first == "token":
		return resource.Unimplemented(route + " of TorchServe's management on an endpoint").
			WithHint("the platform's own tokens and permissions hold there: send Authorization: Bearer with a token of `tategu token create`, or let Google's client libraries do it")
	}
	return resource.Unimplemented(route + " of TorchServe's management on an endpoint").WithHint("/models, /workflows and what is below them are there, and GET of /metrics")
}

// Serve answers a request that Owns has seen; the wire writes errors.
func (t *TorchManagement) Serve(w http.ResponseWriter, r *http.Request) error {
	v, ok := parseTorchManagement(r.URL.EscapedPath())
	if !ok {
		return resource.NotFound(r.URL.Path)
	}
	permission := torchChangePermission
	if r.Method == http.MethodGet || r.Method == http.MethodOptions {
		permission = torchReadPermission
	}
	name, err := mayUse(r, t.rights, permission, v.project, v.location, v.endpoint)
	if err != nil {
		return err
	}
	if err := torchRoute(r.Method, v.route); err != nil {
		return err
	}
	body, done, err := t.bodies.Read(r)
	defer done()
	if err != nil {
		return tooLarge(err)
	}
	if r.URL.RawQuery != "" {
		v.route += "?" + r.URL.RawQuery
	}
	answer, err := t.manager.Manage(r.Context(), name, serving.Request{Header: r.Header, Body: body, DeployedModel: v.model, Route: v.route, Method: r.Method})
	if err != nil {
		return retryHint(w, err)
	}
	contain(w.Header(), r)
	write(w, answer.Status, answer.ContentType, answer.Body)
	return nil
}
