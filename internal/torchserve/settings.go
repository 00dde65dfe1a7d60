package torchserve

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"tategu/internal/mar"
)

// supported refuses by name what workers would need and do not get.
func supported(c mar.Config) error {
	switch {
	case c.ParallelType == "pp" || c.ParallelType == "tp" || c.ParallelType == "pptp" || len(c.TorchRun) > 0:
		return errorf(http.StatusBadRequest, InvalidModel, "the archive asks for torchrun (parallelType %s), which is not supported: docs/compat.md", c.ParallelType)
	case c.SequenceBatching:
		return errorf(http.StatusBadRequest, InvalidModel, "the archive asks for sequenceBatching, which is not supported: docs/compat.md")
	case c.AsyncCommunication && c.ContinuousBatching:
		return errorf(http.StatusBadRequest, InvalidModel, "asyncCommunication and continuousBatching exclude each other")
	case c.DeviceType == "neuron":
		return errorf(http.StatusBadRequest, InvalidModel, "deviceType neuron is not supported")
	}
	return nil
}

// settle finds each setting: the archive's, then the configuration's for this model,
// then the registration's, then the defaults. Between least and most workers their number
// follows the load.
func (s *Server) settle(v *version, r Registration, o origin) (set settings, least, most int, err error) {
	c := v.archive.Config
	saved := o.saved
	if saved == nil {
		if saved, err = s.configured(v.name, v.id); err != nil {
			return settings{}, 0, 0, err
		}
	}
	set = settings{
		BatchSize:       first(c.BatchSize, saved.BatchSize, nonZero(r.BatchSize), new(1)),
		MaxBatchDelay:   first(c.MaxBatchDelay, saved.delay(), r.MaxBatchDelay, new(time.Duration)),
		ResponseTimeout: first(c.ResponseTimeout, saved.response(), r.ResponseTimeout, &s.cfg.ResponseTimeout),
		StartupTimeout:  first(c.StartupTimeout, saved.start(), r.StartupTimeout, &s.cfg.StartupTimeout),
		MaxRetryTimeout: first(c.MaxRetryTimeout, new(defaultRetry)),
		ClientTimeout:   first(c.ClientTimeout, new(time.Duration)),
		QueueSize:       first(c.JobQueueSize, &s.cfg.JobQueueSize),
		Ticket:          c.UseJobTicket, Async: c.AsyncCommunication, Continuous: c.ContinuousBatching, UseVenv: c.UseVenv,
		Handler: cmp.Or(r.Handler, v.archive.Manifest.Model.Handler, s.cfg.DefaultHandler), Runtime: "python",
	}
	initial, usual := o.initial, o.most
	if initial == 0 {
		initial, usual = s.usual()
	}
	least = first(c.MinWorkers, saved.MinWorkers, r.InitialWorkers, &initial)
	if o.saved != nil && o.saved.MinWorkers != nil {
		least = *o.saved.MinWorkers // the last that was asked for
	}
	switch {
	case o.saved != nil && o.saved.MaxWorkers != nil:
		most = *o.saved.MaxWorkers
	case c.MaxWorkers != nil || saved.MaxWorkers != nil:
		most = first(c.MaxWorkers, saved.MaxWorkers)
	case c.MinWorkers == nil && saved.MinWorkers == nil && r.InitialWorkers == nil:
		most = usual
	}
	least = max(least, 0)
	most = max(most, least)
	switch {
	case set.BatchSize < 1:
		return set, 0, 0, errorf(http.StatusBadRequest, BadRequest, "batch_size must be at least 1, not %d", set.BatchSize)
	case set.MaxBatchDelay < 0 || set.ResponseTimeout < 0 || set.StartupTimeout < 0:
		return set, 0, 0, errorf(http.StatusBadRequest, BadRequest, "max_batch_delay, response_timeout and startup_timeout must not be negative")
	case most > maxWorkers:
		return set, 0, 0, errorf(http.StatusBadRequest, BadRequest, "%d workers are too many (at most %d)", most, maxWorkers)
	}
	return set, least, most, nil
}

// usual is how many workers a model has where nobody says how many, and may have by its
// load: with GPUs one for each.
func (s *Server) usual() (initial, most int) {
	switch {
	case s.cfg.DefaultMost > s.cfg.DefaultWorkers && s.gpus > 0:
		return s.gpus, s.gpus
	case s.cfg.DefaultMost > s.cfg.DefaultWorkers:
		return s.cfg.DefaultWorkers, s.cfg.DefaultMost
	}
	return s.cfg.DefaultWorkers, s.cfg.DefaultWorkers
}

func first[T any](values ...*T) T {
	for _, v := range values {
		if v != nil {
			return *v
		}
	}
	var zero T
	return zero
}

func nonZero(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// configured is what the key "models" of the configuration says of a version.
func (s *Server) configured(name, id string) (*savedModel, error) {
	raw, ok := s.cfg.Models[name]
	if !ok {
		return &savedModel{}, nil
	}
	var versions map[string]savedModel
	if err := json.Unmarshal(raw, &versions); err != nil {
		return nil, fmt.Errorf("models: %s: %w", name, err)
	}
	saved := versions[id]
	return &saved, nil
}
