package training_test

import (
	"strings"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/training"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
)

func TestWorkloadsRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*pb.CustomJob)
		code   codes.Code
		say    string
	}{
		"no pool":    {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs = nil }, codes.InvalidArgument, "worker pool"},
		"chiefs":     {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs[0].ReplicaCount = 2 }, codes.InvalidArgument, "chief"},
		"no task":    {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs[0].Task = nil }, codes.InvalidArgument, "container_spec"},
		"no image":   {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs[0].GetContainerSpec().ImageUri = "" }, codes.InvalidArgument, "image_uri"},
		"output":     {func(j *pb.CustomJob) { j.JobSpec.BaseOutputDirectory.OutputUriPrefix = "/tmp" }, codes.InvalidArgument, "gs://"},
		"persistent": {func(j *pb.CustomJob) { j.JobSpec.PersistentResourceId = "x" }, codes.Unimplemented, "persistent_resource_id"},
		"web access": {func(j *pb.CustomJob) { j.JobSpec.EnableWebAccess = true }, codes.Unimplemented, "enable_web_access"},
		"nfs":        {func(j *pb.CustomJob) { j.JobSpec.WorkerPoolSpecs[0].NfsMounts = []*pb.NfsMount{{}} }, codes.Unimplemented, "nfs_mounts"},
		"many": {func(j *pb.CustomJob) {
			j.JobSpec.WorkerPoolSpecs = append(j.JobSpec.WorkerPoolSpecs, pool(1e15, "true"))
		}, codes.InvalidArgument, "replicas"},
		"not a gs": {func(j *pb.CustomJob) {
			j.JobSpec.WorkerPoolSpecs[0].Task = &pb.WorkerPoolSpec_PythonPackageSpec{PythonPackageSpec: &pb.PythonPackageSpec{ExecutorImageUri: "x", PythonModule: "m", PackageUris: []string{"/x"}}}
		}, codes.InvalidArgument, `"/x"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := job("1", pool(1, "true"))
			tc.change(j)
			_, err := training.Workloads(j)
			if resource.CodeOf(err) != tc.code || !strings.Contains(err.Error(), tc.say) {
				t.Fatalf("got %v (%v), want %v naming %q", err, resource.CodeOf(err), tc.code, tc.say)
			}
		})
	}
}

func TestPackagedQuotes(t *testing.T) {
	t.Parallel()
	j := job("1", &pb.WorkerPoolSpec{ReplicaCount: 1, Task: &pb.WorkerPoolSpec_PythonPackageSpec{PythonPackageSpec: &pb.PythonPackageSpec{
		ExecutorImageUri: "python:3.11", PythonModule: "m; rm -rf '/'", PackageUris: []string{"gs://b/a b.tar.gz"}, Args: []string{"$x"},
	}}})
	ws, err := training.Workloads(j)
	if err != nil {
		t.Fatal(err)
	}
	want := `python3 -m pip install --quiet '/gcs/b/a b.tar.gz' && exec python3 -m 'm; rm -rf '\''/'\''' "$@"`
	if ws[0].Command[2] != want || ws[0].Args[0] != "$x" || ws[0].Fetch[0] != "gs://b/a b.tar.gz" {
		t.Fatalf("workload %+v", ws[0])
	}
}

// TestMachine: a machine type is a hint, one of numbers is meant.
func TestMachine(t *testing.T) {
	t.Parallel()
	for machine, want := range map[string]runtime.Resources{
		"n1-standard-4":              {},
		"custom-4-8192":              {Cores: 4, MemoryBytes: 8 << 30},
		"n2-custom-2-512":            {Cores: 2, MemoryBytes: 512 << 20},
		"custom-0-1024":              {MemoryBytes: 1 << 30},
		"custom-1-0":                 {Cores: 1},
		"custom-x-1":                 {},
		"n1-custom-1-1-ext":          {Cores: 1, MemoryBytes: 1 << 20},
		"customs-1-1":                {},
		"custom-99999999999999999-1": {Cores: -1},
	} {
		j := job("1", pool(1, "true"))
		j.JobSpec.WorkerPoolSpecs[0].MachineSpec.MachineType = machine
		list, err := training.Workloads(j)
		if want.Cores < 0 {
			if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "machine_type") {
				t.Errorf("%s: %v", machine, err)
			}
			continue
		}
		if err != nil || list[0].Resources != want {
			t.Errorf("%s: %+v, %v, want %+v", machine, list, err, want)
		}
	}
}
