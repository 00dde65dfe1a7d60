package aiplatform_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/api"
	"tategu/internal/api/aiplatform"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// jobAccounts lets everybody act as everything but one account.
type jobAccounts struct{}

func (jobAccounts) ServiceAccount(_ context.Context, email string) (project, canonical string, err error) {
	return "p", email, nil
}

func (jobAccounts) Authorize(context.Context, identity.Principal, string, string) error { return nil }

func (jobAccounts) ActAs(_ context.Context, _ identity.Principal, email string) error {
	if email == "forbidden@p.iam.tategu.internal" {
		return resource.Errorf(codes.PermissionDenied, "no actAs")
	}
	return nil
}

// jobChecker refuses GPUs, as a machine without one.
type jobChecker struct{}

func (jobChecker) Check(_ context.Context, together ...runtime.Workload) error {
	for _, w := range together {
		if w.Resources.GPUs > 0 {
			return resource.Errorf(codes.FailedPrecondition, "1 GPUs are asked for and this machine has 0")
		}
		if w.Image == "unknown" {
			return errors.New("unknown image")
		}
	}
	return nil
}

type jobService struct {
	t     *testing.T
	store store.Store
	table *api.Table
}

func newJobService(t *testing.T) *jobService {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	methods, err := aiplatform.NewCustomJobs(aiplatform.NewStandard(st, time.Now), jobAccounts{}, jobChecker{}).Methods()
	if err != nil {
		t.Fatal(err)
	}
	table, err := api.NewTable(methods)
	if err != nil {
		t.Fatal(err)
	}
	return &jobService{t: t, store: st, table: table}
}

func (s *jobService) call(method string, req proto.Message) (proto.Message, error) {
	s.t.Helper()
	m, ok := s.table.Lookup(aiplatform.MethodName("JobService", method))
	if !ok {
		s.t.Fatalf("no method %s", method)
	}
	return m.Unary(s.t.Context(), req)
}

const jobParent = "projects/p/locations/us-central1"

func customJob() *pb.CustomJob {
	return &pb.CustomJob{
		DisplayName: "job", Name: "must be ignored", State: pb.JobState_JOB_STATE_SUCCEEDED,
		JobSpec: &pb.CustomJobSpec{WorkerPoolSpecs: []*pb.WorkerPoolSpec{{
			ReplicaCount: 1, MachineSpec: &pb.MachineSpec{MachineType: "n1-standard-4"},
			Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: &pb.ContainerSpec{ImageUri: "img", Command: []string{"a"}}},
		}}},
	}
}

func TestCustomJobLife(t *testing.T) {
	t.Parallel()
	s := newJobService(t)
	out, err := s.call("CreateCustomJob", &pb.CreateCustomJobRequest{Parent: jobParent, CustomJob: customJob()})
	if err != nil {
		t.Fatal(err)
	}
	job, ok := out.(*pb.CustomJob)
	if !ok || !strings.HasPrefix(job.Name, jobParent+"/customJobs/") || job.State != pb.JobState_JOB_STATE_QUEUED || job.CreateTime == nil {
		t.Fatalf("created %v", out)
	}
	if got := job.JobSpec.ServiceAccount; got != "default@p.iam.tategu.internal" {
		t.Errorf("service account %q", got)
	}
	if got := job.JobSpec.WorkerPoolSpecs[0].MachineSpec.MachineType; got != "n1-standard-4" {
		t.Errorf("machine type %q", got)
	}
	list, err := s.call("ListCustomJobs", &pb.ListCustomJobsRequest{Parent: jobParent, Filter: `state="JOB_STATE_QUEUED"`})
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := list.(*pb.ListCustomJobsResponse); !ok || len(l.CustomJobs) != 1 {
		t.Fatalf("list %v", list)
	}
	if _, err := s.call("DeleteCustomJob", &pb.DeleteCustomJobRequest{Name: job.Name}); resource.CodeOf(err) != codes.FailedPrecondition {
		t.Fatalf("delete of an unfinished job: %v", err)
	}
	for range 2 {
		if _, err := s.call("CancelCustomJob", &pb.CancelCustomJobRequest{Name: job.Name}); err != nil {
			t.Fatal(err)
		}
	}
	got := &pb.CustomJob{}
	row, err := store.GetMessage(t.Context(), s.store, resource.KindCustomJobs, job.Name, got)
	if err != nil || got.State != pb.JobState_JOB_STATE_CANCELLING || row.State != got.State.String() {
		t.Fatalf("after cancel: %v, %v", got, err)
	}
	got.State = pb.JobState_JOB_STATE_CANCELLED
	if err := s.store.Update(t.Context(), func(tx store.Tx) error { return store.PutMessage(t.Context(), tx, row, got) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.call("DeleteCustomJob", &pb.DeleteCustomJobRequest{Name: job.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.call("GetCustomJob", &pb.GetCustomJobRequest{Name: job.Name}); !resource.IsNotFound(err) {
		t.Fatalf("after delete: %v", err)
	}
}

func TestCustomJobRefused(t *testing.T) {
	t.Parallel()
	s := newJobService(t)
	tests := map[string]struct {
		change func(*pb.CustomJob)
		code   codes.Code
	}{
		"display name": {func(j *pb.CustomJob) { j.DisplayName = "" }, codes.InvalidArgument},
		"spec":         {func(j *pb.CustomJob) { j.JobSpec = nil }, codes.InvalidArgument},
		"timeout":      {func(j *pb.CustomJob) { j.JobSpec.Scheduling = &pb.Scheduling{Timeout: durationpb.New(-1)} }, codes.InvalidArgument},
		"kms":          {func(j *pb.CustomJob) { j.EncryptionSpec = &pb.EncryptionSpec{KmsKeyName: "k"} }, codes.Unimplemented},
		"account":      {func(j *pb.CustomJob) { j.JobSpec.ServiceAccount = "forbidden@p.iam.tategu.internal" }, codes.PermissionDenied},
		"GPU": {func(j *pb.CustomJob) {
			j.JobSpec.WorkerPoolSpecs[0].MachineSpec.AcceleratorType, j.JobSpec.WorkerPoolSpecs[0].MachineSpec.AcceleratorCount = pb.AcceleratorType_NVIDIA_L4, 1
		}, codes.FailedPrecondition},
		"GPU count": {func(j *pb.CustomJob) {
			j.JobSpec.WorkerPoolSpecs[0].MachineSpec.AcceleratorType = pb.AcceleratorType_NVIDIA_L4
		}, codes.InvalidArgument},
		"image": {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs[0].GetContainerSpec().ImageUri = "unknown" }, codes.Unknown},
		"pools": {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs = nil }, codes.InvalidArgument},
	}
	for name, tc := range tests {
		j := customJob()
		tc.change(j)
		if _, err := s.call("CreateCustomJob", &pb.CreateCustomJobRequest{Parent: jobParent, CustomJob: j}); resource.CodeOf(err) != tc.code {
			t.Errorf("%s: %v, want %v", name, err, tc.code)
		}
	}
	rows, err := s.store.List(t.Context(), store.Query{Kind: resource.KindCustomJobs})
	if err != nil || len(rows) != 0 {
		t.Fatalf("refused jobs left %d rows, %v", len(rows), err)
	}
	if _, err := s.call("CancelCustomJob", &pb.CancelCustomJobRequest{Name: jobParent + "/customJobs/1"}); !resource.IsNotFound(err) {
		t.Errorf("cancel of an unknown job: %v", err)
	}
}

// TestCustomJobWithAChosenID: who repeats the call makes no second job.
func TestCustomJobWithAChosenID(t *testing.T) {
	t.Parallel()
	s := newJobService(t)
	ctx, err := resource.WithID(t.Context(), "42")
	if err != nil {
		t.Fatal(err)
	}
	m, _ := s.table.Lookup(aiplatform.MethodName("JobService", "CreateCustomJob"))
	out, err := m.Unary(ctx, &pb.CreateCustomJobRequest{Parent: jobParent, CustomJob: customJob()})
	if job, ok := out.(*pb.CustomJob); err != nil || !ok || job.Name != jobParent+"/customJobs/42" {
		t.Fatalf("created %v, %v", out, err)
	}
	if _, err = m.Unary(ctx, &pb.CreateCustomJobRequest{Parent: jobParent, CustomJob: customJob()}); resource.CodeOf(err) != codes.AlreadyExists {
		t.Errorf("again: %v", err)
	}
}
