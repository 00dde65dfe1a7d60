package mar_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/mar"
)

const spec = `
models:
  min-workers: 1
  max-workers: 4
  batch-size: 3
  max-batch-delay: 5000
  retry-attempts: 3
  timeout-ms: 5000
  m1:
    url: model1.mar
    min-workers: 2
  m2:
    url: model2.mar
    batch-size: 4
dag:
  before: [m1, m2]
  m1: [after]
  m2: [after]
`

func TestWorkflow(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.put(t, "w.war", zipOf(t,
		entry{name: "WAR-INF/MANIFEST.json", text: `{"createdOn": "x", "archiverVersion": "0.1", "workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "handler.py"}}`},
		entry{name: "spec.yaml", text: spec}, entry{name: "handler.py"}))
	w, err := p.OpenWorkflow(t.Context(), "w.war")
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]mar.Node{}
	for _, n := range w.Spec.Nodes {
		nodes[n.Name] = n
	}
	if w.Name != "w" || filepath.Base(w.Handler) != "handler.py" || len(nodes) != 4 || len(w.Spec.JSON) == 0 {
		t.Fatalf("%+v", w)
	}
	if n := nodes["m1"]; n.URL != "model1.mar" || n.MinWorkers != 2 || n.BatchSize != 3 || n.Timeout != 5*time.Second || n.RetryAttempts != 3 || n.MaxBatchDelay != 5*time.Second {
		t.Errorf("m1: %+v", n)
	}
	if n := nodes["before"]; n.URL != "" || n.MinWorkers != 1 || n.BatchSize != 1 || n.MaxBatchDelay != 0 {
		t.Errorf("before: %+v", n)
	}
	if err := w.Remove(); err != nil {
		t.Error(err)
	}
}

func TestBadWorkflows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"models: {}\n":                                "dag",
		"dag: [a]\n":                                  "dag",
		"dag: {a: [a]}\n":                             "follows itself",
		"dag: {a: [b], b: [c], c: [b]}\n":             "loop",
		"dag: {a: [c], b: [c]}\n":                     "only one start node",
		"dag: {a: [b], b: [a]}\n":                     "loop",
		"dag: {a: b}\n":                               "list of nodes",
		"dag: {../a: [b]}\n":                          "no name may have",
		"models: {m: {min-workers: 1}}\ndag: {m: []}": "no url",
		"models: {m: {url: x, timeout-ms: soon}}\ndag: {m: []}": "timeout-ms",
		"models: 3\ndag: {m: []}":                               "mapping",
		"\t":                                                    "YAML",
	} {
		if _, err := mar.ParseSpec([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	p := newPlace(t)
	for i, text := range []string{`{}`, `{"workflow": {}}`, `{"workflow": {"workflowName": "w"}}`, `{"workflow": {"workflowName": "../w", "specFile": "spec.yaml"}}`, `{"workflow": {"workflowName": "w", "specFile": "../spec.yaml"}}`, `{"workflow": {"workflowName": "w", "specFile": "none.yaml"}}`, `{"workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "/etc/x.py"}}`} {
		p.put(t, "w.war", zipOf(t, entry{name: "WAR-INF/MANIFEST.json", text: text}, entry{name: "spec.yaml", text: spec}))
		_, err := p.OpenWorkflow(t.Context(), "w.war")
		var e *mar.Error
		if !errors.As(err, &e) || e.Kind != mar.InvalidWorkflow {
			t.Errorf("%d: %v", i, err)
		}
	}
}
