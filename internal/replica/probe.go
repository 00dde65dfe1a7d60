package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/replica/http1"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// watch follows one instance until it ends, is told to leave (nil) or ctx ends
// (nil). It returns why the instance has to be replaced.
func (m *member) watch(ctx context.Context, inst runtime.Instance, adopted bool) error {
	exits := make(chan runtime.Exit, 1)
	alive, cancel := context.WithCancel(ctx)
	var waitErr error
	go func() {
		defer close(exits)
		defer cancel() // a probe need not wait for its limit any more
		exit, err := inst.Wait(alive)
		if waitErr = err; err == nil {
			exits <- exit
		}
	}()
	defer func() {
		cancel()
		for range exits { // until the goroutine above is gone
		}
	}()
	h := health{member: m, inst: inst, checked: adopted, next: probeFirst, began: time.Now()}
	timer := time.NewTimer(h.next)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.leave:
			return nil
		case exit, ok := <-exits:
			if !ok {
				return fmt.Errorf("wait for replica %d: %w", m.index, waitErr)
			}
			return m.ended(exit, h.ready)
		case <-timer.C:
			if alive.Err() != nil {
				continue // ended: the exit comes next
			}
			if err := h.probe(alive); err != nil {
				return err
			}
			timer.Reset(h.next)
		case <-m.poke:
			timer.Reset(0)
		}
	}
}

// health is what is known of one instance.
type health struct {
	member  *member
	inst    runtime.Instance
	ready   bool // has been, at least once
	checked bool // by Config.Check
	bad     int  // bad answers in a row
	refused int  // of these, connections that could not be made
	next    time.Duration
	began   time.Time // to become ready
}

// probe asks once and moves the replica in or out of rotation.
func (h *health) probe(ctx context.Context) error {
	m := h.member
	if st := h.inst.Status(); st.Phase == runtime.Queued {
		// Its time to become ready begins when there is room for it.
		m.progress(st.Message)
		h.next, h.began = probeStarting, time.Now()
		return nil
	}
	address := h.inst.Address()
	err := errors.New("it has no address yet")
	if address != "" {
		err = m.set.get(ctx, address)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the watch ended: what the probe saw does not matter
	}
	if err == nil {
		if bad := h.prepare(ctx, address); bad != nil || ctx.Err() != nil {
			return bad
		}
		if bad := h.check(ctx, address); bad != nil || ctx.Err() != nil {
			return bad
		}
		if !h.ready || h.bad >= unhealthyAfter || m.doubted() {
			m.become(Ready, &remote{m.set.client, address}, "")
		}
		h.ready, h.bad, h.refused, h.next = true, 0, 0, probeReady
		return nil
	}
	if !h.ready {
		// What is found late should be a small part of what the start took.
		h.next = min(max(probeFirst, time.Since(h.began)/8), probeStarting)
		m.progress(h.inst.Status().Message)
		if time.Since(h.began) > m.set.cfg.Start {
			return m.late(ctx, h.inst, err)
		}
		return nil
	}
	if m.doubted() {
		h.next = probeSuspect
	}
	h.bad++
	h.refused++
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		h.refused = 0
	}
	if h.refused >= unhealthyAfter {
		e := resource.Errorf(codes.FailedPrecondition, "replica %d of %s accepts no connections any more: %w", m.index, m.set.cfg.Title, err).
			WithCause(resource.CauseUserCode)
		e.Program = &resource.Program{ExitCode: resource.NeverStarted, Tail: tail(ctx, h.inst)}
		return e
	}
	if h.bad == unhealthyAfter {
		m.become(Unhealthy, nil, err.Error())
	}
	return nil
}

// prepare has a program made what it is to be. From before this on, Each reaches it: what
// is told to all meanwhile is not missed.
func (h *health) prepare(ctx context.Context, address string) error {
	m := h.member
	if m.set.cfg.Prepare == nil || !m.unprepared(h.inst) {
		return nil
	}
	m.progress("being prepared before it gets requests")
	err := m.set.cfg.Prepare(ctx, &remote{m.set.client, address})
	if err == nil || ctx.Err() != nil {
		return nil //nolint:nilerr // the program or the watch has ended, which is told elsewhere
	}
	return &unfitError{err}
}

// unprepared says whether a program has still to be prepared, and marks it as prepared.
func (m *member) unprepared(inst runtime.Instance) bool {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	first := m.prepared != inst
	m.prepared = inst
	return first
}

// check has a program looked at that is healthy for the first time.
func (h *health) check(ctx context.Context, address string) error {
	set := h.member.set
	if h.checked || set.cfg.Check == nil {
		return nil
	}
	h.checked = true
	h.member.progress("being checked before it gets requests")
	err := set.cfg.Check(ctx, &remote{set.client, address})
	if err == nil || ctx.Err() != nil {
		return nil //nolint:nilerr // the program or the watch has ended, which is told elsewhere
	}
	return &unfitError{err}
}

func (m *member) doubted() bool {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	return m.suspect
}

// progress notes what a starting replica is doing.
func (m *member) progress(message string) {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.message = message
}

// get asks the health route once.
func (s *Set) get(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	resp, err := s.client.Do(ctx, address, &http1.Request{Method: http.MethodGet, Path: s.cfg.Health})
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	// What it says does not matter; reading it lets the connection be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if resp.Status != http.StatusOK {
		return &healthError{strconv.Itoa(resp.Status) + " " + http.StatusText(resp.Status)}
	}
	return nil
}

// healthError is an answer of the health route that is not 200.
type healthError struct{ status string }

func (b *healthError) Error() string { return "the health route answered " + b.status }
