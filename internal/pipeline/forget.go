package pipeline

import (
	"maps"
	"slices"
)

// What is over and durable leaves the memory of the machine (docs/adr/0016). Of an
// iteration that ended nothing is asked any more but how it ended and what its loop
// collects of it; the rest is in the rows.

// nothing stands for an output that an iteration did not give.
type nothing struct{}

// remains is what a loop keeps of its iterations that are over, by their index.
type remains struct {
	parameters map[string][]any // nothing{} = not given
	artifacts  map[string][][]Artifact
	ends       map[end]*node // one for all that ended alike
	failed     []int         // those of which the whole failure is kept, in order
}

type end struct {
	state   State
	blocked bool
}

// forget drops what ended before the last commit.
func (m *machine) forget() {
	for _, n := range m.over {
		m.drop(n)
		if l := n.parent.loop; l != nil && l.nodes[n.Index] == n {
			l.nodes[n.Index] = l.keep(n)
		}
	}
	m.over = nil
}

// drop takes a task and all below it out of the machine.
func (m *machine) drop(n *node) {
	if m.nodes[n.Path] != n {
		return
	}
	delete(m.nodes, n.Path)
	for _, c := range n.children {
		m.drop(c)
	}
	if n.loop != nil {
		for _, c := range n.loop.nodes {
			m.drop(c)
		}
	}
}

// over reports an iteration of which only its remains are left.
func (n *node) over() bool { return n.def == nil && n.parent != nil }

// keep gives what stands for an iteration that is over.
func (l *loop) keep(n *node) *node {
	if l.left.ends == nil {
		l.left = remains{parameters: map[string][]any{}, artifacts: map[string][][]Artifact{}, ends: map[end]*node{}}
	}
	if n.State.ok() {
		for k, v := range n.Outputs.Parameters {
			l.left.parameters[k] = putAt(l.left.parameters[k], n.Index, v, any(nothing{}))
		}
		for k, list := range n.Outputs.Artifacts {
			l.left.artifacts[k] = putAt(l.left.artifacts[k], n.Index, list, nil)
		}
	}
	if n.State == Failed {
		return l.keepFailed(n)
	}
	how := end{n.State, n.Blocked}
	if l.left.ends[how] == nil {
		l.left.ends[how] = &node{Task: &Task{State: n.State, Blocked: n.Blocked}, parent: n.parent}
	}
	return l.left.ends[how]
}

// keepFailed keeps the failures that the loop will tell of, those of its first
// iterations; of the others that there is one.
func (l *loop) keepFailed(n *node) *node {
	small := &node{
		Task:  &Task{Path: n.Path, Name: n.Name, Index: n.Index, State: Failed, Blocked: n.Blocked, Failure: n.Failure},
		graph: n.graph, parent: n.parent,
	}
	if n.Blocked {
		return small // its failure says nothing but that
	}
	at, _ := slices.BinarySearch(l.left.failed, n.Index)
	l.left.failed = slices.Insert(l.left.failed, at, n.Index)
	if len(l.left.failed) > maxFailures {
		last := l.left.failed[maxFailures]
		l.left.failed = l.left.failed[:maxFailures]
		without := &Failure{Cause: n.Failure.Cause}
		if last == n.Index {
			small.Failure = without
		} else {
			l.nodes[last].Failure = without
		}
	}
	return small
}

// putAt sets an element of a list that is filled up to it.
func putAt[T any](list []T, i int, v, absent T) []T {
	for len(list) <= i {
		list = append(list, absent)
	}
	list[i] = v
	return list
}

// parameter gives an output of an iteration; false = it gave none.
func (l *loop) parameter(i int, k string) (any, bool) {
	c := l.nodes[i]
	switch {
	case !c.State.ok():
		return nil, false
	case !c.over():
		v, ok := c.Outputs.Parameters[k]
		return v, ok
	case i >= len(l.left.parameters[k]):
		return nil, false
	}
	v := l.left.parameters[k][i]
	_, none := v.(nothing)
	return v, !none
}

// artifact gives those of one output of an iteration.
func (l *loop) artifact(i int, k string) []Artifact {
	c := l.nodes[i]
	switch {
	case !c.State.ok():
		return nil
	case !c.over():
		return c.Outputs.Artifacts[k]
	case i >= len(l.left.artifacts[k]):
		return nil
	}
	return l.left.artifacts[k][i]
}

// endedBefore lists what a restored run has behind it.
func (m *machine) endedBefore() {
	for _, path := range slices.Sorted(maps.Keys(m.nodes)) {
		if n := m.nodes[path]; n.parent != nil && n.parent.loop != nil && n.State.done() {
			m.over = append(m.over, n)
		}
	}
}
