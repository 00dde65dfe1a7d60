// Package sample compares what a model answers with what its author saw: rows that lie
// beside the model file, each an instance with its prediction. It reads and compares;
// who is asked is up to the caller.
package sample

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// File is what the rows are called, in the directory of the model's artifact_uri.
const File = "tategu-samples.jsonl"

// Bounds of the file: every start of a replica asks for all rows.
const (
	mostRows  = 1000
	mostBytes = 16 << 20
)

// defaultTolerance is for the rounding of float32, of numbers that are written with a
// fraction or an exponent.
const defaultTolerance = 1e-5

// Objects reads an object.
type Objects interface {
	ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error)
}

// Row is one line of the file.
type Row struct {
	instance   json.RawMessage
	prediction any
	tolerance  *float64 // nil = the default
	line       int
}

// Samples are the rows of a model; the zero value has none.
type Samples struct {
	uri  string
	rows []Row
}

// Len is the number of rows.
func (s Samples) Len() int { return len(s.rows) }

// Load reads the rows of a model with this artifact_uri. A model without the file, or
// without an artifact, has none.
func Load(ctx context.Context, objects Objects, artifact string) (Samples, error) {
	bucket, name, ok := strings.Cut(strings.TrimPrefix(artifact, "gs://"), "/")
	if !strings.HasPrefix(artifact, "gs://") || bucket == "" {
		return Samples{}, nil
	}
	name = strings.TrimSuffix(name, "/")
	places := []string{name}
	if ok && path.Ext(name) != "" {
		places = append(places, strings.TrimPrefix(path.Dir(name), ".")) // it is the file itself
	}
	for _, dir := range places {
		at := strings.TrimPrefix(dir+"/"+File, "/")
		s, err := read(ctx, objects, bucket, at)
		if resource.IsNotFound(err) {
			continue
		}
		return s, err
	}
	return Samples{}, nil
}

func read(ctx context.Context, objects Objects, bucket, name string) (s Samples, err error) {
	r, err := objects.ReadObject(ctx, bucket, name)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s.uri = "gs://" + bucket + "/" + name
	s.rows, err = Parse(r)
	if err != nil {
		return s, resource.Errorf(codes.FailedPrecondition, "%s: %w", s.uri, err).WithCause(resource.CauseModel).
			WithHint(`write lines of the form {"instance": ..., "prediction": ..., "tolerance": 1e-5}`)
	}
	return s, nil
}

// Parse reads lines; empty ones are passed over.
func Parse(r io.Reader) ([]Row, error) {
	in := bufio.NewScanner(io.LimitReader(r, mostBytes+1))
	in.Buffer(nil, mostBytes+1)
	var rows []Row
	size := 0
	for line := 1; in.Scan(); line++ {
		if size += len(in.Bytes()) + 1; size > mostBytes {
			return nil, fmt.Errorf("it has more than %d MiB", mostBytes>>20)
		}
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		if len(rows) == mostRows {
			return nil, fmt.Errorf("it has more than %d rows", mostRows)
		}
		row, err := parseRow(slices.Clone(in.Bytes()))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		row.line = line
		rows = append(rows, row)
	}
	return rows, in.Err()
}

func parseRow(line []byte) (Row, error) {
	var row struct {
		Instance   json.RawMessage `json:"instance"`
		Prediction json.RawMessage `json:"prediction"`
		Tolerance  *float64        `json:"tolerance"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&row); err != nil {
		return Row{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Row{}, errors.New("there is something after the object")
	}
	switch {
	case row.Instance == nil:
		return Row{}, errors.New("it has no instance")
	case row.Prediction == nil:
		return Row{}, errors.New("it has no prediction")
	case row.Tolerance != nil && !(*row.Tolerance >= 0):
		return Row{}, fmt.Errorf("tolerance is %v", *row.Tolerance)
	}
	prediction, err := decode(row.Prediction)
	return Row{instance: row.Instance, prediction: prediction, tolerance: row.Tolerance}, err
}

// decode keeps the digits of numbers.
func decode(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return v, d.Decode(&v)
}

// Ask sends a body {"instances": [...]} and gives the answer's status and body.
type Ask func(ctx context.Context, body []byte) (status int, data []byte, err error)

// atOnce is how many rows are sent in a request.
const atOnce = 100

// Check asks for all rows. The first that differs, or is refused, is the error.
func (s Samples) Check(ctx context.Context, ask Ask) error {
	for rows := range slices.Chunk(s.rows, atOnce) {
		answers, err := s.ask(ctx, ask, rows)
		if err != nil && len(rows) > 1 && ctx.Err() == nil {
			// One bad row spoils the request: find it.
			for _, row := range rows {
				one, err := s.ask(ctx, ask, []Row{row})
				if err != nil {
					return err
				}
				answers = append(answers, one...)
			}
		} else if err != nil {
			return err
		}
		for i, row := range rows {
			if at, got, want, ok := row.differs(answers[i]); ok {
				return s.bad(row, "the model predicts %s where %s is wanted%s", text(got), text(want), at)
			}
		}
	}
	return nil
}

// bad is an error over a row.
func (s Samples) bad(row Row, format string, args ...any) error {
	e := resource.Errorf(codes.FailedPrecondition, "the sample in line %d of %s: "+format, append([]any{row.line, s.uri}, args...)...).WithCause(resource.CauseModel)
	e.Reason = "SAMPLES_DIFFER"
	return e.WithHint("compare the model with the library that made it; where only rounding differs, give the line a tolerance")
}

func (s Samples) ask(ctx context.Context, ask Ask, rows []Row) ([]any, error) {
	b := []byte(`{"instances":[`)
	for i, row := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, row.instance...)
	}
	status, data, err := ask(ctx, append(b, "]}"...))
	if err != nil {
		return nil, s.bad(rows[0], "it cannot be asked for: %w", err)
	}
	if status != 200 {
		return nil, s.bad(rows[0], "the model's server answers %d: %s", status, excerpt(data))
	}
	var answer struct {
		Predictions []json.RawMessage `json:"predictions"`
	}
	if err := json.Unmarshal(data, &answer); err != nil || len(answer.Predictions) != len(rows) {
		return nil, s.bad(rows[0], "the answer is not of the form {\"predictions\": [...]} with %d of them: %s", len(rows), excerpt(data))
	}
	out := make([]any, len(rows))
	for i, row := range rows {
		if out[i], err = decode(answer.Predictions[i]); err != nil {
			return nil, s.bad(row, "the prediction is no JSON: %w", err)
		}
	}
	return out, nil
}

func excerpt(data []byte) string {
	const most = 500
	return strings.TrimSpace(strings.ToValidUTF8(string(data[:min(len(data), most)]), "?"))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return excerpt(b)
}

// differs finds the first place where an answer is not the one that is wanted.
func (r Row) differs(got any) (at string, a, b any, ok bool) {
	place, a, b, ok := r.compare("", got, r.prediction)
	if place != "" {
		place = " at " + place
	}
	return place, a, b, ok
}

func (r Row) compare(at string, got, want any) (string, any, any, bool) {
	switch w := want.(type) {
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return at, got, want, true
		}
		for i := range w {
			if p, a, b, bad := r.compare(at+"["+strconv.Itoa(i)+"]", g[i], w[i]); bad {
				return p, a, b, true
			}
		}
		return "", nil, nil, false
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return at, got, want, true
		}
		for k := range w {
			v, ok := g[k]
			if !ok {
				return at, got, want, true
			}
			if p, a, b, bad := r.compare(at+"."+k, v, w[k]); bad {
				return p, a, b, true
			}
		}
		return "", nil, nil, false
	case json.Number:
		g, ok := got.(json.Number)
		return at, got, want, !ok || !r.near(g, w)
	}
	return at, got, want, got != want
}

// near compares numbers. Integers are labels and counts: without a tolerance of the
// line's own they must be equal.
func (r Row) near(got, want json.Number) bool {
	if got == want {
		return true
	}
	tolerance := defaultTolerance
	if r.tolerance != nil {
		tolerance = *r.tolerance
	} else if !strings.ContainsAny(string(got+want), ".eE") {
		return false
	}
	a, err := got.Float64()
	b, bad := want.Float64()
	return err == nil && bad == nil && math.Abs(a-b) <= tolerance*math.Max(1, math.Abs(b))
}
