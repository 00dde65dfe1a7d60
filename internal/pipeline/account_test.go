package pipeline_test

import (
	"context"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/blob"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// stranger is an account of another project than the runs and their buckets.
const stranger = "x@theirs.iam.tategu.internal"

// submitAs submits a run of stranger with a root.
func (b *bench) submitAs(id, root string, ir []byte) string {
	b.t.Helper()
	spec := &structpb.Struct{}
	if err := protojson.Unmarshal(ir, spec); err != nil {
		b.t.Fatal(err)
	}
	name := jobParent + "/pipelineJobs/" + id
	job := &pb.PipelineJob{
		Name: name, PipelineSpec: spec, State: pb.PipelineState_PIPELINE_STATE_PENDING, CreateTime: timestamppb.Now(), ServiceAccount: stranger,
		Labels: map[string]string{pipeline.RunNumberLabel: "9" + id}, RuntimeConfig: &pb.PipelineJob_RuntimeConfig{GcsOutputDirectory: root},
	}
	b.update(func(tx store.Tx) error {
		return store.PutMessage(b.t.Context(), tx, store.Row{Kind: resource.KindPipelineJobs, Key: name, Parent: jobParent, State: job.State.String()}, job)
	})
	return name
}

// bind gives stranger a role on a bucket, which is made where it is not there.
func (b *bench) bind(bucket, role string) {
	b.t.Helper()
	if err := b.objects.EnsureBucket(b.t.Context(), "p", bucket); err != nil {
		b.t.Fatal(err)
	}
	_, err := b.objects.UpdateBucket(b.t.Context(), bucket, blob.Conditions{}, func(to *blob.Bucket) error {
		to.Policy = []byte(`{"bindings":[{"role":"roles/storage.` + role + `","members":["serviceAccount:` + stranger + `"]}]}`)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestRootWithoutRights: a run whose account cannot write below its root ends before
// its first task and says what it lacks.
func TestRootWithoutRights(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"a": write})
	b := newBench(t, makeRuntime)
	refused := func(id, root string, want ...string) {
		t.Helper()
		job := b.wait(b.submitAs(id, root, onePipeline(false, "a")))
		if job.State != pb.PipelineState_PIPELINE_STATE_FAILED || codes.Code(job.Error.GetCode()) != codes.PermissionDenied {
			t.Fatalf("%s: %v", job.State, job.Error)
		}
		for _, part := range append(want, stranger) {
			if !strings.Contains(job.Error.GetMessage(), part) {
				t.Errorf("%q does not say %s", job.Error.GetMessage(), part)
			}
		}
	}
	refused("nobucket", "gs://nobody/root", "gs://nobody", "storage.buckets.create", `project "p"`)
	if _, err := b.objects.GetBucket(t.Context(), "nobody"); !resource.IsNotFound(err) {
		t.Errorf("the bucket of the root: %v", err)
	}
	b.bind("artifacts", "objectViewer")
	refused("readonly", "gs://artifacts/root", "gs://artifacts/root", "storage.objects.create")
	if got := f.started(); got != "" {
		t.Errorf("started %s", got)
	}
	b.bind("artifacts", "objectCreator") // may write, and not read what was written
	refused("writeonly", "gs://artifacts/root", "gs://artifacts/root", "storage.objects.get")
	b.bind("artifacts", "objectUser")
	if job := b.wait(b.submitAs("both", "gs://artifacts/root", onePipeline(false, "a"))); job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Errorf("%s: %v", job.State, job.Error)
	}
}

// TestCacheOfAnotherAccount: artifacts that the account may not read are not handed to it.
func TestCacheOfAnotherAccount(t *testing.T) {
	t.Parallel()
	makeRuntime, f := withFake(map[string]program{"make": write})
	b := newBench(t, makeRuntime)
	ir := []byte(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"art"},
		"components":{"comp":{"executorLabel":"exec","outputDefinitions":{"artifacts":{"model":{"artifactType":{"schemaTitle":"system.Model","schemaVersion":"0.0.1"}}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"none","command":["make"],"args":["weights","{{$.outputs.artifacts['model'].path}}"]}}}},
		"root":{"dag":{"tasks":{"make":{"taskInfo":{"name":"make"},"componentRef":{"name":"comp"},"cachingOptions":{"enableCache":true}}}}}}`)
	b.wait(b.submit("first", ir, nil))
	b.bind("own", "objectUser")
	own := b.wait(b.submitAs("own", "gs://own/root", ir))
	if got := f.started(); own.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED || got != "make make" {
		t.Fatalf("%s %v, started %s", own.State, own.Error, got)
	}
	if model := b.tasks(own.Name)["make"].Outputs.Artifacts["model"][0]; !strings.HasPrefix(model.URI, "gs://own/") {
		t.Errorf("artifact %s", model.URI)
	}
}

// TestArtifactNamedElsewhere: a program that says that its output is another's object
// does not learn whether there is one.
func TestArtifactNamedElsewhere(t *testing.T) {
	t.Parallel()
	makeRuntime, _ := withFake(map[string]program{"make": func(ctx context.Context, b *bench, args []string) runtime.Exit {
		return write(ctx, b, []string{`{"artifacts":{"model":{"artifacts":[{"name":"m","uri":"gs://secret/object"}]}}}`, args[len(args)-1]})
	}})
	b := newBench(t, makeRuntime)
	b.object("gs://secret/object", "x")
	b.bind("own", "objectUser")
	job := b.wait(b.submitAs("elsewhere", "gs://own/root", []byte(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"art"},
		"components":{"comp":{"executorLabel":"exec","outputDefinitions":{"artifacts":{"model":{"artifactType":{"schemaTitle":"system.Model","schemaVersion":"0.0.1"}}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"none","command":["make"],"args":["{{$.outputs.output_file}}"]}}}},
		"root":{"dag":{"tasks":{"make":{"taskInfo":{"name":"make"},"componentRef":{"name":"comp"}}}}}}`)))
	if job.State != pb.PipelineState_PIPELINE_STATE_FAILED || !strings.Contains(job.Error.GetMessage(), "gs://secret/object") || !strings.Contains(job.Error.GetMessage(), stranger) {
		t.Errorf("%s: %v", job.State, job.Error)
	}
}
