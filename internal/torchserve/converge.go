package torchserve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
)

// State tells which models and workflows are registered and how, for Converge of another
// server. Those that Converge could not register are in it.
func (s *Server) State() ([]byte, error) {
	is := state{Models: s.saved(), Workflows: s.savedWorkflows()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, versions := range s.lost {
		if is.Models[name] == nil {
			is.Models[name] = map[string]savedModel{}
		}
		for id, m := range versions {
			if _, there := is.Models[name][id]; !there {
				is.Models[name][id] = m
			}
		}
	}
	for name, m := range s.lostWorkflows {
		if _, there := is.Workflows[name]; !there {
			is.Workflows[name] = m
		}
	}
	return is.marshal()
}

// Converge registers, scales and removes models and workflows until State is the one
// given. It does as much as it can: what cannot be registered is told in the log and in
// the error, and stays in State.
func (s *Server) Converge(ctx context.Context, data []byte) error {
	wanted, err := parseState(data)
	if err != nil {
		return err
	}
	s.convergeMu.Lock()
	defer s.convergeMu.Unlock()
	failed := []error{s.dropWorkflows(ctx, wanted.Workflows)} // their names are free then
	lost, more := s.becomeAll(ctx, wanted.Models)
	failed = append(failed, more...)
	lostWorkflows, more := s.becomeWorkflows(ctx, wanted.Workflows)
	failed = append(failed, more...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	s.lost, s.lostWorkflows = lost, lostWorkflows
	s.mu.Unlock()
	return errors.Join(append(failed, s.settleDefaults(ctx, &wanted))...)
}

// becomeAll makes each version what is wanted, and gives those that cannot be registered.
func (s *Server) becomeAll(ctx context.Context, wanted map[string]map[string]savedModel) (lost map[string]map[string]savedModel, failed []error) {
	lost = map[string]map[string]savedModel{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		for _, id := range slices.Sorted(maps.Keys(wanted[name])) {
			m := wanted[name][id]
			err := s.become(ctx, name, id, &m)
			if ctx.Err() != nil {
				return lost, failed
			}
			if err == nil {
				continue
			}
			s.deps.Log.ErrorContext(ctx, "A model cannot be what it is elsewhere", slog.String("model", name), slog.String("version", id), slog.Any("error", err))
			failed = append(failed, fmt.Errorf("%s, version %s: %w", name, id, err))
			if _, err := s.find(name, id); err != nil {
				if lost[name] == nil {
					lost[name] = map[string]savedModel{}
				}
				lost[name][id] = m
			}
		}
	}
	return lost, failed
}

// become makes one version what is wanted.
func (s *Server) become(ctx context.Context, name, id string, m *savedModel) error {
	now, there := s.saved()[name][id]
	if there && !now.sameModel(m) {
		v, err := s.find(name, id)
		if err == nil {
			err = s.drop(ctx, v)
		}
		if err != nil {
			return err
		}
		there = false
	}
	if !there {
		out, err := s.register(ctx, Registration{URL: m.Archive, ModelName: name, Handler: m.Handler, Synchronous: true}, origin{saved: m})
		if err == nil && out.Version != id {
			err = fmt.Errorf("the archive %s is now of version %s", m.Archive, out.Version)
			if v, bad := s.find(name, out.Version); bad == nil {
				err = errors.Join(err, s.drop(ctx, v))
			}
		}
		return err
	}
	if now.sameWorkers(m) {
		return nil
	}
	v, err := s.find(name, id)
	if err != nil {
		return err
	}
	return s.resizeTo(ctx, v, m)
}

func (s *Server) resizeTo(ctx context.Context, v *version, m *savedModel) error {
	least := workers(m.MinWorkers)
	return s.resize(ctx, v, least, max(least, workers(m.MaxWorkers)), true)
}

func (m *savedModel) sameWorkers(o *savedModel) bool {
	return workers(m.MinWorkers) == workers(o.MinWorkers) && workers(m.MaxWorkers) == workers(o.MaxWorkers)
}

// settleDefaults names the default versions and removes what nobody wants.
func (s *Server) settleDefaults(ctx context.Context, wanted *state) error {
	for name, versions := range wanted.Models {
		for id, m := range versions {
			if m.Default {
				s.setDefault(name, id)
			}
		}
	}
	s.settleNodes(wanted.Workflows)
	var failed []error
	for name, versions := range s.saved() {
		for id := range versions {
			if _, ok := wanted.Models[name][id]; ok {
				continue
			}
			v, err := s.find(name, id)
			if err == nil {
				err = s.drop(ctx, v)
			}
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// settleNodes makes nodes the default versions of their names, where they are to be.
func (s *Server) settleNodes(wanted map[string]savedWorkflow) {
	for name, m := range wanted {
		s.mu.Lock()
		w := s.workflows[name]
		s.mu.Unlock()
		if w == nil {
			continue
		}
		for node, n := range m.Nodes {
			if v := s.node(w, node); v != nil && n.Default {
				s.setDefault(v.name, v.id)
			}
		}
	}
}

// sameModel compares what a version is registered with, but for its workers.
func (m *savedModel) sameModel(o *savedModel) bool {
	return m.Archive == o.Archive && m.Handler == o.Handler && cmp.Compare(workers(m.BatchSize), workers(o.BatchSize)) == 0 &&
		equal(m.MaxBatchDelay, o.MaxBatchDelay) && equal(m.ResponseTimeout, o.ResponseTimeout) && equal(m.StartupTimeout, o.StartupTimeout)
}

func equal(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }

func workers(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// forget removes a model that is registered elsewhere and could not be here. It reports
// whether there was one.
func (s *Server) forget(model, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.lost[model]
	if _, ok := versions[id]; !ok && (id != "" || len(versions) == 0) {
		return false
	}
	if delete(versions, id); id == "" || len(versions) == 0 {
		delete(s.lost, model)
	}
	return true
}

// dropWorkflows removes the workflows that nobody wants, or that are to be others.
func (s *Server) dropWorkflows(ctx context.Context, wanted map[string]savedWorkflow) error {
	var failed []error
	for name, is := range s.savedWorkflows() {
		if m, ok := wanted[name]; !ok || !is.sameWorkflow(&m) {
			failed = append(failed, s.UnregisterWorkflow(ctx, name))
		}
	}
	return errors.Join(failed...)
}

// becomeWorkflows makes each workflow what is wanted, and gives those that cannot be
// registered.
func (s *Server) becomeWorkflows(ctx context.Context, wanted map[string]savedWorkflow) (lost map[string]savedWorkflow, failed []error) {
	lost = map[string]savedWorkflow{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		m := wanted[name]
		err := s.becomeWorkflow(ctx, name, &m)
		if ctx.Err() != nil {
			return lost, failed
		}
		if err == nil {
			continue
		}
		s.deps.Log.ErrorContext(ctx, "A workflow cannot be what it is elsewhere", slog.String("workflow", name), slog.Any("error", err))
		failed = append(failed, fmt.Errorf("workflow %s: %w", name, err))
		if _, err := s.DescribeWorkflow(name); err != nil {
			lost[name] = m
		}
	}
	return lost, failed
}

func (s *Server) becomeWorkflow(ctx context.Context, name string, m *savedWorkflow) error {
	is, there := s.savedWorkflows()[name]
	if !there {
		_, err := s.registerWorkflow(ctx, m.registration(name), origin{}, m.Nodes)
		return err
	}
	s.mu.Lock()
	w := s.workflows[name]
	s.mu.Unlock()
	var failed []error
	for node, now := range is.Nodes {
		want, ok := m.Nodes[node]
		if !ok || w == nil || now.sameWorkers(&want) {
			continue
		}
		if v := s.node(w, node); v != nil {
			failed = append(failed, s.resizeTo(ctx, v, &want))
		}
	}
	return errors.Join(failed...)
}

// forgetWorkflow removes one that is registered elsewhere and could not be here.
func (s *Server) forgetWorkflow(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.lostWorkflows[name]
	delete(s.lostWorkflows, name)
	return ok
}
