package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// jobPlaceholders are the placeholders about the run and the task.
func (m *machine) jobPlaceholders(n *node) map[string]string {
	created := m.run.created.UTC().Format(time.RFC3339)
	return map[string]string{
		"pipeline_job_name":              m.run.id,
		"pipeline_job_resource_name":     m.run.name,
		"pipeline_job_uuid":              m.run.number,
		"pipeline_task_name":             n.Name,
		"pipeline_task_uuid":             strconv.FormatInt(n.ID, 10),
		"pipeline_root":                  m.run.root,
		"pipeline_job_create_time_utc":   created,
		"pipeline_job_schedule_time_utc": m.run.scheduled.UTC().Format(time.RFC3339),
		"workspace_path":                 workspacePath,

		// Defaults of google-cloud-pipeline-components (_placeholders.py).
		"pipeline_google_cloud_project_id": m.run.project,
		"pipeline_google_cloud_location":   m.run.location,
		"pipeline_service_account":         m.run.account,
		"pipeline_network":                 m.run.network,
		"pipeline_persistent_resource_id":  "",
		"pipeline_encryption_key_name":     "",
	}
}

// tick is when a run was to start: as its schedule says, and without one when it
// was made.
func (e *Engine) tick(ctx context.Context, msg *pb.PipelineJob) (time.Time, error) {
	created := msg.CreateTime.AsTime()
	if msg.ScheduleName == "" {
		return created, nil
	}
	row, err := e.cfg.Store.Get(ctx, resource.KindScheduledRuns, msg.Name)
	if resource.IsNotFound(err) {
		return created, nil
	}
	if err != nil {
		return created, err
	}
	return time.Parse(time.RFC3339, string(row.Data))
}

// resolve works out the inputs of a task: values from their sources first, then
// the constants that refer to them, then selectors, types and defaults.
func (m *machine) resolve(n *node) (Values, error) {
	v := newValues()
	templates := map[string]any{}
	for k, in := range n.def.spec.GetInputs().GetParameters() {
		if n.def.fromItem(k) {
			continue
		}
		value, ok, err := m.source(n, in)
		if err != nil {
			return v, err
		}
		if in.GetRuntimeValue() != nil && strings.Contains(plainText(value), "{{$") {
			templates[k] = value
			continue
		}
		if ok && value != nil {
			v.Parameters[k] = value
		}
	}
	s := &scope{inputs: v, types: m.sourceTypes(n), job: m.jobPlaceholders(n)}
	expanded := map[string]any{}
	for k, template := range templates {
		if str, isText := template.(string); isText {
			expanded[k] = expand(str, s.lookup)
		} else {
			expanded[k] = expandAll(template, s)
		}
	}
	maps.Copy(v.Parameters, expanded)
	for k, p := range n.def.selectors {
		value, ok := v.Parameters[k]
		if !ok {
			continue
		}
		part, err := evalSelector(p, value)
		if err != nil {
			return v, fmt.Errorf("input %q: %w", k, err)
		}
		v.Parameters[k] = part
	}
	if err := fit(n.def, v.Parameters); err != nil {
		return v, err
	}
	for k, template := range n.def.templates {
		if reflect.DeepEqual(v.Parameters[k], template) {
			v.Parameters[k] = ofRun(template, s.job)
		}
	}
	return v, m.resolveArtifacts(n, v)
}

// source gives the value that an input names; ok is false when it is absent.
func (m *machine) source(n *node, in *ps.TaskInputsSpec_InputParameterSpec) (value any, ok bool, err error) {
	p := n.around()
	switch x := in.GetKind().(type) {
	case *ps.TaskInputsSpec_InputParameterSpec_ComponentInputParameter:
		value, ok = p.inputs.Parameters[x.ComponentInputParameter]
	case *ps.TaskInputsSpec_InputParameterSpec_TaskOutputParameter:
		producer := p.children[x.TaskOutputParameter.GetProducerTask()]
		value, ok = producer.Outputs.Parameters[x.TaskOutputParameter.GetOutputParameterKey()]
	case *ps.TaskInputsSpec_InputParameterSpec_TaskFinalStatus_:
		value, ok = m.finalStatus(p.children[x.TaskFinalStatus.GetProducerTask()]), true
	case *ps.TaskInputsSpec_InputParameterSpec_RuntimeValue:
		if value, ok = constant(x.RuntimeValue); !ok {
			value, ok = p.inputs.Parameters[x.RuntimeValue.GetRuntimeParameter()]
		}
	default:
		return nil, false, errors.New("an input has no source")
	}
	return value, ok, nil
}

// around is the graph that a task stands in.
func (n *node) around() *node {
	if n.parent.loop != nil {
		return n.parent.parent
	}
	return n.parent
}

// sourceTypes gives the types of inputs, also of those that the component does
// not declare and that only constants refer to.
func (m *machine) sourceTypes(n *node) map[string]paramType {
	types := inputTypes(n.def.comp)
	for k, in := range n.def.spec.GetInputs().GetParameters() {
		if _, known := types[k]; known {
			continue
		}
		switch x := in.GetKind().(type) {
		case *ps.TaskInputsSpec_InputParameterSpec_ComponentInputParameter:
			types[k] = inputTypes(n.around().graph.comp)[x.ComponentInputParameter]
		case *ps.TaskInputsSpec_InputParameterSpec_TaskOutputParameter:
			producer := n.around().graph.tasks[x.TaskOutputParameter.GetProducerTask()]
			types[k] = outputTypes(producer.comp)[x.TaskOutputParameter.GetOutputParameterKey()]
		default:
		}
	}
	return types
}

// fit converts values to the types that the component declares and fills in
// defaults. The item of a loop comes later.
func fit(t *task, params map[string]any) error {
	defs := t.comp.GetInputDefinitions().GetParameters()
	for _, k := range sortedKeys(defs) {
		if k == t.item() {
			continue
		}
		if err := fitOne(params, k, defs[k]); err != nil {
			return err
		}
	}
	return nil
}

func fitOne(params map[string]any, k string, def *ps.ComponentInputsSpec_ParameterSpec) error {
	value, ok := params[k]
	if !ok {
		if def.GetDefaultValue() == nil {
			if def.GetIsOptional() {
				return nil
			}
			return fmt.Errorf("the required input %q has no value", k)
		}
		value = def.GetDefaultValue().AsInterface()
		if value == nil {
			return nil
		}
	}
	value, err := convert(value, typeOf(def))
	if err != nil {
		return fmt.Errorf("input %q: %w", k, err)
	}
	if err := oneOf(value, def.GetLiterals()); err != nil {
		return fmt.Errorf("input %q: %w", k, err)
	}
	params[k] = value
	return nil
}

func (m *machine) resolveArtifacts(n *node, v Values) error {
	for k, in := range n.def.spec.GetInputs().GetArtifacts() {
		var list []Artifact
		var ok bool
		switch x := in.GetKind().(type) {
		case *ps.TaskInputsSpec_InputArtifactSpec_ComponentInputArtifact:
			list, ok = n.parent.inputs.Artifacts[x.ComponentInputArtifact]
		case *ps.TaskInputsSpec_InputArtifactSpec_TaskOutputArtifact:
			producer := n.parent.children[x.TaskOutputArtifact.GetProducerTask()]
			list, ok = producer.Outputs.Artifacts[x.TaskOutputArtifact.GetOutputArtifactKey()]
		default:
		}
		if ok {
			v.Artifacts[k] = list
		}
	}
	defs := n.def.comp.GetInputDefinitions().GetArtifacts()
	for _, k := range sortedKeys(defs) {
		if _, ok := v.Artifacts[k]; !ok && !defs[k].GetIsOptional() && k != n.def.item() {
			return fmt.Errorf("the required input artifact %q was not produced", k)
		}
	}
	return nil
}

// conditionInputs gives every declared input, absent ones as null.
func (m *machine) conditionInputs(n *node) map[string]any {
	params := map[string]any{}
	for k := range n.def.comp.GetInputDefinitions().GetParameters() {
		params[k] = nil
	}
	maps.Copy(params, n.inputs.Parameters)
	return params
}

// finalStatus is the value of a PipelineTaskFinalStatus input. The states are
// those of the API, not COMPLETE as in the open-source backend.
func (m *machine) finalStatus(producer *node) map[string]any {
	state := string(producer.State)
	if producer.State == Skipped {
		state = string(Succeeded)
	}
	status := map[string]any{}
	if f := producer.Failure; f != nil {
		status["code"], status["message"] = float64(f.Cause.Code()), f.err().Error()
	}
	return map[string]any{
		"state": state, "error": status, "pipelineJobResourceName": m.run.name, "pipelineTaskName": producer.Name,
	}
}

// graphOutputs collects the outputs of a graph from its tasks.
func graphOutputs(n *node) Values {
	v := newValues()
	outs := n.graph.comp.GetDag().GetOutputs()
	for k, o := range outs.GetParameters() {
		for _, s := range parameterSelectors(o) {
			c := n.children[s.GetProducerSubtask()]
			if value, ok := c.Outputs.Parameters[s.GetOutputParameterKey()]; ok && c.State.ok() {
				v.Parameters[k] = value
				break
			}
		}
	}
	for k, o := range outs.GetArtifacts() {
		for _, s := range o.GetArtifactSelectors() {
			c := n.children[s.GetProducerSubtask()]
			if list, ok := c.Outputs.Artifacts[s.GetOutputArtifactKey()]; ok && c.State.ok() {
				v.Artifacts[k] = list
				break
			}
		}
	}
	return v
}

// expandAll replaces placeholders in every string of a JSON value. A string that
// is nothing but one input becomes that input's value.
func expandAll(v any, s *scope) any {
	switch v := v.(type) {
	case string:
		if r, ok := parseReference(strings.TrimSuffix(strings.TrimPrefix(v, "{{$"), "}}")); ok && !r.artifact && !r.output {
			if value, ok := s.inputs.Parameters[r.name]; ok {
				return value
			}
		}
		return expand(v, s.lookup)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = expandAll(v[i], s)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[expand(k, s.lookup)] = expandAll(item, s)
		}
		return out
	default:
		return v
	}
}

// artifactName is the resource name of an output in the metadata store.
func (m *machine) artifactName(n *node, output string, index int) string {
	id := m.id(n.Path + "\x00" + output + "\x00" + strconv.Itoa(n.Attempt) + "\x00" + strconv.Itoa(index))
	return metadataStore(m.run.project, m.run.location) + "/artifacts/" + strconv.FormatInt(id, 10)
}

func metadataStore(project, location string) string {
	return "projects/" + project + "/locations/" + location + "/metadataStores/default"
}
