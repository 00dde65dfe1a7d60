package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// restore puts the rows of an interrupted run back. What an earlier attempt of a
// graph left is over and stays out.
func (m *machine) restore(tasks []*Task, cancelling bool) error {
	slices.SortFunc(tasks, func(a, b *Task) int { return strings.Compare(a.Path, b.Path) })
	byID, over := map[int64]*node{}, map[int64]bool{}
	for _, t := range tasks {
		t.Inputs.fill()
		t.Outputs.fill()
		n := &node{Task: t, parent: byID[t.Parent], inputs: t.Inputs, recorded: !t.Started.IsZero()}
		switch p := n.parent; {
		case t.Path == "":
			n.graph, m.root = m.plan.root, n
		case over[t.Parent] || p != nil && t.Round != p.Attempt:
			over[t.ID] = true
			continue
		case p == nil || !n.adopt():
			return fmt.Errorf("task row %q does not fit the pipeline", t.Path)
		}
		if n.graph != nil {
			n.children = map[string]*node{}
		}
		if n.loop != nil && t.State == Running {
			if err := n.loadItems(m); err != nil {
				return fmt.Errorf("task row %q: %w", t.Path, err)
			}
		}
		byID[t.ID], m.nodes[t.Path] = n, n
	}
	m.cancelling = cancelling
	return m.recount()
}

// adopt finds the place of a restored node below its parent.
func (n *node) adopt() bool {
	p := n.parent
	def := p.def
	if p.graph != nil {
		def = p.graph.tasks[n.Name]
	}
	if def == nil || p.leaf() {
		return false
	}
	n.place(def)
	if !n.State.done() {
		p.open++
	}
	if p.loop == nil {
		return true
	}
	if n.Index < 0 || n.Index >= maxIterations {
		return false
	}
	if more := n.Index + 1 - len(p.loop.nodes); more > 0 {
		p.loop.nodes = append(p.loop.nodes, make([]*node, more)...)
	}
	p.loop.nodes[n.Index] = n
	n.inputs = iterationInputs(p, n.Inputs)
	return true
}

// recount works out what the machine keeps besides its rows.
func (m *machine) recount() error {
	for _, n := range m.nodes {
		if n.loop != nil {
			m.iterations += max(n.loop.count(), len(n.loop.nodes))
			if slices.Contains(n.loop.nodes, nil) {
				return fmt.Errorf("task row %q: rows of its iterations are missing", n.Path)
			}
		}
		m.broken = m.broken || n.State == Failed && !m.pardoned(n)
		if n.State == Running && n.leaf() {
			m.running++
			m.busy(n, 1)
		}
	}
	m.endedBefore()
	return nil
}
