package gcpc_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

func TestModuleOf(t *testing.T) {
	t.Parallel()
	const module = gcpc.Prefix + gcpc.CustomJob
	for name, tc := range map[string]struct {
		command string
		want    string
	}{
		"a component":     {"python3 -u -m " + module, module},
		"with a path":     {"/usr/bin/python3.11 -m " + module, module},
		"another module":  {"python3 -m http.server", ""},
		"no module":       {"python3 -m", ""},
		"no python":       {"sh -m " + module, ""},
		"a name alike":    {"python3 -m google_cloud_pipeline_components_x.launcher", ""},
		"nothing":         {"", ""},
		"not supported":   {"python3 -u -m google_cloud_pipeline_components.container.v1.bigquery.query_job.launcher", gcpc.Prefix + "container.v1.bigquery.query_job.launcher"},
		"the module late": {"python3 " + module, ""},
	} {
		got, ok := gcpc.ModuleOf(strings.Fields(tc.command))
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, ok, tc.want)
		}
	}
}

func TestCheckNamesWhatIsNotServed(t *testing.T) {
	t.Parallel()
	for _, short := range gcpc.Served() {
		if err := gcpc.Check(gcpc.Prefix + short); err != nil {
			t.Errorf("%s: %v", short, err)
		}
	}
	for short, say := range map[string]string{
		"container.v1.bigquery.query_job.launcher":             "(bigquery is a service of the cloud)",
		"container.v1.dataflow.dataflow_launcher":              "(dataflow is",
		"container.v1.dataproc.create_spark_batch.launcher":    "(dataproc is",
		"container.v1.automl_training_job.image.launcher":      "(automl is",
		"container.v1.hyperparameter_tuning_job.launcher":      "(HyperparameterTuningJobs)",
		"container.v1.model.export_model.launcher":             "(ModelService.ExportModel)",
		"container.v1.vertex_notification_email.executor":      "(sending mail)",
		"container._implementation.model.get_model.get_model":  "not supported",
		"container.v1.custom_job.launcher2":                    "not supported",
		"container.v1.gcp_launcher.launcher":                   "not supported",
		"container.v1.infra_validation_job.launcher":           "not supported",
		"container.preview.dataflow.flex_template.launcher":    "(dataflow is",
		"container.v1.aiplatform.remote_runner":                "not supported",
		"container._implementation.llm.templated_custom_job.x": "not supported",
	} {
		err := gcpc.Check(gcpc.Prefix + short)
		if resource.CodeOf(err) != codes.Unimplemented || !strings.Contains(err.Error(), short) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want %q", short, err, say)
		}
	}
}

func TestParseArguments(t *testing.T) {
	t.Parallel()
	const module = gcpc.Prefix + gcpc.UploadModel
	all := []string{"--type", "UploadModel", "--payload", "{}", "--project=p", "--location", "", "--gcp_resources", "/gcs/b/r", "--executor_input", "{}"}
	a, err := gcpc.ParseArguments(module, append(all, "--unknown", "x", "--parent_model_name", "m", "--project", "q"))
	want := gcpc.Arguments{Type: "UploadModel", Payload: "{}", Project: "q", GCPResources: "/gcs/b/r", ExecutorInput: "{}", ParentModel: "m"}
	if err != nil || a != want {
		t.Errorf("%+v, %v", a, err)
	}
	for name, tc := range map[string]struct {
		module string
		args   []string
		say    string
	}{
		"missing":       {module, all[2:], "--type of " + module + " is missing"},
		"no value":      {module, append(all, "--payload"), "--payload has no value"},
		"another type":  {module, append(all, "--type", "CustomJob"), `--type is "CustomJob"`},
		"no artifacts":  {gcpc.Prefix + gcpc.GetModel, []string{"--project", "p"}, "--executor_input"},
		"not supported": {gcpc.Prefix + "x", nil, "not supported"},
	} {
		if _, err := gcpc.ParseArguments(tc.module, tc.args); err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v, want %q", name, err, tc.say)
		}
	}
}

func TestDecodePayload(t *testing.T) {
	t.Parallel()
	got, err := gcpc.DecodePayload("--payload", "{\"a\": \"two\nlines\t\\\"q\\\"\", \"n\": 21.0}")
	if err != nil || got["a"] != "two\nlines\t\"q\"" || got["n"] != json.Number("21.0") {
		t.Errorf("%v, %v", got, err)
	}
	for text, say := range map[string]string{
		"":                                  "--payload is empty",
		"[1]":                               "not an object",
		`{"a": 1} {`:                        "goes on after",
		`{"display_name": "say "hi"", "b":`: `after {"display_name": "say "h`,
		`{"a": `:                            "not JSON",
	} {
		_, err := gcpc.DecodePayload("--payload", text)
		if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v, want %q", text, err, say)
		}
	}
}

// tree is JSON text as DecodePayload gives it.
func tree(t *testing.T, text string) map[string]any {
	t.Helper()
	v, err := gcpc.DecodePayload("--payload", text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCompact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a": 0, "b": false, "c": "", "d": null, "e": [], "f": {}, "g": 0.0}`: `{}`,
		`{"a": {"b": {"c": ""}}, "l": [{"x": 0}, {}]}`:                         `{}`,
		`{"l": [0, false, "", null, {"x": 0}, [1]], "t": true}`:                `{"l": [0, false, "", [1]], "t": true}`,
		`{"explanation_spec": {"metadata": {"outputs": {"o": {}}}}}`:           `{"explanation_spec": {"metadata": {"outputs": {"o": {}}}}}`,
	} {
		if got := gcpc.Compact(tree(t, in)); !reflect.DeepEqual(got, tree(t, want)) {
			t.Errorf("%s: %v, want %s", in, got, want)
		}
	}
}

func TestCustomJobOf(t *testing.T) {
	t.Parallel()
	payload := `{"display_name": "d", "job_spec": {"worker_pool_specs": [{"replica_count": 1, "container_spec": {"image_uri": "i", "args": ["--n", 600, 21.0, true], "env": []}}],
		"scheduling": {"timeout": "9s", "strategy": "STANDARD", "max_wait_duration": "1s", "restart_job_on_worker_restart": false},
		"service_account": "", "reserved_ip_ranges": null, "base_output_directory": {"output_uri_prefix": ""}}, "labels": {"a": "own"}, "encryption_spec": {"kms_key_name": ""}}`
	got, err := gcpc.CustomJobOf(payload, `{"a": "run", "number": "7"}`)
	want := `{"display_name": "d", "job_spec": {"worker_pool_specs": [{"replica_count": 1, "container_spec": {"image_uri": "i", "args": ["--n", "600", "21.0", "true"]}}],
		"scheduling": {"timeout": "9s", "strategy": "STANDARD"}}, "labels": {"a": "own", "number": "7"}}`
	if err != nil || !reflect.DeepEqual(got, tree(t, want)) {
		t.Errorf("%v, %v", got, err)
	}
	flex, err := gcpc.CustomJobOf(`{"job_spec": {"scheduling": {"strategy": "FLEX_START", "max_wait_duration": "1s"}}}`, "not JSON")
	if err != nil || !reflect.DeepEqual(flex, tree(t, `{"job_spec": {"scheduling": {"strategy": "FLEX_START", "max_wait_duration": "1s"}}}`)) {
		t.Errorf("%v, %v", flex, err)
	}
}

func TestUnmanagedModel(t *testing.T) {
	t.Parallel()
	in, err := gcpc.ParseExecutorInput(`{"inputs": {"artifacts": {"unmanaged_container_model": {"artifacts": [
		{"uri": "gs://b/m", "metadata": {"containerSpec": {"imageUri": "i"}, "predictSchemata": {"instanceSchemaUri": "gs://b/s"}}}]}}},
		"outputs": {"outputFile": "/gcs/b/o.json"}}`)
	if err != nil {
		t.Fatal(err)
	}
	model, err := gcpc.ModelOf(`{"display_name": "d", "explanation_spec": {"metadata": {"inputs": {"x": {}}}}}`, "", in)
	want := `{"display_name": "d", "artifact_uri": "gs://b/m", "container_spec": {"imageUri": "i"}, "predict_schemata": {"instanceSchemaUri": "gs://b/s"},
		"explanation_spec": {"metadata": {"inputs": {"x": {}}}}}`
	if err != nil || !reflect.DeepEqual(model, tree(t, want)) {
		t.Errorf("%v, %v", model, err)
	}
	job, err := gcpc.BatchJobOf(`{"display_name": "d", "model_parameters": {}}`, "", in)
	want = `{"display_name": "d", "unmanaged_container_model": {"artifact_uri": "gs://b/m", "containerSpec": {"imageUri": "i"}, "predictSchemata": {"instanceSchemaUri": "gs://b/s"}}}`
	if err != nil || !reflect.DeepEqual(job, tree(t, want)) {
		t.Errorf("%v, %v", job, err)
	}
}

func TestOutputSaysOnlyWhatTheComponentHas(t *testing.T) {
	t.Parallel()
	in, err := gcpc.ParseExecutorInput(`{"outputs": {"outputFile": "/gcs/b/o.json", "artifacts": {"model": {"artifacts": [{"name": "n", "type": {"schemaTitle": "google.VertexModel"}, "uri": "gs://b/x"}]}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	text, err := in.Output(map[string]gcpc.Made{"model": {URI: "https://h/v1/m", Metadata: map[string]any{"resourceName": "m"}}, "other": {URI: "x"}})
	want := `{"artifacts":{"model":{"artifacts":[{"name":"n","type":{"schemaTitle":"google.VertexModel"},"uri":"https://h/v1/m","metadata":{"resourceName":"m"}}]}}}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	for _, bad := range []string{"", "{", "[]", `{"outputs": {}}`} {
		if _, err := gcpc.ParseExecutorInput(bad); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseResource(t *testing.T) {
	t.Parallel()
	one := func(typ, uri string) string { return string(gcpc.FormatResources(gcpc.Resource{Type: typ, URI: uri})) }
	const job = "projects/p/locations/l/customJobs/1"
	if r, name, err := gcpc.ParseResource(one(gcpc.TypeCustomJob, gcpc.URIOf("l", job))); err != nil || name != job || r.URI != "https://l-aiplatform.googleapis.com/v1/"+job {
		t.Errorf("%v, %q, %v", r, name, err)
	}
	for text, code := range map[string]codes.Code{
		"":                                     codes.InvalidArgument,
		`{"resources": []}`:                    codes.InvalidArgument,
		one("DataflowJob", "x"):                codes.Unimplemented,
		one("CustomJob", "x"):                  codes.InvalidArgument,
		one("CustomJob", "h/v1/"):              codes.InvalidArgument,
		one("VertexLro", gcpc.URIOf("l", job)): codes.InvalidArgument,
	} {
		if _, _, err := gcpc.ParseResource(text); resource.CodeOf(err) != code {
			t.Errorf("%s: %v, want %v", text, err, code)
		}
	}
}

func TestFaultKeepsTheCause(t *testing.T) {
	t.Parallel()
	err := &resource.Error{Code: codes.FailedPrecondition, Message: "it ended", Cause: resource.CauseUserCode, Reason: "EXIT", Hint: "mend it", Program: &resource.Program{ExitCode: 3, Tail: []string{"x"}}}
	text, jsonErr := json.Marshal(gcpc.FaultOf(err))
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	want := &gcpc.Fault{Message: "it ended", Cause: resource.CauseUserCode, Reason: "EXIT", Hint: "mend it", ExitCode: 3, Tail: []string{"x"}}
	if got := gcpc.ParseFault(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", "{", `{"errorMessage": ""}`, "[]"} {
		if f := gcpc.ParseFault([]byte(bad)); f != nil {
			t.Errorf("%q: %+v", bad, f)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(`{"a": "b\n", "l": [0, {}], "explanation_spec": {"metadata": {"outputs": {}}}}`, `{"resources": []}`)
	f.Add("{\"a\": \"\x01\\", `{"labels": 1}`)
	f.Fuzz(func(t *testing.T, payload, other string) {
		in, _ := gcpc.ParseExecutorInput(other)
		for _, of := range []func() (map[string]any, error){
			func() (map[string]any, error) { return gcpc.CustomJobOf(payload, other) },
			func() (map[string]any, error) { return gcpc.BatchJobOf(payload, other, in) },
			func() (map[string]any, error) { return gcpc.ModelOf(payload, other, in) },
			func() (map[string]any, error) { return gcpc.EndpointOf(payload, other) },
		} {
			v, err := of()
			if err != nil {
				if resource.CodeOf(err) != codes.InvalidArgument {
					t.Errorf("%v", err)
				}
				continue
			}
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("what %q gives is no JSON: %v", payload, err)
			}
		}
		if _, _, err := gcpc.ParseResource(payload); err == nil && payload == "" {
			t.Error("nothing names a resource")
		}
		for _, module := range gcpc.Served() {
			_, _ = gcpc.ParseArguments(gcpc.Prefix+module, strings.Fields(payload)) // must not panic
		}
	})
}
