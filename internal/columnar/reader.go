package columnar

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Magic begins and ends every Parquet file.
const Magic = "PAR1"

// File is a Parquet file that is read: columns of values, and of lists of values.
type File struct {
	file   *parquet.File
	fields []field
	leaves []int // of each leaf column, the field it belongs to
}

type field struct {
	name string
	list bool
	defs int // definition level of a value that is not null
	none int // definition level up to which a list is null
	typ  parquet.Type
}

// ErrNested is in the error of a file that has other columns than values and lists.
var ErrNested = errors.New("it is a group or a map, and only values and lists of values are read")

// Open reads what a file says of itself.
func Open(r io.ReaderAt, size int64) (f *File, err error) {
	defer caught(&err)
	file, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("not a Parquet file: %w", err)
	}
	f = &File{file: file}
	for _, c := range file.Root().Columns() {
		leaf, none := c, 0
		for !leaf.Leaf() {
			under := leaf.Columns()
			if len(under) != 1 || leaf.MaxRepetitionLevel() > 1 {
				return nil, fmt.Errorf("column %q: %w", c.Name(), ErrNested)
			}
			leaf = under[0]
		}
		if leaf.MaxRepetitionLevel() > 1 || !c.Leaf() && leaf.MaxRepetitionLevel() == 0 {
			return nil, fmt.Errorf("column %q: %w", c.Name(), ErrNested)
		}
		if c.Optional() {
			none = 1
		}
		f.leaves = append(f.leaves, len(f.fields))
		f.fields = append(f.fields, field{name: c.Name(), list: leaf.MaxRepetitionLevel() == 1, defs: leaf.MaxDefinitionLevel(), none: none, typ: leaf.Type()})
	}
	return f, nil
}

// caught makes an error of a panic: the library has some for damaged files.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the Parquet file is damaged: %v", p)
	}
}

// Len is the number of rows.
func (f *File) Len() int64 { return f.file.NumRows() }

// Columns gives the names of the columns, in order.
func (f *File) Columns() []string {
	names := make([]string, len(f.fields))
	for i, c := range f.fields {
		names[i] = c.name
	}
	return names
}

// Lines calls each with the rows from up to to, as JSON objects.
func (f *File) Lines(from, to int64, each func(line []byte) error) (err error) {
	defer caught(&err)
	at := int64(0)
	var line []byte
	rows := make([]parquet.Row, 64)
	for _, group := range f.file.RowGroups() {
		begin, end := at, at+group.NumRows()
		if at = end; end <= from || begin >= to {
			continue
		}
		err := f.group(group, max(from, begin)-begin, min(to, end)-begin, rows, func(row parquet.Row) error {
			line = f.appendRow(line[:0], row)
			return each(line)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *File) group(group parquet.RowGroup, from, to int64, rows []parquet.Row, each func(parquet.Row) error) (err error) {
	in := group.Rows()
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := in.SeekToRow(from); err != nil {
		return fmt.Errorf("read Parquet: %w", err)
	}
	for from < to {
		n, err := in.ReadRows(rows[:min(int64(len(rows)), to-from)])
		for _, row := range rows[:n] {
			if err := each(row); err != nil {
				return err
			}
		}
		from += int64(n)
		if n == 0 && err == nil || errors.Is(err, io.EOF) && from < to {
			return errors.New("the Parquet file has fewer rows than it says")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read Parquet: %w", err)
		}
	}
	return nil
}

func (f *File) appendRow(b []byte, row parquet.Row) []byte {
	b = append(b, '{')
	first := true
	row.Range(func(column int, values []parquet.Value) bool {
		c := f.fields[f.leaves[column]]
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendText(b, c.name), ':')
		switch {
		case !c.list:
			b = c.appendValue(b, values[0])
		case len(values) == 1 && values[0].DefinitionLevel() < c.none:
			b = append(b, "null"...)
		default:
			b = append(b, '[')
			for i, v := range values {
				if i == 0 && v.IsNull() && v.DefinitionLevel() <= c.none {
					break // an empty list
				}
				if i > 0 {
					b = append(b, ',')
				}
				b = c.appendValue(b, v)
			}
			b = append(b, ']')
		}
		return true
	})
	return append(b, '}')
}

func appendText(b []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil { // a string always marshals
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// appendValue writes a value as JSON: numbers as numbers, text as text, dates and
// times as RFC 3339 has them, other bytes in base64.
func (c field) appendValue(b []byte, v parquet.Value) []byte {
	if v.IsNull() {
		return append(b, "null"...)
	}
	logical := c.typ.LogicalType()
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.AppendBool(b, v.Boolean())
	case parquet.Float:
		return appendFloat(b, float64(v.Float()), 32)
	case parquet.Double:
		return appendFloat(b, v.Double(), 64)
	case parquet.Int32:
		return appendInt(b, int64(v.Int32()), 32, logical)
	case parquet.Int64:
		return appendInt(b, v.Int64(), 64, logical)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return appendBytes(b, v.ByteArray(), logical)
	case parquet.Int96:
	}
	return appendText(b, v.String()) // 96 bits: a time of old writers, which nobody has named
}

func appendFloat(b []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, bits)
}

func appendInt(b []byte, v int64, bits int, logical *format.LogicalType) []byte {
	const day = 24 * time.Hour
	var form any
	if logical != nil {
		form = logical.Value
	}
	switch t := form.(type) {
	case *format.DateType:
		return append(append(append(b, '"'), time.Unix(v*int64(day/time.Second), 0).UTC().Format(time.DateOnly)...), '"')
	case *format.TimestampType:
		at := time.Unix(0, v).UTC()
		switch t.Unit.Value.(type) {
		case *format.MilliSeconds:
			at = time.UnixMilli(v).UTC()
		case *format.MicroSeconds:
			at = time.UnixMicro(v).UTC()
		}
		return append(append(append(b, '"'), at.Format(time.RFC3339Nano)...), '"')
	case *format.DecimalType:
		return appendDecimal(b, big.NewInt(v), int(t.Scale))
	case *format.IntType:
		if !t.IsSigned {
			if bits == 32 {
				return strconv.AppendUint(b, uint64(uint32(v)), 10)
			}
			return strconv.AppendUint(b, uint64(v), 10)
		}
	}
	return strconv.AppendInt(b, v, 10)
}

func appendDecimal(b []byte, v *big.Int, scale int) []byte {
	text := new(big.Int).Abs(v).String()
	for len(text) <= scale {
		text = "0" + text
	}
	if v.Sign() < 0 {
		b = append(b, '-')
	}
	b = append(b, text[:len(text)-scale]...)
	if scale > 0 {
		b = append(append(b, '.'), text[len(text)-scale:]...)
	}
	return b
}

func appendBytes(b, data []byte, logical *format.LogicalType) []byte {
	var form any
	if logical != nil {
		form = logical.Value
	}
	switch t := form.(type) {
	case *format.StringType, *format.EnumType:
		return appendText(b, string(data))
	case *format.JsonType:
		var compact bytes.Buffer
		if json.Compact(&compact, data) != nil {
			return appendText(b, string(data))
		}
		return append(b, compact.Bytes()...)
	case *format.DecimalType:
		v := new(big.Int).SetBytes(data)
		if len(data) > 0 && data[0]&0x80 != 0 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(data))))
		}
		return appendDecimal(b, v, int(t.Scale))
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}
