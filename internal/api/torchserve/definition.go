package torchserve

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Definition is a metric that is kept: one entry of the file that metrics_config names.
type Definition struct {
	Name       string
	Unit       string
	Kind       string   // "counter", "gauge", "histogram"
	Dimensions []string // names of labels; those of handlers get Hostname besides
	Model      bool     // of a handler
}

// Definitions is the file that comes with TorchServe.
func Definitions() []Definition {
	host := []string{"Level", "Hostname"}
	model := []string{"model_name", "model_version", "hostname"}
	gpu := []string{"Level", "DeviceId", "Hostname"}
	out := []Definition{}
	add := func(kind, unit string, dims []string, names ...string) {
		for _, n := range names {
			out = append(out, Definition{Name: n, Unit: unit, Kind: kind, Dimensions: dims})
		}
	}
	add("counter", "Count", host, "Requests2XX", "Requests4XX", "Requests5XX")
	add("counter", "Count", model, "ts_inference_requests_total")
	add("counter", "Microseconds", model, "ts_inference_latency_microseconds", "ts_queue_latency_microseconds")
	add("gauge", "Milliseconds", host, "QueueTime", "WorkerThreadTime")
	add("gauge", "Milliseconds", []string{"WorkerName", "Level", "Hostname"}, "WorkerLoadTime")
	add("gauge", "Percent", host, "CPUUtilization")
	add("gauge", "Megabytes", host, "MemoryUsed", "MemoryAvailable")
	add("gauge", "Percent", host, "MemoryUtilization")
	add("gauge", "Gigabytes", host, "DiskUsage")
	add("gauge", "Percent", host, "DiskUtilization")
	add("gauge", "Gigabytes", host, "DiskAvailable")
	add("gauge", "Percent", gpu, "GPUMemoryUtilization")
	add("gauge", "Megabytes", gpu, "GPUMemoryUsed")
	add("gauge", "Percent", gpu, "GPUUtilization")
	for _, n := range []string{"HandlerTime", "PredictionTime"} {
		out = append(out, Definition{Name: n, Unit: "ms", Kind: "gauge", Dimensions: []string{"ModelName", "Level"}, Model: true})
	}
	return out
}

// metricsFile is its form.
type metricsFile struct {
	Dimensions []string                   `yaml:"dimensions"`
	Server     map[string][]metricsMetric `yaml:"ts_metrics"`
	Models     map[string][]metricsMetric `yaml:"model_metrics"`
}

type metricsMetric struct {
	Name       string   `yaml:"name"`
	Unit       string   `yaml:"unit"`
	Dimensions []string `yaml:"dimensions"`
}

// maxDefinitions of one file.
const maxDefinitions = 10_000

// ReadDefinitions reads the file that metrics_config names.
func ReadDefinitions(text []byte) ([]Definition, error) {
	var f metricsFile
	if err := yaml.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("a metrics configuration: %w", err)
	}
	var out []Definition
	seen := map[string]bool{}
	read := func(kinds map[string][]metricsMetric, model bool) error {
		for _, kind := range []string{"counter", "gauge", "histogram"} {
			for _, m := range kinds[kind] {
				switch {
				case !validName(m.Name):
					return fmt.Errorf("a metrics configuration: %q is no name of a metric: want letters, digits and _", m.Name)
				case seen[m.Name]:
					return fmt.Errorf("a metrics configuration: %s is there twice", m.Name)
				case m.Unit == "":
					return fmt.Errorf("a metrics configuration: %s has no unit", m.Name)
				case len(out) == maxDefinitions:
					return errors.New("a metrics configuration: too many metrics")
				}
				if i := slices.IndexFunc(m.Dimensions, func(d string) bool { return !validName(d) || strings.Contains(d, ":") }); i >= 0 {
					return fmt.Errorf("a metrics configuration: %s: %q is no name of a dimension", m.Name, m.Dimensions[i])
				}
				seen[m.Name] = true
				out = append(out, Definition{Name: m.Name, Unit: m.Unit, Kind: kind, Dimensions: m.Dimensions, Model: model})
			}
		}
		return nil
	}
	if err := read(f.Server, false); err != nil {
		return nil, err
	}
	return out, read(f.Models, true)
}
