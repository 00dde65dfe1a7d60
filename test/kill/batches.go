package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// batches submits batch prediction jobs, of both models in turn.
type batches struct {
	*serving
	ended int
}

func (b *batches) run(ctx context.Context, drained <-chan struct{}) error {
	for n := 0; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		model := b.native
		if n%2 == 1 {
			model = b.echo
		}
		body := map[string]any{
			"displayName": fmt.Sprintf("batch-%d", n), "model": model,
			"inputConfig":        map[string]any{"instancesFormat": "jsonl", "gcsSource": map[string]any{"uris": []string{"gs://" + firstBucket + "/batch/in.jsonl"}}},
			"outputConfig":       map[string]any{"predictionsFormat": "jsonl", "gcsDestination": map[string]any{"outputUriPrefix": "gs://" + secondBucket + "/batch"}},
			"dedicatedResources": map[string]any{"machineSpec": map[string]any{"machineType": "n1-standard-2"}},
		}
		var job struct{ Name string }
		_, err := b.call(ctx, http.MethodPost, api+"batchPredictionJobs", body, &job)
		switch {
		case errors.Is(err, errKilled):
			b.book.settled.Add(1) // it may be there: the list at the end shows
			continue
		case err != nil:
			return fmt.Errorf("batch: %w", err)
		}
		b.book.acked.Add(1)
		if err := b.follow(ctx, "/v1/"+job.Name, model == b.native); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
}

type batchDetail struct {
	Name       string
	State      string
	Model      string
	Error      struct{ Message string }
	OutputInfo struct{ GcsOutputDirectory string }
}

// follow waits for the end of a job and reads what it wrote.
func (b *batches) follow(ctx context.Context, path string, native bool) error {
	for {
		var job batchDetail
		status, err := b.get(ctx, path, &job, http.StatusNotFound)
		if err != nil {
			return err
		}
		if status == http.StatusNotFound {
			b.book.isLost("batch prediction job %s was acknowledged and there is none", path)
			return nil
		}
		switch job.State {
		case "JOB_STATE_SUCCEEDED":
			b.ended++
			return b.check(ctx, job, native)
		case "JOB_STATE_FAILED", "JOB_STATE_CANCELLED":
			b.book.problem("batch prediction job %s ended %s: %s", path, job.State, job.Error.Message)
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// check reads the results: one line for each instance, in order.
func (b *batches) check(ctx context.Context, job batchDetail, native bool) error {
	bucket, folder, _ := strings.Cut(strings.TrimPrefix(job.OutputInfo.GcsOutputDirectory, "gs://"), "/")
	path := "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(folder+"/prediction.results-00000-of-00001") + "?alt=media"
	var a answer
	for {
		var err error
		if a, err = b.do(ctx, request{method: http.MethodGet, path: path}); err == nil {
			break
		} else if !errors.Is(err, errKilled) {
			return err
		}
	}
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	if a.status != http.StatusOK || len(lines) != batchRows {
		b.book.isTorn("batch prediction job %s: results %d, %d lines of %d", job.Name, a.status, len(lines), batchRows)
		return nil
	}
	for i, line := range lines {
		var got struct{ Prediction json.RawMessage }
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			return fmt.Errorf("job %s, line %d: %w", job.Name, i+1, err)
		}
		want := b.rows[i%len(b.rows)][0]
		if native {
			want = b.scores[i%len(b.rows)]
		}
		value, err := first(got.Prediction)
		if err != nil {
			return fmt.Errorf("job %s, line %d: %w", job.Name, i+1, err)
		}
		if math.Abs(value-want) > 1e-12 {
			b.book.isTorn("batch prediction job %s, line %d: %s, want %v", job.Name, i+1, line, want)
			return nil
		}
	}
	return nil
}
