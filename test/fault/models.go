package main

import (
	"context"
	"errors"
	"net/http"
)

// model of a deployment.
type model struct {
	image    string
	args     []string
	env      map[string]string
	artifact string
	predict  string // route
	timeout  string // of the deployment
}

// upload makes a model and gives its name.
func (w *world) upload(ctx context.Context, m model) (string, error) {
	body := map[string]any{"displayName": w.name("model")}
	if m.artifact != "" {
		body["artifactUri"] = m.artifact
	}
	if m.image != "" {
		env := make([]any, 0, len(m.env))
		for k, v := range m.env {
			env = append(env, map[string]string{"name": k, "value": v})
		}
		container := map[string]any{"imageUri": m.image, "args": m.args, "env": env, "healthRoute": "/health", "predictRoute": m.predict}
		if m.timeout != "" {
			container["deploymentTimeout"] = m.timeout
		}
		body["containerSpec"] = container
	}
	var op struct{ Response struct{ Model string } }
	err := w.server.must(ctx, http.MethodPost, parent+"models:upload", map[string]any{"model": body}, &op)
	return op.Response.Model, err
}

// deploy deploys a model to a new endpoint. It gives the endpoint, and what is told
// where that fails.
func (w *world) deploy(ctx context.Context, m model) (endpoint string, told []shown, err error) {
	name, err := w.upload(ctx, m)
	if err != nil {
		return "", nil, err
	}
	var made struct{ Response struct{ Name string } }
	if err := w.server.must(ctx, http.MethodPost, parent+"endpoints", map[string]any{"displayName": w.name("endpoint")}, &made); err != nil {
		return "", nil, err
	}
	var op struct {
		Name  string
		Done  bool
		Error problem
	}
	refused, err := w.server.call(ctx, http.MethodPost, "/v1/"+made.Response.Name+":deployModel", map[string]any{
		"deployedModel": map[string]any{"model": name, "dedicatedResources": map[string]any{"minReplicaCount": 1, "machineSpec": map[string]any{"machineType": "n1-standard-2"}}},
	}, &op)
	if err != nil {
		return "", nil, err
	}
	if refused != nil {
		return "", []shown{{"request", *refused}}, nil
	}
	if err := w.server.poll(ctx, "/v1/"+op.Name, &op, func() bool { return op.Done }); err != nil {
		return "", nil, err
	}
	if !op.Error.empty() {
		told = []shown{{"operation", op.Error}}
	}
	return made.Response.Name, told, nil
}

// inModel makes a fault of a deployment.
func inModel(m model) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		_, told, err := w.deploy(ctx, m)
		return told, err
	}
}

// inFile makes a fault of a model file.
func inFile(name, content string) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		if err := w.put(ctx, name, content); err != nil {
			return nil, err
		}
		_, told, err := w.deploy(ctx, model{artifact: "gs://" + bucket + "/" + name})
		return told, err
	}
}

// wrongRoute asks a healthy model at a route that its server does not have.
func wrongRoute(ctx context.Context, w *world) ([]shown, error) {
	endpoint, told, err := w.deploy(ctx, model{image: "program", args: []string{"serve"}, predict: "/invocations"})
	if err != nil || told != nil {
		return told, err
	}
	refused, err := w.server.call(ctx, http.MethodPost, "/v1/"+endpoint+":predict", `{"instances": [1]}`, nil)
	if err != nil {
		return nil, err
	}
	if refused == nil {
		return nil, errors.New("the prediction was answered")
	}
	return []shown{{"prediction", *refused}}, nil
}

// aModel is a LightGBM file that can be served.
const aModel = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=regression\nfeature_names=x\nTree=0\nnum_leaves=3\nsplit_feature=0 0\n" +
	"threshold=1 2\ndecision_type=2 2\nleft_child=-1 -2\nright_child=1 -3\nleaf_value=1 2 3\nend of trees\n"

// batch predicts over an input object and gives the job's error.
func (w *world) batch(ctx context.Context, input string) ([]shown, error) {
	if err := w.put(ctx, "good/model.txt", aModel); err != nil {
		return nil, err
	}
	name, err := w.upload(ctx, model{artifact: "gs://" + bucket + "/good"})
	if err != nil {
		return nil, err
	}
	var job struct {
		Name, State     string
		Error           problem
		PartialFailures []problem
	}
	refused, err := w.server.call(ctx, http.MethodPost, parent+"batchPredictionJobs", map[string]any{
		"displayName": "fault", "model": name,
		"inputConfig":        map[string]any{"instancesFormat": "jsonl", "gcsSource": map[string]any{"uris": []string{"gs://" + bucket + "/" + input}}},
		"outputConfig":       map[string]any{"predictionsFormat": "jsonl", "gcsDestination": map[string]any{"outputUriPrefix": "gs://" + bucket + "/out"}},
		"dedicatedResources": map[string]any{"machineSpec": map[string]any{"machineType": "n1-standard-2"}},
	}, &job)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return []shown{{"request", *refused}}, nil
	}
	err = w.server.poll(ctx, "/v1/"+job.Name, &job, func() bool { return over(job.State) })
	return []shown{{"batch prediction job", job.Error}}, err
}

// badRows predicts over lines that are no JSON.
func badRows(ctx context.Context, w *world) ([]shown, error) {
	if err := w.put(ctx, "bad.jsonl", "x,1\nx,2\n"); err != nil {
		return nil, err
	}
	return w.batch(ctx, "bad.jsonl")
}

func noRows(ctx context.Context, w *world) ([]shown, error) { return w.batch(ctx, "nothing.jsonl") }
