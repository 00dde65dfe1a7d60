package serving_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/serving/rollout"
)

// canaryModel is a model server that is bad in some way, "" = in none.
func canaryModel(t *testing.T, w *world, how string) {
	t.Helper()
	script, err := filepath.Abs("testdata/canary.py")
	if err != nil {
		t.Fatal(err)
	}
	w.model("canary", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "echo", Args: []string{script, how}, HealthRoute: "/health", PredictRoute: "/predict",
	}})
}

// label sets the endpoint's labels.
func (w *world) label(labels map[string]string) {
	w.t.Helper()
	e := w.endpoint()
	e.Labels = labels
	w.put(resource.KindEndpoints, endpoint, e)
}

// rolloutBecomes waits until the row of a rollout is in a state.
func (w *world) rolloutBecomes(id, state string) serving.Rollout {
	w.t.Helper()
	watch := w.store.Watch(resource.KindRollouts)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		var r serving.Rollout
		row, err := w.store.Get(w.t.Context(), resource.KindRollouts, resource.DeploymentKey(endpoint, id))
		if err == nil {
			if err := json.Unmarshal(row.Data, &r); err != nil {
				w.t.Fatal(err)
			}
			if r.State == state {
				return r
			}
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("the rollout is %+v: %v", r, err)
		}
	}
}

// TestBadCanary: at 200 requests a second a canary with a share of 5 % that is bad
// takes its last request within a thousand (five seconds), less than one in a hundred
// of all fails, none of those that may be sent again, and the split, the row and the
// status say so, also after a restart.
func TestBadCanary(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		how, reason string
		raw         bool
	}{
		"fails":           {how: "fails", reason: "requests failed"},
		"fails half, raw": {how: "fails half", reason: "requests failed", raw: true},
		"fails, raw":      {how: "fails", reason: "requests failed", raw: true},
		"refuses":         {how: "refuses", reason: "requests failed"},
		"hangs":           {how: "hangs", reason: "took longer than"},
		"slow":            {how: "slow", reason: "took longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.random = -1
			w.withProcesses()
			echoModel(t, w)
			canaryModel(t, w, tt.how)
			w.label(map[string]string{rollout.Label: rollout.Newest})
			one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
			if op := w.deploy("1", "echo", one); op.GetError() != nil {
				t.Fatal(op.GetError())
			}
			tr := startTraffic(w, 5*time.Millisecond)
			tr.raw.Store(tt.raw)
			tr.until(t, 100)
			if op := w.deploy("2", "canary", func(r *pb.DeployModelRequest) {
				one(r)
				r.TrafficSplit = map[string]int32{"1": 95, "2": 5}
			}); op.GetError() != nil {
				t.Fatal(op.GetError())
			}
			_, begun := tr.count("")
			r := w.rolloutBecomes("2", serving.RolloutBack)
			_, over := tr.count("")
			tr.until(t, 1400)
			tr.end()
			if over-begun > 1000 {
				t.Errorf("taken back after %d requests", over-begun)
			}
			if most := tr.total / 100; len(tr.failed) > most || !tt.raw && len(tr.failed) > 0 {
				t.Errorf("%d of %d requests failed, such as %s", len(tr.failed), tr.total, tr.failed[0])
			}
			if !strings.Contains(r.Reason, tt.reason) || r.Share != 5 {
				t.Errorf("rollout %+v", r)
			}
			if s := w.endpoint().GetTrafficSplit(); len(s) != 1 || s["1"] != 100 {
				t.Errorf("split %v", s)
			}
			t.Log(r)
			if tt.raw {
				return
			}
			w.stop()
			w.open()
			w.says("2", "Rolled back at ", tt.reason)
			w.undeploy("2")
			if _, err := w.store.Get(t.Context(), resource.KindRollouts, resource.DeploymentKey(endpoint, "2")); !resource.IsNotFound(err) {
				t.Errorf("the rollout of a model that is gone: %v", err)
			}
		})
	}
}

// says waits until the status of a deployed model has all the words: it follows the row.
func (w *world) says(id string, words ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st := w.engine.Replicas(resource.DeploymentKey(endpoint, id))
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(st.GetMessage(), word) }) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Errorf("status %v; want %q", st, words)
			return
		}
	}
}

// TestGoodCanary: a canary that is as good as the others goes through its steps, over a
// restart of the server, and nothing fails.
func TestGoodCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = -1
	w.withProcesses()
	echoModel(t, w)
	canaryModel(t, w, "")
	w.label(map[string]string{rollout.Label: "2", rollout.LabelSteps: "10-50-100", rollout.LabelInterval: "1s", rollout.LabelMinRequests: "3", rollout.LabelMaxP99: "10s"})
	one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
	w.deploy("1", "echo", one)
	if op := w.deploy("2", "canary", func(r *pb.DeployModelRequest) {
		one(r)
		r.TrafficSplit = map[string]int32{"1": 95, "2": 5}
	}); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	tr := startTraffic(w, 5*time.Millisecond)
	w.rolloutBecomes("2", serving.RolloutTrial)
	tr.end()
	w.stop()
	w.open()
	if err := w.engine.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	later := startTraffic(w, 5*time.Millisecond)
	r := w.rolloutBecomes("2", serving.RolloutDone)
	later.end()
	if failed := slices.Concat(tr.failed, later.failed); len(failed) > 0 {
		t.Errorf("%d failed, such as %s", len(failed), failed[0])
	}
	if s := w.endpoint().GetTrafficSplit(); len(s) != 1 || s["2"] != 100 || r.Share != 100 {
		t.Errorf("split %v, %+v", s, r)
	}
	w.says("2", "Promoted at ")
}

// TestCanaryOfBadInput: requests that the baseline refuses too say nothing about the
// canary.
func TestCanaryOfBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = 0 // the first by its id: the canary
	w.withProcesses()
	echoModel(t, w)
	w.label(map[string]string{rollout.Label: "1"})
	one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
	w.deploy("2", "echo", one)
	w.deploy("1", "echo", func(r *pb.DeployModelRequest) {
		one(r)
		r.TrafficSplit = map[string]int32{"1": 50, "2": 50}
	})
	for range 100 {
		resp, err := w.engine.Predict(t.Context(), endpoint, serving.Request{Body: []byte(`{}`), Again: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.Status != 400 {
			t.Fatal(resp.Status, err)
		}
	}
	w.rolloutBecomes("1", serving.RolloutTrial)
	if s := w.endpoint().GetTrafficSplit(); s["1"] != 50 {
		t.Errorf("split %v", s)
	}
	w.says("1", "Canary with 50% of the traffic", "100 requests, 0 failed")
}

// TestExplanationsOfCanary: how long an explanation takes takes no canary back.
func TestExplanationsOfCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = 0 // the first by its id: the canary
	w.withProcesses()
	echoModel(t, w)
	script, err := filepath.Abs("testdata/canary.py")
	if err != nil {
		t.Fatal(err)
	}
	w.model("explains", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "echo", Args: []string{script, "slow"}, HealthRoute: "/health", PredictRoute: "/predict", Env: []*pb.EnvVar{{Name: modelformat.ExplainVariable, Value: "/why"}},
	}})
	w.label(map[string]string{rollout.Label: "1", rollout.LabelMinRequests: "3", rollout.LabelMaxP99: "100ms"})
	one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
	w.deploy("2", "echo", one)
	if op := w.deploy("1", "explains", func(r *pb.DeployModelRequest) {
		one(r)
		r.TrafficSplit = map[string]int32{"1": 50, "2": 50}
	}); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	for range 3 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				resp, err := w.engine.Predict(t.Context(), endpoint, serving.Request{Body: []byte(`{"instances":[1]}`), Again: true, Explain: true})
				if err != nil {
					t.Error(err)
					return
				}
				if err := resp.Body.Close(); err != nil || resp.Status != 200 || resp.DeployedModel != "1" {
					t.Errorf("%d of %s, %v", resp.Status, resp.DeployedModel, err)
				}
			})
		}
		wg.Wait()
	}
}

// TestCanaryIsChangedByHand: what somebody does to the endpoint meanwhile counts.
func TestCanaryIsChangedByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = 0
	w.withProcesses()
	echoModel(t, w)
	canaryModel(t, w, "fails")
	one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
	w.deploy("2", "echo", one)
	w.deploy("1", "canary", func(r *pb.DeployModelRequest) {
		one(r)
		r.TrafficSplit = map[string]int32{"1": 50, "2": 50}
	})
	failing := func(n int) (failed int) {
		for range n {
			resp, _, err := w.predict(`{"instances": [1]}`)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Status == 500 {
				failed++
			}
		}
		return failed
	}
	if n := failing(20); n != 20 {
		t.Fatalf("without a rule %d of 20 fail", n)
	}
	w.label(map[string]string{rollout.Label: "1", rollout.LabelMinRequests: "5"})
	if n := failing(60); n > 30 {
		t.Errorf("%d of 60 fail", n)
	}
	w.rolloutBecomes("1", serving.RolloutBack)
	w.change(map[string]int32{"1": 20, "2": 80}, "")
	for failing(1) == 0 { // until the engine has seen the change
	}
	w.rolloutBecomes("1", serving.RolloutTrial) // given a share again, it is tried again
	if n := failing(60); n > 30 {
		t.Errorf("%d of 60 fail", n)
	}
	w.rolloutBecomes("1", serving.RolloutBack)
	w.label(nil)
	w.change(map[string]int32{"1": 20, "2": 80}, "")
	if n := failing(60); n < 50 {
		t.Errorf("%d of 60 fail without a rule", n)
	}
}
