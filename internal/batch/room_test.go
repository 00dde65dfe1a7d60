package batch_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/columnar"
	"tategu/internal/runtime"
	"tategu/internal/runtime/runtimetest"
	"tategu/internal/volume"
)

// TestParquetWaitsForRoom: a file is copied to the cache once there is room for it, and
// one that the disk could not hold at all ends the job.
func TestParquetWaitsForRoom(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	rows, err := columnar.NewWriter(&b, columnar.Column{Name: "x", Kind: columnar.Floats})
	if err != nil {
		t.Fatal(err)
	}
	rows.Floats(0, []float64{1, 2, 3, 4, 5, 6})
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	asked, room := make(chan struct{}, 100), atomic.Int64{}
	w := newWorld(t)
	w.stop()
	w.room = volume.New(20*int64(b.Len()), func() (int64, error) {
		asked <- struct{}{}
		return room.Load(), nil
	}, nil)
	w.open()
	w.write("gs://b/in.parquet", b.String())
	name := w.submit("native", "gs://b/in.parquet", formats("parquet", "jsonl"))
	for range 2 { // it was refused once, and asks again
		<-asked
	}
	room.Store(20 * int64(b.Len()))
	if job := w.ended(name); job.GetCompletionStats().GetFailedCount() != 1 { // its row was read; a list is no number
		t.Errorf("%v", job)
	}
	w.write("gs://b/large.parquet", strings.Repeat("x", 20*b.Len()))
	job := w.ended(w.submit("native", "gs://b/large.parquet", formats("parquet", "jsonl")))
	if text := job.GetError().GetMessage(); !strings.Contains(text, "gs://b/large.parquet") || !strings.Contains(text, "could not hold") {
		t.Errorf("%v", job.GetError())
	}
}

// Replicas of batch prediction come after those of endpoints.
func TestPriority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &runtimetest.Recorder{}
	w.runtime = rt
	w.open()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", HealthRoute: "/health", PredictRoute: "/predict"}})
	w.write("gs://b/in/1.jsonl", "1")
	if job := w.ended(w.submit("echo", "gs://b/in", nil)); job.State != pb.JobState_JOB_STATE_FAILED {
		t.Fatal(job)
	}
	asked := rt.Asked()
	if len(asked) == 0 || asked[0].Priority != runtime.PriorityBatch {
		t.Errorf("asked %+v", asked)
	}
}
