package score

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzRow: every record of any section comes out once, as a result or as an error, in
// lines of JSON; what a model is given is JSON.
func FuzzRow(f *testing.F) {
	for _, s := range []string{
		`{"k":1,"a":[1,2],"b":null}`, `[1,2]`, `1`, `{"a":1,"a":2}`, `{"k":`, `"x"`, `{"a":1}{"b":2}`, "\xff", `{"\ud800":1}`, ` {}`, "1\n\n2\r\n", `{"k\n":"}"}`,
		`{"k":{"x":"\\\""},"a":1}`, "a,k\n\"x,\"\"y\",2\n1", "k\n-0.5e3\n01\n\"",
	} {
		f.Add(s, false, true, "k", "a", "")
		f.Add(s, true, false, "k", "", "b")
		f.Add(s, false, false, "", "", "")
	}
	f.Fuzz(func(t *testing.T, text string, isCSV, array bool, key, included, excluded string) {
		spec := Spec{Input: JSONL, Output: JSONL, Shape: Shape{Key: key}, Pieces: []Piece{{Source: "gs://b/o", Line: 1, Bytes: len(text), Columns: []string{"a", "k"}}}}
		if isCSV {
			spec.Input = CSV
		}
		if array {
			spec.Shape.Type = "array"
		}
		if included != "" {
			spec.Shape.Included = strings.Split(included, ",")
		}
		if excluded != "" {
			spec.Shape.Excluded = strings.Split(excluded, ",")
		}
		var results, failures bytes.Buffer
		out, err := NewOutput(spec, 1, &results, &failures)
		if err != nil {
			t.Fatal(err)
		}
		in := newRows(spec, []byte(text))
		in.cutKey = true
		seen := 0
		for row := (Row{}); in.next(&row); seen++ {
			if row.Err == nil && spec.Input == JSONL && !json.Valid(row.Instance) {
				row.bad()
			}
			if row.Err == nil && !json.Valid(row.Instance) {
				t.Fatalf("%q gives the instance %q", text, row.Instance)
			}
			if row.Err != nil {
				err = out.Bad(&row, row.Err)
			} else {
				err = out.Good(&row, Prediction{Values: []float64{1}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := out.Close(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(results.String()+failures.String(), "\n")
		if len(lines)-1 != seen {
			t.Fatalf("%d records of %q became %q", seen, text, lines)
		}
		for _, line := range lines[:len(lines)-1] {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%q becomes %q", text, line)
			}
		}
	})
}

// FuzzRecord: what Go's reader of CSV takes, is cut the same here.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a\"\"b\",c\r\n", "\"x\ny\",1", ",,\n\n1", "a\"b,c\n1,2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\r") {
			t.Skip("the other reader changes carriage returns within quotes")
		}
		want := csv.NewReader(strings.NewReader(text))
		want.FieldsPerRecord = -1
		rest := []byte(text)
		for {
			fields, err := want.Read()
			if errors.Is(err, io.EOF) {
				if len(bytes.Trim(rest, "\n")) > 0 {
					t.Fatalf("%q: %q is left", text, rest)
				}
				return
			}
			if err != nil {
				return // ours may read on
			}
			for rest[0] == '\n' {
				rest = rest[1:] // the other reader leaves empty lines out
			}
			cells, after, err := record(rest, nil)
			if err != nil || len(cells) != len(fields) {
				t.Fatalf("%q: %d fields, %v, want %q", rest, len(cells), err, fields)
			}
			for i, c := range cells {
				if string(c.text) != fields[i] {
					t.Fatalf("%q: field %d is %q, want %q", rest, i, c.text, fields[i])
				}
			}
			rest = after
		}
	})
}

// FuzzAnswer: any bytes from a worker end in statistics or an error.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("r\x00\x00\x00\x01xs\x00\x00\x00\x10{\"successful\": 1}"))
	f.Add([]byte("x\x00\x00\x00\x02{}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = ReadAnswer(bytes.NewReader(data), io.Discard, io.Discard)
		_, _, _ = cutSpec(data)
	})
}
