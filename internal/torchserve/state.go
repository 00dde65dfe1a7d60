package torchserve

import (
	"encoding/json"
	"net/http"
	"time"
)

// savedWorkflow is a workflow in a snapshot, and in a State.
type savedWorkflow struct {
	Archive         string                `json:"warName"`
	ResponseTimeout *int64                `json:"responseTimeout,omitempty"` // seconds
	StartupTimeout  *int64                `json:"startupTimeout,omitempty"`  // seconds
	Nodes           map[string]savedModel `json:"nodes,omitempty"`           // by their names in its graph
}

func (m *savedWorkflow) registration(name string) WorkflowRegistration {
	return WorkflowRegistration{
		URL: m.Archive, Name: name,
		ResponseTimeout: times(m.ResponseTimeout, time.Second), StartupTimeout: times(m.StartupTimeout, time.Second),
	}
}

// sameWorkflow compares what a workflow is registered with, but for the workers of nodes.
func (m *savedWorkflow) sameWorkflow(o *savedWorkflow) bool {
	return m.Archive == o.Archive && equal(m.ResponseTimeout, o.ResponseTimeout) && equal(m.StartupTimeout, o.StartupTimeout)
}

// saved gives all models but those of workflows.
func (s *Server) saved() map[string]map[string]savedModel {
	s.mu.Lock()
	var all []registered
	for _, f := range s.models {
		for _, v := range f.versions {
			if v.workflow == nil {
				all = append(all, registered{v, f.byDef == v.id})
			}
		}
	}
	s.mu.Unlock()
	models := map[string]map[string]savedModel{}
	for _, e := range all {
		if models[e.v.name] == nil {
			models[e.v.name] = map[string]savedModel{}
		}
		models[e.v.name][e.v.id] = e.save()
	}
	return models
}

// savedWorkflows gives the workflows with what their nodes are.
func (s *Server) savedWorkflows() map[string]savedWorkflow {
	s.mu.Lock()
	all, nodes := map[string]savedWorkflow{}, map[string]map[string]registered{}
	for name, w := range s.workflows {
		all[name] = savedWorkflow{
			Archive: w.asked.URL, ResponseTimeout: seconds(w.asked.ResponseTimeout), StartupTimeout: seconds(w.asked.StartupTimeout),
			Nodes: map[string]savedModel{},
		}
		nodes[name] = map[string]registered{}
		for node := range w.nodes {
			f := s.models[w.model(node)]
			if f == nil {
				continue
			}
			for _, v := range f.versions {
				if v.workflow == w {
					nodes[name][node] = registered{v, f.byDef == v.id}
				}
			}
		}
	}
	s.mu.Unlock()
	for name, of := range nodes {
		for node, e := range of {
			all[name].Nodes[node] = e.save()
		}
	}
	return all
}

func seconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	n := int64(*d / time.Second)
	return &n
}

// registered is a version, and whether it is the default one.
type registered struct {
	v   *version
	def bool
}

func (e registered) save() savedModel {
	m := e.v.describe()
	delay, response, start := m.MaxBatchDelay.Milliseconds(), int64(m.ResponseTimeout/time.Second), int64(m.StartupTimeout/time.Second)
	return savedModel{
		Default: e.def, Archive: m.URL, MinWorkers: &m.MinWorkers, MaxWorkers: &m.MaxWorkers, BatchSize: &m.BatchSize,
		MaxBatchDelay: &delay, ResponseTimeout: &response, StartupTimeout: &start, Handler: m.Handler, Runtime: m.Runtime,
	}
}

// state is what a server has registered. Without workflows its JSON is that of Models
// alone, as it was before there were any.
type state struct {
	Format    int                              `json:"format"` // a number, which no model's entry is
	Models    map[string]map[string]savedModel `json:"models"`
	Workflows map[string]savedWorkflow         `json:"workflows"`
}

const stateFormat = 2

func (s *state) marshal() ([]byte, error) {
	if len(s.Workflows) == 0 {
		return json.Marshal(s.Models)
	}
	s.Format = stateFormat
	return json.Marshal(s)
}

func parseState(data []byte) (state, error) {
	bad := func(err error) error {
		return errorf(http.StatusBadRequest, BadRequest, "the state of models is not what it should be: %w", err)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return state{}, bad(err)
	}
	var s state
	var format int
	if raw, ok := parts["format"]; !ok || json.Unmarshal(raw, &format) != nil {
		if err := json.Unmarshal(data, &s.Models); err != nil {
			return state{}, bad(err)
		}
		return s, nil
	}
	if format != stateFormat {
		return state{}, errorf(http.StatusBadRequest, BadRequest, "the state of models is of format %d: this version of tategu knows %d", format, stateFormat)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, bad(err)
	}
	return s, nil
}
