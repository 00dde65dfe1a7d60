package aiplatform

import (
	"context"
	"fmt"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/training"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// WorkloadChecker refuses, with the reason, what can never run on this
// installation (an image without a rule, more than the machine has) when all are
// there at the same time, and what the caller in ctx may not run.
type WorkloadChecker interface {
	Check(ctx context.Context, together ...runtime.Workload) error
}

// ImageChecker refuses an image that the caller in ctx may not run.
type ImageChecker interface {
	MayRun(ctx context.Context, image string) error
}

// ModelChecker refuses a model whose image the caller in ctx may not run, or whose files
// it may not read: who serves a model shows what is in them.
type ModelChecker interface {
	ImageChecker
	MayRead(ctx context.Context, uri string) error
}

// BatchChecker also refuses what a batch prediction must not read or write for its caller.
type BatchChecker interface {
	ModelChecker
	MayWrite(ctx context.Context, uri string) error
}

// CustomJobs serves the CustomJob methods of JobService. The training engine acts
// on the rows.
type CustomJobs struct {
	std      *Standard
	accounts Accounts
	checker  WorkloadChecker
}

// NewCustomJobs makes the service.
func NewCustomJobs(std *Standard, accounts Accounts, checker WorkloadChecker) *CustomJobs {
	return &CustomJobs{std: std, accounts: accounts, checker: checker}
}

// Methods gives the rows of the dispatch table.
func (j *CustomJobs) Methods() ([]api.Method, error) {
	methods, err := j.std.Methods("JobService", "GetCustomJob", "ListCustomJobs")
	if err != nil {
		return nil, err
	}
	return append(methods,
		api.Unary(MethodName("JobService", "CreateCustomJob"), "aiplatform.customJobs.create", j.create),
		api.Unary(MethodName("JobService", "CancelCustomJob"), "aiplatform.customJobs.cancel", j.cancel),
		api.Unary(MethodName("JobService", "DeleteCustomJob"), "aiplatform.customJobs.delete", j.delete),
	), nil
}

func (j *CustomJobs) create(ctx context.Context, req *pb.CreateCustomJobRequest) (*pb.CustomJob, error) {
	job := proto.CloneOf(req.GetCustomJob())
	if err := checkCustomJob(job); err != nil {
		return nil, err
	}
	ClearOutputOnly(job)
	parent, err := resource.ParseName(req.GetParent())
	if err != nil {
		return nil, err
	}
	if job.JobSpec.ServiceAccount, err = RunAs(ctx, j.accounts, parent.Project(), job.JobSpec.ServiceAccount); err != nil {
		return nil, err
	}
	// The name is known only once the row is written; the checks need one before.
	probe := proto.CloneOf(job)
	probe.Name = parent.Child("customJobs", "0").String()
	workloads, err := training.Workloads(probe)
	if err != nil {
		return nil, err
	}
	if err := j.checker.Check(ctx, workloads...); err != nil {
		return nil, err
	}
	job.State = pb.JobState_JOB_STATE_QUEUED
	err = j.std.store.Update(ctx, func(tx store.Tx) error {
		return j.std.Insert(ctx, tx, req.GetParent(), "", job, job.State.String())
	})
	if err != nil {
		return nil, err
	}
	return job, nil
}

// checkCustomJob covers what the engine has no word in.
func checkCustomJob(job *pb.CustomJob) error {
	switch {
	case job.GetDisplayName() == "":
		return resource.Invalid("custom_job.display_name", "display_name is not set")
	case len(job.DisplayName) > 128:
		return resource.Invalid("custom_job.display_name", "display_name has %d bytes; 128 is the most", len(job.DisplayName))
	case job.JobSpec == nil:
		return resource.Invalid("custom_job.job_spec", "job_spec is not set")
	case job.GetEncryptionSpec().GetKmsKeyName() != "":
		return resource.Unimplemented("custom_job.encryption_spec")
	}
	if timeout := job.JobSpec.GetScheduling().GetTimeout(); timeout != nil {
		if err := timeout.CheckValid(); err != nil || timeout.AsDuration() < 0 {
			return resource.Invalid("custom_job.job_spec.scheduling.timeout", "timeout is not a duration of zero or more")
		}
	}
	for i, pool := range job.JobSpec.WorkerPoolSpecs {
		m := pool.GetMachineSpec()
		if m.GetAcceleratorCount() < 0 || m.GetAcceleratorCount() == 0 && m.GetAcceleratorType() != pb.AcceleratorType_ACCELERATOR_TYPE_UNSPECIFIED {
			return resource.Invalid(fmt.Sprintf("custom_job.job_spec.worker_pool_specs[%d].machine_spec.accelerator_count", i),
				"accelerator_type is %s and accelerator_count is %d", m.GetAcceleratorType(), m.GetAcceleratorCount())
		}
	}
	return nil
}

func (j *CustomJobs) cancel(ctx context.Context, req *pb.CancelCustomJobRequest) (*emptypb.Empty, error) {
	err := j.std.store.Update(ctx, func(tx store.Tx) error {
		job := &pb.CustomJob{}
		if err := j.std.Load(ctx, tx, req.GetName(), job); err != nil {
			return err
		}
		if training.Finished(job.State) || job.State == pb.JobState_JOB_STATE_CANCELLING {
			return nil // the API says that cancelling is best effort
		}
		job.State = pb.JobState_JOB_STATE_CANCELLING
		return j.std.Save(ctx, tx, job, job.State.String())
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (j *CustomJobs) delete(ctx context.Context, req *pb.DeleteCustomJobRequest) (*longrunningpb.Operation, error) {
	job := &pb.CustomJob{}
	return j.std.Delete(ctx, req, job, func(store.Tx) error {
		if training.Finished(job.State) {
			return nil
		}
		return resource.Errorf(codes.FailedPrecondition, "%s is %s", job.Name, job.State).WithResource(job.Name).
			WithHint("cancel it first, and delete it once it has ended")
	})
}
