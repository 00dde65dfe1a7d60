package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
)

// spec of a custom job of one replica.
type spec struct {
	image   string
	command []string
	gpus    int
	timeout string
}

// job runs a custom job and gives its error, or that of the request.
func (w *world) job(ctx context.Context, s spec) ([]shown, error) {
	machine := map[string]any{"machineType": "n1-standard-4"}
	if s.gpus > 0 {
		machine["acceleratorType"], machine["acceleratorCount"] = "NVIDIA_L4", s.gpus
	}
	body := map[string]any{"workerPoolSpecs": []any{map[string]any{
		"replicaCount": 1, "machineSpec": machine, "containerSpec": map[string]any{"imageUri": s.image, "command": s.command},
	}}}
	if s.timeout != "" {
		body["scheduling"] = map[string]any{"timeout": s.timeout}
	}
	var job struct {
		Name, State string
		Error       problem
	}
	refused, err := w.server.call(ctx, http.MethodPost, parent+"customJobs", map[string]any{"displayName": w.name("job"), "jobSpec": body}, &job)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return []shown{{"request", *refused}}, nil
	}
	if err := w.server.poll(ctx, "/v1/"+job.Name, &job, func() bool { return over(job.State) }); err != nil {
		return nil, err
	}
	return []shown{{"custom job", job.Error}}, nil
}

func over(state string) bool {
	return strings.HasSuffix(state, "SUCCEEDED") || strings.HasSuffix(state, "FAILED") || strings.HasSuffix(state, "CANCELLED")
}

// inJob makes a fault of a job's command.
func inJob(image string, command ...string) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		return w.job(ctx, spec{image: image, command: command})
	}
}

// inPython is inJob for the Python that has the clients.
func inPython(program string) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		if w.python == "" {
			return nil, skipError{"-python is not given"}
		}
		return w.job(ctx, spec{image: "clients", command: []string{"-c", program}})
	}
}

// run runs a pipeline of one task, train, and gives the errors of the run and of
// the task. container and outputs are those of the specification.
func (w *world) run(ctx context.Context, container, outputs map[string]any) ([]shown, error) {
	component := map[string]any{"executorLabel": "exec"}
	if outputs != nil {
		component["outputDefinitions"] = outputs
	}
	pipeline := map[string]any{
		"schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0", "pipelineInfo": map[string]any{"name": "fault"},
		"root": map[string]any{"dag": map[string]any{"tasks": map[string]any{
			"train": map[string]any{"taskInfo": map[string]any{"name": "train"}, "componentRef": map[string]any{"name": "comp"}},
		}}},
		"components":     map[string]any{"comp": component},
		"deploymentSpec": map[string]any{"executors": map[string]any{"exec": map[string]any{"container": container}}},
	}
	var job struct {
		State     string
		Error     problem
		JobDetail struct {
			TaskDetails []struct {
				TaskName string
				Error    problem
			}
		}
	}
	id := w.name("run")
	refused, err := w.server.call(ctx, http.MethodPost, parent+"pipelineJobs?pipelineJobId="+id, map[string]any{
		"displayName": "fault", "pipelineSpec": pipeline, "runtimeConfig": map[string]any{"gcsOutputDirectory": "gs://" + bucket + "/runs"},
	}, &job)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return []shown{{"request", *refused}}, nil
	}
	if err := w.server.poll(ctx, parent+"pipelineJobs/"+id, &job, func() bool { return over(job.State) }); err != nil {
		return nil, err
	}
	places := []shown{{"pipeline job", job.Error}}
	for _, t := range job.JobDetail.TaskDetails {
		if t.TaskName == "train" {
			return append(places, shown{"task", t.Error}), nil
		}
	}
	return nil, errors.New("the run has no task train")
}

// inTask makes a fault of a task's container.
func inTask(container map[string]any) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) { return w.run(ctx, container, nil) }
}

// installing is the command of a component that installs packages, as the kfp
// compiler writes it.
func installing(index, packages string) []string {
	pip := "python3 -m pip install --quiet --no-warn-script-location --index-url " + index + " '" + packages + "' && \"$0\" \"$@\"\n"
	program := "program_path=$(mktemp -d)\n\nprintf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"\n" +
		"_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path \"$program_path/ephemeral_component.py\" \"$@\"\n"
	return []string{"sh", "-c", "\n" + pip, "sh", "-ec", program, "def train(): pass"}
}

// inPackages makes a fault of a component's packages; index gives where they come from.
func inPackages(packages string, index func(*world) string) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		if _, err := exec.LookPath("uv"); err != nil {
			return nil, skipError{"there is no uv in PATH"}
		}
		return w.run(ctx, map[string]any{"image": "env", "command": installing(index(w), packages), "args": []string{"--executor_input", "{{$}}", "--function_to_execute", "train"}}, nil)
	}
}

func closedIndex(*world) string { return "http://127.0.0.1:1/simple" }
func goodIndex(w *world) string { return w.index.url }

// wrongParameter asks for a run with a text where a number belongs.
func wrongParameter(ctx context.Context, w *world) ([]shown, error) {
	const body = `{"displayName": "fault", "runtimeConfig": {"gcsOutputDirectory": "gs://faults/runs", "parameterValues": {"rounds": "many"}},
	  "pipelineSpec": {"schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0", "pipelineInfo": {"name": "fault"},
	    "root": {"inputDefinitions": {"parameters": {"rounds": {"parameterType": "NUMBER_INTEGER"}}},
	      "dag": {"tasks": {"train": {"taskInfo": {"name": "train"}, "componentRef": {"name": "comp"}}}}},
	    "components": {"comp": {"executorLabel": "exec"}},
	    "deploymentSpec": {"executors": {"exec": {"container": {"image": "sh", "command": ["true"]}}}}}}`
	refused, err := w.server.call(ctx, http.MethodPost, parent+"pipelineJobs?pipelineJobId="+w.name("run"), body, nil)
	if err != nil {
		return nil, err
	}
	if refused == nil {
		return nil, errors.New("the run was accepted")
	}
	return []shown{{"request", *refused}}, nil
}

// denied lets a program read a bucket that its service account has no right to.
func denied(ctx context.Context, w *world) ([]shown, error) {
	if w.python == "" {
		return nil, skipError{"-python is not given"}
	}
	other := w.name("secret")
	if err := w.server.must(ctx, http.MethodPost, "/storage/v1/b?project=another", map[string]string{"name": other}, nil); err != nil {
		return nil, err
	}
	program := fmt.Sprintf("from google.cloud import storage\nstorage.Client().bucket(%q).blob('x').download_as_bytes()", other)
	return w.job(ctx, spec{image: "clients", command: []string{"-c", program}})
}
