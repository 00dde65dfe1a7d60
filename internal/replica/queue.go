package replica

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/replica/http1"
	"tategu/internal/resource"
)

// ErrStopping is in the error of a request that came to a set, or waited in one, when
// it was stopped. Nobody has got the request.
var ErrStopping = errors.New("is being stopped")

func (s *Set) stopped() error {
	return resource.Errorf(codes.Unavailable, "%s %w", s.cfg.Title, ErrStopping)
}

// waiter is a request in the queue.
type waiter struct {
	bytes int64
	turn  chan turn // buffered: whoever takes the waiter off the queue sends one
}

type turn struct {
	to     *member
	by     Backend
	beside int // requests in flight there, this one included
	err    error
}

// Do sends a request to the replica with the fewest in flight. It waits its turn
// when all are busy or starting; a caller that leaves meanwhile is forgotten
// unsent. A full queue is ResourceExhausted, a set that cannot start Unavailable.
// When the replica dies before it answers, another one gets the request, if it was
// not sent yet or may be sent again.
//
// A request whose body is still coming is sent on as it comes, if a replica is free at once:
// see Upload.
func (s *Set) Do(ctx context.Context, r *Request) (*Response, error) {
	if r.Upload != nil {
		return s.pass(ctx, r)
	}
	return s.send(ctx, r, 1)
}

// send is Do for a request that is there, from a try on.
func (s *Set) send(ctx context.Context, r *Request, try int) (*Response, error) {
	begin := time.Now()
	for ; ; try++ {
		t, err := s.acquire(ctx, int64(len(r.Body)), try > 1)
		if err != nil {
			return nil, err
		}
		sent := time.Now()
		resp, err := s.exchange(ctx, t, r)
		if err == nil {
			resp.Waited, resp.Took, resp.Beside = sent.Sub(begin), time.Since(sent), t.beside
			resp.Body = &leased{ReadCloser: resp.Body, release: func() { s.release(t.to, false) }}
			return resp, nil
		}
		broke, again := judge(ctx, r, err, try)
		s.release(t.to, broke)
		if !again {
			return nil, s.explain(ctx, err)
		}
		s.warn(ctx, "a replica died over a request, which goes to another one", slog.Any("error", err))
	}
}

// exchange asks the backend; a panic of one in this process gives its place back.
func (s *Set) exchange(ctx context.Context, t turn, r *Request) (*Response, error) {
	over := false
	defer func() {
		if !over {
			s.release(t.to, false)
		}
	}()
	resp, err := t.by.Do(ctx, r)
	over = true
	return resp, err
}

// judge says of a failed exchange whether the replica is in doubt, and whether the
// request may be sent again.
func judge(ctx context.Context, r *Request, err error, try int) (broke, again bool) {
	e, ok := errors.AsType[*http1.Error](err)
	if !ok || ctx.Err() != nil {
		return false, false // not the connection's fault
	}
	switch {
	case e.Malformed:
		return false, false
	case e.Sent:
		return true, r.Again && try < sentTries
	}
	return true, try < unsentTries
}

// acquire waits for a turn. first puts the caller ahead of the others: it has
// waited already.
func (s *Set) acquire(ctx context.Context, bytes int64, first bool) (turn, error) {
	if err := ctx.Err(); err != nil {
		return turn{}, s.explain(ctx, err)
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return turn{}, s.stopped()
	}
	if s.queue.Len() == 0 || first {
		if m := s.pick(); m != nil {
			defer s.mu.Unlock()
			return m.take(), nil
		}
	}
	if err := s.broken(); err != nil {
		s.mu.Unlock()
		return turn{}, err
	}
	if !first && (s.queue.Len() >= s.cfg.Queue || s.queued+bytes > s.cfg.QueueBytes) {
		n := s.queue.Len()
		s.mu.Unlock()
		return turn{}, resource.Errorf(codes.ResourceExhausted, "%s is overloaded: %d requests wait already", s.cfg.Title, n).
			WithCause(resource.CauseResource).WithHint("try again in a moment, or deploy more replicas")
	}
	w := &waiter{bytes: bytes, turn: make(chan turn, 1)}
	put := s.queue.PushBack
	if first {
		put = s.queue.PushFront
	}
	at := put(w)
	s.queued += bytes
	s.mu.Unlock()
	select {
	case t := <-w.turn:
		return t, t.err
	case <-ctx.Done():
	}
	return turn{}, s.left(ctx, w, at)
}

// left forgets a caller that has gone.
func (s *Set) left(ctx context.Context, w *waiter, at *list.Element) error {
	s.mu.Lock()
	starting := ""
	select {
	case t := <-w.turn: // the turn came at the same time
		if t.to != nil {
			s.giveBack(t.to)
		}
	default:
		s.queue.Remove(at)
		s.queued -= w.bytes
		starting = s.starting()
	}
	s.mu.Unlock()
	err := s.explain(ctx, ctx.Err())
	if e, ok := errors.AsType[*resource.Error](err); ok && starting != "" && e.Code == codes.Unavailable {
		return resource.Errorf(codes.Unavailable, "%s has no replica yet that can answer: %s", s.cfg.Title, starting).
			WithCause(resource.CauseResource).WithHint("try again in a moment; `tategu why` says what it waits for")
	}
	return err
}

// starting says what the replicas are about when none can serve. The caller holds
// the lock.
func (s *Set) starting() string {
	about := "it is being started"
	for _, m := range s.members {
		if m.state == Ready && !m.suspect {
			return ""
		}
		if m.message != "" {
			about = m.message
		}
	}
	return about
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
	switch e, _ := errors.AsType[*http1.Error](err); {
	case http1.Unsendable(err):
		return resource.Invalid("", "%w", err)
	case e != nil && e.Malformed:
		return resource.Errorf(codes.FailedPrecondition, "a replica of %s answers something that is not HTTP/1.1: %w", s.cfg.Title, err).WithCause(resource.CauseUserCode)
	}
	return resource.Errorf(codes.Unavailable, "a replica of %s ended or broke the connection over the request: %w", s.cfg.Title, err).
		WithCause(resource.CauseUserCode).WithHint("the request may have been worked on; if it can be sent again safely, do so in a moment")
}

// pick gives the ready replica with the fewest requests, nil when none has room.
// The caller holds the lock.
func (s *Set) pick() *member {
	var best *member
	for _, m := range s.members {
		if m.state == Ready && !m.leaving && !m.suspect && m.inFlight < s.room && (best == nil || m.inFlight < best.inFlight) {
			best = m
		}
	}
	return best
}

// take books a place. The caller holds the set's lock.
func (m *member) take() turn {
	m.inFlight++
	return turn{to: m, by: m.backend, beside: m.inFlight}
}

func (s *Set) release(m *member, broke bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if broke {
		m.doubt()
	}
	s.giveBack(m)
}

// giveBack ends a request on m and serves the queue. The caller holds the lock.
func (s *Set) giveBack(m *member) {
	m.inFlight--
	s.pump()
	if m.inFlight == 0 && (m.leaving || s.stopping) {
		s.signal() // who drains waits for this
	}
}

// pump hands out turns in order, or answers everyone when nothing can serve them.
// The caller holds the lock.
func (s *Set) pump() {
	err := s.broken()
	if s.stopping {
		err = s.stopped()
	}
	for s.queue.Len() > 0 {
		t := turn{err: err}
		if err == nil {
			m := s.pick()
			if m == nil {
				return
			}
			t = m.take()
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
		case m.leaving:
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
