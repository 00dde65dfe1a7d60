package torchserve

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	engine "tategu/internal/torchserve"
)

// Mode is where metrics go.
type Mode string

// The modes of metrics_mode.
const (
	ModeLog        Mode = "log"        // to the log files alone
	ModePrometheus Mode = "prometheus" // to GET /metrics alone
	ModeLegacy     Mode = "legacy"     // to the log files, and the ts_ counters to GET /metrics
)

// MetricsConfig says what is kept of what is measured.
type MetricsConfig struct {
	Mode        Mode
	Definitions []Definition
	Detect      bool      // metrics of handlers need no definition
	Server      io.Writer // log of the server's metrics; nil = none
	Models      io.Writer // log of the handlers' metrics; nil = none
	Log         *slog.Logger
}

// Metrics keeps what is measured, by definitions. The zero value of a pointer keeps
// nothing. It may be used concurrently.
type Metrics struct {
	cfg  MetricsConfig
	host string

	mu       sync.Mutex
	families []*family
	byName   map[string]*family
	detected int             // families that have no definition
	size     int             // bytes of names and label values that are kept
	told     map[string]bool // names, and bounds, that were told of once
	dropped  [drops]uint64   // measurements, by why
	labels   []string        // scratch: a metric's label values
	key      []byte          // scratch: what a sample is found by
	line     []byte          // scratch: a line of a log
}

// family is a metric with all its label values.
type family struct {
	Definition
	samples map[string]*sample
	order   []*sample
}

type sample struct {
	labels  []string // values, as the definition's dimensions
	value   float64
	buckets []uint64 // of a histogram, not summed up
	count   uint64
}

// bounds of a histogram's buckets: those of the Java client of Prometheus.
func bounds() []float64 {
	return []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
}

// NewMetrics makes an empty collection.
func NewMetrics(cfg MetricsConfig) *Metrics {
	host, err := os.Hostname()
	if err != nil {
		host = "Unknown"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{cfg: cfg, host: host, byName: map[string]*family{}, told: map[string]bool{}}
	for _, d := range cfg.Definitions {
		m.define(d)
	}
	return m
}

func (m *Metrics) define(d Definition) *family {
	f := &family{Definition: d, samples: map[string]*sample{}}
	m.families = append(m.families, f)
	m.byName[d.Name] = f
	return f
}

// Observe implements engine.Metrics.
func (m *Metrics) Observe(x engine.Metric) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.byName[x.Name]
	if f == nil {
		if f = m.detect(x); f == nil {
			return
		}
	}
	if x.Host == "" {
		x.Host = m.host
	}
	var ok bool
	if m.labels, ok = f.values(m.labels[:0], x); !ok {
		m.cfg.Log.Debug("a metric was dropped: it lacks a dimension of its definition", slog.String("metric", x.Name))
		return
	}
	if m.cfg.Mode != ModePrometheus {
		m.write(f, x)
	}
	m.key = m.key[:0]
	for _, l := range m.labels {
		m.key = append(append(m.key, l...), 0)
	}
	one := f.samples[string(m.key)]
	if one == nil {
		if len(f.order) >= maxSamples || m.size+len(m.key) > maxSize {
			m.drop(overSamples, x.Name)
			return
		}
		m.size += len(m.key)
		one = &sample{labels: slices.Clone(m.labels)}
		f.samples[string(m.key)], f.order = one, append(f.order, one)
	}
	f.add(one, x.Value)
}

// values adds a metric's label values in the order of the definition.
func (f *family) values(out []string, x engine.Metric) ([]string, bool) {
	for _, name := range f.Dimensions {
		i := slices.IndexFunc(x.Dimensions, func(p engine.Pair) bool { return p.Name == name })
		switch {
		case i >= 0:
			out = append(out, x.Dimensions[i].Value)
		case strings.EqualFold(name, "hostname"):
			out = append(out, x.Host)
		default:
			return out, false
		}
	}
	if f.Model && !slices.Contains(f.Dimensions, "Hostname") {
		out = append(out, x.Host)
	}
	return out, true
}

// add takes a measurement.
func (f *family) add(s *sample, v float64) {
	switch f.Kind {
	case "counter":
		if v > 0 {
			s.value += v
		}
	case "histogram":
		if s.buckets == nil {
			s.buckets = make([]uint64, len(bounds()))
		}
		if i := slices.IndexFunc(bounds(), func(b float64) bool { return v <= b }); i >= 0 {
			s.buckets[i]++
		}
		s.count++
		s.value += v
	default:
		s.value = v
	}
}

// write puts a line into the log of the server's or the handlers' metrics.
func (m *Metrics) write(f *family, x engine.Metric) {
	w := m.cfg.Server
	if f.Model {
		w = m.cfg.Models
	}
	if w == nil {
		return
	}
	at := x.At
	if at.IsZero() {
		at = time.Now()
	}
	b := append(at.AppendFormat(m.line[:0], stampFormat), " - "...)
	b = append(append(append(b, x.Name...), '.'), f.Unit...)
	b = append(appendNumber64(append(b, ':'), x.Value), "|#"...)
	for i, p := range x.Dimensions {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, p.Name...), ':'), p.Value...)
	}
	b = append(append(b, "|#hostname:"...), x.Host...)
	if x.RequestIDs != "" {
		b = append(append(b, ",requestID:"...), x.RequestIDs...)
	}
	b = append(strconv.AppendInt(append(b, ",timestamp:"...), at.Unix(), 10), '\n')
	_, _ = w.Write(b) // a log that cannot be written must not end a request
	m.line = b
}

// count observes a metric of the server's own with its labels.
func (m *Metrics) count(name string, v float64, dimensions ...engine.Pair) {
	if m != nil {
		m.Observe(engine.Metric{Name: name, Value: v, Dimensions: dimensions})
	}
}

// request counts an answer by the class of its status.
func (m *Metrics) request(status int) {
	name := "Requests5XX"
	switch {
	case status >= 200 && status < 300:
		name = "Requests2XX"
	case status >= 400 && status < 500:
		name = "Requests4XX"
	}
	m.count(name, 1, engine.Pair{Name: "Level", Value: "Host"})
}

// metricsAPI answers GET /metrics; name[] asks for some.
func (a *API) metricsAPI(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	if at(s, 1) != "metrics" {
		return false, nil
	}
	body := a.Metrics.text(r.URL.Query()["name[]"])
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body) // the client has gone
	return true, nil
}

// text is Prometheus' text format as the Java client writes it: a comma after every
// label, numbers as Java has them.
func (m *Metrics) text(names []string) string {
	if m == nil || m.cfg.Mode == ModeLog {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, f := range m.families {
		if m.cfg.Mode == ModeLegacy && !strings.HasPrefix(f.Name, "ts_") {
			continue
		}
		if len(names) > 0 && (!slices.ContainsFunc(names, f.has) || len(f.order) == 0) {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s Torchserve prometheus %s metric with unit: %s\n# TYPE %s %s\n", f.Name, f.Kind, f.Unit, f.Name, f.Kind)
		for _, s := range f.order {
			f.print(&b, s, names)
		}
	}
	m.printDropped(&b, names)
	return b.String()
}

// has says that a name is that of one of the family's lines.
func (f *family) has(name string) bool {
	return name == f.Name || f.Kind == "histogram" && (name == f.Name+"_bucket" || name == f.Name+"_count" || name == f.Name+"_sum")
}

func (f *family) print(b *strings.Builder, s *sample, names []string) {
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	if f.Kind != "histogram" {
		f.line(b, f.Name, s, "", number64(s.value))
		return
	}
	if wanted(f.Name + "_bucket") {
		sum := uint64(0)
		for i, n := range s.buckets {
			sum += n
			f.line(b, f.Name+"_bucket", s, `le="`+number64(bounds()[i])+`",`, number64(float64(sum)))
		}
		f.line(b, f.Name+"_bucket", s, `le="+Inf",`, number64(float64(s.count)))
	}
	if wanted(f.Name + "_count") {
		f.line(b, f.Name+"_count", s, "", number64(float64(s.count)))
	}
	if wanted(f.Name + "_sum") {
		f.line(b, f.Name+"_sum", s, "", number64(s.value))
	}
}

func (f *family) line(b *strings.Builder, name string, s *sample, more, value string) {
	b.WriteString(name)
	if len(s.labels) > 0 || more != "" {
		b.WriteByte('{')
		for i, v := range s.labels {
			label := "Hostname"
			if i < len(f.Dimensions) {
				label = f.Dimensions[i]
			}
			b.WriteString(label + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(v) + `",`)
		}
		b.WriteString(more + "}")
	}
	b.WriteString(" " + value + "\n")
}

// number64 is a number as Java prints it: 1.0, 1.0E7.
func number64(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-3 || a >= 1e7) {
		s := strconv.FormatFloat(v, 'E', -1, 64)
		mantissa, exponent, _ := strings.Cut(s, "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, err := strconv.Atoi(exponent)
		if err != nil {
			return s
		}
		return mantissa + "E" + strconv.Itoa(n)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func appendNumber64(b []byte, v float64) []byte {
	if i := int64(v); float64(i) == v && i > -1e7 && i < 1e7 && (i != 0 || !math.Signbit(v)) {
		return append(strconv.AppendInt(b, i, 10), ".0"...)
	}
	return append(b, number64(v)...)
}

// validName says that Prometheus takes a name.
func validName(s string) bool {
	for i, c := range s {
		if c != '_' && c != ':' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
