package worker

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Metric is one measurement that a worker printed.
type Metric struct {
	Name       string
	Unit       string
	Kind       string // "COUNTER", "GAUGE", "HISTOGRAM"
	Value      float64
	Dimensions []Pair // Level, ModelName, ...
	Host       string
	At         time.Time
	RequestIDs string
}

const metricMark = "[METRICS]"

// ParseMetric reads a line of output; false = it is no metric, but part of the log.
//
//	[METRICS]NAME.UNIT:VALUE|#DIMENSION:VALUE,...|#type:GAUGE|#hostname:HOST,SECONDS[,REQUESTS]
func ParseMetric(line string) (Metric, bool) {
	_, rest, ok := strings.Cut(line, metricMark)
	if !ok || len(line) > maxText {
		return Metric{}, false
	}
	head, rest, ok := strings.Cut(rest, "|#")
	if !ok {
		return Metric{}, false
	}
	m := Metric{Kind: "COUNTER"}
	i := strings.LastIndexByte(head, ':')
	if i < 0 {
		return Metric{}, false
	}
	var err error
	if m.Value, err = strconv.ParseFloat(head[i+1:], 64); err != nil || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
		return Metric{}, false
	}
	name := head[:i]
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		m.Name, m.Unit = name[:dot], name[dot+1:]
	} else {
		m.Name = name
	}
	if m.Name == "" {
		return Metric{}, false
	}
	i = strings.LastIndex(rest, "#hostname:")
	if i < 0 {
		return Metric{}, false
	}
	fields := strings.SplitN(rest[i+len("#hostname:"):], ",", 3)
	if len(fields) < 2 {
		return Metric{}, false
	}
	seconds, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return Metric{}, false
	}
	m.Host, m.At = fields[0], time.Unix(seconds, 0)
	if len(fields) == 3 {
		m.RequestIDs = fields[2]
	}
	rest = strings.TrimSuffix(rest[:i], "|")
	if i := strings.LastIndex(rest, "|#type:"); i >= 0 {
		m.Kind = strings.ToUpper(rest[i+len("|#type:"):])
		rest = rest[:i]
	} else if kind, ok := strings.CutPrefix(rest, "type:"); ok { // no dimensions
		m.Kind, rest = strings.ToUpper(kind), ""
	}
	if m.Kind != "COUNTER" && m.Kind != "GAUGE" && m.Kind != "HISTOGRAM" {
		return Metric{}, false
	}
	for d := range strings.SplitSeq(rest, ",") {
		if name, value, ok := strings.Cut(d, ":"); ok && name != "" {
			m.Dimensions = append(m.Dimensions, Pair{Name: name, Value: value})
		}
	}
	return m, true
}
