package pipeline

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"tategu/internal/resource"
)

// How attempts, tasks and runs end.

// finishAttempt takes the outcome of an attempt.
func (m *machine) finishAttempt(n *node, o outcome) {
	outputs, failure := m.outputs(n, o)
	if failure == nil {
		n.Outputs = outputs
		if n.CacheKey != "" {
			m.entries = append(m.entries, cacheEntry{Key: n.CacheKey, Task: m.run.name + "/tasks/" + strconv.FormatInt(n.ID, 10), Outputs: outputs})
		}
		m.finish(n, Succeeded, nil)
		return
	}
	if m.cancelling {
		m.finish(n, Cancelled, nil)
		return
	}
	if failure.Cause == resource.CauseInput && failure.ExitCode == resource.NeverStarted { // it would fail again
		m.finish(n, Failed, failure)
		return
	}
	if m.lost(n, o) {
		n.Lost++
		m.repeat(n, failure, m.now)
		return
	}
	m.failed(n, failure)
}

// finish ends a task and looks at those that wait for it.
func (m *machine) finish(n *node, s State, f *Failure) {
	m.set(n, s, f)
	m.broken = m.broken || s == Failed && !m.pardoned(n)
	p := n.parent
	if p == nil {
		return
	}
	p.open--
	if p.loop != nil {
		m.over = append(m.over, n)
		m.grow(p)
		return
	}
	for _, u := range n.def.users {
		if c := p.children[u]; c.idle() {
			m.consider(c)
		}
	}
	m.settle(p)
}

// settle ends a graph or a loop in which nothing is left to do.
func (m *machine) settle(n *node) {
	if n.State == Running && !n.leaf() && n.open == 0 && (n.loop == nil || m.exhausted(n)) {
		m.close(n)
	}
}

// close ends a graph or a loop whose parts are all done. A failure that a later
// task dealt with (an exit handler) still fails the graph.
func (m *machine) close(n *node) {
	var failed []*node
	cancelled, stopped := false, n.loop != nil && len(n.loop.nodes) < n.loop.count()
	for c := range n.parts() {
		switch {
		case c.State == Failed:
			failed = append(failed, c)
		case c.State == Cancelled:
			cancelled = true
		case c.Blocked:
			stopped = true
		}
	}
	if n.loop != nil {
		n.Outputs = loopOutputs(n)
	} else {
		n.Outputs = graphOutputs(n)
	}
	switch {
	case cancelled || m.cancelling && (n == m.root || stopped):
		m.finish(n, Cancelled, nil)
	case len(failed) > 0:
		m.failed(n, graphFailure(failed))
	case stopped:
		n.Blocked = true
		m.finish(n, Failed, &Failure{Message: fmt.Sprintf("not all of %q ran: %s", n.Path, failedFast), Cause: resource.CauseUserCode})
	default:
		m.finish(n, Succeeded, nil)
	}
}

// parts gives the children in order.
func (n *node) parts() iter.Seq[*node] {
	if n.loop != nil {
		return slices.Values(n.loop.nodes)
	}
	return func(yield func(*node) bool) {
		for _, name := range n.graph.order {
			if !yield(n.children[name]) {
				return
			}
		}
	}
}

// cancel stops what runs and ends what waits.
func (m *machine) cancel() {
	if m.cancelling || m.root == nil || m.done() {
		m.cancelling = true
		return
	}
	m.cancelling = true
	for _, path := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[path]
		switch {
		case n.State == Running && n.leaf():
			m.do(stop{path: path, workload: n.Workload[len(n.Workload)-1]})
		case n.State == Pending:
			m.finish(n, Cancelled, nil)
		}
	}
	m.settleAll()
}

// settleAll ends what has nothing left to wait for, from the inside out.
func (m *machine) settleAll() {
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(m.nodes))) {
		m.settle(m.nodes[path])
	}
}
