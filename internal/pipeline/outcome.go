package pipeline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// outcome is everything that an attempt left behind, as it was found.
type outcome struct {
	exit    runtime.Exit
	fault   *gcpc.Fault       // why a launcher failed, by itself
	output  []byte            // executor_output.json; nil when there is none
	files   map[string][]byte // the output files of parameters that exist
	content map[string]bool   // URIs at which something lies
}

// executorOutput is what a program may write. Where else an artifact lies
// (custom_path) is the runtime's business.
type executorOutput struct {
	ParameterValues  map[string]any            `json:"parameterValues"`
	ParameterValues2 map[string]any            `json:"parameter_values"`
	Parameters       map[string]map[string]any `json:"parameters"` // schema 2.0.0
	Artifacts        map[string]struct {
		Artifacts []struct {
			Name     string         `json:"name"`
			URI      string         `json:"uri"`
			Metadata map[string]any `json:"metadata"`
		} `json:"artifacts"`
	} `json:"artifacts"`
}

// decodeOutput reads executor_output.json; programs need not write one.
func decodeOutput(text []byte) (*executorOutput, error) {
	eo := &executorOutput{}
	if len(text) == 0 {
		return eo, nil
	}
	if err := json.Unmarshal(text, eo); err != nil {
		return eo, fmt.Errorf("executor_output.json is not an executor output: %w", err)
	}
	return eo, nil
}

// parameter gives a value that the program reported.
func (o *executorOutput) parameter(k string) (any, bool) {
	if v, ok := o.ParameterValues[k]; ok {
		return v, true
	}
	if v, ok := o.ParameterValues2[k]; ok {
		return v, true
	}
	for _, v := range o.Parameters[k] { // one of stringValue, intValue, doubleValue
		return v, true
	}
	return nil, false
}

// outputs judges an attempt: its outputs, or why it failed.
func (m *machine) outputs(n *node, o outcome) (Values, *Failure) {
	v := newValues()
	if !o.exit.OK() {
		if o.fault != nil {
			return v, badLaunch(o.fault)
		}
		return v, m.badExit(n, o.exit)
	}
	eo, err := decodeOutput(o.output)
	if err != nil {
		return v, m.badOutput(n, o, "%v", err)
	}
	defs := n.def.comp.GetOutputDefinitions()
	for _, k := range sortedKeys(defs.GetParameters()) {
		value, found := eo.parameter(k)
		t := typeOf(defs.GetParameters()[k])
		var err error
		if found {
			value, err = convert(value, t)
		} else {
			var file []byte
			if file, found = o.files[k]; !found {
				return v, m.badOutput(n, o, "the output parameter %q was not written: neither executor_output.json nor its output file has it", k)
			}
			value, err = fromText(string(file), t)
		}
		if err != nil {
			return v, m.badOutput(n, o, "output parameter %q: %v", k, err)
		}
		v.Parameters[k] = value
	}
	p := m.program(n)
	for _, k := range sortedKeys(p.artifacts) {
		v.Artifacts[k] = m.outputArtifacts(n, k, p.artifacts[k], eo, o.content)
	}
	return v, nil
}

// outputArtifacts takes over what the program said about an artifact.
func (m *machine) outputArtifacts(n *node, k string, planned []Artifact, eo *executorOutput, content map[string]bool) []Artifact {
	said := eo.Artifacts[k].Artifacts
	out := append([]Artifact{}, planned...)
	schema := schemaOf(n.def.comp.GetOutputDefinitions().GetArtifacts()[k].GetArtifactType())
	for i, a := range said {
		if i == len(out) {
			out = append(out, Artifact{Name: m.artifactName(n, k, i), Schema: schema})
		}
		if a.URI != "" {
			out[i].URI = a.URI
		}
		if a.Metadata != nil {
			out[i].Metadata = a.Metadata
		}
	}
	for i := range out {
		out[i].Content = content[out[i].URI]
	}
	return out
}

// badExit is the failure of a program by its end.
func (m *machine) badExit(n *node, exit runtime.Exit) *Failure {
	return newFailure(exit.Err("").WithLogs(m.run.id + "/" + n.Path))
}

// badOutput is the failure of a program that ended well and left nothing of use.
func (m *machine) badOutput(n *node, o outcome, format string, args ...any) *Failure {
	e := &resource.Error{
		Message: fmt.Sprintf(format, args...), Cause: resource.CauseUserCode, Reason: "BAD_OUTPUT",
		Hint:    "let the program write it: a component returns its outputs, another program writes them to the paths that it is given",
		Program: &resource.Program{ExitCode: o.exit.Code, Tail: o.exit.Tail},
	}
	return newFailure(e.WithLogs(m.run.id + "/" + n.Path))
}

// program works out the running attempt of a container task.
func (m *machine) program(n *node) *program {
	return newProgram(n.def, n.inputs, m.dir(n), m.jobPlaceholders(n), func(output string) string { return m.artifactName(n, output, 0) })
}

// dir is where an attempt's outputs go; each attempt has its own, so that a
// straggler cannot change what a later one left.
func (m *machine) dir(n *node) string {
	dir := fmt.Sprintf("%s/%s/%s/%s_%d", m.run.root, m.run.project, m.run.id, n.Name, n.ID)
	if n.Attempt > 1 {
		dir += fmt.Sprintf("_%d", n.Attempt)
	}
	return dir
}

// newFailure keeps an error with its task.
func newFailure(err error) *Failure {
	e := resource.Outcome(err)
	f := &Failure{Message: e.Message, Hint: e.Hint, Cause: e.Cause, Reason: e.Reason}
	if p := e.Program; p != nil {
		f.ExitCode, f.Signal, f.Tail = p.ExitCode, p.Signal, p.Tail
	}
	return f
}

// err is the failure as every failure of a job is told.
func (f *Failure) err() *resource.Error {
	p := &resource.Program{ExitCode: f.ExitCode, Signal: f.Signal, Tail: f.Tail}
	if p.ExitCode == 0 {
		p.ExitCode = resource.NeverStarted // nothing to be told of the exit
	}
	return &resource.Error{Code: f.Cause.CodeFor(f.Reason), Message: f.Message, Hint: f.Hint, Cause: f.Cause, Reason: f.Reason, Program: p}
}

// maxFailures is how many failed tasks the failure of a graph tells of.
const maxFailures = 10

// graphFailure is the failure of a graph or a loop: those of its parts.
func graphFailure(failed []*node) *Failure {
	// What was stopped because of a failure says less than the failure.
	if own := slices.DeleteFunc(slices.Clone(failed), func(n *node) bool { return n.Blocked }); len(own) > 0 {
		failed = own
	}
	var names, parts []string
	for _, n := range failed[:min(len(failed), maxFailures)] {
		names = append(names, n.Name)
		if n.leaf() {
			parts = append(parts, fmt.Sprintf("task %q: %s", n.Path, n.Failure.Message))
		} else {
			parts = append(parts, n.Failure.Message)
		}
	}
	if more := len(failed) - maxFailures; more > 0 {
		names, parts = append(names, fmt.Sprintf("%d more", more)), append(parts, fmt.Sprintf("and %d more", more))
	}
	f := *failed[0].Failure
	f.Message = strings.Join(parts, "; ")
	if failed[0].parent.parent == nil {
		f.Message = "The DAG failed because some tasks failed. The failed tasks are: [" + strings.Join(names, ", ") + "].; " + f.Message
	}
	return &f
}
