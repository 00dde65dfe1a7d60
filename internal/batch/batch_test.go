package batch_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestNativeInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := rows(1000)
	w.write("gs://b/in/a.jsonl", in[:300]...)
	w.write("gs://b/in/b.jsonl", in[300:301]...)
	w.write("gs://b/in/c.jsonl", append(in[301:], "", "  ")...)
	job := w.ended(w.submit("native", "gs://b/in/*.jsonl", nil))
	if job.State != pb.JobState_JOB_STATE_SUCCEEDED || job.StartTime == nil || job.EndTime == nil || job.UpdateTime == nil || job.Error != nil {
		t.Fatalf("job %v", job)
	}
	if got := job.CompletionStats; got.SuccessfulCount != 1000 || got.FailedCount != 0 {
		t.Fatalf("stats %v", got)
	}
	if dir := job.GetOutputInfo().GetGcsOutputDirectory(); !strings.HasPrefix(dir, "gs://b/out/prediction-the native-2") {
		t.Fatalf("directory %s", dir)
	}
	results, failures := w.results(job)
	if len(results) != 1000 || len(failures) != 1 || failures[0] != "" {
		t.Fatalf("%d results, failures %q", len(results), failures)
	}
	for i, line := range results {
		var r struct {
			Instance   json.RawMessage
			Prediction *float64
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || string(r.Instance) != in[i] || r.Prediction == nil {
			t.Fatalf("line %d is %s, want instance %s (%v)", i, line, in[i], err)
		}
	}
}

func TestInstanceConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const line = `{"id": "k1", "Column_5": 6, "Column_0": 1, "Column_1": 2, "Column_2": 3, "Column_3": 4, "Column_4": 5, "note": [1, "x"]}`
	w.write("gs://b/plain.jsonl", "[1,2,3,4,5,6]")
	w.write("gs://b/in.jsonl", line)
	plain, _ := w.results(w.ended(w.submit("native", "gs://b/plain.jsonl", nil)))
	_, value, ok := strings.Cut(plain[0], `"prediction"`)
	if !ok {
		t.Fatal(plain)
	}
	prediction := `"prediction"` + value
	order := []string{"Column_0", "Column_1", "Column_2", "Column_3", "Column_4", "Column_5"}
	for name, c := range map[string]struct {
		config *pb.BatchPredictionJob_InstanceConfig
		want   string
	}{
		"objects as they are": {nil, `{"instance":` + line + `,` + prediction},
		"key":                 {&pb.BatchPredictionJob_InstanceConfig{KeyField: "id"}, `{"key":"k1",` + prediction},
		"array":               {&pb.BatchPredictionJob_InstanceConfig{InstanceType: "array", IncludedFields: order}, `{"instance":` + line + `,` + prediction},
		"excluded":            {&pb.BatchPredictionJob_InstanceConfig{InstanceType: "object", ExcludedFields: []string{"note", "id"}}, `{"instance":` + line + `,` + prediction},
	} {
		results, _ := w.results(w.ended(w.submit("native", "gs://b/in.jsonl", func(j *pb.BatchPredictionJob) { j.InstanceConfig = c.config })))
		if len(results) != 1 || results[0] != c.want {
			t.Errorf("%s: got %q, want %q", name, results, c.want)
		}
	}
}

func TestBadInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("gs://b/in.jsonl", `[1,2,3,4,5,6]`, `[1,2]`, `{not json`, `[6,5,4,3,2,1]`)
	job := w.ended(w.submit("native", "gs://b/in.jsonl", nil))
	if job.State != pb.JobState_JOB_STATE_SUCCEEDED || job.CompletionStats.SuccessfulCount != 2 || job.CompletionStats.FailedCount != 2 || len(job.PartialFailures) != 2 {
		t.Fatalf("job %v", job)
	}
	results, failures := w.results(job)
	if len(results) != 2 || !strings.Contains(results[1], "[6,5,4,3,2,1]") {
		t.Errorf("results %q", results)
	}
	if len(failures) != 2 || !strings.Contains(failures[0], `"instance":[1,2],"error":{"code":3,`) || !strings.Contains(failures[1], `"instance":"{not json","error"`) {
		t.Errorf("failures %q", failures)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("gs://b/bad.jsonl", `[1]`, `[2]`)
	w.model("nothing", &pb.Model{ArtifactUri: "gs://b/elsewhere"})
	for _, c := range []struct {
		model, input, want string
		code               codes.Code
	}{
		{"native", "gs://b/none.jsonl", "no object matches the input gs://b/none.jsonl", codes.NotFound},
		{"native", "gs://b/bad.jsonl", "all 2 instances failed; the first: line 1 of gs://b/bad.jsonl", codes.FailedPrecondition},
		{"nothing", "gs://b/bad.jsonl", "no LightGBM text model", codes.FailedPrecondition},
		{"gone", "gs://b/bad.jsonl", "was not found", codes.NotFound},
	} {
		job := w.ended(w.submit(c.model, c.input, nil))
		if job.State != pb.JobState_JOB_STATE_FAILED || codes.Code(job.GetError().GetCode()) != c.code || !strings.Contains(job.GetError().GetMessage(), c.want) || job.OutputInfo != nil {
			t.Errorf("%s %s: got %v %v", c.model, c.input, job.State, job.Error)
		}
	}
}

// echo makes a model whose server is the echo program.
func (w *world) echo() {
	w.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		w.t.Skip("there is no python3: ", err)
	}
	path, err := filepath.Abs("../../examples/echo/echo.py")
	if err != nil {
		w.t.Fatal(err)
	}
	w.withProcesses()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{path}, HealthRoute: "/health", PredictRoute: "/predict"}})
	picky, err := filepath.Abs("testdata/picky.py")
	if err != nil {
		w.t.Fatal(err)
	}
	w.model("picky", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{picky}, HealthRoute: "/health", PredictRoute: "/predict"}})
	w.model("hangs", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{"-c", "import time; time.sleep(1000)"}}})
	w.model("fails", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{"-c", "raise SystemExit('no weights')"}}})
}

func TestContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.echo()
	in := rows(500)
	w.write("gs://b/in/1.jsonl", in...)
	job := w.ended(w.submit("echo", "gs://b/in", func(j *pb.BatchPredictionJob) {
		j.DedicatedResources = &pb.BatchDedicatedResources{StartingReplicaCount: 2}
		j.ManualBatchTuningParameters = &pb.ManualBatchTuningParameters{BatchSize: 7}
		j.ModelParameters = structpb.NewStringValue("x")
	}))
	if job.State != pb.JobState_JOB_STATE_SUCCEEDED {
		t.Fatal(job.Error)
	}
	results, _ := w.results(job)
	for i, line := range results {
		var r struct{ Instance, Prediction []int }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Instance[5] != i || r.Prediction[5] != i {
			t.Fatalf("line %d is %s, %v", i, line, err)
		}
	}
	if len(results) != 500 {
		t.Fatalf("%d results", len(results))
	}
}

func TestContainerFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.echo()
	w.write("gs://b/in.jsonl", rows(1)...)
	job := w.ended(w.submit("fails", "gs://b/in.jsonl", nil))
	if job.State != pb.JobState_JOB_STATE_FAILED || !strings.Contains(job.Error.GetMessage(), "no weights") {
		t.Fatalf("job %v", job)
	}
}

func TestCancelAndRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.echo()
	w.write("gs://b/in.jsonl", rows(1)...)
	name := w.submit("hangs", "gs://b/in.jsonl", nil)
	running := func(j *pb.BatchPredictionJob) bool { return j.State == pb.JobState_JOB_STATE_RUNNING }
	w.until(name, running)
	w.stop()
	w.open() // the job goes on where rows say it is
	job := w.until(name, running)
	job.State = pb.JobState_JOB_STATE_CANCELLING
	w.put(job)
	job = w.ended(name)
	if job.State != pb.JobState_JOB_STATE_CANCELLED || job.OutputInfo != nil {
		t.Fatalf("job %v", job)
	}
	// That no program is left is checked when the world ends.
}
