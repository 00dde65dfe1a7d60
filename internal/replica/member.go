package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// member is one place in the set; instances come and go in it. The fields below
// index are guarded by the set's lock.
type member struct {
	set   *Set
	index int
	leave chan struct{} // closed when the replica shall go
	poke  chan struct{} // asks for a look at its health now

	state    State
	inst     runtime.Instance // that runs, nil when none does
	backend  Backend
	inFlight int
	uploads  []*Upload // of these, those whose body was still coming
	failures int
	err      error
	message  string
	suspect  bool             // a connection broke: no requests until it was healthy again
	prepared runtime.Instance // that Config.Prepare was called for
	leaving  bool
	gone     bool
}

func (m *member) become(state State, backend Backend, message string) {
	s := m.set
	s.mu.Lock()
	defer s.mu.Unlock()
	m.state, m.message = state, message
	if backend != nil {
		m.backend = backend
	}
	if state == Ready {
		m.failures, m.err, m.suspect = 0, nil, false
	}
	s.pump()
	s.signal()
}

func (m *member) fail(state State, err error) {
	s := m.set
	s.mu.Lock()
	defer s.mu.Unlock()
	m.state, m.err, m.message = state, err, err.Error()
	m.failures++
	s.pump()
	s.signal()
}

// unfitError is a program that runs and does not pass Config.Check.
type unfitError struct{ err error }

func (e *unfitError) Error() string { return e.err.Error() }

// Unwrap gives what the check said.
func (e *unfitError) Unwrap() error { return e.err }

// giveUp lets those who wait for the replica hear of its failure now. It is tried again
// all the same.
func (m *member) giveUp() {
	s := m.set
	s.mu.Lock()
	defer s.mu.Unlock()
	m.failures = max(m.failures, giveUpAfter)
	s.pump()
	s.signal()
}

// run keeps one replica alive until it is told to leave (which ends the replica)
// or ctx ends (which leaves it running).
func (m *member) run(ctx context.Context) {
	attempt, inst := m.adopt(ctx)
	adopted := inst != nil
	for {
		if inst == nil && m.asked() {
			return
		}
		var err error
		if inst == nil {
			attempt = m.next(attempt)
			inst, err = m.start(ctx, attempt)
		}
		if err == nil {
			m.runs(inst)
			err = m.watch(ctx, inst, adopted)
			m.runs(nil)
		}
		adopted = false
		switch {
		case m.asked():
			m.end(ctx, inst)
			return
		case ctx.Err() != nil:
			return
		}
		if inst != nil {
			m.discard(ctx, inst)
			inst = nil
		}
		if permanent(err) {
			m.fail(Failed, err)
			m.pause(ctx, 0)
			return
		}
		m.fail(Waiting, err)
		if _, unfit := errors.AsType[*unfitError](err); unfit {
			m.giveUp()
		}
		m.set.warn(ctx, "replica ended", slog.Int("replica", m.index), slog.Int("attempt", attempt), slog.Any("error", err))
		if !m.pause(ctx, m.delay()) {
			return
		}
		m.become(Starting, nil, "starting again")
	}
}

func (m *member) runs(inst runtime.Instance) {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.inst = inst
}

// next numbers an attempt in this place: no number comes twice.
func (m *member) next(last int) int {
	s := m.set
	s.mu.Lock()
	defer s.mu.Unlock()
	n := max(last, s.attempts[m.index], s.cfg.Attempt) + 1
	s.attempts[m.index] = n
	return n
}

// doubt takes a replica whose connection broke out of rotation and has it looked at.
// The caller holds the lock.
func (m *member) doubt() {
	m.suspect = true
	select {
	case m.poke <- struct{}{}:
	default: // asked already
	}
}

func (m *member) asked() bool {
	select {
	case <-m.leave:
		return true
	default:
		return false
	}
}

// pause waits; 0 is for ever. It reports whether to go on.
func (m *member) pause(ctx context.Context, d time.Duration) bool {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
	case <-m.leave:
	case <-after:
		return true
	}
	return false
}

// delay doubles with each failure in a row.
func (m *member) delay() time.Duration {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	return min(restartFirst<<min(m.failures-1, 10), restartMax)
}

// adopt finds what an earlier server process started in this place, and the
// number of its last attempt. Ended instances are cleaned up.
func (m *member) adopt(ctx context.Context) (attempt int, live runtime.Instance) {
	all, err := m.set.cfg.Runtime.List(ctx)
	if err != nil {
		m.set.warn(ctx, "cannot look for replicas of an earlier run", slog.Any("error", err))
		return 0, nil
	}
	prefix := m.set.cfg.Name + "-" + strconv.Itoa(m.index) + "-"
	for _, inst := range all {
		rest, ok := strings.CutPrefix(inst.ID(), prefix)
		n, err := strconv.Atoi(rest)
		if !ok || err != nil {
			continue
		}
		switch {
		case inst.Status().Phase == runtime.Ended:
			m.discard(ctx, inst)
		case live == nil:
			live = inst
		default:
			m.discard(ctx, inst) // there is one in this place already
		}
		attempt = max(attempt, n)
	}
	return attempt, live
}

func (m *member) start(ctx context.Context, attempt int) (runtime.Instance, error) {
	id := fmt.Sprintf("%s-%d-%d", m.set.cfg.Name, m.index, attempt)
	inst, err := m.set.cfg.Runtime.Start(ctx, m.set.cfg.Workload(id))
	if err == nil {
		return inst, nil
	}
	if e, ok := errors.AsType[*resource.Error](err); ok {
		// The runtime refuses workloads that can never run: no use in trying again.
		refused := *e
		refused.Op = opStart
		return nil, &refused
	}
	return nil, fmt.Errorf("start replica %d: %w", m.index, err)
}

// end drains and stops an instance and removes what it leaves.
func (m *member) end(ctx context.Context, inst runtime.Instance) {
	m.become(Draining, nil, "")
	m.set.mu.Lock()
	drain := m.set.cfg.Drain
	if m.set.stopping {
		drain = m.set.drain
	}
	m.set.mu.Unlock()
	if drain > 0 {
		drained, cancel := context.WithTimeout(ctx, drain)
		// The wait ends at the limit too: what is still in flight is cut off.
		_ = m.set.wait(drained, func() (bool, error) { return m.inFlight == 0, nil })
		cancel()
	}
	if inst != nil {
		m.discard(ctx, inst)
	}
}

// discard stops what may still run and removes the working directory. Connections
// that wait go too: nothing comes to this address any more.
func (m *member) discard(ctx context.Context, inst runtime.Instance) {
	if address := inst.Address(); address != "" {
		defer m.set.client.CloseIdle(address)
	}
	err := inst.Stop(ctx, stopGrace)
	if err == nil {
		_, err = inst.Wait(ctx)
	}
	if err == nil {
		err = inst.Release(ctx)
	}
	if err != nil && ctx.Err() == nil {
		m.set.warn(ctx, "cannot clean up a replica", slog.String("workload", inst.ID()), slog.Any("error", err))
	}
}

// ended explains an exit that nobody asked for.
func (m *member) ended(exit runtime.Exit, ready bool) error {
	when := "before it answered its health route " + m.set.cfg.Health
	if ready {
		when = "while it served"
	}
	if exit.Code == resource.NeverStarted {
		return exit.Err(fmt.Sprintf("replica %d of %s did not start", m.index, m.set.cfg.Title))
	}
	e := exit.Err(fmt.Sprintf("replica %d of %s ended %s", m.index, m.set.cfg.Title, when))
	if exit.OK() {
		e.Reason = "ENDED"
		return e.WithNext("a server stays in the foreground: let its command be the server itself")
	}
	return e
}

// late explains a replica that runs but never became healthy.
func (m *member) late(ctx context.Context, inst runtime.Instance, last error) error {
	e := resource.Errorf(codes.FailedPrecondition, "replica %d of %s did not answer its health route %s with 200 within %v: %w",
		m.index, m.set.cfg.Title, m.set.cfg.Health, m.set.cfg.Start, last).WithCause(resource.CauseUserCode)
	e.Program = &resource.Program{ExitCode: resource.NeverStarted, Tail: tail(ctx, inst)}
	if st := inst.Status(); st.Phase == runtime.Preparing {
		e.Reason, e.Cause = "PREPARING", resource.CauseDependency
		e.Message += "; it was not started yet: " + st.Message
		return e.WithHint("containerSpec.deploymentTimeout gives it more time")
	}
	if _, answered := errors.AsType[*healthError](last); answered {
		e.Reason = "HEALTH_ROUTE_FAILS"
		return e.WithHint("containerSpec.healthRoute names the route that answers 200 once the server is ready")
	}
	_, port, _ := net.SplitHostPort(inst.Address())
	e.Reason = "PORT_NEVER_OPENED"
	return e.WithHint("the server must listen on the port in $AIP_HTTP_PORT (here %s), on 127.0.0.1 or 0.0.0.0; containerSpec.deploymentTimeout gives it more time", port)
}

// tail reads the last lines of a running instance's output.
func tail(ctx context.Context, inst runtime.Instance) []string {
	const keep, limit = 20, 64 << 20
	r, err := inst.Log(ctx, 0)
	if err != nil {
		return nil // the output is an extra; the failure itself is told anyway
	}
	defer func() { _ = r.Close() }() // only read
	var lines []string
	in := bufio.NewScanner(io.LimitReader(r, limit))
	for in.Scan() {
		if lines = append(lines, in.Text()); len(lines) > 2*keep {
			lines = slices.Clone(lines[keep:])
		}
	}
	return lines[max(0, len(lines)-keep):]
}
