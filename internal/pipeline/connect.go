package pipeline

import (
	"slices"
	"strings"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// connect checks what the tasks of a graph take from each other and from the
// graph's own inputs, and puts them in an order that they can run in.
func (p *parser) connect(g *graph) error {
	for _, name := range sortedKeys(g.tasks) {
		t := g.tasks[name]
		for _, d := range t.spec.GetDependentTasks() {
			if err := depend(g, t, d, "dependentTasks"); err != nil {
				return err
			}
		}
		if err := connectParameters(g, t); err != nil {
			return err
		}
		if err := connectArtifacts(g, t); err != nil {
			return err
		}
		if err := checkIterator(g, t); err != nil {
			return err
		}
		slices.Sort(t.deps)
		t.deps = slices.Compact(t.deps)
		for _, d := range t.deps {
			g.tasks[d].users = append(g.tasks[d].users, name)
		}
	}
	return order(g)
}

// depend makes t wait for producer; connect drops what is said twice.
func depend(g *graph, t *task, producer, sub string) error {
	other := g.tasks[producer]
	if other == nil {
		return invalid(g, t.name, sub, "there is no task %q beside it", producer)
	}
	t.deps = append(t.deps, producer)
	return nil
}

func connectParameters(g *graph, t *task) error {
	given := t.spec.GetInputs().GetParameters()
	defs := t.comp.GetInputDefinitions().GetParameters()
	for _, k := range sortedKeys(given) {
		if t.fromItem(k) {
			continue
		}
		if err := connectParameter(g, t, k, given[k]); err != nil {
			return err
		}
	}
	for _, k := range sortedKeys(defs) {
		if given[k] == nil && !defs[k].GetIsOptional() && defs[k].GetDefaultValue() == nil && k != t.item() {
			return invalid(g, t.name, "inputs.parameters["+k+"]", "the required input %q is not given", k)
		}
	}
	return nil
}

// connectParameter takes inputs that the component does not declare, too: the
// compiler adds them for f-strings and resource requests to refer to.
func connectParameter(g *graph, t *task, k string, in *ps.TaskInputsSpec_InputParameterSpec) error {
	sub := "inputs.parameters[" + k + "]"
	switch x := in.GetKind().(type) {
	case *ps.TaskInputsSpec_InputParameterSpec_ComponentInputParameter:
		if g.comp.GetInputDefinitions().GetParameters()[x.ComponentInputParameter] == nil {
			return invalid(g, t.name, sub, "%s has no input parameter %q", g.title(), x.ComponentInputParameter)
		}
	case *ps.TaskInputsSpec_InputParameterSpec_TaskOutputParameter:
		producer, key := x.TaskOutputParameter.GetProducerTask(), x.TaskOutputParameter.GetOutputParameterKey()
		if err := depend(g, t, producer, sub); err != nil {
			return err
		}
		if g.tasks[producer].comp.GetOutputDefinitions().GetParameters()[key] == nil {
			return invalid(g, t.name, sub, "task %q has no output parameter %q", producer, key)
		}
	case *ps.TaskInputsSpec_InputParameterSpec_TaskFinalStatus_:
		if !t.always {
			return invalid(g, t.name, sub, "the final status of a task needs the trigger strategy ALL_UPSTREAM_TASKS_COMPLETED")
		}
		return depend(g, t, x.TaskFinalStatus.GetProducerTask(), sub)
	case *ps.TaskInputsSpec_InputParameterSpec_RuntimeValue:
		if _, ok := constant(x.RuntimeValue); ok {
			return nil
		}
		name := x.RuntimeValue.GetRuntimeParameter()
		if g.comp.GetInputDefinitions().GetParameters()[name] == nil {
			return invalid(g, t.name, sub, "there is no runtime parameter %q", name)
		}
	default:
		return invalid(g, t.name, sub, "the input %q has no value", k)
	}
	return nil
}

func connectArtifacts(g *graph, t *task) error {
	given := t.spec.GetInputs().GetArtifacts()
	defs := t.comp.GetInputDefinitions().GetArtifacts()
	for _, k := range sortedKeys(given) {
		sub := "inputs.artifacts[" + k + "]"
		if defs[k] == nil {
			return invalid(g, t.name, sub, "its component has no input artifact %q", k)
		}
		switch x := given[k].GetKind().(type) {
		case *ps.TaskInputsSpec_InputArtifactSpec_ComponentInputArtifact:
			if g.comp.GetInputDefinitions().GetArtifacts()[x.ComponentInputArtifact] == nil {
				return invalid(g, t.name, sub, "%s has no input artifact %q", g.title(), x.ComponentInputArtifact)
			}
		case *ps.TaskInputsSpec_InputArtifactSpec_TaskOutputArtifact:
			producer, key := x.TaskOutputArtifact.GetProducerTask(), x.TaskOutputArtifact.GetOutputArtifactKey()
			if err := depend(g, t, producer, sub); err != nil {
				return err
			}
			if g.tasks[producer].comp.GetOutputDefinitions().GetArtifacts()[key] == nil {
				return invalid(g, t.name, sub, "task %q has no output artifact %q", producer, key)
			}
		default:
			return invalid(g, t.name, sub, "the input artifact %q has no source", k)
		}
	}
	for _, k := range sortedKeys(defs) {
		if given[k] == nil && !defs[k].GetIsOptional() && k != t.item() {
			return invalid(g, t.name, "inputs.artifacts["+k+"]", "the required input artifact %q is not given", k)
		}
	}
	return nil
}

func (g *graph) title() string {
	if g.name == "root" {
		return "the pipeline"
	}
	return "component " + g.name
}

// order sorts the tasks of g so that each follows its deps (Kahn), by name where
// there is a choice; what is left over is a cycle.
func order(g *graph) error {
	waits := map[string]int{}
	var ready []string
	for _, n := range sortedKeys(g.tasks) {
		if waits[n] = len(g.tasks[n].deps); waits[n] == 0 {
			ready = append(ready, n)
		}
	}
	for len(ready) > 0 {
		n := ready[0]
		ready = ready[1:]
		g.order = append(g.order, n)
		for _, u := range g.tasks[n].users {
			if waits[u]--; waits[u] == 0 {
				ready = append(ready, u)
			}
		}
	}
	if len(g.order) == len(g.tasks) {
		return nil
	}
	var stuck []string
	for _, n := range sortedKeys(g.tasks) {
		if waits[n] > 0 {
			stuck = append(stuck, n)
		}
	}
	return invalid(g, stuck[0], "dependentTasks", "tasks wait for each other: %s", strings.Join(stuck, ", "))
}

// checkOutputs checks where the outputs of a graph come from.
func checkOutputs(g *graph) error {
	outs := g.comp.GetDag().GetOutputs()
	bad := func(k, format string, args ...any) error {
		return resource.Invalid(field+"."+g.name+".dag.outputs["+k+"]", "output %q of %s: "+format, append([]any{k, g.title()}, args...)...)
	}
	for _, k := range sortedKeys(outs.GetParameters()) {
		selectors := parameterSelectors(outs.GetParameters()[k])
		if len(selectors) == 0 {
			return bad(k, "it has no source")
		}
		for _, s := range selectors {
			t := g.tasks[s.GetProducerSubtask()]
			if t == nil {
				return bad(k, "there is no task %q", s.GetProducerSubtask())
			}
			if t.comp.GetOutputDefinitions().GetParameters()[s.GetOutputParameterKey()] == nil {
				return bad(k, "task %q has no output parameter %q", t.name, s.GetOutputParameterKey())
			}
		}
	}
	for _, k := range sortedKeys(outs.GetArtifacts()) {
		for _, s := range outs.GetArtifacts()[k].GetArtifactSelectors() {
			t := g.tasks[s.GetProducerSubtask()]
			if t == nil {
				return bad(k, "there is no task %q", s.GetProducerSubtask())
			}
			if t.comp.GetOutputDefinitions().GetArtifacts()[s.GetOutputArtifactKey()] == nil {
				return bad(k, "task %q has no output artifact %q", t.name, s.GetOutputArtifactKey())
			}
		}
	}
	return nil
}

// parameterSelectors lists where an output may come from: one place, or for
// dsl.OneOf several of which the first that ran counts.
func parameterSelectors(o *ps.DagOutputsSpec_DagOutputParameterSpec) []*ps.DagOutputsSpec_ParameterSelectorSpec {
	if s := o.GetValueFromParameter(); s != nil {
		return []*ps.DagOutputsSpec_ParameterSelectorSpec{s}
	}
	return o.GetValueFromOneof().GetParameterSelectors()
}
