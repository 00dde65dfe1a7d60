package replica

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// ErrUnread is in the error of a request whose upload is to be read first: no replica was
// free for it at once, or its caller stopped sending. It holds no place, and no replica
// works on it.
var ErrUnread = errors.New("waits for its body")

// How long a replica is held by a caller who stopped sending: a request that may be sent
// again loses nothing when it is taken back, the others are lost with it. Then all bodies are
// read before they are passed on, for a while.
const (
	stallLimit  = 50 * time.Millisecond
	onceLimit   = 5 * time.Second
	leastWatch  = 5 * time.Millisecond // between two looks
	waryAfter   = 10 * time.Second
	uploadShare = 2 // one in so many places of a replica is for uploads at most
)

// errStalled ends an exchange whose caller stopped sending.
var errStalled = errors.New("the caller stopped sending the body")

// Free reports that a request whose body is still coming would be sent on at once.
func (s *Set) Free() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free() != nil
}

// free gives the replica that takes an upload now; nil = none does. The caller holds the lock.
func (s *Set) free() *member {
	if s.stopping || s.cfg.Local != nil || s.queue.Len() > 0 || time.Now().Before(s.wary) {
		return nil
	}
	m := s.pick()
	if m == nil {
		return nil
	}
	m.uploads = slices.DeleteFunc(m.uploads, (*Upload).Arrived)
	if len(m.uploads) >= max(1, s.room/uploadShare) {
		return nil
	}
	return m
}

// pass sends a request on while its body comes.
func (s *Set) pass(ctx context.Context, r *Request) (*Response, error) {
	s.mu.Lock()
	m := s.free()
	if m == nil {
		s.mu.Unlock()
		return nil, ErrUnread
	}
	t := m.take()
	m.uploads = append(m.uploads, r.Upload)
	s.mu.Unlock()
	sent := time.Now()
	watched, w := s.watch(ctx, r)
	resp, err := s.exchange(watched, t, r)
	if err == nil {
		resp.Took, resp.Beside = time.Since(sent)-r.Upload.Waited(), t.beside // its caller's pace is not its own
		release := sync.OnceFunc(func() { w.end(); s.finish(t.to, r.Upload, false) })
		w.answered(release)
		resp.Body = &leased{ReadCloser: resp.Body, release: release}
		return resp, nil
	}
	w.end()
	stalled := ctx.Err() == nil && errors.Is(context.Cause(watched), errStalled)
	broke, again := false, false
	if !stalled {
		broke, again = judge(ctx, r, err, 1)
	}
	s.finish(t.to, r.Upload, broke)
	switch {
	case stalled && !r.Again:
		return nil, resource.Errorf(codes.Unavailable, "%w for %v, when a replica of %s had got a part of it already", errStalled, onceLimit, s.cfg.Title).
			WithCause(resource.CauseInput).WithHint("send the request again, best with an Idempotency-Key: then this is done for you")
	case stalled:
		return nil, ErrUnread
	case !again:
		return nil, s.lost(ctx, r, err)
	}
	s.warn(ctx, "a replica died over a request, which goes to another one", slog.Any("error", err))
	return s.resend(ctx, r)
}

// lost says why a request failed that is not sent again. What its caller broke off says so
// itself when it is read.
func (s *Set) lost(ctx context.Context, r *Request, err error) error {
	if r.Upload.Broken() {
		return ErrUnread
	}
	return s.explain(ctx, err)
}

// resend sends a request from the copy that was kept, once all of it is there.
func (s *Set) resend(ctx context.Context, r *Request) (*Response, error) {
	body, err := r.Upload.Whole()
	if err != nil {
		return nil, ErrUnread
	}
	whole := *r
	whole.Body, whole.Upload = body, nil
	return s.send(ctx, &whole, 2)
}

// watch ends the exchange of a caller who is waited for too long in all. A replica that
// takes its time to read is no such caller.
type watch struct {
	set    *Set
	upload *Upload
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	limit   time.Duration // of the time that the caller was waited for
	timer   *time.Timer
	release func() // gives the place back, once there is an answer
	stalled bool
	over    bool
}

// watch begins one; its end must be called.
func (s *Set) watch(ctx context.Context, r *Request) (context.Context, *watch) {
	w := &watch{set: s, upload: r.Upload, limit: onceLimit}
	if r.Again {
		w.limit = stallLimit
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.limit, w.look)
	return ctx, w
}

// look is the timer's.
func (w *watch) look() {
	if release := w.due(); release != nil {
		release()
	}
}

// due ends the exchange, if it is time, and gives what gives its place back.
func (w *watch) due() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.upload.Arrived() {
		return nil
	}
	if left := w.limit - w.upload.Waited(); left > 0 {
		w.timer.Reset(max(left, leastWatch))
		return nil
	}
	w.stalled = true
	w.set.mu.Lock()
	w.set.wary = time.Now().Add(waryAfter)
	w.set.mu.Unlock()
	w.cancel(errStalled)
	return w.release
}

// answered gives a caller more time whose answer is there already, since nothing is gained by
// another try. Whoever has the answer waits for the body before it is closed: the place must
// not.
func (w *watch) answered(release func()) {
	w.mu.Lock()
	stalled := w.stalled
	if !stalled && !w.upload.Arrived() {
		w.release, w.limit = release, w.upload.Waited()+onceLimit
		w.timer.Reset(onceLimit)
	}
	w.mu.Unlock()
	if stalled {
		release()
	}
}

func (w *watch) end() {
	w.mu.Lock()
	w.over = true
	w.timer.Stop()
	w.mu.Unlock()
	w.cancel(nil)
}

// finish gives the place of an upload back.
func (s *Set) finish(m *member, u *Upload, broke bool) {
	s.mu.Lock()
	m.uploads = slices.DeleteFunc(m.uploads, func(other *Upload) bool { return other == u })
	s.mu.Unlock()
	s.release(m, broke)
}
