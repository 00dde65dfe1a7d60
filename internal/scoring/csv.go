package scoring

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/scan"
	"tategu/internal/tensor"
)

// fromCSV reads rows. A first line in which a field is neither a number nor empty
// names the columns, as MLflow sends it; without one rows are lists, as SageMaker's
// algorithms take them. An empty field is a missing value, and one that is no number
// is text.
func fromCSV(body []byte) ([]byte, error) {
	in := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(body, []byte("\ufeff"))))
	in.ReuseRecord = true
	out := append(make([]byte, 0, 2*len(body)+64), `{"instances":[`...)
	var names []string
	for count := 0; ; count++ {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return append(out, `]}`...), nil
		}
		if err != nil {
			return nil, resource.Invalid("", "the request is not valid CSV: %w", err)
		}
		if count == 0 && header(record) {
			names = append(names, record...)
			if err := checkNames(names); err != nil {
				return nil, err
			}
			continue
		}
		if out[len(out)-1] != '[' {
			out = append(out, ',')
		}
		if names != nil {
			out = appendObject(out, names, func(i int) []byte { return cell(record[i]) })
			if err := bounded(len(out)); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, '[')
		for i, field := range record {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, cell(field)...)
		}
		out = append(out, ']')
	}
}

func header(record []string) bool {
	for _, field := range record {
		if !number(field) {
			return true
		}
	}
	return false
}

// missing reports what stands for no value.
func missing(field string) bool {
	switch field {
	case "", "NaN", "nan", "NA", "null":
		return true
	}
	return false
}

// number reports what everybody reads as one, also where JSON would write it otherwise.
func number(field string) bool {
	_, err := strconv.ParseFloat(field, 64)
	return err == nil && !strings.ContainsAny(field, "xX_") || missing(field)
}

// cell writes a field as JSON; infinite numbers as Python does.
func cell(field string) []byte {
	if missing(field) {
		return []byte("null")
	}
	v, err := strconv.ParseFloat(field, 64)
	switch {
	case err != nil || !number(field):
		return tensor.AppendString(nil, []byte(field))
	case math.IsNaN(v):
		return []byte("null")
	case math.IsInf(v, 1):
		return []byte("Infinity")
	case math.IsInf(v, -1):
		return []byte("-Infinity")
	}
	if s := (scan.Scanner{Data: []byte(field)}); plain(&s) {
		return []byte(field) // whole numbers stay whole, and all digits stay
	}
	return strconv.AppendFloat(nil, v, 'g', -1, 64)
}

func plain(s *scan.Scanner) bool {
	_, ok := s.Digits()
	return ok && s.End() == nil
}

// appendObject writes a row by its columns' names.
func appendObject(out []byte, names []string, value func(i int) []byte) []byte {
	out = append(out, '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(tensor.AppendString(out, []byte(name)), ':')
		out = append(out, value(i)...)
	}
	return append(out, '}')
}

// CSV writes predictions as SageMaker's clients ask for it: a line for each, the
// values of a list beside each other.
func CSV(predictions []byte) ([]byte, error) {
	s := scan.Scanner{Data: predictions}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	err := s.Array(func() error {
		var record []string
		field := func() error {
			if s.Peek() == '"' {
				text, err := s.Text()
				record = append(record, text)
				return err
			}
			raw, err := s.Raw()
			record = append(record, string(raw))
			return err
		}
		var err error
		if s.Peek() == '[' {
			err = s.Array(field)
		} else {
			err = field()
		}
		if err != nil {
			return err
		}
		return w.Write(record)
	})
	if err == nil {
		err = s.End()
	}
	w.Flush()
	return out.Bytes(), errors.Join(err, w.Error())
}
