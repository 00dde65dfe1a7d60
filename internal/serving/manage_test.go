package serving_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// withTorch gives the world a program in the place of TorchServe.
func (w *world) withTorch() {
	w.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		w.t.Skip("python3, which is TorchServe here, is not on the PATH")
	}
	path, err := filepath.Abs("testdata/managed.py")
	if err != nil {
		w.t.Fatal(err)
	}
	w.torch = modelformat.Torch{Program: func() ([]string, error) { return []string{"python3", path}, nil }}
	w.objects["gs://b/torch/model.mar"] = "an archive"
	w.withProcesses()
	w.model("torch", &pb.Model{ArtifactUri: "gs://b/torch", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "tategu/torchserve"}})
}

// models are what each replica has, by process.
func (w *world) models(tb testing.TB) map[int][]string {
	tb.Helper()
	all := map[int][]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			resp, err := w.engine.Predict(w.t.Context(), endpoint, serving.Request{Body: []byte(`{"instances":[1]}`), Again: true, DeployedModel: "5"})
			if err != nil {
				tb.Error(err)
				return
			}
			data, err := io.ReadAll(resp.Body)
			if err := resp.Body.Close(); err != nil {
				tb.Error(err)
			}
			var said struct {
				Predictions []struct {
					Models []string
					PID    int
				}
			}
			if err != nil || json.Unmarshal(data, &said) != nil || len(said.Predictions) != 1 {
				tb.Errorf("%s, %v", data, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[said.Predictions[0].PID] = said.Predictions[0].Models
		})
	}
	wg.Wait()
	return all
}

// everywhere waits until two replicas have some models, and none has others.
func (w *world) everywhere(t *testing.T, want ...string) []int {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		all, pids := w.models(t), []int{}
		for pid, models := range all {
			if slices.Equal(models, want) {
				pids = append(pids, pid)
			}
		}
		if len(all) == 2 && len(pids) == 2 {
			slices.Sort(pids)
			return pids
		}
		if time.Now().After(end) {
			t.Fatalf("replicas have %v, want %v", all, want)
		}
	}
}

func (w *world) post(url string) (*modelformat.TorchAnswer, error) {
	return w.engine.Manage(w.t.Context(), endpoint, serving.Request{Method: http.MethodPost, Route: "/models?url=" + url, DeployedModel: "5"})
}

// TestManage: what is registered is in both replicas, in those that start later, and
// there after the server was another one.
func TestManage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withTorch()
	op := w.deploy("5", "torch", func(r *pb.DeployModelRequest) {
		r.DeployedModel.PredictionResources = &pb.DeployedModel_DedicatedResources{DedicatedResources: &pb.DedicatedResources{MinReplicaCount: 2, MaxReplicaCount: 2}}
	})
	if op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	w.everywhere(t, "base")
	if a, err := w.post("a"); err != nil || a.Status != http.StatusOK || !strings.Contains(string(a.Body), `"/models?url=a"`) {
		t.Fatalf("%+v, %v", a, err)
	}
	w.everywhere(t, "base", "a")
	if a, err := w.post("bad"); err != nil || a.Status != http.StatusBadRequest {
		t.Errorf("%+v, %v", a, err)
	}
	w.everywhere(t, "base", "a")
	if _, err := w.post("refused-once"); resource.CodeOf(err) != codes.Aborted || !strings.Contains(err.Error(), "not now") {
		t.Errorf("a replica that does not follow: %v", err)
	}
	pids := w.everywhere(t, "base", "a", "refused-once")
	w.stop()
	w.open()
	if again := w.everywhere(t, "base", "a", "refused-once"); !slices.Equal(pids, again) {
		t.Errorf("replicas are %v, were %v", again, pids)
	}
	a, err := w.engine.Manage(t.Context(), endpoint, serving.Request{Method: http.MethodGet, Route: "/models", DeployedModel: "5"})
	if err != nil || !strings.Contains(string(a.Body), `"refused-once"`) {
		t.Errorf("a read: %+v, %v", a, err)
	}
	a, err = w.engine.Manage(t.Context(), endpoint, serving.Request{Method: http.MethodGet, Route: "/metrics?name[]=Seen", DeployedModel: "5"})
	if want := "# HELP Seen Things seen.\n# TYPE Seen gauge\nSeen{tategu_replica=\"0\",Level=\"Host\",} 3.0\nSeen{tategu_replica=\"1\",Level=\"Host\",} 3.0\n"; err != nil || string(a.Body) != want {
		t.Errorf("metrics: %s, %v; want %s", a.Body, err, want)
	}
	w.undeploy("5")
	if _, err := w.store.Get(t.Context(), resource.KindTorchModels, resource.DeploymentKey(endpoint, "5")); !resource.IsNotFound(err) {
		t.Errorf("what was registered is left: %v", err)
	}
}

func TestManageRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if op := w.deploy("1", "native", nil); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	_, err := w.engine.Manage(t.Context(), endpoint, serving.Request{Method: http.MethodGet, Route: "/models", DeployedModel: "1"})
	if resource.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no archive of TorchServe's") {
		t.Error(err)
	}
}
