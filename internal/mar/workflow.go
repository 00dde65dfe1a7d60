package mar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds a workflow: each node has workers of its own.
const maxNodes = 1000

// OpenWorkflow fetches and unpacks a workflow archive. Its errors are of the type *Error.
func (s *Store) OpenWorkflow(ctx context.Context, url string) (*Workflow, error) {
	store := s.Workflows
	if store == "" {
		store = s.Models
	}
	dir, owned, err := s.unpack(ctx, url, store)
	if err != nil {
		return nil, err
	}
	w := &Workflow{URL: url, Dir: dir, owned: owned}
	if err := w.read(); err != nil {
		return nil, errors.Join(err, w.Remove())
	}
	return w, nil
}

// Remove deletes the unpacked files; a folder of the store stays.
func (w *Workflow) Remove() error {
	if !w.owned {
		return nil
	}
	return os.RemoveAll(w.Dir)
}

func (w *Workflow) read() error {
	var data []byte
	var err error
	for _, name := range []string{"WAR-INF/MANIFEST.json", "MAR-INF/MANIFEST.json"} {
		if data, err = readSmall(w.Dir, name); err == nil {
			break
		}
	}
	if err != nil {
		return errorf(InvalidWorkflow, "Missing manifest file in workflow archive: %w", err)
	}
	var f manifestFile
	if err := json.Unmarshal(data, &f); err != nil {
		return errorf(InvalidWorkflow, "MANIFEST.json is not what it should be: %w", err)
	}
	if f.Workflow == nil || f.Workflow.Spec == "" {
		return errorf(InvalidWorkflow, "Missing Workflow entry in manifest file.")
	}
	w.Name = string(f.Workflow.Name)
	if err := CheckName(w.Name); err != nil {
		return errorf(InvalidWorkflow, "workflowName: %w", err)
	}
	for what, name := range map[string]string{"specFile": string(f.Workflow.Spec), "handler": string(f.Workflow.Handler)} {
		if err := checkPath(name); err != nil && name != "" {
			return errorf(InvalidWorkflow, "%s: %w", what, err)
		}
	}
	if f.Workflow.Handler != "" {
		w.Handler = filepath.Join(w.Dir, filepath.FromSlash(string(f.Workflow.Handler)))
	}
	if data, err = readSmall(w.Dir, string(f.Workflow.Spec)); err != nil {
		return errorf(InvalidWorkflow, "specFile: %w", err)
	}
	if w.Spec, err = ParseSpec(data); err != nil {
		return errorf(InvalidWorkflow, "Invalid workflow specification: %w", err)
	}
	return nil
}

// ParseSpec reads a workflow's YAML and checks its graph: one start, no loops.
func ParseSpec(data []byte) (Spec, error) {
	var doc struct {
		Models yaml.Node `yaml:"models"`
		Dag    yaml.Node `yaml:"dag"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return Spec{}, fmt.Errorf("no YAML: %w", err)
	}
	s := Spec{Defaults: Node{MinWorkers: 1, MaxWorkers: 1, BatchSize: 1, MaxBatchDelay: 50 * time.Millisecond, RetryAttempts: 1, Timeout: 10 * time.Second}, Edges: map[string][]string{}}
	var err error
	if s.JSON, err = asJSON(data); err != nil {
		return Spec{}, err
	}
	models, err := readModels(&s, &doc.Models)
	if err != nil {
		return Spec{}, fmt.Errorf("models: %w", err)
	}
	if doc.Dag.Kind != yaml.MappingNode || len(doc.Dag.Content) == 0 {
		return Spec{}, errors.New("dag: want a mapping of nodes to the nodes that follow")
	}
	seen := map[string]bool{}
	add := func(name string) error {
		if seen[name] {
			return nil
		}
		if err := CheckName(name); err != nil {
			return fmt.Errorf("dag: %w", err)
		}
		if len(s.Nodes) == maxNodes {
			return fmt.Errorf("dag: more than %d nodes", maxNodes)
		}
		node, ok := models[name]
		if !ok { // a function of the workflow's handler
			node = s.Defaults
			node.Name, node.MinWorkers, node.MaxWorkers, node.BatchSize, node.MaxBatchDelay = name, 1, 1, 1, 0
		}
		seen[name], s.Nodes = true, append(s.Nodes, node)
		return nil
	}
	for i := 0; i+1 < len(doc.Dag.Content); i += 2 {
		from := doc.Dag.Content[i].Value
		var to []string
		if err := doc.Dag.Content[i+1].Decode(&to); err != nil {
			return Spec{}, fmt.Errorf("dag: %s: want a list of nodes: %w", from, err)
		}
		for _, name := range append([]string{from}, to...) {
			if err := add(name); err != nil {
				return Spec{}, err
			}
		}
		for _, name := range to {
			if slices.Contains(s.Edges[from], name) {
				continue
			}
			s.Edges[from] = append(s.Edges[from], name)
		}
	}
	return s, s.check()
}

// asJSON gives a YAML document as JSON.
func asJSON(data []byte) ([]byte, error) {
	var all map[string]any
	if err := yaml.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("no mapping of names to values: %w", err)
	}
	out, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("it has what JSON cannot hold: %w", err)
	}
	return out, nil
}

func readModels(s *Spec, doc *yaml.Node) (map[string]Node, error) {
	models := map[string]Node{}
	if doc.Kind == 0 {
		return models, nil
	}
	if doc.Kind != yaml.MappingNode {
		return nil, errors.New("want a mapping")
	}
	var raw map[string]any
	if err := doc.Decode(&raw); err != nil {
		return nil, err
	}
	if err := nodeSettings(&s.Defaults, raw); err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		name := doc.Content[i].Value
		if doc.Content[i+1].Kind != yaml.MappingNode {
			continue
		}
		settings, _ := raw[name].(map[string]any)
		node := s.Defaults
		node.Name = name
		node.URL, _ = settings["url"].(string)
		if node.URL == "" {
			return nil, fmt.Errorf("%s: it has no url", name)
		}
		if err := nodeSettings(&node, settings); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		models[name] = node
	}
	return models, nil
}

func nodeSettings(n *Node, raw map[string]any) error {
	r := reader{raw: raw}
	for key, field := range map[string]*int{"min-workers": &n.MinWorkers, "max-workers": &n.MaxWorkers, "batch-size": &n.BatchSize, "retry-attempts": &n.RetryAttempts} {
		if v := r.count(key, 0); v != nil {
			*field = *v
		}
	}
	for key, field := range map[string]*time.Duration{"max-batch-delay": &n.MaxBatchDelay, "timeout-ms": &n.Timeout} {
		if v := r.span(key, time.Millisecond); v != nil {
			*field = *v
		}
	}
	return r.err
}

// check refuses graphs without an end.
func (s Spec) check() error {
	degree := map[string]int{}
	for from, to := range s.Edges {
		for _, name := range to {
			if name == from {
				return fmt.Errorf("dag: %s follows itself", name)
			}
			degree[name]++
		}
	}
	var ready []string
	for _, n := range s.Nodes {
		if degree[n.Name] == 0 {
			ready = append(ready, n.Name)
		}
	}
	if len(ready) > 1 {
		return fmt.Errorf("DAG should have only one start node, it has %v", ready)
	}
	done := 0
	for ; len(ready) > 0; done++ {
		name := ready[0]
		ready = ready[1:]
		for _, next := range s.Edges[name] {
			if degree[next]--; degree[next] == 0 {
				ready = append(ready, next)
			}
		}
	}
	if done != len(s.Nodes) {
		return errors.New("Not a valid DAG: it has a loop") //nolint:staticcheck // TorchServe's words
	}
	return nil
}
