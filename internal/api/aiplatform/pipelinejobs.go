package aiplatform

import (
	"context"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"tategu/internal/api"
	"tategu/internal/blob"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

const pipelineService = "PipelineService"

// PipelineJobs serves the PipelineJob methods of PipelineService. The pipeline
// engine acts on the rows; job_detail is joined on reads.
type PipelineJobs struct {
	std      *Standard
	accounts Accounts
	checker  WorkloadChecker
	place    pipeline.Place
	hold     time.Duration
}

// NewPipelineJobs makes the service. place says which tasks wait for room; hold is how long a Get may wait for the end
// of a job that is about to end; see get.
func NewPipelineJobs(std *Standard, accounts Accounts, checker WorkloadChecker, place pipeline.Place, hold time.Duration) *PipelineJobs {
	return &PipelineJobs{std: std, accounts: accounts, checker: checker, place: place, hold: hold}
}

// Methods gives the rows of the dispatch table.
func (s *PipelineJobs) Methods() ([]api.Method, error) {
	name := func(m string) string { return MethodName(pipelineService, m) }
	return []api.Method{
		api.Unary(name("CreatePipelineJob"), "aiplatform.pipelineJobs.create", s.create).Within(pipelineLimits()),
		api.Unary(name("GetPipelineJob"), "aiplatform.pipelineJobs.get", s.get),
		api.Unary(name("ListPipelineJobs"), "aiplatform.pipelineJobs.list", s.list),
		api.Unary(name("CancelPipelineJob"), "aiplatform.pipelineJobs.cancel", s.cancel),
		api.Unary(name("DeletePipelineJob"), "aiplatform.pipelineJobs.delete", s.delete),
		api.Unary(name("BatchCancelPipelineJobs"), "aiplatform.pipelineJobs.cancel", s.batchCancel),
		api.Unary(name("BatchDeletePipelineJobs"), "aiplatform.pipelineJobs.delete", s.batchDelete),
	}, nil
}

// pipelineLimits are those of requests with a pipeline, told before it is decoded.
func pipelineLimits() api.Limits {
	return api.Limits{Values: pipeline.MaxValues, JSON: pipeline.WeighJSON, Wire: pipeline.WeighWire}
}

// create checks the whole pipeline before it answers, so that what cannot run is
// refused by name and not found out in the middle of a run.
func (s *PipelineJobs) create(ctx context.Context, req *pb.CreatePipelineJobRequest) (*pb.PipelineJob, error) {
	l, err := s.prepare(ctx, s.checker, req)
	if err != nil {
		return nil, err
	}
	if l.job.ServiceAccount, err = RunAs(ctx, s.accounts, l.parent.Project(), l.job.ServiceAccount); err != nil {
		return nil, err
	}
	if err := s.std.store.Update(ctx, func(tx store.Tx) error { return l.Insert(ctx, tx) }); err != nil {
		return nil, err
	}
	return l.job, nil
}

// launch is a job that passed every check that needs no transaction.
type launch struct {
	*PipelineJobs
	parent resource.Name
	id     string
	plan   *pipeline.Plan
	job    *pb.PipelineJob
	// original is the full name of the run that this one goes on with; "" = none.
	original string
}

// prepare checks a request and makes the job of it. Whether the service account and
// the images may be used is up to the caller, who knows for whom it asks.
func (s *PipelineJobs) prepare(ctx context.Context, checker WorkloadChecker, req *pb.CreatePipelineJobRequest) (*launch, error) {
	if req.GetPipelineJob() == nil {
		return nil, resource.Invalid("pipeline_job", "pipeline_job is missing")
	}
	job := proto.CloneOf(req.PipelineJob)
	ClearOutputOnly(job)
	plan, err := checkPipelineJob(job)
	if err != nil {
		return nil, err
	}
	if err := plan.Check(func(w runtime.Workload) error { return checker.Check(ctx, w) }); err != nil {
		return nil, err
	}
	parent, err := resource.ParseName(req.GetParent())
	if err != nil {
		return nil, err
	}
	if err := fillRoot(job, plan, parent); err != nil {
		return nil, err
	}
	if job.Labels == nil {
		job.Labels = map[string]string{}
	}
	original, err := s.original(ctx, parent, job.OriginalPipelineJobId)
	if err != nil {
		return nil, err
	}
	job.Labels[pipeline.RunNumberLabel] = resource.NewID()
	id := req.GetPipelineJobId()
	if id == "" {
		id = plan.Name + "-" + resource.NewID()
	}
	job.State = pb.PipelineState_PIPELINE_STATE_PENDING
	return &launch{PipelineJobs: s, parent: parent, id: id, plan: plan, job: job, original: original}, nil
}

// Name is the full name that the job will have.
func (l *launch) Name() string { return l.parent.Child("pipelineJobs", l.id).String() }

// Insert writes the job and its contexts.
func (l *launch) Insert(ctx context.Context, tx store.Tx) error {
	for _, in := range l.job.GetRuntimeConfig().GetInputArtifacts() {
		if _, err := pipeline.InputArtifact(ctx, tx, l.parent.Project(), l.parent.Location(), in.GetArtifactId()); err != nil {
			return err
		}
	}
	var err error
	if l.job.JobDetail, err = l.contexts(ctx, tx, l.parent.String(), l.plan.Name, l.id); err != nil {
		return err
	}
	if l.original != "" {
		if err := pipeline.TakeOver(ctx, tx, l.plan, l.original, l.Name(), l.job.PipelineTaskRerunConfigs); err != nil {
			return err
		}
	}
	return l.std.Insert(ctx, tx, l.parent.String(), l.id, l.job, l.job.State.String())
}

func checkPipelineJob(job *pb.PipelineJob) (*pipeline.Plan, error) {
	switch {
	case len(job.GetDisplayName()) > 128:
		return nil, resource.Invalid("pipeline_job.display_name", "display_name has %d bytes; 128 is the most", len(job.DisplayName))
	case job.GetPipelineSpec() == nil && job.GetTemplateUri() != "":
		return nil, resource.Unimplemented("pipeline_job.template_uri without a pipeline_spec")
	case job.GetEncryptionSpec().GetKmsKeyName() != "":
		return nil, resource.Unimplemented("pipeline_job.encryption_spec")
	case len(job.GetPipelineTaskRerunConfigs()) > 0 && job.GetOriginalPipelineJobId() == 0:
		return nil, resource.Invalid("pipeline_job.original_pipeline_job_id", "pipeline_task_rerun_configs without original_pipeline_job_id").
			WithHint("it is the value of the original run's label %s", pipeline.RunNumberLabel)
	case job.GetRuntimeConfig().GetDefaultRuntime() != nil:
		return nil, resource.Unimplemented("pipeline_job.runtime_config.default_runtime")
	}
	plan, err := pipeline.Parse(job.GetPipelineSpec())
	if err != nil {
		return nil, err
	}
	if _, err := plan.Parameters(job.GetRuntimeConfig()); err != nil {
		return nil, err
	}
	return plan, plan.CheckInputArtifacts(job.GetRuntimeConfig())
}

// fillRoot chooses where the outputs go: what the run says, else what the
// pipeline says, else a bucket named as the SDK would name it.
func fillRoot(job *pb.PipelineJob, plan *pipeline.Plan, parent resource.Name) error {
	if job.RuntimeConfig == nil {
		job.RuntimeConfig = &pb.PipelineJob_RuntimeConfig{}
	}
	c := job.RuntimeConfig
	if c.GcsOutputDirectory == "" {
		c.GcsOutputDirectory = plan.Root
	}
	if c.GcsOutputDirectory == "" {
		c.GcsOutputDirectory = "gs://" + parent.Project() + "-vertex-pipelines-" + parent.Location() + "/output_artifacts"
	}
	if _, _, err := blob.ParseURI(c.GcsOutputDirectory); err != nil {
		return resource.Invalid("pipeline_job.runtime_config.gcs_output_directory", "%w", err)
	}
	return nil
}

// cancel asks for the end of a job; the engine does the rest.
func (s *PipelineJobs) cancel(ctx context.Context, req *pb.CancelPipelineJobRequest) (*emptypb.Empty, error) {
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		_, err := s.askCancel(ctx, tx, req.GetName())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *PipelineJobs) askCancel(ctx context.Context, tx store.Tx, name string) (*pb.PipelineJob, error) {
	job := &pb.PipelineJob{}
	if err := s.std.Load(ctx, tx, name, job); err != nil {
		return nil, err
	}
	if pipeline.Finished(job.State) || job.State == pb.PipelineState_PIPELINE_STATE_CANCELLING {
		return job, nil // there is nothing left to stop, which is what was asked for
	}
	job.State = pb.PipelineState_PIPELINE_STATE_CANCELLING
	return job, s.std.Save(ctx, tx, job, job.State.String())
}

func (s *PipelineJobs) delete(ctx context.Context, req *pb.DeletePipelineJobRequest) (*longrunningpb.Operation, error) {
	job := &pb.PipelineJob{}
	return s.std.Delete(ctx, req, job, func(tx store.Tx) error { return s.forget(ctx, tx, job) })
}

// forget refuses while the job runs, and removes what belongs to it alone. Its
// artifacts stay: others may have taken them over.
func (s *PipelineJobs) forget(ctx context.Context, tx store.Tx, job *pb.PipelineJob) error {
	if !pipeline.Finished(job.State) {
		return resource.Errorf(codes.FailedPrecondition, "%s is in state %s", job.Name, job.State).
			WithResource(job.Name).WithHint("cancel it and wait until it has ended")
	}
	if err := tx.Delete(ctx, resource.KindScheduledRuns, job.Name); err != nil {
		return err
	}
	return pipeline.Delete(ctx, tx, job.Name)
}
