package torchserve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
)

// State tells which models are registered and how, for Converge of another server. The
// models of workflows are not in it. Models that Converge could not register are.
func (s *Server) State() ([]byte, error) {
	models := s.saved()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, versions := range s.lost {
		if models[name] == nil {
			models[name] = map[string]savedModel{}
		}
		for id, m := range versions {
			if _, there := models[name][id]; !there {
				models[name][id] = m
			}
		}
	}
	return json.Marshal(models)
}

// Converge registers, scales and removes models until State is the one given. It does
// as much as it can: a model that cannot be registered is told in the log and in the
// error, and stays in State.
func (s *Server) Converge(ctx context.Context, state []byte) error {
	var wanted map[string]map[string]savedModel
	if err := json.Unmarshal(state, &wanted); err != nil {
		return errorf(http.StatusBadRequest, BadRequest, "the state of models is not what it should be: %w", err)
	}
	s.convergeMu.Lock()
	defer s.convergeMu.Unlock()
	lost := map[string]map[string]savedModel{}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		for _, id := range slices.Sorted(maps.Keys(wanted[name])) {
			m := wanted[name][id]
			err := s.become(ctx, name, id, &m)
			if ctx.Err() != nil {
				return context.Cause(ctx)
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
	s.mu.Lock()
	s.lost = lost
	s.mu.Unlock()
	return errors.Join(append(failed, s.settleDefaults(ctx, wanted))...)
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
	if workers(now.MinWorkers) == workers(m.MinWorkers) && workers(now.MaxWorkers) == workers(m.MaxWorkers) {
		return nil
	}
	v, err := s.find(name, id)
	if err != nil {
		return err
	}
	least := workers(m.MinWorkers)
	return s.resize(ctx, v, least, max(least, workers(m.MaxWorkers)), true)
}

// settleDefaults names the default versions and removes what nobody wants.
func (s *Server) settleDefaults(ctx context.Context, wanted map[string]map[string]savedModel) error {
	for name, versions := range wanted {
		for id, m := range versions {
			if m.Default {
				s.setDefault(name, id)
			}
		}
	}
	var failed []error
	for name, versions := range s.saved() {
		for id := range versions {
			if _, ok := wanted[name][id]; ok {
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
