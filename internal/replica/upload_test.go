package replica

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

var errCallerGone = errors.New("the caller has gone")

// coming is a body "abc" of which "a" is there; the rest comes when rest is closed, or
// never, when gone is.
type coming struct {
	*Upload

	rest, gone chan struct{}
}

func upload() *coming {
	c := &coming{rest: make(chan struct{}), gone: make(chan struct{})}
	c.Upload = NewUpload([]byte("a"), 3, func(p []byte) (int, error) {
		select {
		case <-c.rest:
			return copy(p, "bc"), io.EOF
		case <-c.gone:
			return 0, errCallerGone
		}
	})
	return c
}

type outcome struct {
	text string
	took time.Duration
	err  error
}

// pass sends it and gives what came of that.
func (c *coming) pass(ctx context.Context, s *Set, again bool) chan outcome {
	out := make(chan outcome, 1)
	go func() {
		resp, err := s.Do(ctx, &Request{Method: http.MethodPost, Path: "/p", Upload: c.Upload, Again: again})
		if err != nil {
			out <- outcome{err: err}
			return
		}
		text, err := io.ReadAll(resp.Body)
		out <- outcome{string(text), resp.Took, errors.Join(err, resp.Body.Close())}
	}()
	synctest.Wait()
	return out
}

// held is how many requests replicas have.
func held(s *Set) (n int) {
	for _, st := range s.Status() {
		n += st.InFlight
	}
	return n
}

// busy is the program that has a request.
func busy(m *machine, s *Set) int {
	for _, st := range s.Status() {
		if st.InFlight > 0 {
			return slices.IndexFunc(m.all, func(p *program) bool { return p.id == st.Address })
		}
	}
	return -1
}

// TestUpload holds a place while the body comes, which is gone once it is answered.
func TestUpload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &machine{}, nil)
		ready(t, s)
		u := upload()
		out := u.pass(t.Context(), s, false)
		if held(s) != 1 {
			t.Errorf("%d in flight", held(s))
		}
		<-time.After(time.Millisecond) // which is not the replica's
		close(u.rest)
		if got := <-out; got.text != "/p abc" || got.took != 0 || got.err != nil {
			t.Errorf("got %+v", got)
		}
		<-time.After(2 * onceLimit) // what watched it is over
		if held(s) != 0 || !s.Free() {
			t.Errorf("%d in flight", held(s))
		}
	})
}

// TestUploadNeedsRoom: a body is read first while no replica is free for it, and so that a
// part of each is always left for requests that are there.
func TestUploadNeedsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &machine{}, func(c *Config) { c.Concurrency, c.Count = 4, 0 })
		if got := <-upload().pass(t.Context(), s, true); !errors.Is(got.err, ErrUnread) {
			t.Errorf("without a replica: %+v", got)
		}
		s.Resize(1)
		ready(t, s)
		var all []*coming
		for range 3 {
			all = append(all, upload())
		}
		first, second := all[0].pass(t.Context(), s, false), all[1].pass(t.Context(), s, false)
		if got := <-all[2].pass(t.Context(), s, false); !errors.Is(got.err, ErrUnread) || s.Free() {
			t.Errorf("a third of four places: %+v", got)
		}
		if text, err := ask(t.Context(), s, "x"); text != "/p x" || err != nil {
			t.Errorf("one that is there: %q, %v", text, err)
		}
		close(all[0].rest)
		<-first
		out := all[2].pass(t.Context(), s, false)
		for _, u := range all[1:] {
			close(u.rest)
		}
		if a, b := <-second, <-out; a.err != nil || b.err != nil {
			t.Errorf("got %+v, %+v", a, b)
		}
		local := New(Config{Title: "local", Local: Bytes(func(_ context.Context, b []byte) ([]byte, error) { return b, nil })})
		if local.Free() {
			t.Error("a function takes what is not there")
		}
	})
}

// TestUploadStalls: who stops sending does not hold a replica. A request that may be sent
// again is taken back at once, another after a while, with a part of it sent.
func TestUploadStalls(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		again bool
		after time.Duration
	}{"again": {true, stallLimit}, "once": {false, onceLimit}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _ := start(t, &machine{}, nil)
				ready(t, s)
				u, begin := upload(), time.Now()
				got := <-u.pass(t.Context(), s, tc.again)
				if took := time.Since(begin); took != tc.after {
					t.Errorf("after %v", took)
				}
				unread := errors.Is(got.err, ErrUnread)
				lost := resource.CodeOf(got.err) == codes.Unavailable && strings.Contains(got.err.Error(), "Idempotency-Key")
				if unread != tc.again || lost == tc.again {
					t.Errorf("got %+v", got)
				}
				if st := s.Status()[0]; st.InFlight != 0 || st.State != Ready {
					t.Errorf("%+v", st)
				}
				if text, err := ask(t.Context(), s, "x"); text != "/p x" || err != nil {
					t.Errorf("the replica is in doubt: %q, %v", text, err)
				}
				if s.Free() {
					t.Error("the next one may do the same")
				}
				<-time.After(waryAfter)
				if !s.Free() {
					t.Error("bodies are read first for ever")
				}
				close(u.rest)
				if body, err := u.Whole(); string(body) != "abc" || err != nil {
					t.Errorf("the copy is %q, %v", body, err)
				}
			})
		})
	}
}

// TestUploadCallerGone: the place is free at once, and the replica is not in doubt.
func TestUploadCallerGone(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(u *coming, cancel func()){
		"its connection broke": func(u *coming, _ func()) { close(u.gone) },
		"its context ended":    func(_ *coming, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _ := start(t, &machine{}, nil)
				ready(t, s)
				u := upload()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				out := u.pass(ctx, s, true)
				leave(u, cancel)
				if got := <-out; !errors.Is(got.err, ErrUnread) && resource.CodeOf(got.err) != codes.Canceled {
					t.Errorf("got %+v", got)
				}
				if held(s) != 0 || !s.Free() {
					t.Errorf("%+v", s.Status())
				}
				if ctx.Err() != nil {
					close(u.gone)
				}
			})
		})
	}
}

// TestUploadReplicaGone: what may be sent again is, to another one, from the copy.
func TestUploadReplicaGone(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"again": true, "once": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &machine{}
				s, _ := start(t, m, func(c *Config) { c.Count = 2 })
				ready(t, s)
				u := upload()
				out := u.pass(t.Context(), s, again)
				m.all[busy(m, s)].end(runtime.Exit{Code: 139})
				synctest.Wait()
				if held(s) != 0 {
					t.Errorf("%d in flight", held(s))
				}
				close(u.rest)
				got := <-out
				if again && (got.text != "/p abc" || got.err != nil) || !again && resource.CodeOf(got.err) != codes.Unavailable {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

// TestUploadUnsent: nothing went to a replica whose port is closed, so that another may
// get it, whatever it is.
func TestUploadUnsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		s, _ := start(t, m, func(c *Config) { c.Count = 2 })
		ready(t, s)
		m.all[0].shut.Store(true)
		u := upload()
		close(u.rest)
		if got := <-u.pass(t.Context(), s, false); got.text != "/p abc" || got.err != nil {
			t.Errorf("got %+v", got)
		}
		m.all[0].shut.Store(false)
	})
}

// TestUploadReplicaSlow: a replica that takes its time to read is no caller who stops sending.
func TestUploadReplicaSlow(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"again": true, "once": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reads := make(chan struct{})
				s, _ := start(t, &machine{boot: func(_ int, p *program) { p.reads = reads }}, nil)
				ready(t, s)
				u := upload()
				close(u.rest)
				out := u.pass(t.Context(), s, again)
				<-time.After(4 * onceLimit)
				close(reads)
				if got := <-out; got.text != "/p abc" || got.err != nil {
					t.Errorf("got %+v", got)
				}
				if !s.Free() {
					t.Error("the caller is blamed")
				}
			})
		})
	}
}

// TestUploadStallsAnswered: the same when the replica has answered without reading: the
// answer is held until the body has come, the place is not.
func TestUploadStallsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &machine{boot: func(_ int, p *program) { p.early = true }}, nil)
		ready(t, s)
		u := upload()
		resp, err := s.Do(t.Context(), &Request{Method: http.MethodPost, Path: "/p", Upload: u.Upload})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = u.Whole() }()
		synctest.Wait()
		if held(s) != 1 {
			t.Errorf("%d in flight", held(s))
		}
		<-time.After(2 * onceLimit)
		if held(s) != 0 {
			t.Errorf("%d in flight of a caller who stopped sending", held(s))
		}
		if err := resp.Body.Close(); err != nil || held(s) != 0 {
			t.Errorf("%v, %d in flight", err, held(s))
		}
		close(u.gone)
	})
}
