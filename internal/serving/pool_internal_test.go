package serving

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/replica"
	"tategu/internal/runtime"
	"tategu/internal/serving/autoscale"
)

// shared runs models in one pool on a farm until the test ends, each without a replica.
func shared(t *testing.T, f *farm, least, most int32, names ...string) (*pool, map[string]*deployment) {
	t.Helper()
	f.all = map[string]*server{}
	log := slog.New(slog.DiscardHandler)
	p := &pool{name: "x/pool", members: map[*scaler]*place{}}
	p.configure(&pb.DedicatedResources{MinReplicaCount: least, MaxReplicaCount: most})
	all := map[string]*deployment{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, name := range names {
		s := newScaler(autoscale.Spec{Max: int(most), Idle: 5 * time.Minute, DownDelay: 30 * time.Second}.WithDefaults(), 1, 0, 1, log, time.Now)
		s.pool = p
		if err := p.join(s, name, 0, true); err != nil {
			t.Fatal(err)
		}
		p.open(s)
		s.set = replica.New(replica.Config{
			Name: name, Title: name, Concurrency: 1, Runtime: f, Client: f, Health: "/health", Log: log,
			Workload: func(id string) runtime.Workload { return runtime.Workload{ID: id} },
		})
		wg.Go(func() {
			defer p.quit(s)
			s.Run(ctx)
		})
		wg.Go(func() {
			if err := s.set.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		all[name] = &deployment{set: s.set, scale: s, route: "/p", meters: newMetrics().of("p", "e", name)}
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return p, all
}

// ask sends one request and gives how long its answer took.
func ask(t *testing.T, d *deployment) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	resp, end, err := d.do(ctx, &replica.Request{Method: http.MethodPost, Path: d.route}, d.predicted)
	if err != nil {
		t.Errorf("after %v: %v", time.Since(begin), err)
		return 0
	}
	end()
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return time.Since(begin)
}

func (f *farm) names() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, name := range []string{"a", "b", "c", "d"} {
		for id := range f.all {
			if strings.HasPrefix(id, name) {
				all = append(all, name)
			}
		}
	}
	return strings.Join(all, "")
}

func says(t *testing.T, d *deployment, parts ...string) {
	t.Helper()
	message, _, _ := d.scale.status()
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("%q does not say %q", message, part)
		}
	}
}

// TestLeastRecentlyUsedLeaves: when the pool is full, the model that was not asked for
// the longest time makes room, and comes back when it is asked.
func TestLeastRecentlyUsedLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: time.Second, work: 10 * time.Millisecond, workers: 1}
		_, m := shared(t, f, 0, 2, "a", "b", "c")
		for _, step := range []struct{ ask, live string }{{"a", "a"}, {"b", "ab"}, {"a", "ab"}, {"c", "ac"}, {"b", "bc"}, {"b", "bc"}, {"a", "ab"}} {
			if took := ask(t, m[step.ask]); took > 10*time.Second {
				t.Errorf("%s was answered after %v", step.ask, took)
			}
			<-time.After(3 * time.Second)
			if got := f.names(); got != step.live {
				t.Errorf("after a request for %s there are %q, want %q", step.ask, got, step.live)
			}
		}
		says(t, m["c"], "it made room in the pool for a", "Pool pool: 2 of 2 replicas in use (a has 1, b has 1)")
		if f.most > 2 {
			t.Errorf("%d servers at a time in a pool of 2", f.most)
		}
		<-time.After(6 * time.Minute)
		if f.live() != 0 {
			t.Errorf("%s run though idle", f.names())
		}
	})
}

// TestBusyModelsStay: a request waits until one of them is idle, and says for what.
func TestBusyModelsStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: time.Second, work: time.Minute, workers: 1}
		_, m := shared(t, f, 0, 2, "a", "b", "c")
		var wg sync.WaitGroup
		wg.Go(func() { ask(t, m["a"]) })
		<-time.After(20 * time.Second)
		wg.Go(func() { ask(t, m["b"]) })
		<-time.After(5 * time.Second)
		wg.Go(func() {
			if took := ask(t, m["c"]); took < 90*time.Second || took > 110*time.Second { // a is done after 36 s, then a start and a minute
				t.Errorf("c was answered after %v", took)
			}
		})
		<-time.After(5 * time.Second)
		if f.names() != "ab" {
			t.Errorf("%s run", f.names())
		}
		says(t, m["c"], "a request came while there was no replica; it waits for room in the pool, where all are busy: 2 of 2 replicas in use (a has 1, b has 1)")
		wg.Wait()
		if f.most > 2 {
			t.Errorf("%d servers at a time in a pool of 2", f.most)
		}
	})
}

// TestOneWithSeveralGivesOneUp for a model that has none.
func TestOneWithSeveralGivesOneUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: time.Second, work: 100 * time.Millisecond, workers: 1}
		_, m := shared(t, f, 0, 3, "a", "b")
		stop, end := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				for stop.Err() == nil {
					ask(t, m["a"])
				}
			})
		}
		<-time.After(2 * time.Minute)
		if f.names() != "aaa" {
			t.Errorf("%s run", f.names())
		}
		if took := ask(t, m["b"]); took > 10*time.Second {
			t.Errorf("b was answered after %v", took)
		}
		<-time.After(2 * time.Second)
		if f.names() != "aab" {
			t.Errorf("%s run", f.names())
		}
		says(t, m["a"], "the pool has no more room: 3 of 3 replicas in use (a has 2, b has 1)")
		end()
		wg.Wait()
		if f.most > 3 {
			t.Errorf("%d servers at a time in a pool of 3", f.most)
		}
	})
}

// TestPoolLimits: the least number of replicas stays, changed limits count at once, and
// a new model finds room or is refused.
func TestPoolLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{boot: time.Second, work: 10 * time.Millisecond, workers: 1}
		p, m := shared(t, f, 1, 2, "a", "b", "c")
		ask(t, m["a"])
		<-time.After(time.Minute)
		ask(t, m["b"])
		<-time.After(20 * time.Minute)
		if f.live() != 1 {
			t.Errorf("%q run, want one that is kept", f.names())
		}
		p.configure(&pb.DedicatedResources{MaxReplicaCount: 3})
		for _, name := range []string{"a", "b", "c"} {
			ask(t, m[name])
		}
		<-time.After(3 * time.Second)
		if f.names() != "abc" {
			t.Errorf("%q run", f.names())
		}
		p.configure(&pb.DedicatedResources{MaxReplicaCount: 1})
		<-time.After(3 * time.Second)
		if f.live() != 1 {
			t.Errorf("%q run in a pool of 1", f.names())
		}
		late := newScaler(autoscale.Spec{Max: 1}.WithDefaults(), 1, 1, 1, slog.New(slog.DiscardHandler), time.Now)
		if err := p.join(late, "d", 1, false); err != nil {
			t.Errorf("a new model finds an idle one: %v", err)
		}
		<-time.After(3 * time.Second)
		if f.live() != 0 {
			t.Errorf("%q run, and d is to start", f.names())
		}
		if err := p.join(newScaler(autoscale.Spec{Max: 1}.WithDefaults(), 1, 1, 1, nil, time.Now), "e", 1, false); err == nil || !strings.Contains(err.Error(), "full: 1 of 1 replicas in use (d has 1)") {
			t.Errorf("a new model in a full pool: %v", err)
		}
		p.quit(late)
		if took := ask(t, m["b"]); took > 5*time.Second {
			t.Errorf("b was answered after %v", took)
		}
	})
}

// TestManyModelsFewPlaces: whatever the order of requests, all are answered and there
// are never more servers than the pool has places.
func TestManyModelsFewPlaces(t *testing.T) {
	t.Parallel()
	for places := range int32(3) {
		t.Run(strconv.Itoa(int(places)+1), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &farm{boot: 300 * time.Millisecond, work: 50 * time.Millisecond, workers: 1}
				_, m := shared(t, f, 0, places+1, "a", "b", "c", "d")
				var wg sync.WaitGroup
				for i, name := range []string{"a", "b", "c", "d"} {
					wg.Go(func() {
						for n := range 30 {
							ask(t, m[name])
							<-time.After(time.Duration(i*n) * 70 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				if f.most > int(places)+1 {
					t.Errorf("%d servers at a time in %d places", f.most, places+1)
				}
			})
		})
	}
}
