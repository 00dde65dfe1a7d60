package ann

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Rows on their way to another process: each is a byte that says that one comes, its id, its
// vector and its attributes; after the last comes a byte that says so, since a stream that
// ends otherwise was cut. Lengths are unsigned varints; floats are little endian, as in files.
const (
	rowComes  = 1
	rowsEnded = 0
	// maxField of bytes is far beyond what the API takes; memory for more is taken as it comes.
	maxField = 1 << 20
)

// WriteError is a failure of the writer that WriteRows wrote to, not of the rows.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write rows: " + e.Err.Error() }

func (e *WriteError) Unwrap() error { return e.Err }

// WriteRows writes all rows of so many dimensions for ReadRows.
func WriteRows(w io.Writer, rows Rows, dimensions int) error {
	var head, record []byte // used again
	for r, err := range rows {
		if err != nil {
			return err
		}
		if len(r.Vector) != dimensions {
			return fmt.Errorf("id %q: %w: it has %d dimensions instead of %d", r.ID, ErrVector, len(r.Vector), dimensions)
		}
		record = appendRecord(record[:0], r)
		head = appendString(append(head[:0], rowComes), r.ID)
		head = append(head, raw(r.Vector)...)
		head = binary.AppendUvarint(head, uint64(len(record)))
		head = append(head, record...)
		if _, err := w.Write(head); err != nil {
			return &WriteError{err}
		}
	}
	if _, err := w.Write([]byte{rowsEnded}); err != nil {
		return &WriteError{err}
	}
	return nil
}

// ReadRows gives the rows that WriteRows wrote; one is good until the next. What cannot be
// read ends them with an error.
func ReadRows(in *bufio.Reader, dimensions int) Rows {
	return func(yield func(Row, error) bool) {
		d := streamReader{in: in, vector: make([]float32, dimensions)}
		for {
			r, more, err := d.next()
			if err != nil {
				yield(Row{}, fmt.Errorf("rows of a segment that is built: %w", err))
				return
			}
			if !more || !yield(r, nil) {
				return
			}
		}
	}
}

type streamReader struct {
	in     *bufio.Reader
	vector []float32
	field  []byte
}

func (d *streamReader) next() (r Row, more bool, err error) {
	kind, err := d.in.ReadByte()
	switch {
	case err != nil:
		return r, false, cut(err)
	case kind == rowsEnded:
		return r, false, nil
	case kind != rowComes:
		return r, false, fmt.Errorf("%w: a row begins with %d", ErrDamaged, kind)
	}
	id, err := d.bytes()
	if err != nil {
		return r, false, err
	}
	r.ID, r.Vector = string(id), d.vector
	if _, err := io.ReadFull(d.in, raw(d.vector)); err != nil {
		return r, false, cut(err)
	}
	record, err := d.bytes()
	if err != nil {
		return r, false, err
	}
	return r, true, readRecord(record, &r)
}

// bytes reads a length and so many bytes, which are good until the next call.
func (d *streamReader) bytes() ([]byte, error) {
	n, err := binary.ReadUvarint(d.in)
	if err != nil {
		return nil, fmt.Errorf("%w: a length: %w", ErrDamaged, err)
	}
	d.field = d.field[:0]
	for left := n; left > 0; {
		step := int(min(left, maxField))
		at := len(d.field)
		d.field = append(d.field, make([]byte, step)...)
		if _, err := io.ReadFull(d.in, d.field[at:]); err != nil {
			return nil, cut(err)
		}
		left -= uint64(step)
	}
	return d.field, nil
}

// cut says that a stream ended before its end.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: they end before their end", ErrDamaged)
	}
	return err
}
