package aiplatform

import (
	"context"
	"net/http"
	"strings"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// Rights is what invocations ask of the identity layer.
type Rights interface {
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	// ProjectID gives the id that a project is stored under.
	ProjectID(ctx context.Context, idOrNumber string) (string, error)
}

// Invoke passes requests to any route of a model's server, where the model has an
// invoke_route_prefix: ENDPOINT/invoke/foo is /foo there, and so is
// ENDPOINT/deployedModels/ID/invoke/foo, of that one model. The SDK calls it
// Endpoint.invoke; no descriptor has it.
type Invoke struct {
	prediction *Prediction
	rights     Rights
}

// NewInvoke makes the handler.
func NewInvoke(p Predictor, rights Rights) *Invoke { return &Invoke{NewPrediction(p), rights} }

// invocation is the path of one.
type invocation struct {
	project, location, endpoint, model, route string
}

// parseInvocation reads an escaped path.
func parseInvocation(path string) (v invocation, ok bool) {
	const known = 8 // "", version, projects, P, locations, L, endpoints, E
	seg := strings.SplitN(path, "/", known+4)
	if len(seg) < known+2 || seg[0] != "" || seg[1] != resource.V1 && seg[1] != resource.V1beta1 ||
		seg[2] != "projects" || seg[4] != "locations" || seg[6] != "endpoints" {
		return v, false
	}
	v.project, v.location, v.endpoint = seg[3], seg[5], seg[7]
	rest := seg[known:]
	if rest[0] == "deployedModels" && len(rest) == 4 {
		v.model, rest = rest[1], rest[2:]
	}
	if rest[0] != "invoke" || len(rest) < 2 || v.project == "" || v.location == "" || v.endpoint == "" {
		return v, false
	}
	v.route = "/" + strings.Join(rest[1:], "/")
	return v, v.route != "/" // the root is not to be had
}

// Owns reports a request that is for this handler.
func (*Invoke) Owns(r *http.Request) bool {
	_, ok := parseInvocation(r.URL.EscapedPath())
	return ok
}

// Serve answers a request that Owns has seen; the wire writes errors.
func (i *Invoke) Serve(w http.ResponseWriter, r *http.Request) error {
	v, ok := parseInvocation(r.URL.EscapedPath())
	if !ok {
		return resource.NotFound(r.URL.Path)
	}
	name, err := mayUse(r, i.rights, predictPermission, v.project, v.location, v.endpoint)
	if err != nil {
		return err
	}
	if r.URL.RawQuery != "" {
		v.route += "?" + r.URL.RawQuery
	}
	return i.prediction.passHTTP(r.Context(), w, r, name, serving.Request{
		Method: r.Method, Route: v.route, DeployedModel: v.model, Stream: true, Again: repeatable(r),
	})
}

// repeatable reports a request that may be sent twice: its method says so
// (RFC 9110, section 9.2.2), or its caller by a key.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// mayUse gives the endpoint's name once the caller is known to have a permission.
func mayUse(r *http.Request, rights Rights, permission, project, location, endpoint string) (name string, err error) {
	if strings.Trim(project, "0123456789") == "" {
		id, err := rights.ProjectID(r.Context(), project)
		if err != nil && !resource.IsNotFound(err) {
			return "", err
		}
		if err == nil { // else Authorize refuses it: a stranger learns no numbers
			project = id
		}
	}
	if err := rights.Authorize(r.Context(), identity.FromContext(r.Context()), project, permission); err != nil {
		return "", err
	}
	return "projects/" + project + "/locations/" + location + "/endpoints/" + endpoint, nil
}
