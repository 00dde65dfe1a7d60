package serving_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"
)

// traffic sends predictions at a steady rate and counts who answers.
type traffic struct {
	mu     sync.Mutex
	failed []string
	by     map[string]int
	total  int
	wg     sync.WaitGroup
	stop   chan struct{}
	raw    atomic.Bool // not to be sent again
}

func startTraffic(w *world, each time.Duration) *traffic {
	tr := &traffic{by: map[string]int{}, stop: make(chan struct{})}
	tr.wg.Go(func() {
		tick := time.NewTicker(each)
		defer tick.Stop()
		for {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
				tr.wg.Go(func() { tr.one(w) })
			}
		}
	})
	return tr
}

func (tr *traffic) one(w *world) {
	resp, err := w.engine.Predict(w.t.Context(), endpoint, serving.Request{Body: []byte(`{"instances": [1]}`), Again: !tr.raw.Load()})
	text := ""
	if err == nil {
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		text = b.String()
		_ = resp.Body.Close()
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.total++
	if err != nil || resp.Status != 200 || text != `{"predictions": [1]}` {
		tr.failed = append(tr.failed, fmt.Sprint(text, err))
		return
	}
	tr.by[resp.DeployedModel]++
}

func (tr *traffic) end() {
	close(tr.stop)
	tr.wg.Wait()
}

func (tr *traffic) count(id string) (of, total int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.by[id], tr.total
}

// until waits for so many more answers.
func (tr *traffic) until(t *testing.T, more int) {
	t.Helper()
	_, begin := tr.count("")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, n := tr.count(""); n >= begin+more {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the test is over")
		case <-tick.C:
		}
	}
}

// change does to the endpoint and a deployment's row what the API does at once.
func (w *world) change(split map[string]int32, gone string) {
	w.t.Helper()
	ctx := w.t.Context()
	err := w.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.Endpoint{}
		row, err := store.GetMessage(ctx, tx, resource.KindEndpoints, endpoint, e)
		if err != nil {
			return err
		}
		e.TrafficSplit = split
		e.DeployedModels = slices.DeleteFunc(e.DeployedModels, func(d *pb.DeployedModel) bool { return d.GetId() == gone })
		if err := store.PutMessage(ctx, tx, row, e); err != nil || gone == "" {
			return err
		}
		d, err := tx.Get(ctx, resource.KindDeployments, resource.DeploymentKey(endpoint, gone))
		if err != nil {
			return err
		}
		d.State = resource.StateUndeploying
		return tx.Put(ctx, d)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestRolloutsUnderLoad: ten updates, each a new deployment that takes the traffic
// over from the one before, and twenty splits, at 200 requests a second: none fails,
// and the shares are right.
func TestRolloutsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = -1
	w.withProcesses()
	echoModel(t, w)
	one := dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})
	if op := w.deploy("1", "echo", one); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	tr := startTraffic(w, 5*time.Millisecond)
	defer func() {
		tr.end()
		if len(tr.failed) > 0 {
			t.Errorf("%d of %d requests failed, such as %v", len(tr.failed), tr.total, tr.failed[0])
		}
	}()
	for i := 2; i <= 11; i++ {
		id := strconv.Itoa(i)
		if op := w.deploy(id, "echo", func(r *pb.DeployModelRequest) {
			one(r)
			r.TrafficSplit = map[string]int32{id: 100}
		}); op.GetError() != nil {
			t.Fatal(op.GetError())
		}
		w.change(map[string]int32{id: 100}, strconv.Itoa(i-1))
		tr.until(t, 20)
	}
	if op := w.deploy("20", "echo", one); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	expected, variance := 0.0, 0.0
	first, _ := tr.count("20")
	for i := range 20 {
		share := int32(i*5 + 2)
		w.change(map[string]int32{"11": 100 - share, "20": share}, "")
		_, before := tr.count("")
		tr.until(t, 60)
		_, after := tr.count("")
		p, n := float64(share)/100, float64(after-before)
		expected, variance = expected+p*n, variance+p*(1-p)*n
	}
	last, _ := tr.count("20")
	// Requests in flight at a change count for the share before it.
	if got := float64(last - first); math.Abs(got-expected) > 5*math.Sqrt(variance)+20 {
		t.Errorf("the second model answered %.0f requests, its shares make %.0f", got, expected)
	}
}

// TestMetrics: what is counted of a deployed model goes with it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	w.deploy("9", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	registry := prometheus.NewPedanticRegistry()
	for _, c := range w.engine.Metrics() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, _, err := w.predict(`{"instances": [1]}`); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.predict(`{}`); err != nil { // a 400 of the server's own
		t.Fatal(err)
	}
	text := exposition(t, registry)
	const labels = `deployed_model:9 endpoint:7 project:p `
	for _, want := range []string{
		"tategu_predictions_total " + labels + "status:200 = 3", "tategu_predictions_total " + labels + "status:400 = 1",
		"tategu_prediction_duration_seconds " + labels + "= 4", "tategu_prediction_wait_seconds " + labels + "= 4",
		"tategu_replicas " + labels + "state:READY = 1", "tategu_replicas " + labels + "state:wanted = 1", "tategu_replica_concurrency " + labels + "= 8",
		"tategu_predictions_in_flight " + labels + "= 0", "tategu_predictions_waiting " + labels + "= 0",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	w.undeploy("9")
	if text := exposition(t, registry); text != "" {
		t.Errorf("after undeploy there is\n%s", text)
	}
}

// exposition gives what a registry knows, a line each: counts and values.
func exposition(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			b.WriteString(f.GetName() + " ")
			for _, l := range m.GetLabel() {
				b.WriteString(l.GetName() + ":" + l.GetValue() + " ")
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			fmt.Fprintf(&b, "= %v\n", v)
		}
	}
	return b.String()
}
