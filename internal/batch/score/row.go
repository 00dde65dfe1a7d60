package score

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Row is one record on its way. Its slices are valid until the section ends.
type Row struct {
	Source   string
	Line     int
	Instance []byte // what the model is given, JSON
	Key      []byte // JSON; nil = there is none
	Err      error  // why it has no instance

	record []byte                        // as it stands in the input, when Err is set or the instance is made of it
	before func() (lines int, err error) // of the object, that Line does not count; nil = none

	shown []byte // the instance as it is shown beside the prediction, JSON; nil = record is not JSON
	cells []cell // of CSV
}

// rows cuts a section.
type rows struct {
	spec   Spec
	piece  Piece // that is being cut
	pieces int   // begun
	after  []byte
	rest   []byte
	line   int
	// transforms says that instances are not the records themselves.
	transforms bool
	// cutKey takes the key field out of objects also where nothing else is changed:
	// the model would take it for one of its own fields.
	cutKey bool
}

func newRows(spec Spec, section []byte) *rows {
	s := spec.Shape
	return &rows{spec: spec, after: section, transforms: s.Type == "array" || s.Key != "" || len(s.Included) > 0 || len(s.Excluded) > 0}
}

// next gives the next record that is not blank; false = that was all.
func (r *rows) next(row *Row) bool {
	for len(r.rest) > 0 || r.begin() {
		*row = Row{Source: r.piece.Source, Line: r.line, before: r.piece.before, cells: row.cells[:0]}
		if r.spec.Input == CSV {
			if r.nextCSV(row) {
				return true
			}
			continue
		}
		line := r.rest
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, r.rest = line[:i], line[i+1:]
		} else {
			r.rest = nil
		}
		r.line++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		row.record = line
		switch r.spec.Input {
		case FileList:
			row.shown = appendText(nil, line)
		default:
			row.shown = line
			r.json(row)
		}
		return true
	}
	return false
}

// begin goes to the next piece that holds anything.
func (r *rows) begin() bool {
	for r.pieces < len(r.spec.Pieces) {
		r.piece = r.spec.Pieces[r.pieces]
		r.pieces++
		n := min(max(0, r.piece.Bytes), len(r.after))
		r.rest, r.after, r.line = r.after[:n], r.after[n:], r.piece.Line
		if n > 0 {
			return true
		}
	}
	return false
}

// json makes the instance of a line of JSON. Lines that are instances as they are
// have not been checked: the model's reader does that.
func (r *rows) json(row *Row) {
	s := r.spec.Shape
	if !r.transforms || s.Type == "array" && row.record[0] == '[' && s.Key == "" {
		row.Instance = row.record
		return
	}
	if row.record[0] != '{' {
		row.Err = badRow("the line is not an object, as instance_config needs it")
		r.check(row)
		return
	}
	if s.Key != "" {
		found := false
		members(row.record, func(m member) bool {
			if found = m.is(s.Key); found {
				row.Key = m.value
			}
			return found
		})
		if !found {
			row.Err = badRow("the line has no key field %q", s.Key)
			r.check(row)
			return
		}
		if !r.cutKey && s.Type != "array" && len(s.Included) == 0 && len(s.Excluded) == 0 {
			row.Instance = row.record
			return
		}
	}
	if r.check(row); row.Err == nil {
		row.Instance, row.Err = s.instance(row.record)
	}
}

// check finds a record that is not JSON, which is then not shown as such.
func (r *rows) check(row *Row) {
	if !json.Valid(row.record) {
		row.bad()
	}
}

// bad marks a record that is not JSON.
func (row *Row) bad() {
	row.shown, row.Key = nil, nil
	row.Err = badRow("the line is not valid JSON")
}

// instance applies the shape to an object, which is valid JSON.
func (s Shape) instance(line []byte) ([]byte, error) {
	var kept []member
	if len(s.Included) > 0 {
		kept = make([]member, len(s.Included))
		members(line, func(m member) bool {
			for i, name := range s.Included {
				if kept[i].value == nil && m.is(name) {
					kept[i] = m
				}
			}
			return false
		})
		for i, m := range kept {
			if m.value == nil {
				return nil, badRow("the line has no field %q", s.Included[i])
			}
		}
	} else {
		members(line, func(m member) bool {
			if (s.Key == "" || !m.is(s.Key)) && !slices.ContainsFunc(s.Excluded, m.is) {
				kept = append(kept, m)
			}
			return false
		})
	}
	array := s.Type == "array"
	out := make([]byte, 0, len(line))
	out = append(out, bracket(array, '{', '['))
	for i, m := range kept {
		if i > 0 {
			out = append(out, ',')
		}
		if !array {
			out = append(append(append(out, '"'), m.name...), '"', ':')
		}
		out = append(out, m.value...)
	}
	return append(out, bracket(array, '}', ']')), nil
}

func bracket(array bool, object, list byte) byte {
	if array {
		return list
	}
	return object
}

// nextCSV reads a record. Its instance is a list of the columns unless the shape
// says object.
func (r *rows) nextCSV(row *Row) bool {
	data := r.rest
	var err error
	row.cells, r.rest, err = record(data, row.cells)
	row.record = data[:len(data)-len(r.rest)]
	r.line += bytes.Count(row.record, []byte{'\n'})
	row.record = bytes.TrimRight(row.record, "\r\n")
	if len(row.record) == 0 {
		return false
	}
	if row.Err = err; err != nil {
		row.Err = badRow("the record cannot be read: %v", err)
		return true
	}
	if len(row.cells) != len(r.piece.Columns) {
		row.Err = badRow("the record has %d fields, the header names %d columns", len(row.cells), len(r.piece.Columns))
		return true
	}
	r.ofCells(row)
	return true
}

func (r *rows) ofCells(row *Row) {
	s := r.spec.Shape
	if s.Key != "" {
		i := slices.Index(r.piece.Columns, s.Key)
		if i < 0 {
			row.Err = badRow("the file has no key column %q", s.Key)
			return
		}
		row.Key = appendCell(nil, row.cells[i])
	}
	array := s.Type != "object"
	out := append(make([]byte, 0, len(row.record)+2*len(row.cells)), bracket(array, '{', '['))
	add := func(i int) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		if !array {
			out = append(appendText(out, []byte(r.piece.Columns[i])), ':')
		}
		out = appendCell(out, row.cells[i])
	}
	if len(s.Included) > 0 {
		for _, name := range s.Included {
			i := slices.Index(r.piece.Columns, name)
			if i < 0 {
				row.Err = badRow("the file has no column %q", name)
				return
			}
			add(i)
		}
	} else {
		for i, name := range r.piece.Columns {
			if name != s.Key && !slices.Contains(s.Excluded, name) {
				add(i)
			}
		}
	}
	out = append(out, bracket(array, '}', ']'))
	row.Instance = out
	row.shown = row.Instance
}
