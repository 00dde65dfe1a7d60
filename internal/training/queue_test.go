package training_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// A job of two replicas waits as a whole for a machine that one other program holds
// a part of, stays QUEUED, and starts both at once.
func TestQueued(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.down()
	inv := runtime.Inventory{Cores: 2, MemoryBytes: 4 << 30, GPUs: []runtime.GPU{{ID: "0"}, {ID: "1"}}}
	b.cfg.Schedule = scheduler.New(inv, time.Now, scheduler.Options{})
	b.cfg.Schedule.Enqueue(scheduler.Ask{ID: "other", Resources: runtime.Resources{GPUs: 1}})
	b.up()
	seen := filepath.Join(t.TempDir(), "gpu")
	script := fmt.Sprintf("echo $CUDA_VISIBLE_DEVICES >%s-$RANK; until [ -e %[1]s-0 -a -e %[1]s-1 ]; do sleep 0.02; done", seen)
	job := &pb.CustomJob{
		Name: parent + "/customJobs/7", DisplayName: "two", State: pb.JobState_JOB_STATE_QUEUED,
		JobSpec: &pb.CustomJobSpec{WorkerPoolSpecs: []*pb.WorkerPoolSpec{onGPU(script), onGPU(script)}},
	}
	b.put(job)
	ids := []string{"customjob-7-0-0", "customjob-7-1-0"}
	b.awaitPlace(ids...)
	b.await(job.Name, func(j *pb.CustomJob) bool { return j.State == pb.JobState_JOB_STATE_QUEUED })
	b.cfg.Schedule.Release("other")
	b.await(job.Name, func(j *pb.CustomJob) bool { return j.State == pb.JobState_JOB_STATE_SUCCEEDED && j.StartTime != nil })
	for i, want := range []string{"0\n", "1\n"} {
		if got, err := os.ReadFile(fmt.Sprintf("%s-%d", seen, i)); err != nil || string(got) != want {
			t.Errorf("replica %d saw GPU %q, %v; want %q", i, got, err, want)
		}
	}
	if s := b.cfg.Schedule.Snapshot(); len(s.Holders)+len(s.Waiters) > 0 {
		t.Errorf("left: %+v", s)
	}
}

// A job that is cancelled while it waits never runs and leaves the line.
func TestCancelledWhileQueued(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.down()
	b.cfg.Schedule = scheduler.New(runtime.Inventory{Cores: 2, MemoryBytes: 4 << 30, GPUs: []runtime.GPU{{ID: "0"}}}, time.Now, scheduler.Options{})
	b.cfg.Schedule.Enqueue(scheduler.Ask{ID: "other", Resources: runtime.Resources{GPUs: 1}})
	b.up()
	ran := filepath.Join(t.TempDir(), "ran")
	job := &pb.CustomJob{
		Name: parent + "/customJobs/8", DisplayName: "one", State: pb.JobState_JOB_STATE_QUEUED,
		JobSpec: &pb.CustomJobSpec{WorkerPoolSpecs: []*pb.WorkerPoolSpec{onGPU("touch " + ran)}},
	}
	b.put(job)
	b.awaitPlace("customjob-8-0-0")
	job.State = pb.JobState_JOB_STATE_CANCELLING
	b.put(job)
	b.await(job.Name, func(j *pb.CustomJob) bool { return j.State == pb.JobState_JOB_STATE_CANCELLED })
	if _, err := os.Stat(ran); err == nil {
		t.Error("it ran")
	}
	if s := b.cfg.Schedule.Snapshot(); len(s.Waiters) > 0 || len(s.Holders) != 1 {
		t.Errorf("%+v", s)
	}
}

func onGPU(script string) *pb.WorkerPoolSpec {
	return &pb.WorkerPoolSpec{
		ReplicaCount: 1, MachineSpec: &pb.MachineSpec{AcceleratorType: pb.AcceleratorType_NVIDIA_L4, AcceleratorCount: 1},
		Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: &pb.ContainerSpec{ImageUri: "sh", Command: []string{script}}},
	}
}

// awaitPlace waits until all workloads wait for room, which no row tells.
func (b *bench) awaitPlace(ids ...string) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for len(ids) > 0 {
		if _, waits := b.cfg.Schedule.Place(ids[0]); waits {
			ids = ids[1:]
			continue
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("%v do not wait", ids)
		}
	}
}
