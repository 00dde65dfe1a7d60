package training_test

import (
	"path/filepath"
	"slices"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/training"
)

// TestImages: what jobs may still start is known until they have ended.
func TestImages(t *testing.T) {
	t.Parallel()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	for image, state := range map[string]pb.JobState{
		"waits": pb.JobState_JOB_STATE_QUEUED, "runs": pb.JobState_JOB_STATE_RUNNING,
		"done": pb.JobState_JOB_STATE_SUCCEEDED, "cancelled": pb.JobState_JOB_STATE_CANCELLED,
	} {
		pool := &pb.WorkerPoolSpec{Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: &pb.ContainerSpec{ImageUri: image}}}
		job := &pb.CustomJob{
			Name: "projects/p/locations/l/customJobs/" + image, State: state,
			JobSpec: &pb.CustomJobSpec{WorkerPoolSpecs: []*pb.WorkerPoolSpec{pool, {}}}, // the second is a pool without a program
		}
		err := rows.Update(t.Context(), func(tx store.Tx) error {
			return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindCustomJobs, Key: job.Name, State: state.String()}, job)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	images, err := training.Images(t.Context(), rows)
	slices.Sort(images)
	if err != nil || !slices.Equal(images, []string{"runs", "waits"}) {
		t.Errorf("%q, %v", images, err)
	}
}
