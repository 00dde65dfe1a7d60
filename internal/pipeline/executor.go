package pipeline

import (
	"encoding/json"
	"path"
	"strings"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/runtime"
)

// The executor contract: a program gets an ExecutorInput as JSON and may answer
// with an ExecutorOutput file. Paths are below runtime.GCSRoot; the engine never
// sees the local files, only the objects that the runtime makes of them.

// path is where a program finds the artifact.
func (a Artifact) path() string {
	return gcsPath(a.URI)
}

func gcsPath(uri string) string {
	if rest, ok := strings.CutPrefix(uri, "gs://"); ok {
		return runtime.GCSRoot + "/" + rest
	}
	return uri
}

// executorInput is the JSON form; encoding/json cannot keep 21.0 apart from 21,
// so the values are raw.
type executorInput struct {
	Inputs struct {
		ParameterValues map[string]json.RawMessage `json:"parameterValues,omitempty"`
		Parameters      map[string]primitive       `json:"parameters,omitempty"` // schema 2.0.0
		Artifacts       map[string]artifactList    `json:"artifacts,omitempty"`
	} `json:"inputs"`
	Outputs struct {
		Parameters map[string]outputFile   `json:"parameters,omitempty"`
		Artifacts  map[string]artifactList `json:"artifacts,omitempty"`
		OutputFile string                  `json:"outputFile"`
	} `json:"outputs"`
}

// primitive is the only form of a value that programs of kfp 1.8 read. One is set.
type primitive struct {
	StringValue *string         `json:"stringValue,omitempty"`
	IntValue    json.RawMessage `json:"intValue,omitempty"`
	DoubleValue json.RawMessage `json:"doubleValue,omitempty"`
}

func primitiveOf(v any, t paramType) primitive {
	switch t {
	case ps.ParameterType_NUMBER_INTEGER:
		return primitive{IntValue: encodeTyped(v, t)}
	case ps.ParameterType_NUMBER_DOUBLE:
		return primitive{DoubleValue: encodeTyped(v, t)}
	default:
		text, ok := v.(string)
		if !ok { // lists and structs are texts of JSON
			text = string(encode(v))
		}
		return primitive{StringValue: &text}
	}
}

type outputFile struct {
	OutputFile string `json:"outputFile"`
}

type artifactList struct {
	Artifacts []executorArtifact `json:"artifacts"`
}

type executorArtifact struct {
	Name     string         `json:"name,omitempty"`
	Type     *executorType  `json:"type,omitempty"`
	URI      string         `json:"uri,omitempty"`
	Metadata map[string]any `json:"metadata"`
}

type executorType struct {
	SchemaTitle    string `json:"schemaTitle,omitempty"`
	SchemaURI      string `json:"schemaUri,omitempty"`
	InstanceSchema string `json:"instanceSchema,omitempty"`
	SchemaVersion  string `json:"schemaVersion,omitempty"`
}

func executorArtifacts(list []Artifact) artifactList {
	out := artifactList{Artifacts: []executorArtifact{}}
	for _, a := range list {
		e := executorArtifact{Name: a.Name, URI: a.URI, Metadata: a.Metadata}
		if e.Metadata == nil {
			e.Metadata = map[string]any{}
		}
		if a.Schema != (Schema{}) {
			e.Type = &executorType{SchemaTitle: a.Schema.Title, SchemaURI: a.Schema.URI, InstanceSchema: a.Schema.Instance, SchemaVersion: a.Schema.Version}
		}
		out.Artifacts = append(out.Artifacts, e)
	}
	return out
}

// program is one attempt of a container task, worked out.
type program struct {
	dir       string // gs:// URI under which all its outputs lie
	scope     *scope
	artifacts map[string][]Artifact // outputs before the program ran
	files     map[string]string     // output_file of each output parameter
	output    string                // executor_output.json
	launched  bool                  // by our own launcher, which may say why it failed
	primitive map[string]bool       // inputs that are declared as schema 2.0.0 does it
}

// newProgram works out the paths and the executor input of an attempt.
func newProgram(t *task, inputs Values, dir string, job map[string]string, name func(output string) string) *program {
	p := &program{dir: dir, launched: t.launcher != "", artifacts: map[string][]Artifact{}, files: map[string]string{}, output: gcsPath(dir) + "/executor_output.json"}
	outs := t.comp.GetOutputDefinitions()
	for k := range outs.GetParameters() {
		p.files[k] = gcsPath(dir) + "/" + k
	}
	for k, a := range outs.GetArtifacts() {
		if a.GetIsArtifactList() {
			p.artifacts[k] = nil // the program says what is in it
			continue
		}
		p.artifacts[k] = []Artifact{{Name: name(k), URI: dir + "/" + k, Schema: schemaOf(a.GetArtifactType()), Metadata: a.GetMetadata().AsMap()}}
	}
	p.scope = &scope{inputs: inputs, types: inputTypes(t.comp), job: job, outputs: p.artifacts, files: p.files, outputFile: p.output}
	p.scope.templates = t.templatesAmong(inputs, job)
	p.primitive = map[string]bool{}
	for k, in := range t.comp.GetInputDefinitions().GetParameters() {
		p.primitive[k] = in.GetType() != ps.PrimitiveType_PRIMITIVE_TYPE_UNSPECIFIED
	}
	p.scope.executorInput = p.input()
	return p
}

func (p *program) input() string {
	var in executorInput
	in.Inputs.ParameterValues = map[string]json.RawMessage{}
	for k, v := range p.scope.inputs.Parameters {
		in.Inputs.ParameterValues[k] = encodeTyped(v, p.scope.types[k])
		if p.primitive[k] && v != nil {
			if in.Inputs.Parameters == nil {
				in.Inputs.Parameters = map[string]primitive{}
			}
			in.Inputs.Parameters[k] = primitiveOf(v, p.scope.types[k])
		}
	}
	in.Inputs.Artifacts = map[string]artifactList{}
	for k, list := range p.scope.inputs.Artifacts {
		in.Inputs.Artifacts[k] = executorArtifacts(list)
	}
	in.Outputs.Parameters = map[string]outputFile{}
	for k, file := range p.files {
		in.Outputs.Parameters[k] = outputFile{OutputFile: file}
	}
	in.Outputs.Artifacts = map[string]artifactList{}
	for k, list := range p.artifacts {
		in.Outputs.Artifacts[k] = executorArtifacts(list)
	}
	in.Outputs.OutputFile = p.output
	return string(encode(in))
}

func schemaOf(t *ps.ArtifactTypeSchema) Schema {
	return Schema{Title: t.GetSchemaTitle(), Version: t.GetSchemaVersion(), URI: t.GetSchemaUri(), Instance: t.GetInstanceSchema()}
}

// workload turns the container spec into what the runtime starts.
func (p *program) workload(t *task) (runtime.Workload, error) {
	c := t.container()
	w := runtime.Workload{Image: c.GetImage(), Env: map[string]string{}, Publish: true, ExecutorOutput: p.output, Dirs: []string{path.Clean(gcsPath(p.dir))}}
	for _, e := range c.GetEnv() {
		w.Env[e.GetName()] = expand(e.GetValue(), p.scope.lookup)
	}
	for _, list := range p.scope.inputs.Artifacts {
		for _, a := range list {
			if strings.HasPrefix(a.URI, "gs://") {
				w.Fetch = append(w.Fetch, a.URI)
			}
		}
	}
	var err error
	if w.Resources, err = resources(c.GetResources(), p.scope); err != nil {
		return w, err
	}
	if w.Args, err = p.scope.arguments(c.GetArgs()); err != nil {
		return w, err
	}
	if component, ok := parseLightweight(c.GetCommand(), c.GetImage()); ok {
		component.apply(&w)
		return w, nil
	}
	w.Command, err = p.scope.arguments(c.GetCommand())
	return w, err
}
