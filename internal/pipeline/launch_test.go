package pipeline_test

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// launchIR is a custom job of a component, in the form of
// create_custom_training_job_from_component: its worker pools are a default that
// names placeholders of their own, also by what its inputs are called.
const launchIR = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"launch"},
	"components":{"comp-train":{"executorLabel":"exec-train",
		"inputDefinitions":{"parameters":{
			"project":{"parameterType":"STRING","isOptional":true,"defaultValue":"{{$.pipeline_google_cloud_project_id}}"},
			"location":{"parameterType":"STRING","isOptional":true,"defaultValue":"{{$.pipeline_google_cloud_location}}"},
			"resource_id":{"parameterType":"STRING","isOptional":true,"defaultValue":"{{$.pipeline_persistent_resource_id}}"},
			"note":{"parameterType":"STRING"},
			"count":{"parameterType":"NUMBER_INTEGER"},
			"pools":{"parameterType":"LIST","isOptional":true,"defaultValue":[{"accelerators":"{{$.inputs.parameters['count']}}","args":[
				"--executor_input","{{$.json_escape[1]}}","{{$.inputs.parameters['note']}}","{\"Concat\": [\"of \", \"{{$.inputs.parameters['note']}}\"]}"]}]}}},
		"outputDefinitions":{"parameters":{"gcp_resources":{"parameterType":"STRING"}}}}},
	"deploymentSpec":{"executors":{"exec-train":{"container":{"image":"gcr.io/ml-pipeline/google-cloud-pipeline-components:2.22.0",
		"command":["python3","-u","-m","google_cloud_pipeline_components.container.v1.custom_job.launcher"],
		"args":["--payload","{\"pools\": {{$.inputs.parameters['pools']}}, \"id\": \"{{$.inputs.parameters['resource_id']}}\", \"note\": \"{{$.inputs.parameters['note'].json_escape[1]}}\"}",
			"--project","{{$.inputs.parameters['project']}}","--location","{{$.inputs.parameters['location']}}",
			"--gcp_resources","{{$.outputs.parameters['gcp_resources'].output_file}}"],
		"resources":{"accelerator":{"count":"8","type":"NVIDIA_TESLA_T4"}}}}}},
	"root":{"dag":{"tasks":{"train":{"taskInfo":{"name":"train"},"componentRef":{"name":"comp-train"},
		"inputs":{"parameters":{"note":{"runtimeValue":{"constant":"NOTE"}},"count":{"runtimeValue":{"constant":2}}}}}}}}}`

// launched runs the pipeline with a launcher that does as it is told, try by try.
func launched(t *testing.T, note string, tries ...program) (*pb.PipelineJob, pipeline.Task, []runtime.Workload) {
	t.Helper()
	var mu sync.Mutex
	var seen []runtime.Workload
	makeRuntime, f := withFake(map[string]program{"launcher": func(ctx context.Context, b *bench, args []string) runtime.Exit {
		mu.Lock()
		try := tries[min(len(seen), len(tries))-1]
		mu.Unlock()
		return try(ctx, b, args)
	}})
	f.seen = func(w runtime.Workload) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, w)
	}
	b := newBench(t, makeRuntime)
	quoted, err := json.Marshal(note)
	if err != nil {
		t.Fatal(err)
	}
	job := b.wait(b.submit("launch", []byte(strings.Replace(launchIR, `"NOTE"`, string(quoted), 1)), nil))
	mu.Lock()
	defer mu.Unlock()
	return job, b.tasks(job.Name)["train"], seen
}

// argument gives the value behind a name.
func argument(args []string, name string) string { return args[slices.Index(args, name)+1] }

// object writes what lies below /gcs.
func object(b *bench, file, text string) runtime.Exit {
	uri := "gs://" + strings.TrimPrefix(file, runtime.GCSRoot+"/")
	if err := b.objects.WriteObject(b.t.Context(), uri, "text/plain", []byte(text)); err != nil {
		return runtime.Exit{Code: 1, Message: err.Error()}
	}
	return runtime.Exit{}
}

func succeed(_ context.Context, b *bench, args []string) runtime.Exit {
	return object(b, argument(args, "--gcp_resources"), "{}")
}

func TestLauncherOfAComponent(t *testing.T) {
	t.Parallel()
	const note = `say "{{$}}"` // neither breaks the JSON nor is looked at
	job, task, seen := launched(t, note, succeed)
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || task.Outputs.Parameters["gcp_resources"] != "{}" {
		t.Fatalf("%s: %s; %v", job.State, job.Error.GetMessage(), task.Outputs)
	}
	w := seen[0]
	if got, want := strings.Join(w.Command, " "), "launcher launch --task "+w.Owner+" --attempt 1 "+gcpc.Prefix+gcpc.CustomJob; got != want {
		t.Errorf("command %s, want %s", got, want)
	}
	if w.Image != "" || !w.Literal || w.Fetch != nil || w.Resources != (runtime.Resources{}) || !w.Publish {
		t.Errorf("workload %+v", w)
	}
	if p, l := argument(w.Args, "--project"), argument(w.Args, "--location"); p != "p" || l != "us-central1" {
		t.Errorf("project %q, location %q", p, l)
	}
	var payload struct {
		ID, Note string
		Pools    []struct {
			Accelerators float64
			Args         []string
		}
	}
	if err := json.Unmarshal([]byte(argument(w.Args, "--payload")), &payload); err != nil {
		t.Fatalf("%v in %s", err, w.Args)
	}
	words := payload.Pools[0].Args
	if payload.ID != "" || payload.Note != note || payload.Pools[0].Accelerators != 2 || len(words) != 4 || words[2] != note || words[3] != "of "+note {
		t.Errorf("payload %+v", payload)
	}
	var in struct {
		Inputs struct {
			ParameterValues map[string]any
		}
		Outputs struct{ OutputFile string }
	}
	if err := json.Unmarshal([]byte(words[1]), &in); err != nil || in.Inputs.ParameterValues["note"] != note || in.Inputs.ParameterValues["project"] != "p" {
		t.Errorf("executor input %s: %v", words[1], err)
	}
	if path.Dir(in.Outputs.OutputFile) != path.Dir(argument(w.Args, "--gcp_resources")) {
		t.Errorf("the outputs lie apart: %s, %s", in.Outputs.OutputFile, argument(w.Args, "--gcp_resources"))
	}
}

func TestLauncherSaysWhyItFailed(t *testing.T) {
	t.Parallel()
	job, task, seen := launched(t, "", func(_ context.Context, b *bench, args []string) runtime.Exit {
		exit := object(b, path.Dir(argument(args, "--gcp_resources"))+"/"+gcpc.FaultFile, `{"errorMessage":"the job failed","cause":"user code","exitCode":17,"tail":["no room"],"hint":"make some"}`)
		exit.Code = 1
		return exit
	})
	if job.State != pb.PipelineState_PIPELINE_STATE_FAILED || len(seen) != 1 {
		t.Fatalf("%s after %d starts", job.State, len(seen))
	}
	f := task.Failure
	if f.Message != "the job failed" || f.Cause != resource.CauseUserCode || f.ExitCode != 17 || f.Hint != "make some" || !slices.Equal(f.Tail, []string{"no room"}) {
		t.Errorf("%+v", f)
	}
}

func killed(context.Context, *bench, []string) runtime.Exit {
	return runtime.Exit{Code: 137, Signal: "SIGKILL", Cause: resource.CauseUserCode, Message: "it was killed"}
}

// TestKilledLauncherStartsAgain: it costs none of the task's retries, of which there
// are none here, and it ends.
func TestKilledLauncherStartsAgain(t *testing.T) {
	t.Parallel()
	job, task, seen := launched(t, "", killed, killed, succeed)
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || len(seen) != 3 || task.Lost != 2 {
		t.Errorf("%s after %d starts, %d lost", job.State, len(seen), task.Lost)
	}
	if got := argument(seen[2].Command, "--attempt"); got != "3" || seen[2].ID == seen[0].ID {
		t.Errorf("attempt %s of %s after %s", got, seen[2].ID, seen[0].ID)
	}
	job, _, seen = launched(t, "", killed)
	if job.State != pb.PipelineState_PIPELINE_STATE_FAILED || len(seen) != 4 {
		t.Errorf("%s after %d starts", job.State, len(seen))
	}
}

func TestModulesThatAreNotServedAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := pipeline.ParseJSON([]byte(launchIR)); err != nil {
		t.Fatal(err)
	}
	_, err := pipeline.ParseJSON([]byte(strings.Replace(launchIR, "v1.custom_job.launcher", "v1.bigquery.query_job.launcher", 1)))
	if resource.CodeOf(err) != codes.Unimplemented || !strings.Contains(err.Error(), `task "train"`) || !strings.Contains(err.Error(), "google_cloud_pipeline_components.container.v1.bigquery.query_job.launcher") {
		t.Errorf("%v", err)
	}
}
