package pipeline

// A run holds a bounded number of attempts at a time (docs/adr/0016): a loop without
// a limit of its own may be over more items than a machine ever runs at once, and
// what was handed to the runtime takes memory, files and places in the queue of the
// machine. Nothing that a pipeline says changes by that: what waits is PENDING, and
// goes in the order in which it became ready.

// spread is how many times the attempts below one loop a run may have in all, so
// that a loop which waits for a GPU does not keep the rest of the run from starting.
const spread = 8

// roomBelow reports whether a loop may begin another iteration: enough of what is
// below it runs or waits otherwise. A pause before a retry does not count.
func (m *machine) roomBelow(l *loop) bool { return m.run.atOnce == 0 || l.busy < m.run.atOnce }

// busy counts an attempt that runs or waits for its turn, for all loops around it.
func (m *machine) busy(n *node, by int) {
	for p := n.parent; p != nil; p = p.parent {
		if p.loop != nil {
			p.loop.busy += by
		}
	}
}

// attempt starts the next attempt of a container, or lets it wait for its turn. One
// that waits already, as a restored run may ask twice, keeps its place.
func (m *machine) attempt(n *node) {
	if n.queued {
		return
	}
	m.busy(n, 1)
	if m.run.atOnce > 0 && (m.running >= m.run.atOnce*spread || len(m.ready) > 0) {
		n.queued = true
		m.ready = append(m.ready, n)
		return
	}
	m.begun(n)
}

// refill lets attempts begin for which there is room now that one has ended, and the
// loops around that one go on.
func (m *machine) refill(n *node) {
	for len(m.ready) > 0 && m.running < m.run.atOnce*spread {
		next := m.ready[0]
		m.ready[0], m.ready = nil, m.ready[1:]
		next.queued = false
		switch {
		case next.State != Pending: // cancelled meanwhile
			m.busy(next, -1)
		case m.halted(next):
			m.busy(next, -1)
			m.keepOut(next)
		default:
			m.begun(next)
		}
	}
	for p := n.parent; p != nil; p = p.parent {
		if p.loop != nil {
			m.grow(p)
		}
	}
}
