package pipeline_test

import (
	"context"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// kubernetesIR is a pipeline of shell commands: note leaves files in the workspace,
// a claim and a directory of its own, and look, in the next run or task, looks.
const kubernetesIR = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"k"},
	"components":{
		"comp-note":{"executorLabel":"exec-note","inputDefinitions":{"parameters":{"dir":{"parameterType":"STRING"}}}},
		"comp-look":{"executorLabel":"exec-look","outputDefinitions":{"parameters":{"seen":{"parameterType":"STRING"}}}}},
	"deploymentSpec":{"executors":{
		"exec-note":{"container":{"image":"alpine","command":["sh","-ec","echo -n w > $0/note; echo -n c >> /tategu-claim/note; echo -n own > /tategu-own/note"],"args":["{{$.inputs.parameters['dir']}}"]}},
		"exec-look":{"container":{"image":"alpine","command":["sh","-ec","cat /kfp-workspace/note /tategu-claim/note > $0; ls /tategu-own >> $0"],"args":["{{$.outputs.parameters['seen'].output_file}}"]}}}},
	"root":{"inputDefinitions":{"parameters":{"claim":{"parameterType":"STRING"}}},
		"outputDefinitions":{"parameters":{"seen":{"parameterType":"STRING"}}},
		"dag":{"outputs":{"parameters":{"seen":{"valueFromParameter":{"producerSubtask":"look","outputParameterKey":"seen"}}}},
			"tasks":{
				"note":{"taskInfo":{"name":"note"},"componentRef":{"name":"comp-note"},"inputs":{"parameters":{"dir":{"runtimeValue":{"constant":"{{$.workspace_path}}"}}}}},
				"look":{"taskInfo":{"name":"look"},"componentRef":{"name":"comp-look"},"dependentTasks":["note"]}}}},
	"platforms":{"kubernetes":{"pipelineConfig":{"workspace":{"size":"1Gi"},"ttl":60},"deploymentSpec":{"executors":{
		"exec-note":{"pvcMount":[{"mountPath":"/tategu-claim","pvcNameParameter":{"componentInputParameter":"claim"}}],"emptyDirMounts":[{"volumeName":"v","mountPath":"/tategu-own"}],
			"nodeSelector":{"labels":{"disk":"ssd"}},"secretAsEnv":[{"secretName":"s","optional":true,"keyToEnv":[]}]},
		"exec-look":{"pvcMount":[{"mountPath":"/tategu-claim","constant":"claim"}],"emptyDirMounts":[{"volumeName":"v","mountPath":"/tategu-own"}]}}}}}}`

func TestVolumesOfKubernetes(t *testing.T) {
	t.Parallel()
	b := newBench(t, processRuntime(t))
	first := b.wait(b.submit("one", []byte(kubernetesIR), map[string]any{"claim": "claim"}))
	second := b.wait(b.submit("two", []byte(kubernetesIR), map[string]any{"claim": "claim"}))
	for _, job := range []*pb.PipelineJob{first, second} {
		if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
			t.Fatalf("%s: %s", job.State, job.Error.GetMessage())
		}
	}
	if got := b.tasks(first.Name)[""].Outputs.Parameters["seen"]; got != "wc" {
		t.Errorf("the first run saw %q: its workspace and the claim, and nobody's own directory", got)
	}
	if got := b.tasks(second.Name)[""].Outputs.Parameters["seen"]; got != "wcc" {
		t.Errorf("the second run saw %q: a workspace of its own, and the claim of the first", got)
	}
	if bad := b.wait(b.submit("bad", []byte(kubernetesIR), map[string]any{"claim": "../x"})); !strings.Contains(bad.Error.GetMessage(), `"../x" is not the name of one`) {
		t.Errorf("%s: %s", bad.State, bad.Error.GetMessage())
	}
	b.stop()
	volumes, _ := b.runtime.(runtime.Volumes)
	if names, err := volumes.VolumeNames(); err != nil || len(names) != 1 || !strings.HasPrefix(names[0], "pvc-claim-") {
		t.Errorf("volumes %v, %v: the claim stays, workspaces go", names, err)
	}
	details, err := pipeline.Details(t.Context(), b.store, first.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	for k, v := range details[0].GetExecution().GetMetadata().GetFields() {
		if strings.HasPrefix(k, "warning:") {
			warnings = append(warnings, v.GetStringValue())
		}
	}
	all := strings.Join(warnings, "\n")
	for _, want := range []string{"pipelineConfig.ttl", `task "note"`, "nodeSelector"} {
		if len(warnings) != 2 || !strings.Contains(all, want) {
			t.Errorf("the warnings do not tell of %s:\n%s", want, all)
		}
	}
}

func TestPlatformsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, replacement string
		code             codes.Code
		want             string
	}{
		"secret volume":  {`"secretAsEnv":[{"secretName":"s","optional":true,"keyToEnv":[]}]`, `"secretAsVolume":[{"secretName":"s","mountPath":"/x"}]`, codes.Unimplemented, "secretAsVolume"},
		"no secret":      {`"secretName":"s"`, `"secretNameParameter":{}`, codes.InvalidArgument, "has no name"},
		"platform":       {`"platforms":{"kubernetes"`, `"platforms":{"nomad"`, codes.Unimplemented, "nomad"},
		"mount path":     {`"mountPath":"/tategu-claim","constant"`, `"mountPath":"claim","constant"`, codes.InvalidArgument, `"claim" is not an absolute path`},
		"over objects":   {`"mountPath":"/tategu-claim","constant"`, `"mountPath":"/gcs","constant"`, codes.InvalidArgument, "/gcs"},
		"out":            {`"constant":"claim"`, `"constant":"claim","subPath":"a/../../b"`, codes.InvalidArgument, "leads out"},
		"no name":        {`,"constant":"claim"`, ``, codes.InvalidArgument, "has no name"},
		"no wait":        {`"constant":"claim"`, `"taskOutputParameter":{"producerTask":"x","outputParameterKey":"y"}`, codes.InvalidArgument, "does not wait"},
		"not a spec":     {`"pipelineConfig":{`, `"pipelineConfig":[{`, codes.InvalidArgument, ""},
		"unknown fields": {`"constant":"claim"`, `"constant":"claim","magic":1`, codes.InvalidArgument, "magic"},
	} {
		if !strings.Contains(kubernetesIR, c.old) {
			t.Errorf("%s: %s is not in the IR", name, c.old)
		}
		_, err := pipeline.ParseJSON([]byte(strings.Replace(kubernetesIR, c.old, c.replacement, 1)))
		if resource.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// vault is a project's secrets by name.
type vault map[string]map[string]string

func (v vault) Secret(_ context.Context, project, name string) (map[string]string, error) {
	if values := v[project+"/"+name]; values != nil {
		return values, nil
	}
	return nil, resource.NotFound(name)
}

func TestSecretsAreVariables(t *testing.T) {
	t.Parallel()
	ir := strings.Replace(string(onePipeline(false, "a")), `"root":`, `"platforms":{"kubernetes":{"deploymentSpec":{"executors":{"exec-a":{"secretAsEnv":[
		{"secretNameParameter":{"runtimeValue":{"constant":"db"}},"keyToEnv":[{"secretKey":"user","envVar":"USER_OF_DB"}]},
		{"secretName":"none","optional":true,"keyToEnv":[{"secretKey":"k","envVar":"K"}]}]}}}}},"root":`, 1)
	plan, err := pipeline.ParseJSON([]byte(ir))
	if err != nil {
		t.Fatal(err)
	}
	var needed []string
	if err := plan.Check(func(w runtime.Workload) error { needed = append(needed, w.Secrets...); return nil }); err != nil || len(needed) != 1 || needed[0] != "db" {
		t.Errorf("needs %v, %v", needed, err)
	}
	env := make(chan map[string]string, 2)
	makeRuntime, f := withFake(map[string]program{"a": write})
	f.seen = func(w runtime.Workload) { env <- w.Env }
	b := newBench(t, makeRuntime)
	b.secrets = vault{"p/db": {"user": "me"}}
	b.stop()
	b.start()
	job := b.wait(b.submit("with", []byte(ir), nil))
	if got := <-env; job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || got["USER_OF_DB"] != "me" || got["K"] != "" {
		t.Errorf("%s: %v", job.State, got)
	}
	missing := b.wait(b.submit("without", []byte(strings.ReplaceAll(ir, `"db"`, `"gone"`)), nil))
	if !strings.Contains(missing.Error.GetMessage(), `secret "gone" of project p`) {
		t.Errorf("%s: %s", missing.State, missing.Error.GetMessage())
	}
}

// TestArtifactAtAPathOfItsOwn: a program says that its artifact lies elsewhere, and
// the next one finds it where it always is.
func TestArtifactAtAPathOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, processRuntime(t))
	ir := strings.ReplaceAll(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"own"},
		"components":{"comp-make":{"executorLabel":"make","outputDefinitions":{"artifacts":{"model":{"artifactType":{"schemaTitle":"system.Model"}}}}},
			"comp-read":{"executorLabel":"read","inputDefinitions":{"artifacts":{"model":{"artifactType":{"schemaTitle":"system.Model"}}}},"outputDefinitions":{"parameters":{"text":{"parameterType":"STRING"}}}}},
		"deploymentSpec":{"executors":{
			"make":{"container":{"image":"alpine","command":["sh","-ec","echo -n weights > DIR/model; printf '{\"artifacts\":{\"model\":{\"artifacts\":[{\"uri\":\"%s\",\"custom_path\":\"DIR/model\"}]}}}' $0 > $1","{{$.outputs.artifacts['model'].uri}}","{{$.outputs.output_file}}"]}},
			"read":{"container":{"image":"alpine","command":["sh","-ec","cp $0 $1","{{$.inputs.artifacts['model'].path}}","{{$.outputs.parameters['text'].output_file}}"]}}}},
		"root":{"dag":{"tasks":{"make":{"taskInfo":{"name":"make"},"componentRef":{"name":"comp-make"}},
			"read":{"taskInfo":{"name":"read"},"componentRef":{"name":"comp-read"},"inputs":{"artifacts":{"model":{"taskOutputArtifact":{"producerTask":"make","outputArtifactKey":"model"}}}}}}}}}`, "DIR", t.TempDir())
	job := b.wait(b.submit("own", []byte(ir), nil))
	if got := b.tasks(job.Name)["read"].Outputs.Parameters["text"]; got != "weights" {
		t.Errorf("%s %s: read %v", job.State, job.Error.GetMessage(), got)
	}
}
