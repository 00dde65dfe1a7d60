package pipeline

import (
	"context"
	"fmt"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Parameters checks the parameters of a run against what the pipeline declares and
// fills in the defaults. Unlike between tasks nothing is converted here: a caller
// who gives text for a number made a mistake.
func (p *Plan) Parameters(config *pb.PipelineJob_RuntimeConfig) (map[string]any, error) {
	given := map[string]any{}
	for k, v := range config.GetParameterValues() {
		given[k] = v.AsInterface()
	}
	for k, v := range config.GetParameters() { //nolint:staticcheck // clients still send it for schema 2.0.0
		given[k] = oldValue(v)
	}
	defs := p.root.comp.GetInputDefinitions().GetParameters()
	out := map[string]any{}
	for _, k := range sortedKeys(given) {
		where := "pipeline_job.runtime_config.parameter_values[" + k + "]"
		if defs[k] == nil {
			return nil, resource.Invalid(where, "the pipeline has no parameter %q", k).WithHint("its parameters are: %s", strings.Join(sortedKeys(defs), ", "))
		}
		if given[k] == nil {
			continue
		}
		if err := checkType(given[k], typeOf(defs[k])); err != nil {
			return nil, resource.Invalid(where, "parameter %q: %v", k, err).WithHint("correct parameter_values of the run: nothing is converted")
		}
		if err := oneOf(given[k], defs[k].GetLiterals()); err != nil {
			return nil, resource.Invalid(where, "parameter %q: %v", k, err)
		}
		out[k] = given[k]
	}
	for _, k := range sortedKeys(defs) {
		if _, ok := out[k]; ok {
			continue
		}
		switch d := defs[k].GetDefaultValue(); {
		case d != nil:
			if v := d.AsInterface(); v != nil {
				out[k] = v
			}
		case !defs[k].GetIsOptional():
			return nil, resource.Invalid("pipeline_job.runtime_config.parameter_values["+k+"]", "the required parameter %q is missing", k)
		}
	}
	return out, nil
}

// CheckInputArtifacts checks the names of a run's input artifacts.
func (p *Plan) CheckInputArtifacts(config *pb.PipelineJob_RuntimeConfig) error {
	defs := p.root.comp.GetInputDefinitions().GetArtifacts()
	for _, k := range sortedKeys(config.GetInputArtifacts()) {
		if defs[k] == nil {
			return resource.Invalid("pipeline_job.runtime_config.input_artifacts["+k+"]", "the pipeline has no input artifact %q", k)
		}
	}
	for _, k := range sortedKeys(defs) {
		if config.GetInputArtifacts()[k] == nil && !defs[k].GetIsOptional() {
			return resource.Invalid("pipeline_job.runtime_config.input_artifacts["+k+"]", "the required input artifact %q is missing", k)
		}
	}
	return nil
}

// InputArtifact reads the artifact that a run names by its id in the metadata
// store.
func InputArtifact(ctx context.Context, r store.Reader, project, location, id string) (Artifact, error) {
	msg := &pb.Artifact{}
	name := metadataStore(project, location) + "/artifacts/" + id
	if _, err := store.GetMessage(ctx, r, resource.KindArtifacts, name, msg); err != nil {
		return Artifact{}, fmt.Errorf("input artifact: %w", err)
	}
	return Artifact{
		Name: name, URI: msg.Uri, Metadata: msg.Metadata.AsMap(),
		Schema: Schema{Title: msg.SchemaTitle, Version: msg.SchemaVersion},
	}, nil
}

func oldValue(v *pb.Value) any {
	switch x := v.GetValue().(type) {
	case *pb.Value_IntValue:
		return float64(x.IntValue)
	case *pb.Value_DoubleValue:
		return x.DoubleValue
	case *pb.Value_StringValue:
		return x.StringValue
	default:
		return nil
	}
}
