package replica

import (
	"context"
	"errors"
	"fmt"

	"tategu/internal/runtime"
)

// Each calls f for every program that was, or is being, prepared, at the same time, with
// the number of its replica. One for which f fails gets no requests before Config.Prepare
// was called for it again.
func (s *Set) Each(ctx context.Context, f func(ctx context.Context, index int, b Backend) error) error {
	type reached struct {
		m    *member
		inst runtime.Instance
	}
	s.mu.Lock()
	var all []reached
	for _, m := range s.members {
		if m.inst != nil && m.prepared == m.inst {
			all = append(all, reached{m, m.inst})
		}
	}
	s.mu.Unlock()
	failed := make(chan error, len(all))
	for _, r := range all {
		go func() {
			err := f(ctx, r.m.index, &remote{s.client, r.inst.Address()})
			if err != nil {
				r.m.prepareAgain(r.inst)
				err = fmt.Errorf("replica %d of %s: %w", r.m.index, s.cfg.Title, err)
			}
			failed <- err
		}()
	}
	errs := make([]error, 0, len(all))
	for range all {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// prepareAgain takes a program out of rotation until it was prepared anew.
func (m *member) prepareAgain(inst runtime.Instance) {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	if m.prepared == inst {
		m.prepared = nil
		m.doubt()
	}
}
