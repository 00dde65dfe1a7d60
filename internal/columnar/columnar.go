// Package columnar reads and writes Parquet files: a few columns of results that are
// written as rows come, and rows of any file as lines of JSON. It hides the library
// that does it (docs/adr/0023).
package columnar

import (
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
)

// Kind of a column that is written.
type Kind int

// Kinds. Text is the zero value. Floats that are not finite are null.
const (
	Text   Kind = iota // UTF-8
	JSON               // UTF-8 that is marked as JSON
	Int                // 64-bit integers
	Float              // 64-bit floats, or null
	Floats             // lists of these
)

// Column of a file that is written. Columns stand in the order of their names.
type Column struct {
	Name string
	Kind Kind
}

// pageRows are kept before they are handed to the library.
const pageRows = 4096

// Writer writes one file. Each row sets every column once, in order of rows; the
// file is complete when Close has returned.
type Writer struct {
	out     *parquet.GenericWriter[any]
	columns []*column
}

type column struct {
	kind   Kind
	index  int
	to     *parquet.ColumnWriter
	values []parquet.Value
	rows   int
	text   []byte // what values of this page point into
	err    error
}

// NewWriter begins a file.
func NewWriter(w io.Writer, columns ...Column) (*Writer, error) {
	group := parquet.Group{}
	before := ""
	for _, c := range columns {
		if c.Name <= before {
			return nil, fmt.Errorf("columns %q and %q are not in order", before, c.Name)
		}
		before, group[c.Name] = c.Name, c.Kind.node()
	}
	out := &Writer{out: parquet.NewGenericWriter[any](w, parquet.NewSchema("rows", group), parquet.Compression(&parquet.Snappy), parquet.CreatedBy("tategu", "", ""))}
	for i, to := range out.out.ColumnWriters() {
		out.columns = append(out.columns, &column{kind: columns[i].Kind, index: i, to: to, values: make([]parquet.Value, 0, pageRows)})
	}
	return out, nil
}

func (k Kind) node() parquet.Node {
	switch k {
	case JSON:
		return parquet.JSON()
	case Int:
		return parquet.Leaf(parquet.Int64Type)
	case Float:
		return parquet.Optional(parquet.Leaf(parquet.DoubleType))
	case Floats:
		return parquet.List(parquet.Optional(parquet.Leaf(parquet.DoubleType)))
	case Text:
	}
	return parquet.String()
}

// Int sets a column of the row.
func (w *Writer) Int(i int, v int64) { w.columns[i].add(parquet.Int64Value(v).Level(0, 0, i)) }

// Float sets a column of the row.
func (w *Writer) Float(i int, v float64) { w.columns[i].add(float(v, 0, 0, i)) }

// Floats sets a column of the row. There is at least one value.
func (w *Writer) Floats(i int, list []float64) {
	c := w.columns[i]
	for k, v := range list[:len(list)-1] {
		c.values = append(c.values, float(v, min(k, 1), 1, i))
	}
	last := len(list) - 1
	c.add(float(list[last], min(last, 1), 1, i))
}

func float(v float64, repetition, definition, column int) parquet.Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return parquet.NullValue().Level(repetition, definition, column)
	}
	return parquet.DoubleValue(v).Level(repetition, definition+1, column)
}

// Text sets a column of the row; the bytes are copied.
func (w *Writer) Text(i int, v []byte) {
	c := w.columns[i]
	start := len(c.text)
	c.text = append(c.text, v...) // values keep what they point into when it moves
	c.add(parquet.ByteArrayValue(c.text[start:]).Level(0, 0, i))
}

func (c *column) add(v parquet.Value) {
	c.values = append(c.values, v)
	if c.rows++; c.rows == pageRows {
		c.flush()
	}
}

func (c *column) flush() {
	if c.err == nil && len(c.values) > 0 {
		_, c.err = c.to.WriteRowValues(c.values)
	}
	c.values, c.text, c.rows = c.values[:0], c.text[:0], 0
}

// Close ends the file.
func (w *Writer) Close() error {
	for _, c := range w.columns {
		if c.flush(); c.err != nil {
			return fmt.Errorf("write Parquet: %w", c.err)
		}
	}
	if err := w.out.Close(); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return nil
}
