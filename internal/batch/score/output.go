package score

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/columnar"
	"tategu/internal/resource"
)

// flushBytes of lines are written at a time.
const flushBytes = 64 << 10

// Output writes what became of the rows of a section.
type Output struct {
	spec    Spec
	results io.Writer
	errors  io.Writer
	sink    sink
	bad     []byte
	stats   Stats
}

// sink writes results in one of the formats. A row that cannot be written in it is
// an error that wraps errUnfit, and nothing is written.
type sink interface {
	write(row *Row, p Prediction) error
	close() error
}

var errUnfit = errors.New("the result does not fit the output")

// NewOutput begins the files of a section. outputs is how many values a prediction
// has, where it is of values.
func NewOutput(spec Spec, outputs int, results, failures io.Writer) (*Output, error) {
	o := &Output{spec: spec, results: results, errors: failures}
	switch spec.Output {
	case JSONL:
		o.sink = &lines{w: results}
	case CSV:
		o.sink = newTable(spec, results)
	case Parquet:
		s, err := newColumns(spec, outputs, results)
		if err != nil {
			return nil, err
		}
		o.sink = s
	default:
		return nil, resource.Unimplemented("the output format " + spec.Output)
	}
	return o, nil
}

// Good writes a result. A row that does not fit becomes an error.
func (o *Output) Good(row *Row, p Prediction) error {
	err := fits(o.spec.Key, row.Key)
	if err == nil {
		err = o.sink.write(row, p)
	}
	if errors.Is(err, errUnfit) {
		return o.Bad(row, resource.Invalid("instance", "%v", err))
	}
	o.stats.Successful++
	return err
}

// Bad writes an error, which is what comes of the row.
func (o *Output) Bad(row *Row, err error) error {
	if row.before != nil {
		lines, err := row.before()
		if err != nil {
			return err
		}
		row.Line, row.before = row.Line+lines, nil
	}
	told := sampleOf(row, err)
	if told.Code == codes.Unknown || told.Code == codes.OK {
		told.Code = codes.InvalidArgument
	}
	if o.stats.Failed++; len(o.stats.Failures) < samples {
		o.stats.Failures = append(o.stats.Failures, told)
	}
	text, err := json.Marshal(map[string]any{"code": told.Code, "message": told.Message})
	if err != nil {
		return err
	}
	where, err := json.Marshal(map[string]any{"uri": row.Source, "line": row.Line})
	if err != nil {
		return err
	}
	o.bad = appendShown(append(o.bad, '{'), row)
	o.bad = append(append(o.bad, `,"error":`...), text...)
	o.bad = append(append(append(o.bad, `,"source":`...), where...), '}', '\n')
	if len(o.bad) < flushBytes {
		return nil
	}
	return o.flush()
}

func (o *Output) flush() error {
	_, err := o.errors.Write(o.bad)
	o.bad = o.bad[:0]
	return err
}

// Close ends the files.
func (o *Output) Close() (Stats, error) {
	return o.stats, errors.Join(o.sink.close(), o.flush())
}

// appendShown writes what stands beside a prediction, with its name.
func appendShown(b []byte, row *Row) []byte {
	if row.Key != nil {
		return append(append(b, `"key":`...), row.Key...)
	}
	return appendInstance(append(b, `"instance":`...), row)
}

// appendInstance writes an instance as it is shown: one that is not JSON as text.
func appendInstance(b []byte, row *Row) []byte {
	if row.shown == nil {
		return appendText(b, row.record)
	}
	return append(b, row.shown...)
}

// checkShown makes sure that what is shown is JSON: our reader of numbers takes NaN.
func (row *Row) checkShown() {
	if row.shown != nil && bytes.Contains(row.shown, []byte("NaN")) && !json.Valid(row.shown) {
		row.shown = nil
	}
}

// appendPrediction writes a prediction as JSON: a number, a list of them or what it is.
func appendPrediction(b []byte, p Prediction) []byte {
	if p.JSON != nil {
		return append(b, p.JSON...)
	}
	if len(p.Values) == 1 {
		return appendFloat(b, p.Values[0])
	}
	b = append(b, '[')
	for i, v := range p.Values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFloat(b, v)
	}
	return append(b, ']')
}

func appendFloat(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// lines writes JSONL.
type lines struct {
	w   io.Writer
	buf []byte
}

func (l *lines) write(row *Row, p Prediction) error {
	row.checkShown()
	l.buf = appendShown(append(l.buf, '{'), row)
	l.buf = appendPrediction(append(l.buf, `,"prediction":`...), p)
	if l.buf = append(l.buf, '}', '\n'); len(l.buf) < flushBytes {
		return nil
	}
	return l.close()
}

func (l *lines) close() error {
	_, err := l.w.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// table writes CSV: the key, or the columns of a CSV input, or the instance in one
// column; then the prediction.
type table struct {
	lines

	columns int // of the input; 0 = key or instance
	json    []byte
}

func newTable(spec Spec, w io.Writer) *table {
	t := &table{lines: lines{w: w}}
	switch {
	case spec.Shape.Key != "":
		t.buf = append(t.buf, "key,"...)
	case spec.Input == CSV && len(spec.Pieces) > 0:
		t.columns = len(spec.Pieces[0].Columns)
		for _, name := range spec.Pieces[0].Columns {
			t.buf = append(appendField(t.buf, []byte(name)), ',')
		}
	default:
		t.buf = append(t.buf, "instance,"...)
	}
	t.buf = append(t.buf, "prediction\r\n"...)
	return t
}

func (t *table) write(row *Row, p Prediction) error {
	switch {
	case row.Key != nil:
		t.buf = append(appendField(t.buf, plainText(row.Key)), ',')
	case t.columns > 0:
		for _, c := range row.cells {
			if len(c.text) == 0 && !c.quoted {
				t.buf = append(t.buf, ',')
				continue
			}
			t.buf = append(appendField(t.buf, c.text), ',')
		}
	default:
		row.checkShown()
		t.json = appendInstance(t.json[:0], row)
		t.buf = append(appendField(t.buf, t.json), ',')
	}
	t.json = appendPrediction(t.json[:0], p)
	t.buf = append(appendField(t.buf, plainText(t.json)), '\r', '\n')
	if len(t.buf) < flushBytes {
		return nil
	}
	return t.close()
}

// plainText is a JSON string as the text it means, and other JSON as it is.
func plainText(value []byte) []byte {
	if len(value) == 0 || value[0] != '"' {
		return value
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return value
	}
	return []byte(text)
}

// columns writes Parquet: key or instance, and prediction.
type columns struct {
	w       *columnar.Writer
	key     string
	isJSON  bool
	scratch []byte
}

func newColumns(spec Spec, outputs int, w io.Writer) (*columns, error) {
	first := columnar.Column{Name: "instance", Kind: columnar.JSON}
	if spec.Shape.Key != "" {
		first = columnar.Column{Name: "key", Kind: map[string]columnar.Kind{KeyInt: columnar.Int, KeyFloat: columnar.Float}[spec.Key]}
	}
	second := columnar.Column{Name: "prediction", Kind: columnar.Float}
	switch {
	case spec.JSONPrediction:
		second.Kind = columnar.JSON
	case outputs != 1:
		second.Kind = columnar.Floats
	}
	out, err := columnar.NewWriter(w, first, second)
	return &columns{w: out, key: spec.Key, isJSON: spec.JSONPrediction}, err
}

func (c *columns) write(row *Row, p Prediction) error {
	switch {
	case row.Key == nil:
		row.checkShown()
		c.scratch = appendInstance(c.scratch[:0], row)
		c.w.Text(0, c.scratch)
	case c.key == KeyInt:
		v, err := strconv.ParseInt(string(row.Key), 10, 64)
		if err != nil { // it has been looked at
			return fmt.Errorf("%w: %w", errUnfit, err)
		}
		c.w.Int(0, v)
	case c.key == KeyFloat:
		v, err := strconv.ParseFloat(string(row.Key), 64)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnfit, err)
		}
		c.w.Float(0, v)
	default:
		c.w.Text(0, plainText(row.Key))
	}
	switch {
	case c.isJSON:
		c.scratch = appendPrediction(c.scratch[:0], p)
		c.w.Text(1, c.scratch)
	case len(p.Values) == 1:
		c.w.Float(1, p.Values[0])
	default:
		c.w.Floats(1, p.Values)
	}
	return nil
}

func (c *columns) close() error { return c.w.Close() }

// fits refuses a key that a column of the kind does not hold.
func fits(kind string, key []byte) error {
	if key == nil {
		return nil
	}
	switch kind {
	case KeyInt:
		if _, err := strconv.ParseInt(string(key), 10, 64); err != nil {
			return fmt.Errorf("%w: the key %s is no 64-bit integer, as that of the first row is", errUnfit, key)
		}
	case KeyFloat:
		if _, err := strconv.ParseFloat(string(key), 64); err != nil || !isNumber(key) {
			return fmt.Errorf("%w: the key %s is no number, as that of the first row is", errUnfit, key)
		}
	case KeyText:
		if bytes.Contains(key, []byte(`\u0000`)) {
			return fmt.Errorf("%w: the key %s holds a zero, which no column of text takes", errUnfit, key)
		}
	}
	return nil
}

// KindOf says which kind of column a key needs.
func KindOf(key []byte) string {
	switch {
	case len(key) == 0 || key[0] == '"' || !isNumber(key):
		return KeyText
	case !bytes.ContainsAny(key, ".eE"):
		if _, err := strconv.ParseInt(string(key), 10, 64); err == nil {
			return KeyInt
		}
	}
	return KeyFloat
}

// FirstKey is the key of the first row of a section that has one.
func FirstKey(spec Spec, section []byte) []byte {
	var row Row
	for r := newRows(spec, section); r.next(&row); {
		if row.Key != nil && json.Valid(row.Key) {
			return row.Key
		}
	}
	return nil
}
