package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// A task with an iterator is a loop (docs/adr/0011): it is the parent of one node
// an iteration, and each of those is an instance of the task's component with an
// item of its own. Iterations come into being as they may run, so that a limit on
// them holds after a restart too: the rows that are not done are those that count.

const (
	// maxIterations bounds the iterations of all loops of a run.
	maxIterations = 100_000
	// burst is how many iterations one step starts: each step is a transaction, and
	// other runs want to write between them.
	burst = 100
)

// loop is what a node with an iterator has.
type loop struct {
	items     []any      // of a loop over parameters
	artifacts []Artifact // of a loop over artifacts
	nodes     []*node    // the iterations so far, in order
	growing   bool       // grow is at work
	asked     bool       // a grown event is on its way
	busy      int        // attempts below it that run or wait for their turn
	left      remains    // of iterations that are over
}

func (l *loop) count() int { return max(len(l.items), len(l.artifacts)) }

func (t *task) iterates() bool {
	return t.spec.GetParameterIterator() != nil || t.spec.GetArtifactIterator() != nil
}

// item is the input of the component that each iteration has for itself.
func (t *task) item() string {
	return first(t.spec.GetParameterIterator().GetItemInput(), t.spec.GetArtifactIterator().GetItemInput())
}

// fromItem reports that an input parameter is the item of the loop, whatever source
// it also names: kfp 1.8 writes an output there that no task has ("Output-loop-item")
// when another loop stands in this one.
func (t *task) fromItem(k string) bool {
	it := t.spec.GetParameterIterator()
	return it != nil && k == it.GetItemInput()
}

func (m *machine) openLoop(n *node) {
	err := n.loadItems(m)
	if err == nil && m.iterations+n.loop.count() > maxIterations {
		err = fmt.Errorf("its %d iterations are too many: the loops of a run have at most %d together", n.loop.count(), maxIterations)
	}
	if err != nil {
		m.finish(n, Failed, &Failure{Message: err.Error(), Cause: resource.CauseInput})
		return
	}
	m.iterations += n.loop.count()
	m.set(n, Running, nil)
	m.grow(n)
}

// loadItems works out what the loop is over from its inputs.
func (n *node) loadItems(m *machine) error {
	if it := n.def.spec.GetArtifactIterator(); it != nil {
		n.loop.artifacts = n.inputs.Artifacts[it.GetItems().GetInputArtifact()]
		return nil
	}
	var err error
	switch items := n.def.spec.GetParameterIterator().GetItems().GetKind().(type) {
	case *ps.ParameterIteratorSpec_ItemsSpec_Raw:
		var raw []any
		if raw, err = parseItems(items.Raw); err == nil {
			s := &scope{inputs: n.inputs, types: m.sourceTypes(n), job: m.jobPlaceholders(n)}
			n.loop.items, _ = expandAll(raw, s).([]any)
		}
	case *ps.ParameterIteratorSpec_ItemsSpec_InputParameter:
		n.loop.items, err = listOf(n.inputs.Parameters[items.InputParameter])
		if err != nil {
			err = fmt.Errorf("the loop is over input %q: %w", items.InputParameter, err)
		}
	}
	return err
}

func parseItems(raw string) ([]any, error) {
	var list []any
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		return nil, fmt.Errorf("the items %q of the loop are not a JSON list", clip(raw, 80))
	}
	return list, nil
}

// listOf takes a list, or the text of one.
func listOf(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case string:
		return parseItems(v)
	default:
		return nil, fmt.Errorf("want a list, got %s", describe(v))
	}
}

// grow starts as many iterations as may run now.
func (m *machine) grow(n *node) {
	l := n.loop
	if l.growing || l.asked || n.State != Running { // iterations that end at once come back here
		return
	}
	l.growing = true
	limit := int(n.def.spec.GetIteratorPolicy().GetParallelismLimit())
	for started := 0; !m.exhausted(n) && (limit == 0 || n.open < limit) && m.roomBelow(l); started++ {
		if started == burst {
			l.asked = true
			m.do(grow{path: n.Path})
			break
		}
		m.iterate(n)
	}
	l.growing = false
	m.settle(n)
}

// exhausted reports that no further iteration will start.
func (m *machine) exhausted(n *node) bool {
	return len(n.loop.nodes) >= n.loop.count() || m.cancelling || m.halted(n)
}

// iterate starts the next iteration.
func (m *machine) iterate(n *node) {
	index := len(n.loop.nodes)
	c := m.add(n, n.def, fmt.Sprintf("%s-%d", n.Name, index))
	c.Index = index
	n.loop.nodes = append(n.loop.nodes, c)
	own, err := n.loop.own(n.def, index)
	if err != nil {
		m.finish(c, Failed, &Failure{Message: err.Error(), Cause: resource.CauseInput})
		return
	}
	c.Inputs = own
	c.inputs = iterationInputs(n, own)
	m.launch(c)
}

// own is what an iteration does not share with the others. Its row keeps only
// this: with a list of n items in each of n rows a run would grow by n².
func (l *loop) own(def *task, index int) (Values, error) {
	v := newValues()
	if def.spec.GetArtifactIterator() != nil {
		v.Artifacts[def.item()] = l.artifacts[index : index+1 : index+1]
		return v, nil
	}
	v.Parameters[def.item()] = l.items[index]
	if l.items[index] == nil {
		delete(v.Parameters, def.item())
	}
	if err := fitOne(v.Parameters, def.item(), def.comp.GetInputDefinitions().GetParameters()[def.item()]); err != nil {
		return v, fmt.Errorf("item %d of the loop: %w", index, err)
	}
	return v, nil
}

// iterationInputs are the inputs of the loop and what is an iteration's own.
func iterationInputs(n *node, own Values) Values {
	v := Values{Parameters: maps.Clone(n.inputs.Parameters), Artifacts: maps.Clone(n.inputs.Artifacts)}
	maps.Copy(v.Parameters, own.Parameters)
	maps.Copy(v.Artifacts, own.Artifacts)
	return v
}

// loopOutputs collects the outputs of the iterations in their order: parameters
// become a list of values, so that those of nested loops nest, and artifacts one
// list, so that those of nested loops are flat. An iteration that gave nothing (a
// condition in it was false) has no entry.
func loopOutputs(n *node) Values {
	v := newValues()
	outs := n.def.comp.GetOutputDefinitions()
	for k := range outs.GetParameters() {
		list := []any{}
		for i := range n.loop.nodes {
			if value, ok := n.loop.parameter(i, k); ok {
				list = append(list, value)
			}
		}
		v.Parameters[k] = list
	}
	for k := range outs.GetArtifacts() {
		list := make([]Artifact, 0, len(n.loop.nodes))
		for i := range n.loop.nodes {
			list = append(list, n.loop.artifact(i, k)...)
		}
		v.Artifacts[k] = list
	}
	return v
}

// checkIterator checks the loop of a task, once its inputs are known to be right.
func checkIterator(g *graph, t *task) error {
	in := t.comp.GetInputDefinitions()
	given := t.spec.GetInputs()
	limit := t.spec.GetIteratorPolicy().GetParallelismLimit()
	switch {
	case !t.iterates() && t.spec.GetIteratorPolicy() != nil:
		return invalid(g, t.name, "iteratorPolicy", "it has an iteratorPolicy and no iterator")
	case limit < 0:
		return invalid(g, t.name, "iteratorPolicy.parallelismLimit", "the limit %d is negative", limit)
	}
	if it := t.spec.GetArtifactIterator(); it != nil {
		if in.GetArtifacts()[it.GetItemInput()] == nil {
			return invalid(g, t.name, "artifactIterator.itemInput", "its component has no input artifact %q", it.GetItemInput())
		}
		if given.GetArtifacts()[it.GetItems().GetInputArtifact()] == nil {
			return invalid(g, t.name, "artifactIterator.items.inputArtifact", "it has no input artifact %q", it.GetItems().GetInputArtifact())
		}
		return nil
	}
	it := t.spec.GetParameterIterator()
	if it == nil {
		return nil
	}
	if in.GetParameters()[it.GetItemInput()] == nil {
		return invalid(g, t.name, "parameterIterator.itemInput", "its component has no input parameter %q", it.GetItemInput())
	}
	switch items := it.GetItems().GetKind().(type) {
	case *ps.ParameterIteratorSpec_ItemsSpec_Raw:
		list, err := parseItems(items.Raw)
		if err != nil {
			return invalid(g, t.name, "parameterIterator.items.raw", "%v", err)
		}
		if len(list) > maxIterations {
			return invalid(g, t.name, "parameterIterator.items.raw", "its %d iterations are too many: the loops of a run have at most %d together", len(list), maxIterations)
		}
		return checkString(g, t, "parameterIterator.items.raw", items.Raw)
	case *ps.ParameterIteratorSpec_ItemsSpec_InputParameter:
		if given.GetParameters()[items.InputParameter] == nil {
			return invalid(g, t.name, "parameterIterator.items.inputParameter", "it has no input parameter %q", items.InputParameter)
		}
		return nil
	default:
		return invalid(g, t.name, "parameterIterator.items", "the loop is over nothing")
	}
}
