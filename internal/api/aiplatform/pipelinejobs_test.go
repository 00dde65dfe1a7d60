package aiplatform

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/api"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// noGPU refuses accelerators, as a machine without one does.
type noGPU struct{}

func (noGPU) Check(_ context.Context, together ...runtime.Workload) error {
	for _, w := range together {
		if w.Resources.GPUs > 0 {
			return resource.Errorf(codes.FailedPrecondition, "this machine has no GPU")
		}
		if w.Image == "unknown" {
			return errors.New("nothing is known about the image")
		}
	}
	return nil
}

const (
	pipelineIR = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"adder"},
		"components":{"comp":{"executorLabel":"exec","inputDefinitions":{"parameters":{"n":{"parameterType":"NUMBER_INTEGER"}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"python:3.11","command":["echo","{{$.inputs.parameters['n']}}"]}}}},
		"root":{"inputDefinitions":{"parameters":{"n":{"parameterType":"NUMBER_INTEGER"}}},
			"dag":{"tasks":{"add":{"taskInfo":{"name":"add"},"componentRef":{"name":"comp"},"inputs":{"parameters":{"n":{"componentInputParameter":"n"}}}}}}}}`
	jobName = location + "/pipelineJobs/"
)

func newPipelineServer(t *testing.T, hold time.Duration) *server {
	t.Helper()
	s := newServer(t)
	methods, err := NewPipelineJobs(s.std, accounts{}, noGPU{}, nil, hold).Methods()
	if err != nil {
		t.Fatal(err)
	}
	if s.table, err = api.NewTable(methods); err != nil {
		t.Fatal(err)
	}
	return s
}

func pipelineMethod(name string) string { return MethodName(pipelineService, name) }

func spec(t *testing.T, ir string) *structpb.Struct {
	t.Helper()
	out := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(ir), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func newPipelineJob(t *testing.T) *pb.PipelineJob {
	t.Helper()
	return &pb.PipelineJob{
		DisplayName: "adder", PipelineSpec: spec(t, pipelineIR), Labels: map[string]string{"team": "ml"},
		RuntimeConfig: &pb.PipelineJob_RuntimeConfig{
			GcsOutputDirectory: "gs://bucket/root/", ParameterValues: map[string]*structpb.Value{"n": structpb.NewNumberValue(3)},
		},
	}
}

func createPipelineJob(t *testing.T, s *server, id string) *pb.PipelineJob {
	t.Helper()
	return call[*pb.PipelineJob](t, s, pipelineMethod("CreatePipelineJob"), &pb.CreatePipelineJobRequest{Parent: location, PipelineJob: newPipelineJob(t), PipelineJobId: id})
}

// finishJob ends a job as the engine does.
func finishJob(t *testing.T, s *server, name string) {
	t.Helper()
	err := s.store.Update(t.Context(), func(tx store.Tx) error {
		job := &pb.PipelineJob{}
		row, err := store.GetMessage(t.Context(), tx, resource.KindPipelineJobs, name, job)
		if err != nil {
			return err
		}
		job.State = pb.PipelineState_PIPELINE_STATE_SUCCEEDED
		row.State = job.State.String()
		return store.PutMessage(t.Context(), tx, row, job)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCreatePipelineJobEchoesAndFills(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, 0)
	given := newPipelineJob(t)
	job := createPipelineJob(t, s, "adder-1")
	if job.Name != jobName+"adder-1" || job.State != pb.PipelineState_PIPELINE_STATE_PENDING || job.CreateTime == nil {
		t.Errorf("name %s, state %s, created %v", job.Name, job.State, job.CreateTime)
	}
	if diff := cmp.Diff(given.PipelineSpec, job.PipelineSpec, protocmp.Transform()); diff != "" {
		t.Errorf("pipeline_spec is not echoed: %s", diff)
	}
	if diff := cmp.Diff(given.RuntimeConfig, job.RuntimeConfig, protocmp.Transform()); diff != "" {
		t.Errorf("runtime_config is not echoed: %s", diff)
	}
	if job.ServiceAccount != "default@p.iam.tategu.internal" {
		t.Errorf("service account %q", job.ServiceAccount)
	}
	if n := job.Labels[pipeline.RunNumberLabel]; n == "" || job.Labels["team"] != "ml" {
		t.Errorf("labels %v", job.Labels)
	}
	d := job.GetJobDetail()
	if d.GetPipelineContext().GetName() != location+"/metadataStores/default/contexts/adder" ||
		d.GetPipelineRunContext().GetName() != location+"/metadataStores/default/contexts/adder-1" ||
		d.GetPipelineRunContext().GetParentContexts()[0] != d.GetPipelineContext().GetName() {
		t.Errorf("contexts %v", d)
	}
	if _, err := s.store.Get(t.Context(), resource.KindContexts, d.PipelineRunContext.Name); err != nil {
		t.Error(err)
	}
	refuse(t, s, pipelineMethod("CreatePipelineJob"), &pb.CreatePipelineJobRequest{Parent: location, PipelineJob: given, PipelineJobId: "adder-1"}, codes.AlreadyExists, "adder-1")
	given.RuntimeConfig.GcsOutputDirectory = ""
	again := call[*pb.PipelineJob](t, s, pipelineMethod("CreatePipelineJob"), &pb.CreatePipelineJobRequest{Parent: location, PipelineJob: given})
	if !strings.HasPrefix(again.Name, jobName+"adder-") || again.RuntimeConfig.GcsOutputDirectory != "gs://p-vertex-pipelines-us-central1/output_artifacts" {
		t.Errorf("%s in %s", again.Name, again.RuntimeConfig.GcsOutputDirectory)
	}
}

func TestCreatePipelineJobRefuses(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, 0)
	with := func(old, replacement string) func(*pb.PipelineJob) {
		return func(j *pb.PipelineJob) {
			if !strings.Contains(pipelineIR, old) {
				t.Errorf("%q is not in the IR", old)
			}
			j.PipelineSpec = spec(t, strings.ReplaceAll(pipelineIR, old, replacement))
		}
	}
	value := func(k string, v *structpb.Value) func(*pb.PipelineJob) {
		return func(j *pb.PipelineJob) { j.RuntimeConfig.ParameterValues[k] = v }
	}
	tests := map[string]struct {
		change func(*pb.PipelineJob)
		code   codes.Code
		want   []string
	}{
		"no spec":           {func(j *pb.PipelineJob) { j.PipelineSpec = nil }, codes.InvalidArgument, []string{"empty"}},
		"template only":     {func(j *pb.PipelineJob) { j.PipelineSpec, j.TemplateUri = nil, "https://x" }, codes.Unimplemented, []string{"template_uri"}},
		"wrong type":        {value("n", structpb.NewStringValue("3")), codes.InvalidArgument, []string{`"n"`, "NUMBER_INTEGER"}},
		"fraction":          {value("n", structpb.NewNumberValue(3.5)), codes.InvalidArgument, []string{`"n"`, "3.5"}},
		"unknown parameter": {value("m", structpb.NewNumberValue(3)), codes.InvalidArgument, []string{`"m"`}},
		"missing parameter": {func(j *pb.PipelineJob) { j.RuntimeConfig.ParameterValues = nil }, codes.InvalidArgument, []string{`"n"`, "required"}},
		"root":              {func(j *pb.PipelineJob) { j.RuntimeConfig.GcsOutputDirectory = "/tmp" }, codes.InvalidArgument, []string{"/tmp"}},
		"bucket":            {func(j *pb.PipelineJob) { j.RuntimeConfig.GcsOutputDirectory = "gs://B/x" }, codes.InvalidArgument, []string{"gs://B/x"}},
		"account":           {func(j *pb.PipelineJob) { j.ServiceAccount = "other@p" }, codes.PermissionDenied, []string{"other@p"}},
		"schema":            {with("2.1.0", "9.0"), codes.Unimplemented, []string{"9.0"}},
		"component":         {with(`"componentRef":{"name":"comp"}`, `"componentRef":{"name":"gone"}`), codes.InvalidArgument, []string{`"add"`, `"gone"`}},
		"placeholder":       {with("parameters['n']", "parameters['q']"), codes.InvalidArgument, []string{`"add"`, "'q'"}},
		"image":             {with("python:3.11", "unknown"), codes.Unknown, []string{`"add"`, "image"}},
		"gpu":               {with(`"image":`, `"resources":{"accelerator":{"type":"T4","count":"1"}},"image":`), codes.FailedPrecondition, []string{`"add"`, "GPU"}},
		"artifact loop": {
			with(`"taskInfo":{"name":"add"}`, `"artifactIterator":{"itemInput":"n","items":{"inputArtifact":"x"}},"taskInfo":{"name":"add"}`),
			codes.InvalidArgument,
			[]string{`"add"`, `no input artifact "n"`},
		},
		"loop over no list": {
			with(`"taskInfo":{"name":"add"}`, `"parameterIterator":{"itemInput":"n","items":{"raw":"{}"}},"taskInfo":{"name":"add"}`),
			codes.InvalidArgument,
			[]string{`"add"`, "JSON list"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := newPipelineJob(t)
			tt.change(job)
			refuse(t, s, pipelineMethod("CreatePipelineJob"), &pb.CreatePipelineJobRequest{Parent: location, PipelineJob: job, PipelineJobId: "x"}, tt.code, tt.want...)
		})
	}
}

func TestGetPipelineJobWaitsForTheEnd(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, time.Hour)
	job := createPipelineJob(t, s, "held")
	got := make(chan proto.Message, 1)
	go func() {
		resp, err := s.do(t.Context(), pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name})
		if err != nil {
			t.Error(err)
		}
		got <- resp
	}()
	finishJob(t, s, job.Name)
	resp, ok := (<-got).(*pb.PipelineJob)
	if !ok || resp.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Errorf("got %v: the answer must wait for the end", resp)
	}
	// A job that has ended is never held: this would take an hour.
	call[*pb.PipelineJob](t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name})
	refuse(t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: jobName + "none"}, codes.NotFound, "none")
}

func TestGetPipelineJobAnswersARunningOne(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, time.Millisecond)
	job := createPipelineJob(t, s, "running")
	got := call[*pb.PipelineJob](t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name})
	if got.State != pb.PipelineState_PIPELINE_STATE_PENDING {
		t.Errorf("state %s", got.State)
	}
}

func TestListPipelineJobsPrunes(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, 0)
	createPipelineJob(t, s, "one")
	createPipelineJob(t, s, "two")
	list := call[*pb.ListPipelineJobsResponse](t, s, pipelineMethod("ListPipelineJobs"), &pb.ListPipelineJobsRequest{Parent: location, Filter: `display_name="adder"`})
	if len(list.PipelineJobs) != 2 || list.PipelineJobs[0].ServiceAccount == "" {
		t.Errorf("list = %v", list)
	}
	// What the SDK's enable_simple_view sends.
	simple := call[*pb.ListPipelineJobsResponse](t, s, pipelineMethod("ListPipelineJobs"), &pb.ListPipelineJobsRequest{
		Parent: location,
		ReadMask: &fieldmaskpb.FieldMask{Paths: []string{
			"name", "state", "display_name", "pipeline_spec.pipeline_info", "create_time", "start_time", "end_time", "update_time", "labels",
			"template_uri", "template_metadata.version", "job_detail.pipeline_run_context", "job_detail.pipeline_context",
		}},
	})
	for _, j := range simple.PipelineJobs {
		if j.ServiceAccount != "" || j.JobDetail.GetPipelineRunContext() == nil || j.Name == "" {
			t.Errorf("simple view = %v", j)
		}
	}
}

func TestCancelAndDeletePipelineJob(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, 0)
	a, b := createPipelineJob(t, s, "a").Name, createPipelineJob(t, s, "b").Name
	refuse(t, s, pipelineMethod("DeletePipelineJob"), &pb.DeletePipelineJobRequest{Name: a}, codes.FailedPrecondition, "PENDING", "cancel")
	call[*emptypb.Empty](t, s, pipelineMethod("CancelPipelineJob"), &pb.CancelPipelineJobRequest{Name: a})
	row, err := s.store.Get(t.Context(), resource.KindPipelineJobs, a)
	if err != nil || row.State != "PIPELINE_STATE_CANCELLING" {
		t.Errorf("state %s, %v", row.State, err)
	}
	finishJob(t, s, a)
	call[*emptypb.Empty](t, s, pipelineMethod("CancelPipelineJob"), &pb.CancelPipelineJobRequest{Name: a})
	refuse(t, s, pipelineMethod("BatchDeletePipelineJobs"), &pb.BatchDeletePipelineJobsRequest{Parent: location, Names: []string{a, b}}, codes.FailedPrecondition, "/b")
	if _, err := s.store.Get(t.Context(), resource.KindPipelineJobs, a); err != nil {
		t.Errorf("a batch that is refused deletes nothing: %v", err)
	}
	cancelled := call[*pb.BatchCancelPipelineJobsResponse](t, s, pipelineMethod("BatchCancelPipelineJobs"), &pb.BatchCancelPipelineJobsRequest{Parent: location, Names: []string{b}})
	if len(cancelled.PipelineJobs) != 1 || cancelled.PipelineJobs[0].State != pb.PipelineState_PIPELINE_STATE_CANCELLING {
		t.Errorf("batch cancel = %v", cancelled)
	}
	finishJob(t, s, b)
	call[*longrunningpb.Operation](t, s, pipelineMethod("DeletePipelineJob"), &pb.DeletePipelineJobRequest{Name: a})
	call[*pb.BatchDeletePipelineJobsResponse](t, s, pipelineMethod("BatchDeletePipelineJobs"), &pb.BatchDeletePipelineJobsRequest{Parent: location, Names: []string{b}})
	refuse(t, s, pipelineMethod("BatchDeletePipelineJobs"), &pb.BatchDeletePipelineJobsRequest{Parent: location, Names: []string{b}}, codes.NotFound, "/b")
	refuse(t, s, pipelineMethod("BatchCancelPipelineJobs"), &pb.BatchCancelPipelineJobsRequest{Parent: location, Names: []string{"projects/q/locations/l/pipelineJobs/x"}}, codes.InvalidArgument, "projects/q")
}

func TestGetPipelineJobOutlastsItsSecond(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, time.Hour)
	job := createPipelineJob(t, s, "adder-20261124015918")
	finishJob(t, s, job.Name)
	call[*pb.PipelineJob](t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name})
	if made := job.CreateTime.AsTime(); !time.Now().Truncate(time.Second).After(made.Truncate(time.Second)) {
		t.Errorf("the end of a job made at %s was told within that second", made)
	}
	for name, want := range map[string]bool{"p/adder-20261124015918": true, "p/adder-2026112401591": false, "p/adder": false, "p/x-2026112401591a": false} {
		if got := timestamped(name); got != want {
			t.Errorf("timestamped(%q) = %v", name, got)
		}
	}
}
