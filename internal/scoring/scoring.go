// Package scoring reads requests of other prediction protocols as the JSON that models
// are asked with here, {"instances": [...], "parameters": ...}, and reads the
// predictions in their answers. It knows the scoring requests of MLflow and SageMaker
// and tensors as of the Open Inference Protocol; it serves nothing.
package scoring

import (
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"tategu/internal/resource"
	"tategu/internal/scan"
)

// Request turns the body of POST /invocations into one for the model. The forms are
// those of MLflow (mlflow.org/docs/latest/ml/deployment/deploy-model-locally, "Input
// format"): an object with exactly one of dataframe_split, dataframe_records, instances
// and inputs, and params or parameters besides; CSV; and SageMaker's JSON lines, of
// which each is an instance. What is wrong is an error for the caller.
func Request(contentType string, body []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if contentType == "" {
		kind, err = "application/json", nil
	}
	if err != nil {
		return nil, resource.Invalid("Content-Type", "%q is no media type", contentType)
	}
	switch kind {
	case "application/json":
		return fromJSON(body)
	case "text/csv":
		return fromCSV(body)
	case "application/jsonlines", "application/x-ndjson", "application/jsonl":
		return fromLines(body)
	}
	return nil, resource.Invalid("Content-Type", "%s is not read here", kind).WithHint("send application/json, text/csv or application/jsonlines")
}

// most bounds a request as the model gets it: with the names of its columns in each row,
// or the brackets of many dimensions, that may be much more than was sent.
const most = 256 << 20

// bounded takes the bytes that are written, or will be.
func bounded(n int) error {
	if n <= most {
		return nil
	}
	return resource.Invalid("", "the request as JSON for the model is larger than %d MiB", most>>20).WithHint("send fewer rows at a time")
}

// Forms of a JSON request.
const (
	formSplit     = "dataframe_split"
	formRecords   = "dataframe_records"
	formInstances = "instances"
	formInputs    = "inputs"
)

func fromJSON(body []byte) ([]byte, error) {
	s := scan.Scanner{Data: body}
	var form string
	var value, parameters []byte
	err := s.Object(func(key string) (err error) {
		switch key {
		case formSplit, formRecords, formInstances, formInputs:
			if form != "" {
				return resource.Invalid(key, "the request has %s and %s: want one of them", form, key)
			}
			form = strings.Clone(key)
			value, err = s.Raw()
		case "params", "parameters":
			parameters, err = s.Raw()
		default:
			err = s.Skip() // such as signature_name
		}
		return err
	})
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return nil, syntax(err)
	}
	out := append(make([]byte, 0, len(body)+64), `{"instances":`...)
	switch form {
	case "":
		return nil, resource.Invalid("", "the request has none of dataframe_split, dataframe_records, instances and inputs")
	case formSplit:
		out, err = appendSplit(out, value)
	case formRecords, formInstances, formInputs:
		out, err = appendRows(out, form, value)
	}
	if err != nil {
		return nil, syntax(err)
	}
	if parameters != nil {
		out = append(append(out, `,"parameters":`...), parameters...)
	}
	return append(out, '}'), nil
}

// syntax makes an error of the scanner one for the caller.
func syntax(err error) error {
	if e, ok := err.(*scan.SyntaxError); ok { //nolint:errorlint // it is the scanner's, unwrapped
		return resource.Invalid("", "the request is not valid JSON: %w", e)
	}
	return err
}

// appendRows takes a list as it is; an object of columns, by name, becomes rows.
func appendRows(out []byte, form string, value []byte) ([]byte, error) {
	s := scan.Scanner{Data: value}
	switch {
	case s.Peek() == '[':
		return append(out, value...), nil
	case s.Peek() != '{' || form == formRecords:
		return nil, resource.Invalid(form, "%s is no list of rows", form)
	}
	var names []string
	var columns [][][]byte
	err := s.Object(func(key string) error {
		var column [][]byte
		if s.Peek() != '[' {
			return resource.Invalid(form, "%s: the column %q is no list", form, key)
		}
		err := s.Array(func() error {
			cell, err := s.Raw()
			column = append(column, cell)
			return err
		})
		names, columns = append(names, strings.Clone(key)), append(columns, column)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkNames(names); err != nil {
		return nil, err
	}
	for i, c := range columns {
		if len(c) != len(columns[0]) {
			return nil, resource.Invalid(form, "%s: the column %q has %d values, %q has %d", form, names[0], len(columns[0]), names[i], len(c))
		}
	}
	out = append(out, '[')
	for row := 0; len(columns) > 0 && row < len(columns[0]); row++ {
		if row > 0 {
			out = append(out, ',')
		}
		out = appendObject(out, names, func(i int) []byte { return columns[i][row] })
		if err := bounded(len(out)); err != nil {
			return nil, err
		}
	}
	return append(out, ']'), nil
}

// appendSplit turns {"columns": [...], "data": [[...]]} into rows: objects by column
// where all columns have names, lists otherwise.
func appendSplit(out, value []byte) ([]byte, error) {
	s := scan.Scanner{Data: value}
	var names []string
	var data []byte
	named := true
	if s.Peek() != '{' {
		return nil, resource.Invalid(formSplit, "dataframe_split is no object")
	}
	err := s.Object(func(key string) (err error) {
		switch key {
		case "columns":
			names = []string{}
			return s.Array(func() error {
				if s.Peek() != '"' {
					named = false // numbers, as of a table without names
					names = append(names, "")
					return s.Skip()
				}
				name, err := s.Text()
				names = append(names, strings.Clone(name))
				return err
			})
		case "data":
			data, err = s.Raw()
		default:
			err = s.Skip() // index
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case data == nil:
		return nil, resource.Invalid(formSplit, "dataframe_split has no data")
	}
	if err := checkNames(names); err != nil {
		return nil, err
	}
	rows := scan.Scanner{Data: data}
	if rows.Peek() != '[' {
		return nil, resource.Invalid(formSplit, "dataframe_split: data is no list of rows")
	}
	out = append(out, '[')
	count := 0
	err = rows.Array(func() error {
		if rows.Peek() != '[' {
			return resource.Invalid(formSplit, "dataframe_split: row %d is no list", count)
		}
		if count > 0 {
			out = append(out, ',')
		}
		var cells [][]byte
		raw, err := rows.Raw()
		if err != nil {
			return err
		}
		row := scan.Scanner{Data: raw}
		if err := row.Array(func() error {
			cell, err := row.Raw()
			cells = append(cells, cell)
			return err
		}); err != nil {
			return err
		}
		if names != nil && len(cells) != len(names) {
			return resource.Invalid(formSplit, "dataframe_split: row %d has %d values for %d columns", count, len(cells), len(names))
		}
		count++
		if names == nil || !named {
			out = append(out, raw...)
			return nil
		}
		out = appendObject(out, names, func(i int) []byte { return cells[i] })
		return bounded(len(out))
	})
	return append(out, ']'), err
}

// checkNames refuses names of columns that cannot be keys of JSON.
func checkNames(names []string) error {
	if i := slices.IndexFunc(names, func(name string) bool { return !utf8.ValidString(name) }); i >= 0 {
		return resource.Invalid("", "the name of column %d, %.80q, is not UTF-8", i, names[i]).WithHint("send the request as UTF-8")
	}
	return nil
}

func fromLines(body []byte) ([]byte, error) {
	out := append(make([]byte, 0, len(body)+64), `{"instances":[`...)
	s := scan.Scanner{Data: body}
	for first := true; s.Peek() != 0; first = false {
		value, err := s.Raw()
		if err != nil {
			return nil, syntax(err)
		}
		if !first {
			out = append(out, ',')
		}
		out = append(out, value...)
	}
	if err := s.End(); err != nil {
		return nil, syntax(err)
	}
	return append(out, `]}`...), nil
}
