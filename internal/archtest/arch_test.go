// Package archtest keeps imports pointing one way. Every package belongs to
// exactly one layer; it may import the layers below it and nothing else of ours.
// An adapter (a child of a port) sees its port and what the port sees, and only
// the wiring layer may import it.
package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "tategu"

// layers, top first. A trailing /* stands for every direct child.
func layers() [][]string {
	return [][]string{
		{"cmd/*", "test/*", "test/fault/program", "bench/*", "bench/containers/program"},
		{"internal/app", "internal/component", "internal/imaging", "internal/launch", "internal/load", "internal/modelcache", "internal/runner", "internal/transfer"},
		{"internal/wire"},
		{"internal/api/*"},
		{"internal/api"},
		{"internal/pipeline", "internal/training", "internal/serving", "internal/batch", "internal/schedule", "internal/torchserve", "internal/vector"},
		{"internal/backup", "internal/columnar", "internal/cron", "internal/event", "internal/gcpc", "internal/image", "internal/lineage", "internal/mar", "internal/operation", "internal/replica", "internal/modelformat", "internal/oip", "internal/scoring", "internal/vector/ann"},
		{"internal/access"},
		{"internal/blob", "internal/runtime", "internal/warehouse"},
		{"internal/identity"},
		{"internal/store"},
		{"internal/volume", "internal/tensor"},
		{"internal/graph", "internal/telemetry", "internal/resource", "internal/scan"},
	}
}

// adapters live below their port; tests and app import them.
func adapters() []string {
	return []string{"internal/store/sqlite", "internal/blob/disk", "internal/warehouse/sqlite", "internal/warehouse/postgres", "internal/blob/bucket", "internal/runtime/process", "internal/runtime/docker", "internal/runtime/router", "internal/identity/metadata", "internal/runner/onnxruntime", "internal/runner/tract", "internal/vector/local", "internal/vector/builder", "internal/vector/pgvector"}
}

// private children are imported by their parent (and by the listed packages) only.
func private() map[string][]string {
	return map[string][]string{
		"internal/pipeline/pipelinespec":   {"internal/pipeline"},
		"internal/modelformat/lightgbm":    {"internal/modelformat"},
		"internal/modelformat/xgboost":     {"internal/modelformat"},
		"internal/vector/datapoint/ocf":    {"internal/vector/datapoint"},
		"internal/batch/score":             {"internal/batch", "cmd/tategu"},
		"internal/replica/http1":           {"internal/load", "internal/replica", "internal/replica/frame"},
		"internal/replica/frame":           {"internal/replica", "internal/runner"},
		"internal/serving/autoscale":       {"internal/serving"},
		"internal/serving/follow":          {"internal/serving"},
		"internal/serving/sample":          {"internal/serving"},
		"internal/serving/rollout":         {"internal/serving"},
		"internal/serving/shadow":          {"internal/serving"},
		"internal/warehouse/load":          {}, // adapters share it
		"internal/warehouse/warehousetest": {},
		"internal/store/storetest":         {},
		"internal/runner/runnertest":       {"internal/runner", "cmd/tategu-runner"},
		"internal/runner/ffi":              {"internal/runner/onnxruntime", "internal/runner/tract"},
		"internal/vector/datapoint":        {"internal/vector"},
		"internal/vector/matchpb":          {"internal/api/aiplatform"},
		"internal/vector/vectortest":       {},
		"bench/harness":                    {}, // benchmarks share it
		"internal/vector/ann/kernel":       {"internal/vector/ann", "internal/vector/local"},
		"internal/wire/apiv1":              {"internal/wire"},
		"internal/blob/blobtest":           {},
		"internal/runtime/runtimetest":     {},
		"internal/runtime/workload":        {}, // adapters share it
		"internal/runtime/record":          {"bench/containers", "internal/runtime/process/box", "internal/runtime/process/oci", "internal/runtime/process/wrapper"},
		"internal/runtime/oom":             {"internal/runtime/process/wrapper"},
		"internal/runtime/process/oci":     {"internal/runtime/process"},
		"internal/runtime/process/box":     {"internal/runtime/process", "bench/containers"},
		"internal/runtime/process/wrapper": {"internal/runtime/process", "cmd/wrapper", "bench/containers"},
		"internal/torchserve/sizer":        {"internal/torchserve"},
		"internal/torchserve/worker":       {"internal/torchserve"},
		"internal/runtime/scheduler":       {"internal/app"},
		"internal/runtime/inventory":       {"internal/app"},
	}
}

// entry points besides cmd that may import an adapter, and why.
func adapterUsers() map[string]string {
	return map[string]string{
		"internal/app":      "wires everything",
		"bench/containers":  "measures the process adapter",
		"bench/zygote":      "likewise",
		"cmd/tategu-runner": "wires the runner",
		"cmd/tategu":        "the process adapter's wrapper runs as a hidden verb of the binary",
		"test/kill":         "looks into the data directory of a server that has ended",
	}
}

func layerOf(pkg string) int {
	return slices.IndexFunc(layers(), func(l []string) bool {
		return slices.ContainsFunc(l, func(p string) bool {
			ok, _ := path.Match(p, pkg)
			return ok
		})
	})
}

// level of a package for the comparison: children count as their parent.
func level(pkg string) int {
	if l := layerOf(pkg); l >= 0 {
		return l
	}
	if _, ok := private()[pkg]; ok || slices.Contains(adapters(), pkg) {
		return level(path.Dir(pkg))
	}
	return -1
}

// check gives every import that breaks the rule. deps maps a package to the
// packages of this module that it imports (tests apart).
func check(deps map[string][]string) error {
	var errs []error
	for pkg, imports := range deps {
		if level(pkg) < 0 {
			errs = append(errs, fmt.Errorf("%s is in no layer: decide where it belongs and add it to archtest", pkg))
			continue
		}
		for _, imp := range imports {
			if err := checkImport(pkg, imp); err != nil {
				errs = append(errs, fmt.Errorf("%s imports %s: %w", pkg, imp, err))
			}
		}
	}
	return errors.Join(errs...)
}

func checkImport(pkg, imp string) error {
	isChild := strings.HasPrefix(pkg, imp+"/") // a child may always see its parents
	if users, ok := private()[imp]; ok {
		if !slices.Contains(users, pkg) && path.Dir(pkg) != path.Dir(imp) {
			return errors.New("it is private to its parent")
		}
		return nil
	}
	if slices.Contains(adapters(), imp) {
		if _, ok := adapterUsers()[pkg]; !ok {
			return errors.New("only the wiring layer may import an adapter")
		}
		return nil
	}
	switch from, to := level(pkg), level(imp); {
	case to < 0:
		return errors.New("the target is in no layer")
	case to <= from && !isChild:
		return errors.New("against the flow (layers: cmd, app, wire, api, engines, mechanisms, access, ports, identity, store, volume, values)")
	}
	return nil
}

func load(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		if pkg == "internal/archtest" || strings.HasPrefix(pkg, "test/") {
			continue // tests alone: nothing can import them
		}
		deps[pkg] = nil
		for _, imp := range p.Imports {
			if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
				deps[pkg] = append(deps[pkg], rel)
			}
		}
	}
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	if err := check(load(t)); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsEachKindOfBreach(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ pkg, imp, want string }{
		{"internal/serving", "internal/api/aiplatform", "against the flow"},
		{"internal/serving", "internal/pipeline", "against the flow"},
		{"internal/blob", "internal/runtime", "against the flow"},
		{"internal/api", "internal/api/gcs", "against the flow"},
		{"internal/serving", "internal/store/sqlite", "only the wiring layer"},
		{"internal/training", "internal/pipeline/pipelinespec", "private to its parent"},
		{"internal/util", "internal/resource", "in no layer"},
		{"internal/store/sqlite", "internal/serving", "against the flow"},
	} {
		t.Run(tt.pkg+"->"+tt.imp, func(t *testing.T) {
			t.Parallel()
			err := check(map[string][]string{tt.pkg: {tt.imp}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNoCgoAndNoKubernetes(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}{{if .CgoFiles}} cgo{{end}}", "./cmd/tategu")
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, " cgo") {
			t.Errorf("%s: the main binary stays free of cgo so that it is static and cross-compiles", line)
		}
		if strings.HasPrefix(line, "k8s.io/") {
			t.Errorf("%s: Kubernetes belongs in runtime/kubernetes, which the core does not import", line)
		}
	}
}

// TestWrapperIsSmall: the wrapper starts with every program, and what it imports it
// pays for each time.
func TestWrapperIsSmall(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/wrapper")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"golang.org/x/sys/unix", "golang.org/x/net/bpf", module + "/cmd/wrapper", module + "/internal/runtime/record", module + "/internal/runtime/oom", module + "/internal/runtime/process/box", module + "/internal/runtime/process/wrapper"}
	for pkg := range strings.FieldsSeq(string(out)) {
		first, _, _ := strings.Cut(pkg, "/")
		if (strings.Contains(first, ".") || first == module) && !slices.Contains(allowed, pkg) {
			t.Errorf("the wrapper imports %s", pkg)
		}
	}
}
