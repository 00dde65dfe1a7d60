package serving_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"
)

// echoModel is the echo server of examples, with its other routes open.
func echoModel(t *testing.T, w *world, env ...*pb.EnvVar) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3: ", err)
	}
	echo, err := filepath.Abs("../../examples/echo/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "echo", Args: []string{echo}, HealthRoute: "/health", PredictRoute: "/predict", InvokeRoutePrefix: "/*", Env: env,
	}})
}

func dedicated(d *pb.DedicatedResources) func(*pb.DeployModelRequest) {
	return func(r *pb.DeployModelRequest) {
		r.DeployedModel.PredictionResources = &pb.DeployedModel_DedicatedResources{DedicatedResources: d}
	}
}

// programsBecome waits until exactly so many programs are there.
func programsBecome(t *testing.T, w *world, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ids := programs(t, w)
		if len(ids) == n {
			return ids
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v run, want %d", ids, n)
		case <-tick.C:
		}
	}
}

// TestScaleToZero: a real program goes when it is idle, comes back once for a
// hundred requests at once, and a restart of the server in between changes nothing.
func TestScaleToZero(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	op := w.deploy("9", "echo", dedicated(&pb.DedicatedResources{
		MaxReplicaCount: 3, ScaleToZeroSpec: &pb.DedicatedResources_ScaleToZeroSpec{IdleScaledownPeriod: durationpb.New(time.Second)},
	}))
	if op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	if ids := programsBecome(t, w, 0); len(ids) != 0 {
		t.Fatal(ids)
	}
	key := resource.DeploymentKey(endpoint, "9")
	if st := w.engine.Replicas(key); st.GetAvailableReplicaCount() != 0 || !strings.Contains(st.GetMessage(), "no request came within 1s") {
		t.Errorf("status %v", st)
	}
	if !w.warm.keeps(key) {
		t.Error("what its next replica starts from is not kept while there is none")
	}
	w.stop()
	w.open()
	if ids := programs(t, w); len(ids) > 0 {
		t.Fatalf("the new server has started %v", ids)
	}
	const n = 100
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, text, err := w.predict(fmt.Sprintf(`{"instances": [%d]}`, i))
			if err == nil && text != fmt.Sprintf(`{"predictions": [%d]}`, i) {
				err = fmt.Errorf("got %s", text)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if ids := programs(t, w); len(ids) != 1 || !strings.HasPrefix(ids[0], "replica-9-0-") {
		t.Errorf("for a hundred requests there were started %v", ids)
	}
	programsBecome(t, w, 0)
	if !w.warm.keeps(key) {
		t.Error("the new server does not keep it")
	}
	w.undeploy("9")
	if w.warm.keeps(key) {
		t.Error("it is kept for a model that is not deployed any more")
	}
}

// TestInvokeAndLimits: routes of the server's own, a model named by its id, a time
// limit of the endpoint.
func TestInvokeAndLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w, &pb.EnvVar{Name: "TATEGU_CONCURRENCY", Value: "3"})
	w.deploy("9", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	w.deploy("8", "native", nil) // without traffic
	ask := func(r serving.Request) (string, error) {
		resp, err := w.engine.Predict(t.Context(), endpoint, r)
		if err != nil {
			return "", err
		}
		text, err := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return fmt.Sprint(resp.DeployedModel, " ", resp.Status, " ", string(text)), err
	}
	body := []byte(`{"instances": [1]}`)
	for name, tc := range map[string]struct {
		r    serving.Request
		want string
		code codes.Code
	}{
		"a route":             {serving.Request{Route: "/any/where?a=b", Body: body}, `9 200 {"predictions": [1]}`, codes.OK},
		"another method":      {serving.Request{Route: "/health", Method: http.MethodGet}, `9 200 {}`, codes.OK},
		"by id":               {serving.Request{DeployedModel: "8", Body: []byte(row)}, `8 200 {"predictions":[`, codes.OK},
		"a route in process":  {serving.Request{DeployedModel: "8", Route: "/x"}, "", codes.FailedPrecondition},
		"an id nobody has":    {serving.Request{DeployedModel: "7", Body: body}, "", codes.NotFound},
		"what no path can be": {serving.Request{Route: "/a b", Body: body}, "", codes.InvalidArgument},
	} {
		got, err := ask(tc.r)
		if resource.CodeOf(err) != tc.code || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if st := w.engine.Replicas(resource.DeploymentKey(endpoint, "9")); !strings.Contains(st.GetMessage(), "1 of 1 wanted replicas ready (1 to 1)") || !strings.Contains(st.GetMessage(), "given 3 requests at a time, as declared") {
		t.Errorf("status %v", st)
	}
	e := w.endpoint()
	e.ClientConnectionConfig = &pb.ClientConnectionConfig{InferenceTimeout: durationpb.New(time.Nanosecond)}
	watch := w.store.Watch(resource.KindEndpoints)
	defer watch.Close()
	w.put(resource.KindEndpoints, endpoint, e)
	for { // until the engine has seen it
		_, err := ask(serving.Request{Body: body, DeployedModel: "9"})
		if resource.CodeOf(err) == codes.Unavailable && strings.Contains(err.Error(), "in time") {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestMutateScales: changed limits reach what runs.
func TestMutateScales(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	w.deploy("9", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	for _, n := range []int32{3, 1} {
		err := w.store.Update(t.Context(), func(tx store.Tx) error {
			req := &pb.DeployModelRequest{}
			at, err := store.GetMessage(t.Context(), tx, resource.KindDeployments, resource.DeploymentKey(endpoint, "9"), req)
			if err != nil {
				return err
			}
			dedicated(&pb.DedicatedResources{MinReplicaCount: n, MaxReplicaCount: n})(req)
			return store.PutMessage(t.Context(), tx, at, req)
		})
		if err != nil {
			t.Fatal(err)
		}
		programsBecome(t, w, int(n))
	}
}
