package torchserve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tategu/internal/mar"
)

// workflow is a registered one; its nodes are models named WORKFLOW__NODE.
type workflow struct {
	name    string
	archive *mar.Workflow
	nodes   map[string]mar.Node
	parents map[string][]string
	asked   WorkflowRegistration
}

func (w *workflow) model(node string) string { return w.name + "__" + node }

// envelope is what stands around the version's handler.
func (v *version) envelope() string {
	if v.workflow != nil && v.srv.cfg.BareNodes {
		return ""
	}
	return v.srv.cfg.Envelope
}

// RegisterWorkflow takes a workflow and registers its models and functions.
func (s *Server) RegisterWorkflow(ctx context.Context, r WorkflowRegistration) (Workflow, error) {
	if err := s.settled(ctx); err != nil {
		return Workflow{}, err
	}
	w, err := s.registerWorkflow(ctx, r, origin{}, nil)
	if err != nil {
		return Workflow{}, err
	}
	s.snapshot("snap")
	return w.describe(), nil
}

// registerWorkflow registers all nodes, or none. saved is what nodes were before, by their
// names; at the start a node is registered although its workers do not start.
func (s *Server) registerWorkflow(ctx context.Context, r WorkflowRegistration, o origin, saved map[string]savedModel) (*workflow, error) {
	archive, err := s.store.OpenWorkflow(ctx, r.URL)
	if err != nil {
		return nil, archiveError(err)
	}
	w := &workflow{name: archive.Name, archive: archive, nodes: map[string]mar.Node{}, parents: map[string][]string{}, asked: r}
	if r.Name != "" {
		w.name = r.Name
	}
	for _, n := range archive.Spec.Nodes {
		w.nodes[n.Name] = n
		for _, next := range archive.Spec.Edges[n.Name] {
			w.parents[next] = append(w.parents[next], n.Name)
		}
	}
	if err := s.reserve(w.name); err != nil {
		return nil, errors.Join(err, archive.Remove())
	}
	o.workflow = w
	err = s.registerNodes(ctx, w, o, saved)
	s.mu.Lock()
	delete(s.pending, w.name)
	if err == nil {
		s.workflows[w.name] = w
	}
	s.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, archive.Remove())
	}
	return w, nil
}

// reserve keeps a name while its workflow is registered.
func (s *Server) reserve(name string) error {
	if err := mar.CheckName(name); err != nil {
		return errorf(http.StatusBadRequest, BadRequest, "workflow_name: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.workflows[name] != nil || s.pending[name] {
		// Not 409: what clients of TorchServe know.
		return errorf(http.StatusInternalServerError, InternalServer, "Workflow %s is already registered.", name)
	}
	s.pending[name] = true
	return nil
}

// registerNodes registers all nodes side by side, or none.
func (s *Server) registerNodes(ctx context.Context, w *workflow, o origin, saved map[string]savedModel) error {
	errs := make([]error, len(w.archive.Spec.Nodes))
	var wg sync.WaitGroup
	for i, n := range w.archive.Spec.Nodes {
		o := o
		if m, ok := saved[n.Name]; ok {
			o.saved = &m
		}
		wg.Go(func() { errs[i] = s.registerNode(ctx, w, n, o) })
	}
	wg.Wait()
	var failed []string
	for i, err := range errs {
		if err != nil {
			failed = append(failed, fmt.Sprintf("Workflow Node %s failed to register. Details: %s", w.model(w.archive.Spec.Nodes[i].Name), err))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	s.dropNodes(context.WithoutCancel(ctx), w)
	return errorf(http.StatusInternalServerError, InternalServer, "Workflow %s has failed to register. Failures: %s", w.name, strings.Join(failed, "; "))
}

func (s *Server) registerNode(ctx context.Context, w *workflow, n mar.Node, o origin) error {
	reg := Registration{
		URL: n.URL, ModelName: w.model(n.Name), BatchSize: n.BatchSize, MaxBatchDelay: &n.MaxBatchDelay, InitialWorkers: &n.MinWorkers,
		ResponseTimeout: w.asked.ResponseTimeout, StartupTimeout: w.asked.StartupTimeout, Synchronous: true,
	}
	if n.URL == "" {
		if w.archive.Handler == "" {
			return errorf(http.StatusBadRequest, InvalidWorkflow, "%s is no model of the workflow, and its archive has no handler with functions", n.Name)
		}
		o.function = mar.Folder(filepath.Dir(w.archive.Handler), mar.Manifest{Runtime: "python", Model: mar.Model{
			Name: reg.ModelName, Version: "1.0", Handler: filepath.Base(w.archive.Handler) + ":" + n.Name,
		}})
	}
	out, err := s.register(ctx, reg, o)
	if err != nil && out.Model != "" { // its workers are tried again
		s.startFailed(fmt.Errorf("%s: %w", reg.ModelName, err))
		s.deps.Log.ErrorContext(ctx, "The workers of a workflow's node do not start", slog.String("model", reg.ModelName), slog.Any("error", err))
		return nil
	}
	return err
}

// dropNodes removes the models of a workflow.
func (s *Server) dropNodes(ctx context.Context, w *workflow) {
	for name := range w.nodes {
		v := s.node(w, name)
		if v == nil {
			continue
		}
		if err := s.drop(ctx, v); err != nil {
			s.deps.Log.WarnContext(ctx, "A node of a workflow does not end", slog.String("model", v.name), slog.Any("error", err))
		}
	}
}

// node is the version that is a node of w: others of its name may be registered besides, by
// themselves or by a workflow whose names are the same together.
func (s *Server) node(w *workflow, name string) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.models[w.model(name)]; f != nil {
		for _, v := range f.versions {
			if v.workflow == w {
				return v
			}
		}
	}
	return nil
}

func workflowNotFound(name string) *Error {
	return errorf(http.StatusNotFound, WorkflowNotFound, "Workflow not found: %s", name)
}

// UnregisterWorkflow removes it with its models.
func (s *Server) UnregisterWorkflow(ctx context.Context, name string) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	w := s.workflows[name]
	delete(s.workflows, name)
	s.mu.Unlock()
	if w == nil {
		if s.forgetWorkflow(name) {
			return nil
		}
		return workflowNotFound(name)
	}
	s.dropNodes(context.WithoutCancel(ctx), w)
	err := w.archive.Remove()
	s.snapshot("snap")
	return err
}

// Workflows lists all by name.
func (s *Server) Workflows() []Workflow {
	s.mu.Lock()
	all := make([]Workflow, 0, len(s.workflows))
	for _, w := range s.workflows {
		all = append(all, w.describe())
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Workflow) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// DescribeWorkflow gives one.
func (s *Server) DescribeWorkflow(name string) (Workflow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workflows[name]
	if w == nil {
		return Workflow{}, workflowNotFound(name)
	}
	return w.describe(), nil
}

func (w *workflow) describe() Workflow {
	d := w.archive.Spec.Defaults
	return Workflow{
		Name: w.name, URL: w.archive.URL, MinWorkers: d.MinWorkers, MaxWorkers: d.MaxWorkers,
		BatchSize: d.BatchSize, MaxDelay: d.MaxBatchDelay, Definition: w.archive.Spec.JSON,
	}
}

// result is what a node of a running workflow gave.
type result struct {
	node string
	body []byte
	err  error
}

// PredictWorkflow runs the graph of a workflow for one request: nodes run as soon as
// all that they take is there. One parent's output is a node's body; of several, each
// is a part with its node's name. Of several last nodes the answer is a JSON object.
func (s *Server) PredictWorkflow(ctx context.Context, name string, r Request, emit func(Frame) error) error {
	s.mu.Lock()
	w := s.workflows[name]
	s.mu.Unlock()
	if w == nil {
		return workflowNotFound(name)
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(w.nodes))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	start := func(node string, parts []Part) {
		in := r
		in.ID, in.Parts = "", parts
		wg.Go(func() {
			body, err := s.runNode(ctx, w, node, in)
			results <- result{node: node, body: body, err: err}
		})
	}
	missing := map[string]int{}
	for node := range w.nodes {
		if missing[node] = len(w.parents[node]); missing[node] == 0 {
			start(node, r.Parts)
		}
	}
	done := map[string][]byte{}
	for len(done) < len(w.nodes) {
		got := <-results
		if got.err != nil {
			return got.err
		}
		done[got.node] = got.body
		for _, next := range w.archive.Spec.Edges[got.node] {
			if missing[next]--; missing[next] == 0 {
				start(next, w.inputs(next, done))
			}
		}
	}
	body, err := w.output(done)
	if err != nil {
		return err
	}
	return emit(Frame{Status: http.StatusOK, ContentType: "application/json", Body: body})
}

func (w *workflow) inputs(node string, done map[string][]byte) []Part {
	parents := w.parents[node]
	if len(parents) == 1 {
		return []Part{{Name: "body", Value: done[parents[0]]}}
	}
	parts := make([]Part, len(parents))
	for i, p := range parents {
		parts[i] = Part{Name: p, Value: done[p]}
	}
	return parts
}

func (w *workflow) output(done map[string][]byte) ([]byte, error) {
	last := map[string]json.RawMessage{}
	for node := range w.nodes {
		if len(w.archive.Spec.Edges[node]) > 0 {
			continue
		}
		last[node] = done[node]
	}
	if len(last) == 1 {
		for _, body := range last {
			return body, nil
		}
	}
	for node, body := range last {
		if !json.Valid(body) {
			return nil, errorf(http.StatusInternalServerError, InternalServer, "Workflow inference request failed! The last node %s of several gave no JSON", node)
		}
	}
	return json.MarshalIndent(last, "", "  ")
}

// runNode asks a node's model, again when it fails, within its timeout.
func (s *Server) runNode(ctx context.Context, w *workflow, node string, r Request) ([]byte, error) {
	n := w.nodes[node]
	attempts := max(n.RetryAttempts, 1)
	var last error
	for attempt := 1; attempt <= attempts; attempt++ {
		body, err := s.tryNode(ctx, w.model(node), n.Timeout, r)
		if err == nil {
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
		s.deps.Log.WarnContext(ctx, "A node of a workflow failed", slog.String("workflow", w.name), slog.String("node", node), slog.Int("attempt", attempt), slog.Any("error", err))
	}
	return nil, errorf(http.StatusInternalServerError, InternalServer, "Failed to execute workflow Node after %d attempts : Error executing %s: %w", attempts, w.model(node), last)
}

func (s *Server) tryNode(ctx context.Context, model string, timeout time.Duration, r Request) ([]byte, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errorf(http.StatusInternalServerError, InternalServer, "Timed out after %s", timeout))
		defer cancel()
	}
	var body bytes.Buffer
	status := http.StatusOK
	err := s.Predict(ctx, model, "", r, func(f Frame) error {
		if f.Status != 0 && body.Len() == 0 {
			status = f.Status
		}
		body.Write(f.Body)
		return nil
	})
	if err == nil && (status < 200 || status > 299) {
		err = errorf(http.StatusInternalServerError, InternalServer, "it answers with status %d: %.500s", status, body.Bytes())
	}
	return body.Bytes(), err
}
