// Package score turns one section of a batch prediction's input into a file of
// results and a file of errors: it cuts records, makes instances of them as an
// InstanceConfig says, has a model evaluate them and writes each of them once, as
// a result or as an error, in the order of the input.
//
// The same code runs in two places: in worker processes, which evaluate model files
// (Serve), and in the server, where the model is a container of its own. It knows
// nothing of jobs, objects or replicas.
package score

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Formats of input and output.
const (
	JSONL    = "jsonl"
	CSV      = "csv"
	Parquet  = "parquet"
	FileList = "file-list"
)

// Kinds of a key in outputs whose columns have types.
const (
	KeyNone  = ""      // there is no key: the instance stands beside the prediction
	KeyText  = "text"  // strings, and any other JSON as it is written
	KeyInt   = "int"   // 64-bit integers
	KeyFloat = "float" // 64-bit floats
)

// Spec says what a section is and what becomes of it.
type Spec struct {
	Input  string  `json:"input"` // JSONL, CSV or FileList
	Shape  Shape   `json:"shape"`
	Pieces []Piece `json:"pieces"` // what the section is put together of

	Output string `json:"output"`        // JSONL, CSV or Parquet
	Key    string `json:"key,omitempty"` // kind of the key, where Shape names one
	// JSONPrediction writes predictions as JSON text where columns have types: what a
	// server of the user's own answers may be anything.
	JSONPrediction bool `json:"jsonPrediction,omitempty"`

	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// Piece is a part of an object.
type Piece struct {
	Source  string   `json:"source"`            // URI
	Line    int      `json:"line"`              // of the first line, from 1
	Bytes   int      `json:"bytes"`             // of the section
	Columns []string `json:"columns,omitempty"` // of CSV

	// File, where it is given, has the piece, which is then not sent: the lines that
	// begin in [From, To) of the object, which begins at Offset of the file.
	File   string `json:"file,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	From   int64  `json:"from,omitempty"`
	To     int64  `json:"to,omitempty"`

	before func() (lines int, err error) // of the object, before the piece; nil = Line tells
}

// Shape is an InstanceConfig.
type Shape struct {
	Type     string   `json:"type,omitempty"` // object, array or ""
	Key      string   `json:"key,omitempty"`
	Included []string `json:"included,omitempty"`
	Excluded []string `json:"excluded,omitempty"`
}

// Stats counts the rows of a section.
type Stats struct {
	Successful int64    `json:"successful"`
	Failed     int64    `json:"failed"`
	Failures   []Sample `json:"failures,omitempty"` // the first few
	// Sums has for each piece that was read from a file the CRC32C of its bytes in
	// [From, To), and Sent for others; nil = all were sent.
	Sums []int64 `json:"sums,omitempty"`
}

// Sent stands in Stats.Sums for a piece that the server read.
const Sent = -1

// Sample is one failure.
type Sample struct {
	Source  string         `json:"source"`
	Line    int            `json:"line"`
	Code    codes.Code     `json:"code"`
	Message string         `json:"message"`
	Cause   resource.Cause `json:"cause,omitempty"`
}

// samples is how many failures of a section are told one by one.
const samples = 10

// Error gives a sample as the error of its line.
func (s Sample) Error() error {
	return resource.Errorf(s.Code, "line %d of %s: %s", s.Line, s.Source, s.Message).WithCause(s.Cause)
}

// sampleOf describes a failure of a row.
func sampleOf(row *Row, err error) Sample {
	told := resource.Outcome(err)
	return Sample{Source: row.Source, Line: row.Line, Code: told.Code, Message: message(err), Cause: told.Cause}
}

// message is an error's own words, without what Outcome adds. They may quote any bytes of
// the input, and the row of a job takes only text.
func message(err error) string { return strings.ToValidUTF8(err.Error(), "\ufffd") }

// Prediction is what a model says of one instance: Values, or JSON.
type Prediction struct {
	Values []float64
	JSON   []byte
}

func badRow(format string, args ...any) error {
	return resource.Invalid("instance", "%s", fmt.Sprintf(format, args...))
}
