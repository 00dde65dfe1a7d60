package serving_test

import (
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"
)

const row = `{"instances":[[1,2,3,4,5,6]]}`

func TestDeployNativeAndPredict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	op := w.deploy("1", "native", nil)
	resp := &pb.DeployModelResponse{}
	if op.GetError() != nil || op.GetResponse().UnmarshalTo(resp) != nil || resp.GetDeployedModel().GetId() != "1" {
		t.Fatalf("operation %v", op)
	}
	e := w.endpoint()
	if len(e.DeployedModels) != 1 || e.DeployedModels[0].CreateTime == nil || fmt.Sprint(e.TrafficSplit) != "map[1:100]" || e.Etag == "" || e.UpdateTime == nil {
		t.Fatalf("endpoint %v", e)
	}
	if w.warm.keeps(resource.DeploymentKey(endpoint, "1")) {
		t.Error("something is kept for a model without replicas")
	}
	answer, text, err := w.predict(row)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, `{"predictions":[`) || answer.DeployedModel != "1" || answer.Model != project+"/models/native" || answer.ModelVersion != "1" || answer.ModelDisplay != "the native" {
		t.Fatalf("got %s from %+v", text, answer)
	}
	w.undeploy("1")
	if _, _, err := w.predict(row); resource.CodeOf(err) != codes.Unavailable && resource.CodeOf(err) != codes.FailedPrecondition {
		t.Fatalf("after undeploy: %v", err)
	}
	if left := w.leftovers(); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

// TestAccessLog: requests are logged where the deployed model asks for it, what is in
// them is not.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	var mu sync.Mutex
	var text strings.Builder
	w.logs = slog.NewTextHandler(locked{&mu, &text}, nil)
	w.open()
	for id, on := range map[string]bool{"1": true, "2": false} {
		if op := w.deploy(id, "native", func(r *pb.DeployModelRequest) {
			r.DeployedModel.EnableAccessLogging = on
			r.TrafficSplit = nil
		}); op.GetError() != nil {
			t.Fatal(op.GetError())
		}
	}
	for _, r := range []serving.Request{
		{DeployedModel: "1", Body: []byte(row)},
		{DeployedModel: "2", Body: []byte(row)},
		{DeployedModel: "1", Body: []byte(`{"instances":[["secret"]]}`)},
	} {
		resp, err := w.engine.Predict(t.Context(), endpoint, r)
		if err == nil {
			err = resp.Body.Close()
		}
		if err != nil && resource.CodeOf(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var lines []string
	for line := range strings.Lines(text.String()) {
		if strings.Contains(line, "msg=access") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || !strings.Contains(lines[0], "status=200") || !strings.Contains(lines[1], "code=InvalidArgument") || strings.Contains(text.String(), "secret") {
		t.Errorf("logged is\n%s", text.String())
	}
}

// locked is a writer of several goroutines.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestFailedDeployLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.model("broken", &pb.Model{ArtifactUri: "gs://b/bad/model.txt"})
	w.model("none", &pb.Model{ArtifactUri: "gs://b/elsewhere"})
	w.model("sklearn", &pb.Model{ArtifactUri: "gs://b/elsewhere", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-3:latest"}})
	for _, c := range []struct {
		model, want string
		code        codes.Code
	}{
		{"broken", `"end of trees" is missing`, codes.FailedPrecondition},
		{"none", "no LightGBM text model was found in gs://b/elsewhere", codes.FailedPrecondition},
		{"sklearn", "there is no model.joblib or model.pkl in gs://b/elsewhere", codes.FailedPrecondition},
		{"missing", "was not found", codes.NotFound},
	} {
		op := w.deploy(c.model, c.model, nil)
		if got := op.GetError(); codes.Code(got.GetCode()) != c.code || !strings.Contains(got.GetMessage(), c.want) {
			t.Errorf("%s: got %v, want %v with %q", c.model, got, c.code, c.want)
		}
	}
	if left := w.leftovers(); len(left) > 0 || len(w.endpoint().DeployedModels) > 0 {
		t.Fatalf("left behind: %v %v", left, w.endpoint())
	}
}

func TestTrafficSplit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("1", "native", nil)
	w.deploy("2", "native", func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{"1": 30, "2": 70} })
	w.deploy("3", "native", nil) // no split asked for: gets nothing
	if got := fmt.Sprint(w.endpoint().TrafficSplit); got != "map[1:30 2:70]" {
		t.Fatalf("split %s", got)
	}
	for random, want := range map[int]string{0: "1", 29: "1", 30: "2", 99: "2"} {
		w.random = random
		if answer, _, err := w.predict(row); err != nil || answer.DeployedModel != want {
			t.Errorf("at %d: %+v, %v, want %s", random, answer, err, want)
		}
	}
}

func TestRestartTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("1", "native", nil)
	w.stop()
	w.open() // waits for Ready
	if _, _, err := w.predict(row); err != nil {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, _, err := w.predict(row); resource.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no deployed model") {
		t.Errorf("empty endpoint: %v", err)
	}
	w.deploy("1", "native", nil)
	if _, _, err := w.predict(`{"instances":[[1,2]]}`); resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "instance 0") {
		t.Errorf("short row: %v", err)
	}
	if _, err := w.engine.Predict(t.Context(), project+"/endpoints/none", newRequest(row)); resource.CodeOf(err) != codes.NotFound {
		t.Errorf("unknown endpoint: %v", err)
	}
}

// TestContainer serves with a real program: the echo server of examples.
func TestContainer(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3: ", err)
	}
	_ = python
	echo, err := filepath.Abs("../../examples/echo/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	rt := w.withProcesses()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{echo}, HealthRoute: "/health", PredictRoute: "/predict"}})
	op := w.deploy("9", "echo", func(r *pb.DeployModelRequest) {
		r.DeployedModel.PredictionResources = &pb.DeployedModel_DedicatedResources{DedicatedResources: &pb.DedicatedResources{MinReplicaCount: 2}}
	})
	if op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	if _, text, err := w.predict(`{"instances": [1, "x"]}`); err != nil || text != `{"predictions": [1, "x"]}` {
		t.Fatalf("got %q, %v", text, err)
	}
	before := programs(t, w)
	if len(before) != 2 {
		t.Fatalf("programs %v", before)
	}
	w.stop()
	w.open() // the programs went on, and are found again
	if _, _, err := w.predict(`{"instances": [1]}`); err != nil {
		t.Fatal(err)
	}
	if after := programs(t, w); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Fatalf("programs %v, before the restart %v", after, before)
	}
	w.undeploy("9")
	if all, err := rt.List(t.Context()); err != nil || len(all) > 0 {
		t.Fatalf("left running: %v, %v", all, err)
	}
}

func TestContainerFails(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3: ", err)
	}
	w := newWorld(t)
	rt := w.withProcesses()
	w.model("fails", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{"-c", "import sys; print('no weights here'); sys.exit(5)"}}})
	op := w.deploy("9", "fails", nil)
	for _, want := range []string{"exit code 5", "no weights here"} {
		if !strings.Contains(op.GetError().GetMessage(), want) {
			t.Errorf("%v does not say %q", op.GetError(), want)
		}
	}
	if left := w.leftovers(); len(left) > 0 || len(w.endpoint().DeployedModels) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// The row goes last, so that the programs are gone when it is.
	if all, err := rt.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left running: %v, %v", all, err)
	}
}

func TestCancelledWhileStarting(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3: ", err)
	}
	w := newWorld(t)
	w.withProcesses()
	w.model("hangs", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{"-c", "import time; time.sleep(1000)"}}})
	key := resource.DeploymentKey(endpoint, "9")
	err := w.store.Update(t.Context(), func(tx store.Tx) error {
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindDeployments, Key: key, Parent: endpoint, State: resource.StateDeploying},
			&pb.DeployModelRequest{Endpoint: endpoint, DeployedModel: &pb.DeployedModel{Id: "9", Model: project + "/models/hangs", ModelVersionId: "1"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	w.undeploy("9") // what cancelling the operation does
	if got := programs(t, w); len(got) > 0 {
		t.Fatalf("left running: %v", got)
	}
}
