// Package oip is the codec of the Open Inference Protocol, version 2, over REST: its
// messages as JSON and with the binary tensor extension. It serves nothing: the runner
// and the API both speak it by this package.
//
// The protocol is at github.com/kserve/open-inference-protocol, the extension in
// Triton's docs/protocol/extension_binary_data.md.
package oip

import (
	"strconv"

	"tategu/internal/tensor"
)

// HeaderLength is the HTTP header that says how many bytes of a body are JSON where
// binary tensors follow.
const HeaderLength = "Inference-Header-Content-Length"

// Types of a body.
const (
	ContentJSON   = "application/json"
	ContentBinary = "application/octet-stream"
)

// Error is a request that is wrong; its text is for the client.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// Datatype is the protocol's name of an element type, "" where it has none.
func Datatype(t tensor.Type) string {
	names := [...]string{
		tensor.Bool: "BOOL", tensor.Uint8: "UINT8", tensor.Uint16: "UINT16", tensor.Uint32: "UINT32", tensor.Uint64: "UINT64",
		tensor.Int8: "INT8", tensor.Int16: "INT16", tensor.Int32: "INT32", tensor.Int64: "INT64",
		tensor.Float16: "FP16", tensor.BFloat16: "BF16", tensor.Float32: "FP32", tensor.Float64: "FP64", tensor.String: "BYTES",
	}
	if int(t) < len(names) {
		return names[t]
	}
	return ""
}

// Type is the element type of a datatype; false for a name that is none.
func Type(datatype string) (tensor.Type, bool) {
	for t := tensor.Bool; t <= tensor.String; t++ {
		if Datatype(t) == datatype {
			return t, true
		}
	}
	return tensor.Invalid, false
}

// Named is a tensor with its name.
type Named struct {
	Name string
	tensor.Tensor
}

// Request asks for one inference.
type Request struct {
	ID     string
	Inputs []Named
	// Outputs that are asked for, in this order; none = all.
	Outputs []Output
	// Binary asks for outputs in binary that do not say themselves.
	Binary bool
	// Parameters are those of the request, as JSON; nil = none. The extension's own is
	// Binary and not among them where it was the only one.
	Parameters []byte
}

// Output is one that is asked for.
type Output struct {
	Name   string
	Binary bool
}

// Response is the answer.
type Response struct {
	Model, Version, ID string
	Outputs            []Result
}

// Result is an output and how it is written.
type Result struct {
	Named

	Binary bool
}

// TensorMetadata describes an input or output; -1 in Shape is any length.
type TensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// ModelMetadata answers GET /v2/models/M.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions,omitempty"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// ServerMetadata answers GET /v2.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// ErrorBody is the protocol's answer to a request that failed.
func ErrorBody(text string) []byte {
	return append(tensor.AppendString([]byte(`{"error":`), []byte(text)), '}')
}

// ReadyBody is an answer about readiness; name is that of a model, "" = the server.
func ReadyBody(name string, ready bool) []byte {
	b := []byte(`{`)
	if name != "" {
		b = append(tensor.AppendString(append(b, `"name":`...), []byte(name)), ',')
	}
	return append(strconv.AppendBool(append(b, `"ready":`...), ready), '}')
}
