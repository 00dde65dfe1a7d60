// Package runner serves one model that a native library evaluates: over HTTP, by the
// contract of prediction containers and by the Open Inference Protocol, with the
// requests of a moment in one batch. It knows no library; Engine is one.
//
// It is the body of the program tategu-runner (docs/adr/0021), which the server starts
// as a replica like any other: a library that crashes takes that process alone with it.
package runner

import (
	"fmt"
	"slices"

	"tategu/internal/oip"
	"tategu/internal/tensor"
)

// Engine is a model that is loaded. Its methods may be called at the same time.
type Engine interface {
	// Describe says in a few words what evaluates the model.
	Describe() string
	Inputs() []Spec
	Outputs() []Spec
	// Run evaluates the model once. Inputs are in the order of Inputs and of their types;
	// the answers in that of Outputs. It keeps nothing of either. An *InputError is about
	// the values of the inputs.
	Run(inputs []tensor.Tensor) ([]Value, error)
}

// InputError is an evaluation that failed over what it was given.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap gives the library's own error.
func (e *InputError) Unwrap() error { return e.Err }

// Spec is an input or output.
type Spec struct {
	Name  string
	Type  tensor.Type
	Shape []int64 // -1 is any length
	// Maps says that it is a list of maps, one a row, from keys to values of Type: what
	// classifiers of ai.onnx.ml give. Shape is then of no meaning.
	Maps bool
}

// Value is an output: a tensor, or maps.
type Value struct {
	tensor.Tensor

	Maps []Map // not nil where the output is a list of maps
}

// Map is one, with keys of int64 or strings beside their values.
type Map struct{ Keys, Values tensor.Tensor }

// Mode is what an instance of a request is to a model.
type Mode string

// The modes. Merged includes that an instance is a row.
const (
	// Whole: an instance has all of every input, and the model is run for each.
	Whole Mode = "an instance is all inputs of one run"
	// Rows: an instance is a row of the first dimension; rows of one request are run together.
	Rows Mode = "an instance is a row"
	// Merged: rows of different requests are run together too.
	Merged Mode = "an instance is a row, and requests are merged into batches"
)

// Model is an engine with what was found out about it.
type Model struct {
	engine  Engine
	inputs  []Spec
	outputs []Spec
	mode    Mode
	why     string // of the mode
	single  bool   // rows are run one by one: the first dimension is 1
}

// Describe says what serves and how.
func (m *Model) Describe() string {
	return fmt.Sprintf("%s; %s (%s)", m.engine.Describe(), m.mode, m.why)
}

// rowShape is the shape of one instance of an input.
func (m *Model) rowShape(i int) []int64 {
	if m.mode == Whole {
		return m.inputs[i].Shape
	}
	return m.inputs[i].Shape[1:]
}

// modeByShape is what the shapes alone allow.
func modeByShape(inputs, outputs []Spec) (mode Mode, single bool, why string) {
	first := func(s Spec) int64 {
		switch {
		case s.Maps:
			return -1
		case len(s.Shape) == 0:
			return 0
		}
		return s.Shape[0]
	}
	for _, s := range slices.Concat(inputs, outputs) {
		if d := first(s); d != -1 && d != 1 {
			return Whole, false, fmt.Sprintf("the first dimension of %q is not one of rows: %s", s.Name, tensor.Shape(s.Shape))
		}
	}
	if slices.ContainsFunc(inputs, func(s Spec) bool { return first(s) == 1 }) {
		if slices.ContainsFunc(inputs, func(s Spec) bool { return first(s) == -1 }) {
			return Whole, false, "some inputs have a fixed first dimension, others do not"
		}
		return Rows, true, "the model takes one row at a time"
	}
	if i := slices.IndexFunc(outputs, func(s Spec) bool { return first(s) == 1 }); i >= 0 {
		return Whole, false, fmt.Sprintf("output %q does not have a row for each of the inputs'", outputs[i].Name)
	}
	return Rows, false, "its first dimension is open"
}

// metadata describes an input or output in the protocol's terms: maps are strings of JSON.
func metadata(specs []Spec) []oip.TensorMetadata {
	out := make([]oip.TensorMetadata, len(specs))
	for i, s := range specs {
		out[i] = oip.TensorMetadata{Name: s.Name, Datatype: oip.Datatype(s.Type), Shape: s.Shape}
		if s.Maps {
			out[i].Datatype, out[i].Shape = oip.Datatype(tensor.String), []int64{-1}
		}
		if out[i].Shape == nil {
			out[i].Shape = []int64{}
		}
	}
	return out
}
