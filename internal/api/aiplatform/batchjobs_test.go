package aiplatform

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
	"tategu/internal/store"
)

func newBatchJobs(t *testing.T) (*BatchJobs, *server) {
	t.Helper()
	s := newServer(t)
	for _, id := range []string{"1", "2"} {
		m := &pb.Model{Name: location + "/models/5", VersionId: id, DisplayName: "m"}
		err := s.store.Update(t.Context(), func(tx store.Tx) error {
			err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindModelVersions, Key: resource.VersionName(m.Name, id), Parent: m.Name}, m)
			if err == nil && id == "1" {
				m.VersionAliases = []string{defaultAlias}
				err = store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindModels, Key: m.Name, Parent: location}, m)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return NewBatchJobs(NewStandard(s.store, time.Now), accounts{}, images{}), s
}

func batchJob(change func(*pb.BatchPredictionJob)) *pb.CreateBatchPredictionJobRequest {
	job := &pb.BatchPredictionJob{
		DisplayName: "j", Model: location + "/models/5", ServiceAccount: "ok@p",
		InputConfig: &pb.BatchPredictionJob_InputConfig{InstancesFormat: "jsonl", Source: &pb.BatchPredictionJob_InputConfig_GcsSource{
			GcsSource: &pb.GcsSource{Uris: []string{"gs://b/in.jsonl"}},
		}},
		OutputConfig: &pb.BatchPredictionJob_OutputConfig{PredictionsFormat: "jsonl", Destination: &pb.BatchPredictionJob_OutputConfig_GcsDestination{
			GcsDestination: &pb.GcsDestination{OutputUriPrefix: "gs://b/out"},
		}},
	}
	if change != nil {
		change(job)
	}
	return &pb.CreateBatchPredictionJobRequest{Parent: location, BatchPredictionJob: job}
}

func TestBatchJobLife(t *testing.T) {
	t.Parallel()
	j, s := newBatchJobs(t)
	req := batchJob(func(job *pb.BatchPredictionJob) {
		job.Model += "@2"
		job.State = pb.JobState_JOB_STATE_SUCCEEDED // the server's to set
	})
	job, err := j.create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if job.State != pb.JobState_JOB_STATE_PENDING || job.Model != location+"/models/5" || job.ModelVersionId != "2" || job.CreateTime == nil {
		t.Fatalf("job %v", job)
	}
	remove := &pb.DeleteBatchPredictionJobRequest{Name: job.Name}
	if _, err := j.delete(t.Context(), remove); resource.CodeOf(err) != codes.FailedPrecondition {
		t.Fatalf("delete while it runs: %v", err)
	}
	for range 2 { // again is no error
		if _, err := j.cancel(t.Context(), &pb.CancelBatchPredictionJobRequest{Name: job.Name}); err != nil {
			t.Fatal(err)
		}
	}
	row, err := store.GetMessage(t.Context(), s.store, resource.KindBatchPredictionJobs, job.Name, job)
	if err != nil || row.State != "JOB_STATE_CANCELLING" {
		t.Fatalf("row %v, %v", row.State, err)
	}
	job.State = pb.JobState_JOB_STATE_CANCELLED
	err = s.store.Update(t.Context(), func(tx store.Tx) error { return j.std.Save(t.Context(), tx, job, job.State.String()) })
	if err != nil {
		t.Fatal(err)
	}
	if op, err := j.delete(t.Context(), remove); err != nil || !op.Done {
		t.Fatalf("delete: %v, %v", op, err)
	}
}

func TestBatchJobChecks(t *testing.T) {
	t.Parallel()
	j, s := newBatchJobs(t)
	upload(t, s, "8", "", &pb.Model{DisplayName: "m", ArtifactUri: "gs://theirs/m"})
	upload(t, s, "7", "", &pb.Model{DisplayName: "m", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "theirs/secret"}})
	for _, c := range []struct {
		want   codes.Code
		text   string
		change func(*pb.BatchPredictionJob)
	}{
		{codes.InvalidArgument, "display_name", func(b *pb.BatchPredictionJob) { b.DisplayName = "" }},
		{codes.InvalidArgument, "neither model", func(b *pb.BatchPredictionJob) { b.Model = "" }},
		{codes.NotFound, "models/6", func(b *pb.BatchPredictionJob) { b.Model = location + "/models/6" }},
		{codes.NotFound, "@9", func(b *pb.BatchPredictionJob) { b.Model += "@9" }},
		{codes.InvalidArgument, "another project", func(b *pb.BatchPredictionJob) { b.Model = "projects/q/locations/l/models/5" }},
		{codes.Unimplemented, "format xml", func(b *pb.BatchPredictionJob) { b.InputConfig.InstancesFormat = "xml" }},
		{codes.Unimplemented, "format xml", func(b *pb.BatchPredictionJob) { b.OutputConfig.PredictionsFormat = "xml" }},
		{codes.Unimplemented, "bigquery_source", func(b *pb.BatchPredictionJob) {
			b.InputConfig.Source = &pb.BatchPredictionJob_InputConfig_BigquerySource{BigquerySource: &pb.BigQuerySource{}}
		}},
		{codes.InvalidArgument, "there is no output URI", func(b *pb.BatchPredictionJob) {
			b.OutputConfig.Destination = &pb.BatchPredictionJob_OutputConfig_BigqueryDestination{BigqueryDestination: &pb.BigQueryDestination{}}
		}},
		{codes.Unimplemented, "generate_explanation", func(b *pb.BatchPredictionJob) { b.GenerateExplanation = true }},
		{codes.InvalidArgument, "s3://b", func(b *pb.BatchPredictionJob) { b.InputConfig.GetGcsSource().Uris = []string{"s3://b"} }},
		{codes.InvalidArgument, "no input URI", func(b *pb.BatchPredictionJob) { b.InputConfig.GetGcsSource().Uris = nil }},
		{codes.InvalidArgument, "no output URI", func(b *pb.BatchPredictionJob) { b.OutputConfig.GetGcsDestination().OutputUriPrefix = "" }},
		{codes.InvalidArgument, "neither object nor array", func(b *pb.BatchPredictionJob) {
			b.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{InstanceType: "x"}
		}},
		{codes.PermissionDenied, "theirs/secret is not for you", func(b *pb.BatchPredictionJob) { b.Model = location + "/models/7" }},
		{codes.PermissionDenied, "theirs/secret is not for you", func(b *pb.BatchPredictionJob) {
			b.Model, b.UnmanagedContainerModel = "", &pb.UnmanagedContainerModel{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "theirs/secret"}}
		}},
		{codes.PermissionDenied, "gs://theirs/m is not for you", func(b *pb.BatchPredictionJob) { b.Model = location + "/models/8" }},
		{codes.PermissionDenied, "gs://theirs/m is not for you", func(b *pb.BatchPredictionJob) {
			b.Model, b.UnmanagedContainerModel = "", &pb.UnmanagedContainerModel{ArtifactUri: "gs://theirs/m", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "x"}}
		}},
		{codes.PermissionDenied, "gs://theirs/in/* is not for you", func(b *pb.BatchPredictionJob) {
			b.InputConfig.GetGcsSource().Uris = append(b.InputConfig.GetGcsSource().Uris, "gs://theirs/in/*")
		}},
		{codes.PermissionDenied, "gs://theirs/out is not to be written", func(b *pb.BatchPredictionJob) {
			b.OutputConfig.GetGcsDestination().OutputUriPrefix = "gs://theirs/out"
		}},
		{codes.PermissionDenied, "not as", func(b *pb.BatchPredictionJob) { b.ServiceAccount = "no@p" }},
	} {
		_, err := j.create(t.Context(), batchJob(c.change))
		if resource.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got %v, want %v with %q", err, c.want, c.text)
		}
	}
	req := batchJob(nil)
	before := proto.CloneOf(req)
	if _, err := j.create(t.Context(), req); err != nil || !proto.Equal(req, before) {
		t.Errorf("a good job: %v; the request was changed: %v", err, !proto.Equal(req, before))
	}
}
