package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// resources reads what a container asks for: numbers in old IR, text with
// placeholders in new. A limit counts before a request.
func resources(spec *ps.PipelineDeploymentConfig_PipelineContainerSpec_ResourceSpec, s *scope) (runtime.Resources, error) {
	var r runtime.Resources
	if spec == nil {
		return r, nil
	}
	var err error
	if v := first(spec.GetResourceCpuLimit(), spec.GetResourceCpuRequest()); v != "" {
		if r.Cores, err = quantity(expand(v, s.lookup)); err != nil {
			return r, fmt.Errorf("cpu limit: %w", err)
		}
	} else if r.Cores = spec.GetCpuLimit(); r.Cores == 0 {
		r.Cores = spec.GetCpuRequest()
	}
	if v := first(spec.GetResourceMemoryLimit(), spec.GetResourceMemoryRequest()); v != "" {
		bytes, err := quantity(expand(v, s.lookup))
		if err != nil {
			return r, fmt.Errorf("memory limit: %w", err)
		}
		r.MemoryBytes = int64(bytes)
	} else {
		gb := spec.GetMemoryLimit() // in 10^9 bytes
		if gb == 0 {
			gb = spec.GetMemoryRequest()
		}
		r.MemoryBytes = int64(gb * 1e9)
	}
	if a := spec.GetAccelerator(); a != nil {
		r.GPUs = int(a.GetCount())
		if v := a.GetResourceCount(); v != "" {
			n, err := strconv.Atoi(expand(v, s.lookup))
			if err != nil || n < 0 {
				return r, fmt.Errorf("accelerator count: %q is not a number", v)
			}
			r.GPUs = n
		}
	}
	return r, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// maxQuantity is what bytes of memory fit into.
const maxQuantity = 1 << 61

// quantity reads a Kubernetes quantity: 500m, 2, 1.5G, 512Mi.
func quantity(s string) (float64, error) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "mkKMGTPEi")
	factor, ok := map[string]float64{
		"": 1, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
	}[s[len(digits):]]
	v, err := strconv.ParseFloat(digits, 64)
	if v *= factor; !ok || err != nil || !(v >= 0 && v <= maxQuantity) { // NaN is neither
		return 0, fmt.Errorf("%q is not a quantity such as 2, 500m or 4Gi", clip(s, 40))
	}
	return v, nil
}

// Check asks for every program of the pipeline whether it can ever run here, so
// that an unknown image or a missing accelerator is told before the run. What
// depends on inputs is checked when the task starts.
func (p *Plan) Check(check func(runtime.Workload) error) error {
	return checkGraph(p.root, map[string]bool{}, check)
}

func checkGraph(g *graph, seen map[string]bool, check func(runtime.Workload) error) error {
	if seen[g.name] {
		return nil
	}
	seen[g.name] = true
	for _, name := range g.order {
		t := g.tasks[name]
		if t.graph != nil {
			if err := checkGraph(t.graph, seen, check); err != nil {
				return err
			}
		}
		c := t.container()
		if c == nil || t.launcher != "" { // what it launches is checked when it is made
			continue
		}
		w := runtime.Workload{ID: workloadPrefix + "check", Image: c.GetImage(), Command: c.GetCommand(), Args: c.GetArgs()}
		if r, err := resources(c.GetResources(), &scope{}); err == nil {
			w.Resources = r
		}
		w.Secrets = t.kubernetes.needed()
		if err := check(w); err != nil {
			return named(t.name, err)
		}
	}
	return nil
}

// named puts the task in front of an error.
func named(task string, err error) error {
	e, ok := errors.AsType[*resource.Error](err)
	if !ok {
		return fmt.Errorf("task %q: %w", task, err)
	}
	c := *e
	c.Message = fmt.Sprintf("task %q: %s", task, e.Message)
	return &c
}
