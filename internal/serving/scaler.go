package serving

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/replica"
	"tategu/internal/serving/autoscale"
)

// Scaling is what holds for all deployed models.
type Scaling struct {
	// Idle is the time without a request after which a deployed model with
	// min_replica_count 0 and no scale_to_zero_spec has no replica; 0 = 5 minutes.
	Idle time.Duration
	// DownDelay is how long fewer replicas must have been enough; 0 = 30 s.
	DownDelay time.Duration
	// Drain is how long requests of a replica that goes may take; 0 = 30 s.
	Drain time.Duration
	// Concurrency is how many requests a replica is given at a time, where its model
	// does not say; 0 = that is learned.
	Concurrency int
	Queue       int   // requests of a deployed model that wait at most; 0 = 10,000
	QueueBytes  int64 // their bytes; 0 = 64 MiB
}

func (s Scaling) withDefaults() Scaling {
	if s.Idle == 0 {
		s.Idle = 5 * time.Minute
	}
	if s.DownDelay == 0 {
		s.DownDelay = 30 * time.Second
	}
	if s.Drain == 0 {
		s.Drain = 30 * time.Second
	}
	return s
}

// spec reads what a deployed model asks for.
func (s Scaling) spec(dm *pb.DeployedModel) autoscale.Spec {
	spec := autoscale.Spec{Min: 1, Max: 1, Idle: s.Idle, DownDelay: s.DownDelay, Concurrency: s.Concurrency}
	switch r := dm.GetPredictionResources().(type) {
	case *pb.DeployedModel_DedicatedResources:
		d := r.DedicatedResources
		spec.Min, spec.Max, spec.Initial = int(d.GetMinReplicaCount()), int(d.GetMaxReplicaCount()), int(d.GetInitialReplicaCount())
		if p := d.GetScaleToZeroSpec().GetIdleScaledownPeriod(); p != nil {
			spec.Idle = p.AsDuration()
		}
		if p := d.GetScaleToZeroSpec().GetMinScaleupPeriod(); p != nil {
			spec.MinUp = p.AsDuration()
		}
		for _, m := range d.GetAutoscalingMetricSpecs() { // the API has refused all others
			switch m.GetMetricName() {
			case MetricCPU:
				spec.CPU = float64(cmp.Or(m.GetTarget(), defaultUtilization)) / 100
			case MetricRequests:
				spec.PerMinute = float64(m.GetTarget())
			case MetricGPU:
				spec.GPU = float64(cmp.Or(m.GetTarget(), defaultUtilization)) / 100
			}
		}
	case *pb.DeployedModel_AutomaticResources:
		// Zero is of dedicated_resources; here a client that says nothing means one.
		spec.Min, spec.Max = max(1, int(r.AutomaticResources.GetMinReplicaCount())), int(r.AutomaticResources.GetMaxReplicaCount())
	}
	return spec.WithDefaults()
}

// The metrics of autoscaling_metric_specs that replicas are scaled by, besides requests
// at a time. The target of the last is how many come to a replica in a minute, of the
// others a percentage.
const (
	MetricCPU      = "aiplatform.googleapis.com/prediction/online/cpu/utilization"
	MetricGPU      = "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle"
	MetricRequests = "aiplatform.googleapis.com/prediction/online/request_count"
)

// defaultUtilization is the cloud's target for a metric without one, in percent.
const defaultUtilization = 60

// scaleTick is how often the number of replicas is looked at.
const scaleTick = time.Second

// scaler gives one deployed model the replicas that it needs: once a second, and
// when a request finds none.
type scaler struct {
	set   *replica.Set
	log   *slog.Logger
	now   func() time.Time
	pool  *pool         // nil: its replicas are its own
	poked chan struct{} // the pool wants it to look at once
	gpu   GPUReader     // nil = nobody knows how busy GPUs are

	mu      sync.Mutex
	spec    autoscale.Spec
	meter   *autoscale.Meter
	learner *autoscale.Learner // nil: the limit is declared
	cpu     autoscale.Utilization
	duty    autoscale.Duty
	blind   bool // it was told that GPUs cannot be read
	state   autoscale.State
	want    int
	up      time.Time // when there were replicas again after none
	ready   time.Time // since when one has been ready; zero = none is
	reason  string
	since   time.Time // of want
}

// newScaler begins with want replicas of so many cores. A limit that is not declared
// is learned.
func newScaler(spec autoscale.Spec, declared, want int, cores float64, log *slog.Logger, now func() time.Time) *scaler {
	at := now()
	s := &scaler{
		log: log, now: now, want: want, poked: make(chan struct{}, 1), up: at, since: at, meter: autoscale.NewMeter(at, time.Minute),
		reason: "replicas to begin with", cpu: autoscale.Utilization{Cores: cores, Window: int(time.Minute / scaleTick)},
		duty: autoscale.Duty{Window: time.Minute},
	}
	if declared == 0 {
		s.learner = autoscale.NewLearner(at)
		declared = s.learner.Limit()
	}
	s.spec = spec
	s.spec.Concurrency = declared
	return s
}

// configure takes changed limits over.
func (s *scaler) configure(spec autoscale.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spec.Concurrency = s.spec.Concurrency
	s.spec = spec
	s.decide()
}

// Run looks at the load until ctx ends. Idle time begins here: before, nobody could ask.
func (s *scaler) Run(ctx context.Context) {
	s.mu.Lock()
	s.up = s.now()
	s.mu.Unlock()
	tick := time.NewTicker(scaleTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.look(ctx)
		case <-s.poked:
			s.look(ctx)
		}
	}
}

func (s *scaler) look(ctx context.Context) {
	used := s.used()
	if s.pool != nil {
		s.pool.ended(s, len(s.set.Status()))
	}
	s.sampleGPUs(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spec.CPU > 0 {
		s.cpu.Sample(s.now(), used)
	}
	if s.learner != nil && s.learner.Step(s.now(), s.set.Ready()) {
		s.spec.Concurrency = s.learner.Limit()
		s.set.Limit(s.spec.Concurrency)
	}
	s.decide()
}

// sampleGPUs notes how busy those of the replicas are, where that counts. Where it cannot
// be read, the other metrics say how many replicas there are.
func (s *scaler) sampleGPUs(ctx context.Context) {
	s.mu.Lock()
	counts := s.spec.GPU > 0
	s.mu.Unlock()
	if !counts || s.gpu == nil {
		return
	}
	replicas := s.set.GPUs()
	busy, read, err := s.gpu.Busy(ctx, s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		busy = nil
	}
	s.duty.Sample(read, replicas, busy)
	if blind := err != nil; blind != s.blind {
		s.blind = blind
		if blind && ctx.Err() == nil {
			s.log.WarnContext(ctx, "replicas do not follow the duty cycle of GPUs: it cannot be read", slog.Any("error", err))
		}
	}
}

// used asks for CPU times where they count: it takes a while.
func (s *scaler) used() map[string]time.Duration {
	s.mu.Lock()
	counts := s.spec.CPU > 0
	s.mu.Unlock()
	if !counts {
		return nil
	}
	return s.set.Used()
}

// decide acts on what was seen. The caller holds the lock: a request either is
// counted before, or finds no replica and asks for some.
func (s *scaler) decide() {
	now, ready := s.now(), s.set.Ready()
	if s.pool != nil {
		s.spec.Max, _ = s.pool.resources()
	}
	switch {
	case ready == 0:
		s.ready = time.Time{}
	case s.ready.IsZero():
		s.ready = now
	}
	d := autoscale.Decide(s.spec, autoscale.History{
		Now: now, Load: s.meter.Load(s.ready, now), Active: s.meter.Active(), Last: s.meter.Last(), Up: s.up,
		Want: s.want, Ready: ready, CPU: s.cpu.Mean(), GPU: s.duty.Mean(), PerMinute: s.meter.PerMinute(s.ready, now), State: s.state,
	})
	if s.pool != nil {
		var why string
		d.Want, why = s.pool.settle(s, d.Want, s.meter.Active() > 0, s.meter.Last())
		d.Reason += why
	}
	s.state, s.reason = d.State, d.Reason
	if d.Want == s.want {
		return
	}
	if s.want == 0 {
		s.up = now
	}
	s.log.Info("replicas of a deployed model", slog.Int("from", s.want), slog.Int("to", d.Want), slog.String("reason", d.Reason))
	s.want, s.since = d.Want, now
	s.set.Resize(d.Want)
}

// begin counts a request, and has replicas started when there are none.
func (s *scaler) begin() (cold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.Add(s.now(), 1)
	if s.want > 0 {
		return false
	}
	s.decide()
	return true
}

// end is the end of a request; resp is its answer, nil without one.
func (s *scaler) end(resp *replica.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.Add(s.now(), -1)
	if s.learner != nil && resp != nil && resp.Status < 300 {
		s.learner.Observe(resp.Took, resp.Beside)
	}
}

// wanted is how many replicas there should be, and what each is given at a time.
func (s *scaler) wanted() (replicas, concurrency int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want, s.spec.Concurrency
}

// status says how many replicas there are, why, and since when so many are wanted.
func (s *scaler) status() (message string, ready int, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	ready = s.set.Ready()
	fmt.Fprintf(&b, "%d of %d wanted replicas ready (%d to %d): %s", ready, s.want, s.spec.Min, s.spec.Max, s.reason)
	how := "as declared"
	if s.learner != nil {
		how = "as learned from its answers"
	}
	fmt.Fprintf(&b, ". A replica is given %d requests at a time, %s.", s.spec.Concurrency, how)
	if s.spec.CPU > 0 && ready > 0 && s.cpu.Mean() < 0 {
		b.WriteString(" How busy their CPUs are is not known (yet).")
	}
	if s.pool != nil {
		b.WriteString(s.pool.status())
	}
	for _, st := range s.set.Status() {
		if st.State != replica.Ready && st.Message != "" {
			first, _, _ := strings.Cut(st.Message, "\n")
			fmt.Fprintf(&b, " Replica %d is %s: %s.", st.Index, st.State, first)
		}
	}
	return b.String(), ready, s.since
}
