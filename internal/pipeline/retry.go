package pipeline

import (
	"math"
	"slices"
	"time"

	ps "tategu/internal/pipeline/pipelinespec"
)

// failed ends an attempt: with a pause before the next one, or with the task.
func (m *machine) failed(n *node, f *Failure) {
	if m.cancelling || !m.mayRetry(n) {
		m.finish(n, Failed, f)
		return
	}
	m.repeat(n, f, m.now.Add(backoff(n.def.spec.GetRetryPolicy(), n.Attempt-n.Lost)))
}

// repeat ends an attempt that is followed by another.
func (m *machine) repeat(n *node, f *Failure, at time.Time) {
	n.RetryAt = at
	n.History = append(n.History, Transition{Time: m.now, State: Failed, Failure: f})
	m.set(n, Pending, nil)
	m.do(wake{path: n.Path, at: at})
}

// again starts the next attempt once the pause is over.
func (m *machine) again(n *node) {
	if m.halted(n) {
		m.keepOut(n)
		return
	}
	if n.graph != nil {
		m.open(n)
		return
	}
	m.attempt(n)
}

// mayRetry reports that a failure of this attempt is not the end. The policy of a
// loop is that of its iterations.
func (m *machine) mayRetry(n *node) bool {
	return n.def != nil && n.loop == nil && n.Attempt-n.Lost <= int(n.def.spec.GetRetryPolicy().GetMaxRetryCount()) && !m.halted(n)
}

// pardoned reports that the failure of n is not yet one of the run, since
// something around it will be tried again.
func (m *machine) pardoned(n *node) bool {
	if n.Cached != "" { // it failed in the run that this one goes on with
		return true
	}
	for p := n.parent; p != nil; p = p.parent {
		if p.graph != nil && m.mayRetry(p) {
			return true
		}
	}
	return false
}

// halted reports that n must not start any more, since another task failed and
// the policy is to fail fast. What runs whatever became of others still does.
func (m *machine) halted(n *node) bool {
	if !m.broken || !m.run.failFast {
		return false
	}
	for ; n != nil; n = n.parent {
		if n.def != nil && n.def.always {
			return false
		}
	}
	return true
}

// keepOut ends what must not start any more. What failed before and was to be tried
// again has failed as it did then.
func (m *machine) keepOut(n *node) {
	if n.Attempt > 0 {
		for _, t := range slices.Backward(n.History) {
			if t.State == Failed {
				m.finish(n, Failed, t.Failure)
				return
			}
		}
	}
	n.Reason, n.Blocked = failedFast, true
	m.finish(n, NotTriggered, nil)
}

// backoff is the pause after an attempt: the first is 1.
func backoff(p *ps.PipelineTaskSpec_RetryPolicy, attempt int) time.Duration {
	longest := time.Hour
	if d := p.GetBackoffMaxDuration().AsDuration(); d > 0 && d < longest {
		longest = d
	}
	factor := p.GetBackoffFactor()
	if factor <= 0 {
		factor = 2
	}
	pause := float64(p.GetBackoffDuration().AsDuration()) * math.Pow(factor, float64(attempt-1))
	return time.Duration(math.Min(pause, float64(longest)))
}
