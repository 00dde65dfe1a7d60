package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// batchRows is how many instances a batch prediction job has.
const batchRows = 2000

// worker is one part of the load: it runs until the loop is drained.
type worker func(ctx context.Context) error

// load makes what the load needs and gives its workers.
func (l *loop) load(ctx context.Context) ([]worker, error) {
	s, err := l.prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare the load: %w", err)
	}
	if l.runs, err = newRuns(l.client); err != nil {
		return nil, err
	}
	if l.flows, err = newFlows(l.client); err != nil {
		return nil, err
	}
	l.ticks = newTicks(l.flows)
	if err := l.ticks.begin(ctx); err != nil {
		return nil, err
	}
	l.models, l.batches, l.jobs = newModels(l.client, l.random(1)), &batches{serving: s}, &jobs{client: l.client}
	workers := []worker{
		func(ctx context.Context) error { return l.models.run(ctx, l.drained) },
		func(ctx context.Context) error { return s.predict(ctx, l.drained) },
		func(ctx context.Context) error { return s.churn(ctx, l.drained) },
		func(ctx context.Context) error { return l.batches.run(ctx, l.drained) },
		func(ctx context.Context) error { return l.jobs.run(ctx, l.drained, l.random(2)) },
	}
	pipelines := [][]string{{"chain", "fan"}, {"fan", "retry"}, {"retry", "chain"}}
	if l.python {
		pipelines = append(pipelines, []string{"python"})
		for i, names := range [][]string{{"flow-weave", "flow-brittle"}, {"flow-brittle", "flow-brittle", "flow-weave"}, {"flow-weave"}} {
			workers = append(workers, func(ctx context.Context) error {
				return l.flows.run(ctx, l.drained, "f"+strconv.Itoa(i), l.random(uint64(40+i)), names...)
			})
		}
	}
	for i, names := range pipelines {
		workers = append(workers, func(ctx context.Context) error {
			return l.runs.run(ctx, l.drained, "r"+strconv.Itoa(i), l.random(uint64(20+i)), names...)
		})
	}
	for i := range 3 {
		o := newObjects(l.client, strconv.Itoa(i), l.random(uint64(10+i)))
		l.objects = append(l.objects, o)
		workers = append(workers, func(ctx context.Context) error { return o.run(ctx, l.drained) })
	}
	return workers, nil
}

// prepare makes buckets, models and the endpoints that live through all kills.
func (l *loop) prepare(ctx context.Context) (*serving, error) {
	s := &serving{client: l.client}
	if err := s.readGolden(); err != nil {
		return nil, err
	}
	var input bytes.Buffer
	for i := range batchRows {
		row, err := json.Marshal(s.rows[i%len(s.rows)])
		if err != nil {
			return nil, err
		}
		input.Write(append(row, '\n'))
	}
	model, err := os.ReadFile(golden + "binary.model.txt")
	if err != nil {
		return nil, err
	}
	for bucket, versions := range map[string]bool{firstBucket: false, secondBucket: true} {
		body := map[string]any{"name": bucket, "versioning": map[string]any{"enabled": versions}}
		if _, err := l.client.call(ctx, http.MethodPost, "/storage/v1/b?project=kill", body, nil); err != nil {
			return nil, err
		}
	}
	for name, data := range map[string][]byte{"model/model.txt": model, "batch/in.jsonl": input.Bytes()} {
		path := "/upload/storage/v1/b/" + firstBucket + "/o?uploadType=media&name=" + url.QueryEscape(name)
		if a, err := l.client.do(ctx, request{method: http.MethodPost, path: path, body: data}); err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("upload %s: %s: %w", name, a, err)
		}
	}
	for id, spec := range map[string]map[string]any{
		"native": {"displayName": "native", "artifactUri": "gs://" + firstBucket + "/model", "containerSpec": map[string]any{"imageUri": "tategu/lightgbm"}},
		"echo":   {"displayName": "echo", "containerSpec": map[string]any{"imageUri": "kill/echo", "predictRoute": "/predict", "healthRoute": "/health"}},
	} {
		if _, err := l.client.call(ctx, http.MethodPost, api+"models:upload", map[string]any{"modelId": id, "model": spec}, nil); err != nil {
			return nil, err
		}
	}
	s.native, s.echo = strings.TrimPrefix(api, "/v1/")+"models/native", strings.TrimPrefix(api, "/v1/")+"models/echo"
	if _, err := l.client.call(ctx, http.MethodPost, api+"endpoints?endpointId=902", map[string]any{"displayName": "churn"}, nil); err != nil {
		return nil, err
	}
	return s, errors.Join(s.deploy(ctx, "900", s.native, "4900"), s.deploy(ctx, "901", s.echo, "4901"))
}

// readGolden reads rows without NaN, which JSON has not, and their scores.
func (s *serving) readGolden() error {
	rows, err := readFloats(golden + "rows.txt")
	if err != nil {
		return err
	}
	scores, err := readFloats(golden + "binary.out.txt")
	if err != nil {
		return err
	}
	for i, row := range rows {
		finite := true
		for _, v := range row {
			finite = finite && !math.IsNaN(v) && !math.IsInf(v, 0)
		}
		if finite {
			s.rows, s.scores = append(s.rows, row), append(s.scores, scores[i][0])
		}
	}
	if len(s.rows) == 0 {
		return errors.New("no row of the golden data is finite")
	}
	return nil
}

func readFloats(path string) ([][]float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out [][]float64
	for line := range strings.Lines(string(text)) {
		var row []float64
		for field := range strings.FieldsSeq(line) {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			row = append(row, v)
		}
		out = append(out, row)
	}
	return out, nil
}
