package launch

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

// uploadModel registers a model, or the next version of --parent_model_name.
func (l *launcher) uploadModel(ctx context.Context) error {
	parent, err := l.parent()
	if err != nil {
		return err
	}
	model, err := gcpc.ModelOf(l.args.Payload, l.Labels, l.in)
	if err != nil {
		return err
	}
	request := map[string]any{"model": model}
	of, _, _ := strings.Cut(l.args.ParentModel, "@")
	if of != "" {
		request["parent_model"] = of
	}
	var response struct {
		Model   string `json:"model"`
		Version string `json:"modelVersionId"`
	}
	err = l.operate(ctx, change{
		what: "upload of the model",
		name: func(id string) string {
			return first(of, parent+"/models/"+id) + "/operations/" + id
		},
		send: func(id string) (*operation, error) {
			return l.start(ctx, http.MethodPost, parent+"/models:upload", id, request)
		},
	}, &response)
	if err != nil {
		return err
	}
	if response.Version != "" {
		response.Model += "@" + response.Version
	}
	return l.artifact("model", response.Model)
}

// getModel names a model that exists.
func (l *launcher) getModel(ctx context.Context) error {
	parent, err := l.parent()
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*(@[A-Za-z0-9._~-]+)?$`).MatchString(l.args.ModelName) {
		return resource.Invalid("--model_name", "--model_name is %.200q: want MODEL, MODEL@VERSION or MODEL@ALIAS", l.args.ModelName)
	}
	var m struct {
		Name    string `json:"name"`
		Version string `json:"versionId"`
	}
	if err := l.API.call(ctx, http.MethodGet, "/v1/"+parent+"/models/"+l.args.ModelName, "", nil, &m); err != nil {
		return err
	}
	base, _, _ := strings.Cut(m.Name, "@")
	l.say("found %s@%s", base, m.Version)
	return l.artifact("model", base+"@"+m.Version)
}

// deleteModel removes a model with all its versions, also where one is named.
func (l *launcher) deleteModel(ctx context.Context) error {
	name, _, err := l.subject("model", "models")
	if err != nil {
		return err
	}
	return l.remove(ctx, "deletion of "+name, name)
}

// remove deletes a resource.
func (l *launcher) remove(ctx context.Context, what, name string) error {
	return l.operate(ctx, change{
		what: what,
		name: func(id string) string { return name + "/operations/" + id },
		send: func(id string) (*operation, error) { return l.start(ctx, http.MethodDelete, name, id, nil) },
	}, nil)
}

// subject reads the payload of a change: the name of what it is about, without a
// version, and the rest.
func (l *launcher) subject(field, collection string) (name string, request map[string]any, err error) {
	name, request, err = gcpc.RequestOf(l.args.Payload, field)
	if err != nil {
		return "", nil, err
	}
	name, _, _ = strings.Cut(name, "@")
	return name, request, checkName(field, name, collection)
}

func checkName(field, name, collection string) error {
	if regexp.MustCompile(`^projects/[^/?#@]+/locations/[^/?#@]+/` + collection + `/[^/?#@]+$`).MatchString(name) {
		return nil
	}
	return resource.Invalid(field, "%s is %.200q: want projects/PROJECT/locations/LOCATION/%s/ID", field, name, collection).
		WithHint("the artifact that the component was given has no metadata resourceName of that form; take it from ModelUploadOp, EndpointCreateOp or an importer")
}
