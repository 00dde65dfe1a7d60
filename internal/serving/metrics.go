package serving

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/code"

	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/serving/follow"
)

// metrics of the data plane, by deployed model. What a model had goes when it is
// undeployed.
type metrics struct {
	requests *prometheus.CounterVec
	explains *prometheus.CounterVec
	managed  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	explain  *prometheus.HistogramVec
	waited   *prometheus.HistogramVec
	failures *prometheus.CounterVec
	cold     *prometheus.HistogramVec
	rollouts *prometheus.CounterVec
	follows  *prometheus.CounterVec
	behind   *prometheus.GaugeVec
	lost     *prometheus.CounterVec
}

// labelNames of everything that is told of a deployed model.
func labelNames(more ...string) []string {
	return append([]string{"project", "endpoint", "deployed_model"}, more...)
}

func newMetrics() *metrics {
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_predictions_total", Help: "Predictions answered, by the status of the replica's answer, or the code of our error.",
		}, labelNames("status")),
		explains: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_explanations_total", Help: "Requests for explanations, by the status of the replica's answer, or the code of our error.",
		}, labelNames("status")),
		managed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_torchserve_management_total", Help: "Requests to TorchServe's management API, by the status of its answer, or the code of our error.",
		}, labelNames("status")),
		explain: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_explanation_duration_seconds", Help: "Time from a request for explanations to the end of its answer, that of the predictions included.", Buckets: buckets,
		}, labelNames()),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_prediction_duration_seconds", Help: "Time from a request to the end of its answer, the wait for a replica included.", Buckets: buckets,
		}, labelNames()),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_prediction_wait_seconds", Help: "Time that a request waited for a replica.", Buckets: buckets,
		}, labelNames()),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_prediction_failures_total", Help: "Predictions that failed, by cause: input, user code, model, resource, dependency, platform, or caller.",
		}, labelNames("cause")),
		cold: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_cold_start_seconds", Help: "Time that the first request waited while there was no replica.", Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900},
		}, labelNames()),
		rollouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_rollouts_total", Help: "Canaries whose trial ended, by outcome: promoted or rolled_back.",
		}, labelNames("outcome")),
		follows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_follow_rollovers_total", Help: "Roll-overs to the version of an alias that ended, by outcome: done, failed or superseded.",
		}, []string{"project", "endpoint", "outcome"}),
		behind: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tategu_follow_behind", Help: "1 while an endpoint that follows an alias does not serve the version that it says.",
		}, []string{"project", "endpoint"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_prediction_logs_dropped_total", Help: "Requests that were to be logged and were not: they were too large, or too many at a time.",
		}, []string{"project", "endpoint"}),
	}
}

// unlogged counts a request that was not logged.
func (m *metrics) unlogged(endpoint string) {
	if name, err := resource.ParseName(endpoint); err == nil { // endpoints have such names
		m.lost.WithLabelValues(name.Project(), name.ID()).Inc()
	}
}

// rolledOut counts the end of a trial.
func (m *metrics) rolledOut(key, state string) {
	name, err := resource.ParseName(key)
	if err != nil {
		return // no deployment has such a key
	}
	m.rollouts.WithLabelValues(name.Project(), name.Parent().ID(), name.ID(), strings.ToLower(state)).Inc()
}

// followed tells whether an endpoint serves what the alias says that it follows.
func (m *metrics) followed(endpoint string, s follow.State) {
	name, err := resource.ParseName(endpoint)
	if err != nil {
		return // no endpoint has such a name
	}
	behind := 0.0
	if s.Behind() {
		behind = 1
	}
	m.behind.WithLabelValues(name.Project(), name.ID()).Set(behind)
}

// rolledOver counts the end of a roll-over of an endpoint, or of one below it.
func (m *metrics) rolledOver(key, outcome string) {
	if name, err := resource.ParseName(key); err == nil && outcome != "" {
		m.follows.WithLabelValues(name.Project(), name.Get("endpoints"), outcome).Inc()
	}
}

// unfollowed drops what was counted of an endpoint.
func (m *metrics) unfollowed(endpoint string) {
	if name, err := resource.ParseName(endpoint); err == nil {
		match := prometheus.Labels{"project": name.Project(), "endpoint": name.ID()}
		m.behind.DeletePartialMatch(match)
		m.follows.DeletePartialMatch(match)
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.explains, m.managed, m.seconds, m.explain, m.waited, m.failures, m.cold, m.rollouts, m.follows, m.behind, m.lost}
}

// Metrics are those of all deployed models, for a registry.
func (e *Engine) Metrics() []prometheus.Collector { return append(e.metrics.all(), gauges{e}) }

// meters are those of one deployed model.
type meters struct {
	all     *metrics
	labels  []string
	ok      prometheus.Counter // of answers with status 200
	seconds prometheus.Observer
	waited  prometheus.Observer
}

func (m *metrics) of(project, endpoint, model string) meters {
	labels := []string{project, endpoint, model}
	ok := m.requests.WithLabelValues(append(slices.Clone(labels), "200")...)
	return meters{m, labels, ok, m.seconds.WithLabelValues(labels...), m.waited.WithLabelValues(labels...)}
}

// forget drops what was counted of a deployed model.
func (m meters) forget() {
	match := prometheus.Labels{}
	for i, name := range labelNames() {
		match[name] = m.labels[i]
	}
	for _, vec := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{m.all.requests, m.all.explains, m.all.managed, m.all.seconds, m.all.explain, m.all.waited, m.all.failures, m.all.cold, m.all.rollouts} {
		vec.DeletePartialMatch(match)
	}
}

// failed counts a request that got no answer from a replica.
func (m meters) failed(err error, took time.Duration) {
	status, cause := statusOf(outcome{err: err}), "platform"
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		cause = string(e.Cause)
	} else if ok {
		cause = "caller" // left, or asked for what there is not
	}
	m.all.requests.WithLabelValues(append(slices.Clone(m.labels), status)...).Inc()
	m.all.failures.WithLabelValues(append(slices.Clone(m.labels), cause)...).Inc()
	m.seconds.Observe(took.Seconds())
}

// answered counts an answer when it has been read.
func (m meters) answered(resp *replica.Response, took time.Duration) {
	if resp.Status == http.StatusOK {
		m.ok.Inc()
	} else {
		m.all.requests.WithLabelValues(append(slices.Clone(m.labels), strconv.Itoa(resp.Status))...).Inc()
	}
	if resp.Status >= 500 {
		m.all.failures.WithLabelValues(append(slices.Clone(m.labels), string(resource.CauseUserCode))...).Inc()
	}
	m.seconds.Observe(took.Seconds())
	m.waited.Observe(resp.Waited.Seconds())
}

// explained counts a request for explanations.
func (m meters) explained(status string, took time.Duration) {
	m.all.explains.WithLabelValues(append(slices.Clone(m.labels), status)...).Inc()
	m.all.explain.WithLabelValues(m.labels...).Observe(took.Seconds())
}

// administered counts a request to TorchServe's management API.
func (m meters) administered(status string) {
	m.all.managed.WithLabelValues(append(slices.Clone(m.labels), status)...).Inc()
}

// statusOf is the label of an outcome.
func statusOf(o outcome) string {
	if o.err != nil {
		return code.Code(resource.CodeOf(o.err)).String()
	}
	return strconv.Itoa(o.resp.Status)
}

func (m meters) started(waited time.Duration) {
	m.all.cold.WithLabelValues(m.labels...).Observe(waited.Seconds())
}

// gauges are read when somebody asks for them.
type gauges struct{ e *Engine }

func (gauges) descriptions() (replicas, waiting, flying, limit *prometheus.Desc) {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labelNames(more...), nil)
	}
	return desc("tategu_replicas", "Replicas of a deployed model, by state: wanted, and what those that there are do.", "state"),
		desc("tategu_predictions_waiting", "Requests that wait for a replica."),
		desc("tategu_predictions_in_flight", "Requests that replicas work on."),
		desc("tategu_replica_concurrency", "Requests that a replica is given at a time.")
}

// Describe implements prometheus.Collector.
func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	a, b, c, d := g.descriptions()
	for _, desc := range []*prometheus.Desc{a, b, c, d} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	g.e.mu.RLock()
	running := slices.Collect(maps.Values(g.e.running))
	g.e.mu.RUnlock()
	replicas, waiting, flying, limit := g.descriptions()
	for _, d := range running {
		put := func(desc *prometheus.Desc, v int, more ...string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), append(slices.Clone(d.meters.labels), more...)...)
		}
		states, inFlight := map[replica.State]int{}, 0
		for _, st := range d.set.Status() {
			states[st.State]++
			inFlight += st.InFlight
		}
		put(waiting, d.set.Waiting())
		put(flying, inFlight)
		if d.scale == nil {
			continue
		}
		for _, st := range []replica.State{replica.Starting, replica.Ready, replica.Unhealthy, replica.Waiting, replica.Failed, replica.Draining} {
			put(replicas, states[st], string(st))
		}
		want, most := d.scale.wanted()
		put(replicas, want, "wanted")
		put(limit, most)
	}
}
