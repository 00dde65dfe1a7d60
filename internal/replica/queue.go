package replica

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// waiter is a request in the queue.
type waiter struct {
	bytes int64
	turn  chan turn // buffered: whoever takes the waiter off the queue sends one
}

type turn struct {
	to  *member
	err error
}

// Do sends a request to the replica with the fewest in flight. It waits its turn
// when all are busy or starting; a caller that leaves meanwhile is forgotten
// unsent. A full queue is ResourceExhausted, a set that cannot start Unavailable.
func (s *Set) Do(ctx context.Context, r *Request) (*Response, error) {
	m, err := s.acquire(ctx, int64(len(r.Body)))
	if err != nil {
		return nil, err
	}
	resp, err := m.backend.Do(ctx, r)
	if err != nil {
		s.release(m)
		return nil, s.explain(ctx, err)
	}
	resp.Body = &leased{ReadCloser: resp.Body, release: func() { s.release(m) }}
	return resp, nil
}

func (s *Set) acquire(ctx context.Context, bytes int64) (*member, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.explain(ctx, err)
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return nil, resource.Errorf(codes.Unavailable, "%s is being stopped", s.cfg.Title)
	}
	if s.queue.Len() == 0 {
		if m := s.pick(); m != nil {
			m.inFlight++
			s.mu.Unlock()
			return m, nil
		}
	}
	if err := s.broken(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if s.queue.Len() >= s.cfg.Queue || s.queued+bytes > s.cfg.QueueBytes {
		n := s.queue.Len()
		s.mu.Unlock()
		return nil, resource.Errorf(codes.ResourceExhausted, "%s is overloaded: %d requests wait already", s.cfg.Title, n).
			WithCause(resource.CauseResource).WithHint("try again in a moment, or deploy more replicas")
	}
	w := &waiter{bytes: bytes, turn: make(chan turn, 1)}
	at := s.queue.PushBack(w)
	s.queued += bytes
	s.mu.Unlock()
	select {
	case t := <-w.turn:
		return t.to, t.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	select {
	case t := <-w.turn: // the turn came at the same time
		if t.to != nil {
			s.giveBack(t.to)
		}
	default:
		s.queue.Remove(at)
		s.queued -= bytes
	}
	s.mu.Unlock()
	return nil, s.explain(ctx, ctx.Err())
}

// explain turns a failed exchange into what the caller should know.
func (s *Set) explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return resource.Errorf(codes.Canceled, "the caller left: %w", context.Canceled)
	case ctx.Err() != nil:
		return resource.Errorf(codes.Unavailable, "%s did not answer in time: %w", s.cfg.Title, context.DeadlineExceeded).
			WithCause(resource.CauseUserCode).WithHint("ask for a longer timeout, deploy more replicas, or make the model faster")
	}
	return resource.Errorf(codes.Unavailable, "a replica of %s broke the connection: %w", s.cfg.Title, err).WithCause(resource.CauseUserCode)
}

// pick gives the ready replica with the fewest requests, nil when none has room.
// The caller holds the lock.
func (s *Set) pick() *member {
	var best *member
	for _, m := range s.members {
		if m.state == Ready && m.inFlight < s.cfg.Concurrency && (best == nil || m.inFlight < best.inFlight) {
			best = m
		}
	}
	return best
}

func (s *Set) release(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(m)
}

// giveBack ends a request on m and serves the queue. The caller holds the lock.
func (s *Set) giveBack(m *member) {
	m.inFlight--
	s.pump()
	s.signal()
}

// pump hands out turns in order, or answers everyone when nothing can serve them.
// The caller holds the lock.
func (s *Set) pump() {
	err := s.broken()
	if s.stopping {
		err = resource.Errorf(codes.Unavailable, "%s is being stopped", s.cfg.Title)
	}
	for s.queue.Len() > 0 {
		t := turn{err: err}
		if err == nil {
			if t.to = s.pick(); t.to == nil {
				return
			}
			t.to.inFlight++
		}
		front := s.queue.Front()
		w, ok := s.queue.Remove(front).(*waiter)
		if !ok {
			continue
		}
		s.queued -= w.bytes
		w.turn <- t
	}
}

// broken explains why no replica can serve now or soon; nil while there is hope.
// The caller holds the lock.
func (s *Set) broken() error {
	var worst *member
	for _, m := range s.members {
		switch {
		case m.state == Ready:
			return nil
		case m.state == Failed || m.failures >= giveUpAfter:
			if worst == nil || m.failures > worst.failures {
				worst = m
			}
		case m.state == Starting && m.failures == 0, m.state == Unhealthy:
			return nil
		}
	}
	if worst == nil {
		return nil
	}
	e := resource.Errorf(codes.Unavailable, "%s cannot start: %w", s.cfg.Title, worst.err)
	if inner, ok := errors.AsType[*resource.Error](worst.err); ok {
		e.Cause, e.Hint, e.Reason = inner.Cause, inner.Hint, inner.Reason
		e.Message = s.cfg.Title + " cannot start: " + inner.Message
		e.Program = brief(inner.Program)
	}
	return e
}

// brief leaves of the output what fits a header of gRPC besides the rest.
func brief(p *resource.Program) *resource.Program {
	const most = 3
	if p == nil {
		return nil
	}
	short := *p
	short.Tail = p.Tail[max(0, len(p.Tail)-most):]
	return &short
}
