package serving

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/replica/http1"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/serving/autoscale"
)

// farm is a runtime whose programs are servers of one kind, and the way to them. It
// lives in a synctest bubble. A server answers workers requests at a time, each after
// work; others wait in it.
type farm struct {
	boot, work time.Duration
	workers    int

	mu      sync.Mutex
	all     map[string]*server
	started int
	most    int // servers at a time
}

type server struct {
	f     *farm
	id    string
	up    time.Time
	slots chan struct{}
	ended chan struct{}
	once  sync.Once
}

func (f *farm) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &server{f: f, id: w.ID, up: time.Now().Add(f.boot), slots: make(chan struct{}, f.workers), ended: make(chan struct{})}
	f.started++
	f.all[w.ID] = s
	f.most = max(f.most, len(f.all))
	return s, nil
}

func (f *farm) Find(_ context.Context, id string) (runtime.Instance, error) {
	return nil, resource.NotFound(id)
}

func (f *farm) List(context.Context) ([]runtime.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []runtime.Instance
	for _, s := range f.all {
		all = append(all, s)
	}
	return all, nil
}

func (f *farm) live() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// Do is the network.
func (f *farm) Do(ctx context.Context, address string, r *http1.Request) (*http1.Response, error) {
	f.mu.Lock()
	s := f.all[address]
	f.mu.Unlock()
	if s == nil || time.Now().Before(s.up) {
		return nil, &http1.Error{Err: io.EOF}
	}
	ok := &http1.Response{Status: http.StatusOK, Header: http.Header{}, Body: http.NoBody}
	if r.Path == "/health" {
		return ok, nil
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t := time.NewTimer(f.work)
	defer t.Stop()
	select {
	case <-t.C:
		return ok, nil
	case <-s.ended:
		return nil, &http1.Error{Sent: true, Err: io.ErrUnexpectedEOF}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *farm) CloseIdle(string) {}

func (s *server) ID() string      { return s.id }
func (s *server) Owner() string   { return "" }
func (s *server) Address() string { return s.id }

// CPUTime says that a server uses a whole core, always.
func (s *server) CPUTime() (time.Duration, bool) { return time.Since(s.up), true }

func (s *server) Status() runtime.Status {
	return runtime.Status{Phase: runtime.Running, GPUs: []runtime.GPU{{ID: s.id}}}
}

// Busy says that the GPU of each server is, always: it is called like its server.
func (f *farm) Busy(_ context.Context, now time.Time) (map[string]float64, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	busy := map[string]float64{}
	for id := range f.all {
		busy[id] = 1
	}
	return busy, now, nil
}

func (s *server) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-s.ended:
		return runtime.Exit{Signal: "SIGTERM", Code: 143}, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (s *server) Stop(context.Context, time.Duration) error {
	s.once.Do(func() { close(s.ended) })
	return nil
}

func (s *server) Log(context.Context, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}

func (s *server) Release(context.Context) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	delete(s.f.all, s.id)
	return nil
}

// serve runs a deployed model on the farm until the test ends.
func serve(t *testing.T, f *farm, declared int, dm *pb.DedicatedResources) *deployment {
	t.Helper()
	f.all = map[string]*server{}
	log := slog.New(slog.DiscardHandler)
	spec := Scaling{}.withDefaults().spec(&pb.DeployedModel{PredictionResources: &pb.DeployedModel_DedicatedResources{DedicatedResources: dm}})
	s := newScaler(spec, declared, spec.Min, 1, log, time.Now)
	s.gpu = f
	s.set = replica.New(replica.Config{
		Name: "m", Title: "the model", Count: spec.Min, Concurrency: s.spec.Concurrency, Runtime: f, Client: f, Health: "/health", Log: log,
		Workload: func(id string) runtime.Workload { return runtime.Workload{ID: id} },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	wg.Go(func() {
		if err := s.set.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return &deployment{set: s.set, scale: s, route: "/p", meters: newMetrics().of("p", "e", "m")}
}

// play sends requests, rate(second) of each second at random moments, and returns
// once all are answered. It gives what was not and the number of servers each second.
func play(t *testing.T, f *farm, d *deployment, seconds int, rate func(second int) float64) (failed int, live []int) {
	t.Helper()
	r := rand.New(rand.NewPCG(11, 12))
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	for second := range seconds {
		var at []time.Duration
		for n := rate(second); n > 0 && r.Float64() < n; n-- {
			at = append(at, time.Duration(r.Int64N(int64(time.Second))))
		}
		slices.Sort(at)
		for _, offset := range at {
			<-time.After(time.Until(begin.Add(time.Duration(second)*time.Second + offset)))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, end, err := d.do(ctx, &replica.Request{Method: http.MethodPost, Path: d.route}, d.predicted)
				if err == nil {
					err = resp.Body.Close()
					end()
				}
				if err != nil {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			})
		}
		<-time.After(time.Until(begin.Add(time.Duration(second+1) * time.Second)))
		live = append(live, f.live())
	}
	wg.Wait()
	return failed, live
}

// TestBurstIsServed: a burst of ten times the load is met, without a failed request,
// and what it needed goes after it.
func TestBurstIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: 2 * time.Second, work: 100 * time.Millisecond, workers: 4}
		d := serve(t, f, 4, &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 10})
		failed, live := play(t, f, d, 400, func(second int) float64 {
			if second >= 60 && second < 120 {
				return 150 // 15 at a time: 6 replicas at 2.8
			}
			return 15
		})
		if failed > 0 || live[59] > 2 || live[75] < 6 || live[119] < 6 || live[399] != 1 {
			t.Errorf("%d failed, live %v", failed, live)
		}
		if f.most > 10 {
			t.Errorf("%d servers at a time", f.most)
		}
	})
}

// TestRampIsFollowed up and down.
func TestRampIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: 2 * time.Second, work: 200 * time.Millisecond, workers: 5}
		d := serve(t, f, 5, &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 8})
		failed, live := play(t, f, d, 600, func(second int) float64 {
			return 2 + 100*(1-max(float64(second)-300, 300-float64(second))/300)
		})
		top := slices.Max(live)
		if failed > 0 || top < 6 || live[330] < 5 || live[599] > 2 {
			t.Errorf("%d failed, at most %d, live %v", failed, top, live)
		}
	})
}

// TestZeroAndBack: nothing runs after the idle time, and a hundred requests at once
// are answered by what one of them started.
func TestZeroAndBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: 3 * time.Second, work: 10 * time.Millisecond, workers: 10}
		d := serve(t, f, 10, &pb.DedicatedResources{MaxReplicaCount: 5, ScaleToZeroSpec: &pb.DedicatedResources_ScaleToZeroSpec{IdleScaledownPeriod: durationpb.New(20 * time.Second)}})
		synctest.Wait()
		if f.live() != 0 {
			t.Fatal("something runs before the first request")
		}
		var wg sync.WaitGroup
		begin := time.Now()
		errs := make(chan error, 100)
		for range 100 {
			wg.Go(func() {
				resp, end, err := d.do(t.Context(), &replica.Request{Method: http.MethodPost, Path: d.route}, d.predicted)
				if err == nil {
					err = resp.Body.Close()
					end()
				}
				errs <- err
			})
		}
		synctest.Wait()
		f.mu.Lock()
		started := f.started
		f.mu.Unlock()
		if started != 1 {
			t.Fatalf("a hundred requests started %d replicas", started)
		}
		wg.Wait()
		for range 100 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("answered after %v", took)
		}
		<-time.After(5 * time.Second)
		if f.started != 1 {
			t.Errorf("%d replicas were started for requests that one has answered", f.started)
		}
		<-time.After(14 * time.Second)
		if f.live() == 0 {
			t.Error("gone too early")
		}
		<-time.After(3 * time.Second)
		if message, ready, _ := d.scale.status(); f.live() != 0 || ready != 0 || !strings.Contains(message, "0 of 0 wanted replicas ready (0 to 5): no request for 20s") {
			t.Errorf("%d run, %q", f.live(), message)
		}
	})
}

// TestBusyNeverGoesToZero: one long request keeps its replica.
func TestBusyNeverGoesToZero(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{work: 10 * time.Minute, workers: 1}
		d := serve(t, f, 1, &pb.DedicatedResources{MaxReplicaCount: 1, ScaleToZeroSpec: &pb.DedicatedResources_ScaleToZeroSpec{IdleScaledownPeriod: durationpb.New(time.Second)}})
		resp, end, err := d.do(t.Context(), &replica.Request{Method: http.MethodPost, Path: d.route}, d.predicted)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Minute) // an answer that is read slowly
		if f.live() != 1 {
			t.Error("the replica of an answer that is being read was stopped")
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		end()
		<-time.After(3 * time.Second)
		if f.live() != 0 {
			t.Error("still there")
		}
	})
}

// TestLimitIsLearned: replicas that work on two requests at a time are not given
// twenty, and there are as many of them as that needs.
func TestLimitIsLearned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: time.Second, work: 100 * time.Millisecond, workers: 2}
		d := serve(t, f, 0, &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 10})
		failed, live := play(t, f, d, 300, func(second int) float64 { return min(60, float64(second)) })
		d.scale.mu.Lock()
		limit := d.scale.spec.Concurrency
		d.scale.mu.Unlock()
		if failed > 0 || limit < 2 || limit > 6 || live[299] < 3 {
			t.Errorf("%d failed, limit %d, live %v", failed, limit, live)
		}
	})
}

// TestOthersTeachNothing: predictions do not look slow for the time that explanations
// and changes of models take.
func TestOthersTeachNothing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for path, limit := range map[string]int{"/why": 8, modelformat.TorchManagement + "/models?url=a": 8, "/predict": 4} {
		s := newScaler(autoscale.Spec{}, 0, 1, 1, slog.New(slog.DiscardHandler), func() time.Time { return now })
		d := &deployment{route: "/predict", explain: "/why", scale: s}
		ask := func(path string, took time.Duration, beside, n int) {
			for range n {
				s.meter.Add(now, 1)
				s.end(d.lesson(&replica.Request{Path: path}, &replica.Response{Status: 200, Took: took, Beside: beside}))
			}
		}
		ask("/predict", time.Millisecond, 1, 20)
		s.learner.Step(now.Add(time.Second), 1)
		ask(path, 100*time.Millisecond, 8, 80)
		s.learner.Step(now.Add(2*time.Second), 1)
		if got := s.learner.Limit(); got != limit {
			t.Errorf("%s: the limit is %d, want %d", path, got, limit)
		}
	}
}

// TestLowerMaximum takes effect without a wait for less load.
func TestLowerMaximum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{work: time.Second, workers: 1}
		d := serve(t, f, 1, &pb.DedicatedResources{MinReplicaCount: 4, MaxReplicaCount: 4})
		if err := d.set.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.scale.configure(autoscale.Spec{Min: 1, Max: 2}.WithDefaults())
		synctest.Wait()
		if f.live() != 2 {
			t.Errorf("%d run", f.live())
		}
	})
}

// TestUtilization: replicas that are busy all the time are too few when CPU or GPUs
// count.
func TestUtilization(t *testing.T) {
	t.Parallel()
	for metric, unit := range map[string]string{MetricCPU: "CPU", MetricGPU: "GPU"} {
		t.Run(unit, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &farm{work: time.Millisecond, workers: 1}
				d := serve(t, f, 10, &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 4, AutoscalingMetricSpecs: []*pb.AutoscalingMetricSpec{{MetricName: metric, Target: 80}}})
				<-time.After(5 * time.Minute)
				if message, _, _ := d.scale.status(); f.live() != 4 || !strings.Contains(message, "replicas' worth of "+unit+" is in use and 80% of each is aimed at; 5 replicas are needed, max_replica_count is 4") {
					t.Errorf("%d run: %s", f.live(), message)
				}
			})
		})
	}
}

// TestRequestsPerMinute: two requests a second are too many for a replica that is to get
// fifty a minute, however fast it answers them.
func TestRequestsPerMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{work: time.Millisecond, workers: 1}
		d := serve(t, f, 10, &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 9, AutoscalingMetricSpecs: []*pb.AutoscalingMetricSpec{{MetricName: MetricRequests, Target: 50}}})
		for range 400 {
			<-time.After(500 * time.Millisecond)
			resp, end, err := d.do(t.Context(), &replica.Request{Method: http.MethodPost, Path: "/p"}, d.predicted)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			end()
		}
		if message, _, _ := d.scale.status(); f.live() != 3 || !strings.Contains(message, "120 requests come in a minute and 50 to each are aimed at") {
			t.Errorf("%d run: %s", f.live(), message)
		}
	})
}

// TestSlowDeployment: a model that took longer to start than it may be idle is there
// for its first request.
func TestSlowDeployment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		s := newScaler(autoscale.Spec{Max: 1, Idle: 5 * time.Minute}.WithDefaults(), 1, 1, 1, log, time.Now)
		s.set = replica.New(replica.Config{Name: "m", Title: "the model", Count: 1, Runtime: &farm{}, Client: &farm{}, Log: log})
		<-time.After(10 * time.Minute) // its operation is not done yet
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { s.Run(ctx) })
		<-time.After(4 * time.Minute)
		if want, _ := s.wanted(); want != 1 {
			t.Error("gone before it was idle")
		}
		<-time.After(2 * time.Minute)
		if want, _ := s.wanted(); want != 0 {
			t.Error("kept though idle")
		}
		cancel()
		wg.Wait()
	})
}

// TestAutomaticResources never go to zero: clients that give no minimum mean one.
func TestAutomaticResources(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ least, most, wantLeast, wantMost int32 }{{0, 0, 1, 1}, {0, 3, 1, 3}, {2, 3, 2, 3}} {
		spec := Scaling{}.withDefaults().spec(&pb.DeployedModel{PredictionResources: &pb.DeployedModel_AutomaticResources{
			AutomaticResources: &pb.AutomaticResources{MinReplicaCount: c.least, MaxReplicaCount: c.most},
		}})
		if spec.Min != int(c.wantLeast) || spec.Max != int(c.wantMost) {
			t.Errorf("%d to %d: %d to %d, want %d to %d", c.least, c.most, spec.Min, spec.Max, c.wantLeast, c.wantMost)
		}
	}
}
