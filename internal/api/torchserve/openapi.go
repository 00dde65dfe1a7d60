package torchserve

import "net/http"

// object is a part of an OpenAPI description; its fields are written in the order of
// the alphabet, which readers do not look at.
type object map[string]any

// describeAPI answers OPTIONS / and GET /api-description.
func (a *API) describeAPI(inference, management bool) handler {
	return func(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
		switch {
		case len(s) == 0 && r.Method == http.MethodOptions, at(s, 1) == "api-description" && len(s) == 2:
			sendJSON(w, http.StatusOK, a.description(inference, management))
			return true, nil
		case len(s) == 0:
			return true, notAllowed()
		}
		return false, nil
	}
}

func document(info object, paths object) object {
	return object{"openapi": "3.0.1", "info": info, "paths": paths}
}

func (a *API) description(inference, management bool) object {
	paths := object{"/metrics": object{"get": operation("metrics", "Get TorchServe application metrics in prometheus format.",
		parameters(query("name[]", "string", "Names of metrics to filter")),
		responses("TorchServe application metrics", content("text/plain; version=0.0.4; charset=utf-8", object{"type": "string"}), http.StatusInternalServerError))}}
	if inference || management {
		paths["/"] = object{"options": descriptionOperation("apiDescription")}
		old := descriptionOperation("api-description")
		old["deprecated"] = true
		paths["/api-description"] = object{"get": old}
	}
	if inference {
		inferencePaths(paths, a.cfg.OpenInference)
	}
	if management {
		managementPaths(paths)
		if a.Tokens != nil {
			paths["/token"] = object{"get": operation("token", "Make another token of a type; it is written to the key file.", parameters(query("type", "string", "inference or management")),
				responses("The token was made", nil, http.StatusBadRequest))}
		}
	}
	return document(object{"title": "TorchServe APIs", "description": "The APIs of TorchServe, served by tategu", "version": Version}, paths)
}

func inferencePaths(paths object, oip bool) {
	paths["/ping"] = object{"get": operation("ping", "Get TorchServe status.", nil,
		responses("TorchServe status", statusContent(), http.StatusInternalServerError))}
	for path, p := range map[string]struct{ id, about string }{
		"/predictions/{model_name}":                  {"predictions", "Predictions entry point to get inference using default model version."},
		"/predictions/{model_name}/{model_version}":  {"version_predictions", "Predictions entry point to get inference using specific model version."},
		"/explanations/{model_name}":                 {"explanations", "Explanations of the default version of a model."},
		"/explanations/{model_name}/{model_version}": {"version_explanations", "Explanations of a version of a model."},
		"/invocations":                               {"invocations", "Predictions of the model that the parameter model_name names."},
		"/models/{model_name}/invoke":                {"invoke", "Predictions of the default version of a model."},
		"/v1/models/{model_name}:predict":            {"v1_predictions", "Predictions in KServe's protocol v1."},
		"/v1/models/{model_name}:explain":            {"v1_explanations", "Explanations in KServe's protocol v1."},
		"/v2/models/{model_name}/infer":              {"v2_predictions", "Predictions in KServe's protocol v2."},
		"/v2/models/{model_name}/explain":            {"v2_explanations", "Explanations in KServe's protocol v2."},
		"/wfpredict/{workflow_name}":                 {"wfpredict", "Predictions of a workflow."},
	} {
		paths[path] = object{"post": predictOperation(path, p.id, p.about)}
	}
	if oip {
		for _, p := range []string{"/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{model_name}", "/v2/models/{model_name}/ready"} {
			paths[p] = object{"get": operation("", "Open Inference Protocol", pathParameters(p), responses("OK", content(jsonType, object{"type": "object"}), http.StatusNotFound))}
		}
	}
}

func managementPaths(paths object) {
	register := operation("registerModel", "Register a new model in TorchServe.", parameters(
		required(query("url", "string", "Where the archive is: a file of the model store, or file://, http(s)://, gs:// or s3://")),
		query("model_name", "string", "Name of model; it goes before the archive's"), query("handler", "string", "Handler; it goes before the archive's"),
		query("runtime", "string", "python"), query("batch_size", "integer", "Largest batch"), query("max_batch_delay", "integer", "How long a batch waits, in milliseconds"),
		query("initial_workers", "integer", "Workers to start"), query("synchronous", "boolean", "Wait for the workers; default: true"),
		query("response_timeout", "integer", "Longest answer of a worker, in seconds"), query("startup_timeout", "integer", "Longest start of a worker, in seconds"),
	), responses("Model registered", statusContent(), http.StatusAccepted, http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusInternalServerError))
	list := operation("listModels", "List registered models in TorchServe.", parameters(query("limit", "integer", "Models on a page, at most 100"), query("next_page_token", "string", "Where a page begins")),
		responses("OK", content(jsonType, object{"type": "object"}), http.StatusInternalServerError))
	paths["/models"] = object{"get": list, "post": register}
	modelPaths(paths)
	paths["/workflows"] = object{
		"get": operation("listWorkflows", "List registered workflows.", nil, responses("OK", content(jsonType, object{"type": "object"}))),
		"post": operation("registerWorkflow", "Register a workflow.", parameters(required(query("url", "string", "Where the archive is")), query("workflow_name", "string", "Its name")),
			responses("Workflow registered", statusContent(), http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusInternalServerError)),
	}
	const one = "/workflows/{workflow_name}"
	paths[one] = object{
		"get":    operation("describeWorkflow", "Describe a workflow.", pathParameters(one), responses("OK", content(jsonType, object{"type": "array"}), http.StatusNotFound)),
		"delete": operation("unregisterWorkflow", "Unregister a workflow.", pathParameters(one), responses("Workflow unregistered", statusContent(), http.StatusNotFound)),
	}
}

func modelPaths(paths object) {
	for _, p := range []string{"/models/{model_name}", "/models/{model_name}/{model_version}"} {
		prefix := ""
		if p != "/models/{model_name}" {
			prefix = "version_"
		}
		with := func(more ...object) []object { return append(pathParameters(p), more...) }
		paths[p] = object{
			"get": operation(prefix+"describeModel", "Describe a model and its workers.", with(query("customized", "boolean", "Ask the handler as well")),
				responses("OK", content(jsonType, object{"type": "array"}), http.StatusNotFound)),
			"put": operation(prefix+"setAutoScale", "Change the number of workers.", with(query("min_worker", "integer", "Fewest workers"), query("max_worker", "integer", "Most workers"), query("synchronous", "boolean", "Wait for them; default: false")),
				responses("Workers run", statusContent(), http.StatusAccepted, http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError)),
			"delete": operation(prefix+"unregisterModel", "Unregister a model.", with(), responses("Model unregistered", statusContent(), http.StatusForbidden, http.StatusNotFound)),
		}
	}
	const p = "/models/{model_name}/{model_version}/set-default"
	paths[p] = object{"put": operation("setDefault", "Set default version of a model", pathParameters(p), responses("Default version updated", statusContent(), http.StatusNotFound))}
}

// modelAPI describes how one model is asked.
func modelAPI(name string) object {
	paths := object{}
	for _, p := range []string{"/predictions/" + name, "/v1/models/" + name + ":predict", "/v2/models/" + name + "/infer"} {
		paths[p] = object{"post": predictOperation(p, name, "A predict entry point for model: "+name+".")}
	}
	return document(object{"title": "RESTful API for: " + name, "version": "1.0.0"}, paths)
}

// managementOf describes how one model is managed.
func managementOf(name string) object {
	paths := object{}
	modelPaths(paths)
	return document(object{"title": "RESTful Management API for: " + name, "version": Version}, paths)
}
