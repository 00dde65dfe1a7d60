package torchserve

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	engine "tategu/internal/torchserve"
)

// Bounds of what handlers can have kept: they choose names, and values of dimensions.
const (
	maxSamples  = 10_000   // of one metric
	maxDetected = 1000     // metrics without a definition, by model_metrics_auto_detect
	maxSize     = 32 << 20 // bytes of all names and values of dimensions
	maxTold     = 1000     // names without a definition that the log tells of
)

// Why measurements are dropped.
const (
	undefined    = iota // there is no definition, and none is made
	overDetected        // maxDetected
	overSamples         // maxSamples or maxSize
	drops
)

// detect makes the family of a metric that has no definition; nil = it is dropped.
func (m *Metrics) detect(x engine.Metric) *family {
	switch {
	case !m.cfg.Detect || !validName(x.Name) || !validDimensions(x.Dimensions):
		m.drop(undefined, x.Name)
	case m.detected >= maxDetected, m.size+sizeOf(x) > maxSize:
		m.drop(overDetected, x.Name)
	default:
		m.detected++
		m.size += sizeOf(x)
		return m.define(detected(x))
	}
	return nil
}

func sizeOf(x engine.Metric) int {
	n := len(x.Name) + len(x.Unit)
	for _, d := range x.Dimensions {
		n += len(d.Name)
	}
	return n
}

// validDimensions says that Prometheus takes their names, and knows them apart.
func validDimensions(ds []engine.Pair) bool {
	for i, d := range ds {
		if !validName(d.Name) || strings.Contains(d.Name, ":") || d.Name == "le" || slices.ContainsFunc(ds[:i], func(o engine.Pair) bool { return o.Name == d.Name }) {
			return false
		}
	}
	return true
}

// detected is the definition of a metric that has none.
func detected(x engine.Metric) Definition {
	d := Definition{Name: x.Name, Unit: x.Unit, Kind: strings.ToLower(x.Kind), Model: true}
	if d.Kind != "counter" && d.Kind != "histogram" {
		d.Kind = "gauge"
	}
	for _, p := range x.Dimensions {
		d.Dimensions = append(d.Dimensions, p.Name)
	}
	return d
}

// drop counts a measurement that is not kept, and tells of it: of each name without a
// definition once, and of each bound once. Only what a definition would have kept, or
// model_metrics_auto_detect, is counted.
func (m *Metrics) drop(why int, name string) {
	if m.cfg.Detect || why != undefined { // else definitions choose, as they are there for
		m.dropped[why]++
	}
	once, text := name, ""
	switch why {
	case undefined:
		text = "a metric was dropped: it has no definition in metrics_config, and model_metrics_auto_detect is not set"
		if m.cfg.Detect {
			text = "a metric was dropped: its name, or one of a dimension, is none that Prometheus takes, or a dimension is there twice"
		}
	case overDetected:
		once = " detected"
		text = fmt.Sprintf("a metric was dropped, and further ones will be: model_metrics_auto_detect keeps %d metrics and %d bytes of names; "+
			"define in metrics_config those that are wanted, and put what varies into dimensions", maxDetected, maxSize)
	case overSamples:
		once = " samples"
		text = fmt.Sprintf("a measurement was dropped, and further ones will be: a metric keeps %d different values of its dimensions, and all together %d bytes; "+
			"dimensions are for what has few values, not for ids of requests", maxSamples, maxSize)
	}
	if m.told[once] || len(m.told) >= maxTold && why == undefined {
		return
	}
	m.told[once] = true
	m.cfg.Log.Warn(text, slog.String("metric", name))
}

// droppedName is a counter of our own; it is shown once there is something to tell.
const droppedName = "tategu_torchserve_metrics_dropped_total"

func (m *Metrics) printDropped(b *strings.Builder, names []string) {
	if m.dropped == [drops]uint64{} || len(names) > 0 && !slices.Contains(names, droppedName) {
		return
	}
	fmt.Fprintf(b, "# HELP %s Measurements that are not kept, by reason.\n# TYPE %s counter\n", droppedName, droppedName)
	for why, reason := range [drops]string{"bad_name", "too_many_metrics", "too_many_samples"} {
		if n := m.dropped[why]; n > 0 {
			fmt.Fprintf(b, "%s{reason=\"%s\",} %s\n", droppedName, reason, number64(float64(n)))
		}
	}
}
