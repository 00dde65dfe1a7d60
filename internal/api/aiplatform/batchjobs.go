package aiplatform

import (
	"context"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"tategu/internal/api"
	"tategu/internal/batch"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// BatchJobs serves the BatchPredictionJob methods of JobService. The batch
// engine acts on the rows.
type BatchJobs struct {
	std      *Standard
	accounts Accounts
	may      BatchChecker
}

// NewBatchJobs makes the service.
func NewBatchJobs(std *Standard, accounts Accounts, may BatchChecker) *BatchJobs {
	return &BatchJobs{std: std, accounts: accounts, may: may}
}

// Methods gives the rows of the dispatch table.
func (j *BatchJobs) Methods() ([]api.Method, error) {
	methods, err := j.std.Methods("JobService", "GetBatchPredictionJob", "ListBatchPredictionJobs")
	if err != nil {
		return nil, err
	}
	return append(methods,
		api.Unary(MethodName("JobService", "CreateBatchPredictionJob"), "aiplatform.batchPredictionJobs.create", j.create),
		api.Unary(MethodName("JobService", "CancelBatchPredictionJob"), "aiplatform.batchPredictionJobs.cancel", j.cancel),
		api.Unary(MethodName("JobService", "DeleteBatchPredictionJob"), "aiplatform.batchPredictionJobs.delete", j.delete),
	), nil
}

func (j *BatchJobs) create(ctx context.Context, req *pb.CreateBatchPredictionJobRequest) (*pb.BatchPredictionJob, error) {
	job := proto.CloneOf(req.GetBatchPredictionJob())
	if job == nil {
		return nil, resource.Invalid("batch_prediction_job", "batch_prediction_job is not set")
	}
	asked := job.GetModelVersionId()
	ClearOutputOnly(job)
	if err := checkBatchJob(job); err != nil {
		return nil, err
	}
	parent, err := resource.ParseName(req.GetParent())
	if err != nil {
		return nil, err
	}
	if job.ServiceAccount, err = RunAs(ctx, j.accounts, parent.Project(), job.ServiceAccount); err != nil {
		return nil, err
	}
	checked, err := j.mayServe(ctx, parent.Project(), job, asked)
	if err != nil {
		return nil, err
	}
	if err := j.mayUse(ctx, job); err != nil {
		return nil, err
	}
	job.State = pb.JobState_JOB_STATE_PENDING
	err = j.std.store.Update(ctx, func(tx store.Tx) error {
		if job.GetUnmanagedContainerModel() == nil {
			if err := j.resolve(ctx, tx, parent.Project(), job, asked, checked); err != nil {
				return err
			}
		}
		return j.std.Insert(ctx, tx, req.GetParent(), "", job, job.State.String())
	})
	return job, err
}

// mayServe gives what the job's model is made of, which the caller may use.
func (j *BatchJobs) mayServe(ctx context.Context, project string, job *pb.BatchPredictionJob, version string) (parts, error) {
	if unmanaged := job.GetUnmanagedContainerModel(); unmanaged != nil {
		return checkServed(ctx, j.may, unmanaged.GetContainerSpec().GetImageUri(), unmanaged.GetArtifactUri())
	}
	return j.std.mayServe(ctx, j.may, project, versioned(job.GetModel(), version))
}

// mayUse asks for the objects that the engine reads and writes with rights of its own.
func (j *BatchJobs) mayUse(ctx context.Context, job *pb.BatchPredictionJob) error {
	for _, uri := range job.GetInputConfig().GetGcsSource().GetUris() {
		if err := j.may.MayRead(ctx, uri); err != nil {
			return err
		}
	}
	if out := job.GetOutputConfig().GetGcsDestination().GetOutputUriPrefix(); out != "" {
		return j.may.MayWrite(ctx, out)
	}
	return nil
}

// versioned adds a version to a model's name that has none.
func versioned(model, version string) string {
	if name, err := resource.ParseName(model); err != nil || name.Version != "" || version == "" {
		return model
	}
	return resource.VersionName(model, version)
}

// resolve pins the version of the model, so that a job does not change when an
// alias moves.
func (j *BatchJobs) resolve(ctx context.Context, tx store.Tx, project string, job *pb.BatchPredictionJob, version string, checked parts) error {
	name, err := resource.ParseName(job.GetModel())
	if err != nil {
		return resource.Invalid("batch_prediction_job.model", "%q is not the name of a model", job.GetModel())
	}
	if name.Project() != project {
		return resource.Invalid("batch_prediction_job.model", "%s is in another project than the job", job.GetModel())
	}
	model, err := j.std.Model(ctx, tx, versioned(job.GetModel(), version))
	if err != nil {
		return err
	}
	if err := sameServed(model, checked); err != nil {
		return err
	}
	job.Model, job.ModelVersionId = model.GetName(), model.GetVersionId()
	return nil
}

// checkBatchJob refuses what the engine cannot do, by name, before a job is made.
func checkBatchJob(job *pb.BatchPredictionJob) error {
	in, out := job.GetInputConfig(), job.GetOutputConfig()
	switch {
	case job.GetDisplayName() == "":
		return resource.Invalid("batch_prediction_job.display_name", "display_name is not set")
	case job.GetModel() == "" && job.GetUnmanagedContainerModel() == nil:
		return resource.Invalid("batch_prediction_job.model", "neither model nor unmanaged_container_model is set")
	case job.GetGenerateExplanation() || job.GetExplanationSpec() != nil:
		return resource.Unimplemented("batch_prediction_job.generate_explanation")
	case job.GetModelMonitoringConfig() != nil:
		return resource.Unimplemented("batch_prediction_job.model_monitoring_config")
	case job.GetEncryptionSpec().GetKmsKeyName() != "":
		return resource.Unimplemented("batch_prediction_job.encryption_spec")
	case in.GetBigquerySource() != nil:
		return resource.Unimplemented("batch_prediction_job.input_config.bigquery_source")
	case in.GetGcsSource() == nil && in.GetSource() != nil:
		return resource.Unimplemented("a batch_prediction_job.input_config.source other than gcs_source")
	case len(in.GetGcsSource().GetUris()) == 0:
		return resource.Invalid("batch_prediction_job.input_config.gcs_source.uris", "there is no input URI")
	case out.GetGcsDestination() == nil && out.GetBigqueryDestination() == nil && out.GetDestination() != nil:
		return resource.Unimplemented("a batch_prediction_job.output_config.destination other than gcs_destination and bigquery_destination")
	}
	return batch.Check(job)
}

func (j *BatchJobs) cancel(ctx context.Context, req *pb.CancelBatchPredictionJobRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, j.std.store.Update(ctx, func(tx store.Tx) error {
		job := &pb.BatchPredictionJob{}
		if err := j.std.Load(ctx, tx, req.GetName(), job); err != nil {
			return err
		}
		if batch.Finished(job.GetState()) || job.GetState() == pb.JobState_JOB_STATE_CANCELLING {
			return nil // the API says that cancelling is best effort
		}
		job.State = pb.JobState_JOB_STATE_CANCELLING
		return j.std.Save(ctx, tx, job, job.State.String())
	})
}

func (j *BatchJobs) delete(ctx context.Context, req *pb.DeleteBatchPredictionJobRequest) (*longrunningpb.Operation, error) {
	job := &pb.BatchPredictionJob{}
	return j.std.Delete(ctx, req, job, func(store.Tx) error {
		if batch.Finished(job.GetState()) {
			return nil
		}
		return resource.Errorf(codes.FailedPrecondition, "%s is %s", job.GetName(), job.GetState()).WithResource(job.GetName()).
			WithHint("cancel it first, and delete it once it has ended")
	})
}
