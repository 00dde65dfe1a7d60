package torchserve

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"tategu/internal/mar"
)

// Defaults that no configuration changes.
const (
	defaultRetry = 300 * time.Second
	maxWorkers   = 1000 // of one model
)

// archiveError gives mar's errors TorchServe's statuses.
func archiveError(err error) error {
	var e *mar.Error
	if !errors.As(err, &e) {
		return errorf(http.StatusInternalServerError, InternalServer, "%w", err)
	}
	code := http.StatusBadRequest
	if e.Kind == mar.NotFound {
		code = http.StatusNotFound
	}
	return &Error{Code: code, Type: string(e.Kind), Message: e.Message, Err: err}
}

// Register takes a model. As every change, it waits until those of the start are there.
func (s *Server) Register(ctx context.Context, r Registration) (Registered, error) {
	if err := s.settled(ctx); err != nil {
		return Registered{}, err
	}
	out, err := s.register(ctx, r, origin{})
	if err == nil {
		s.snapshot("snap")
	}
	return out, err
}

// origin is where a registration comes from, besides the API.
type origin struct {
	startup  bool
	workflow *workflow   // that it is a node of
	saved    *savedModel // what a snapshot says
	initial  int         // workers where nobody says how many; 0 = the configuration's default
	most     int         // as many as it may have by its load then; 0 = initial
	function *mar.Archive
}

func (s *Server) register(ctx context.Context, r Registration, o origin) (Registered, error) {
	archive := o.function
	if archive == nil {
		var err error
		if archive, err = s.store.Open(ctx, r.URL); err != nil {
			return Registered{}, archiveError(err)
		}
	}
	v, workers, most, err := s.prepare(ctx, archive, r, o)
	if err == nil {
		err = s.add(v)
	}
	if err != nil {
		return Registered{}, errors.Join(err, archive.Remove())
	}
	out := Registered{Model: v.name, Version: v.id, Workers: workers}
	if workers == 0 {
		return out, nil
	}
	err = s.resize(ctx, v, workers, most, r.Synchronous)
	if err != nil && !o.startup {
		// A model that does not start is no model, as in TorchServe.
		err = errors.Join(err, s.drop(context.WithoutCancel(ctx), v))
		s.snapshot("snap") // one of another change may have it
		return Registered{}, err
	}
	out.Started = r.Synchronous && err == nil
	return out, err
}

// prepare makes the version that a registration asks for.
func (s *Server) prepare(ctx context.Context, archive *mar.Archive, r Registration, o origin) (v *version, workers, most int, err error) {
	m := archive.Manifest.Model
	v = &version{srv: s, archive: archive, startup: o.startup, workflow: o.workflow, name: cmp.Or(r.ModelName, m.Name), id: cmp.Or(m.Version, "1.0")}
	if err := mar.CheckName(v.name); err != nil {
		return nil, 0, 0, errorf(http.StatusBadRequest, BadRequest, "model_name: %w", err)
	}
	if r.Runtime != "" && !strings.EqualFold(r.Runtime, "python") && !strings.EqualFold(r.Runtime, "python3") {
		return nil, 0, 0, errorf(http.StatusBadRequest, BadRequest, "Invalid RuntimeType value: %s", r.Runtime)
	}
	if err := supported(archive.Config); err != nil {
		return nil, 0, 0, err
	}
	if v.set, workers, most, err = s.settle(v, r, o); err != nil {
		return nil, 0, 0, err
	}
	if v.set.Handler == "" {
		return nil, 0, 0, errorf(http.StatusBadRequest, InvalidModel, "the archive names no handler: name one with the parameter handler")
	}
	v.log = s.deps.Log.With(slog.String("model", v.name), slog.String("version", v.id))
	v.queue = newQueue(v.set.QueueSize)
	v.directory = s.pythonPath(v.set.Handler)
	if m.RequirementsFile != "" && s.cfg.Requirements {
		if v.python, err = s.environment(ctx, archive); err != nil {
			return nil, 0, 0, s.environmentError(err)
		}
	}
	return v, workers, most, nil
}

func (s *Server) environmentError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return errorf(http.StatusInternalServerError, InternalServer, "%w", err)
}

// pythonPath is what goes before a model's folder: that of a handler FILE:FUNCTION,
// and what the server's own environment says.
func (s *Server) pythonPath(handler string) (dirs []string) {
	if file, _, ok := strings.Cut(handler, ":"); ok {
		if i := strings.LastIndexByte(file, '/'); i > 0 {
			dirs = append(dirs, file[:i])
		}
	}
	for _, e := range s.workerEnv() {
		if old, ok := strings.CutPrefix(e, "PYTHONPATH="); ok && old != "" {
			dirs = append(dirs, strings.Split(old, ":")...)
		}
	}
	return dirs
}

// add makes a version known.
func (s *Server) add(v *version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.models[v.name]
	if f == nil {
		f = &family{versions: map[string]*version{}, byDef: v.id}
		s.models[v.name] = f
	}
	if f.versions[v.id] != nil {
		return errorf(http.StatusConflict, Conflict, "Model version %s is already registered for model %s", v.id, v.name)
	}
	f.versions[v.id] = v
	return nil
}

// drop makes a version unknown and ends its workers.
func (s *Server) drop(ctx context.Context, v *version) error {
	s.mu.Lock()
	if f := s.models[v.name]; f != nil && f.versions[v.id] == v {
		delete(f.versions, v.id)
		if len(f.versions) == 0 {
			delete(s.models, v.name)
		} else if f.byDef == v.id { // one that failed to start while others came
			f.byDef = slices.Min(slices.Collect(maps.Keys(f.versions)))
		}
	}
	s.mu.Unlock()
	v.mu.Lock()
	v.removed = true
	_, ends := v.scale(0, 0)
	v.mu.Unlock()
	v.queue.flush(errorf(http.StatusServiceUnavailable, ServiceUnavailable, "Model %q Version %s was unregistered", v.name, v.id), true)
	if err := finish(ctx, ends, s.cfg.UnregisterTime); err != nil {
		return errorf(http.StatusRequestTimeout, RequestTimeout, "Timed out while cleaning resources: %s", v.name)
	}
	return v.archive.Remove()
}

// Unregister stops a model's workers and removes it. Version "" is the default one,
// which goes only when it is the last.
func (s *Server) Unregister(ctx context.Context, model, id string) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	v, err := s.find(model, id)
	if err != nil {
		if s.forget(model, id) {
			return nil
		}
		return err
	}
	if v.workflow != nil {
		return errorf(http.StatusConflict, Conflict, "%s is a node of the workflow %s: unregister the workflow", model, v.workflow.name)
	}
	s.mu.Lock()
	f := s.models[model]
	last := f == nil || len(f.versions) == 1 || f.byDef != v.id
	s.mu.Unlock()
	if !last {
		return errorf(http.StatusForbidden, InvalidVersion, "Cannot remove default version for model %s", model)
	}
	// It is unknown from here on, so that it is removed even when the client leaves.
	err = s.drop(context.WithoutCancel(ctx), v)
	s.snapshot("snap")
	return err
}

// Scale changes the number of workers. With Synchronous it returns once they run;
// a worker that cannot start is then its error.
func (s *Server) Scale(ctx context.Context, w Scaling) error {
	least := 1
	if w.MinWorkers != nil {
		least = *w.MinWorkers
	}
	most := least
	if w.MaxWorkers != nil {
		most = *w.MaxWorkers
	}
	switch {
	case most < least:
		return errorf(http.StatusBadRequest, BadRequest, "max_worker cannot be less than min_worker.")
	case least < 0:
		return errorf(http.StatusInternalServerError, InternalServer, "min_worker must not be negative")
	case most > maxWorkers:
		return errorf(http.StatusBadRequest, BadRequest, "%d workers are too many (at most %d)", most, maxWorkers)
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	v, err := s.find(w.Model, w.Version)
	if err != nil {
		return err
	}
	err = s.resize(ctx, v, least, most, w.Synchronous)
	s.snapshot("snap") // workers that do not start are wanted all the same
	return err
}

// resize changes the number of workers of a version, and may wait for that.
func (s *Server) resize(ctx context.Context, v *version, least, most int, wait bool) error {
	v.mu.Lock()
	if v.removed {
		v.mu.Unlock()
		return versionNotFound(v.name, v.id)
	}
	if v.python.path == "" {
		v.mu.Unlock()
		python, err := s.interpreter(ctx)
		if err != nil {
			return errorf(http.StatusInternalServerError, InternalServer, "Failed to start workers for model %s version: %s: %w", v.name, v.id, err)
		}
		v.mu.Lock()
		if v.python.path == "" {
			v.python = python
		}
	}
	starts, ends := v.scale(least, most)
	all := slices.Clone(v.slots)
	v.mu.Unlock()
	for _, w := range ends {
		w.end()
	}
	v.flushAbandoned() // where none is left
	if err := v.start(ctx, starts); err != nil {
		return err
	}
	if !wait {
		return nil
	}
	if err := finish(ctx, ends, s.cfg.UnregisterTime); err != nil {
		return err
	}
	if err := v.awaitFirst(ctx, starts); err != nil {
		return err
	}
	return v.awaitFirst(ctx, all)
}

// SetDefault makes a version the one of requests that name none.
func (s *Server) SetDefault(ctx context.Context, model, id string) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	v, err := s.find(model, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if f := s.models[model]; f != nil {
		f.byDef = v.id
	}
	s.mu.Unlock()
	s.snapshot("snap")
	return nil
}

// Models lists the default version of each model, by name, without those of workflows.
func (s *Server) Models() []Model {
	s.mu.Lock()
	var found []*version
	for _, f := range s.models {
		if v := f.versions[f.byDef]; v != nil && v.workflow == nil {
			found = append(found, v)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b *version) int { return strings.Compare(a.name, b.name) })
	models := make([]Model, len(found))
	for i, v := range found {
		models[i] = v.describe()
		models[i].Default = true
	}
	return models
}

// Describe gives a version ("" = the default, "all" = every one). With customized the
// handler is asked to describe the model as well.
func (s *Server) Describe(ctx context.Context, model, id string, customized bool) ([]Model, error) {
	var found []*version
	if id != "all" {
		v, err := s.find(model, id)
		if err != nil {
			return nil, err
		}
		found = append(found, v)
	} else {
		s.mu.Lock()
		f := s.models[model]
		if f == nil {
			s.mu.Unlock()
			return nil, modelNotFound(model)
		}
		for _, v := range f.versions {
			found = append(found, v)
		}
		s.mu.Unlock()
		slices.SortFunc(found, func(a, b *version) int { return strings.Compare(a.id, b.id) })
	}
	s.mu.Lock()
	def := ""
	if f := s.models[model]; f != nil {
		def = f.byDef
	}
	s.mu.Unlock()
	models := make([]Model, len(found))
	for i, v := range found {
		if models[i] = v.describe(); customized {
			models[i].CustomizedMetadata, models[i].CustomizedMetadataErr = s.customized(ctx, v)
		}
		models[i].Default = v.id == def
	}
	return models, nil
}

// customized asks a handler to describe its model.
func (s *Server) customized(ctx context.Context, v *version) (data []byte, problem string) {
	j := newJob(Request{Headers: []Pair{{Name: "describe", Value: "True"}}})
	err := s.runJob(ctx, v, j, func(f Frame) error {
		data = append(data, f.Body...)
		return nil
	})
	if err != nil {
		return nil, err.Error()
	}
	return data, ""
}
