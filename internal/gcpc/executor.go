package gcpc

import (
	"encoding/json"

	"tategu/internal/resource"
)

// ExecutorInput is the part of KFP's message that launchers read and answer to.
type ExecutorInput struct {
	Inputs struct {
		Artifacts map[string]artifacts `json:"artifacts"`
	} `json:"inputs"`
	Outputs struct {
		Artifacts  map[string]artifacts `json:"artifacts"`
		OutputFile string               `json:"outputFile"`
	} `json:"outputs"`
}

type artifacts struct {
	Artifacts []Artifact `json:"artifacts"`
}

// Artifact is one typed object; fields that launchers do not look at stay with it.
type Artifact struct {
	Name     string          `json:"name,omitempty"`
	Type     json.RawMessage `json:"type,omitempty"`
	URI      string          `json:"uri,omitempty"`
	Metadata map[string]any  `json:"metadata,omitempty"`
}

// ParseExecutorInput reads the argument --executor_input.
func ParseExecutorInput(text string) (ExecutorInput, error) {
	var in ExecutorInput
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return in, resource.Invalid("--executor_input", "--executor_input is not an executor input of KFP: %v", err)
	}
	if in.Outputs.OutputFile == "" {
		return in, resource.Invalid("--executor_input", "--executor_input names no outputs.outputFile")
	}
	return in, nil
}

// input gives the artifact of an input.
func (in ExecutorInput) input(name string) (Artifact, bool) {
	list := in.Inputs.Artifacts[name].Artifacts
	if len(list) == 0 {
		return Artifact{}, false
	}
	return list[0], true
}

// Made is an output artifact of a launcher.
type Made struct {
	URI      string
	Metadata map[string]any
}

// Output makes the executor output that says what became of the output artifacts;
// one that the component does not have is left out.
func (in ExecutorInput) Output(made map[string]Made) ([]byte, error) {
	out := map[string]artifacts{}
	for name, m := range made {
		planned, ok := in.Outputs.Artifacts[name]
		if !ok || len(planned.Artifacts) == 0 {
			continue
		}
		a := planned.Artifacts[0]
		a.URI, a.Metadata = m.URI, m.Metadata
		out[name] = artifacts{[]Artifact{a}}
	}
	return json.Marshal(map[string]any{"artifacts": out})
}
