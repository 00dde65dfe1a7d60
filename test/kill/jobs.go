package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"time"
)

// jobs submits custom jobs.
type jobs struct {
	*client
	acked []string // full names
}

type jobDetail struct {
	Name        string
	DisplayName string
	State       string
	Error       struct{ Message string }
}

func (j *jobs) run(ctx context.Context, drained <-chan struct{}, random *rand.Rand) error {
	for n := 0; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		name := fmt.Sprintf("job-%d", n)
		body := map[string]any{"displayName": name, "jobSpec": map[string]any{"workerPoolSpecs": []any{map[string]any{
			"replicaCount": 1, "machineSpec": map[string]any{"machineType": "n1-standard-2"},
			"containerSpec": map[string]any{
				"imageUri": "kill/task",
				"args":     []string{"job", name, fmt.Sprintf("%.3f", random.Float64()*1.5), "0", "/gcs/" + secondBucket + "/jobs/" + name},
			},
		}}}}
		var job jobDetail
		_, err := j.call(ctx, http.MethodPost, api+"customJobs", body, &job)
		switch {
		case errors.Is(err, errKilled):
			j.book.settled.Add(1) // it may be there: the list at the end shows
			continue
		case err != nil:
			return fmt.Errorf("custom jobs: %w", err)
		}
		j.book.acked.Add(1)
		j.acked = append(j.acked, job.Name)
		if err := j.follow(ctx, job.Name); err != nil {
			return fmt.Errorf("custom jobs: %w", err)
		}
	}
}

// follow waits for the end of a job.
func (j *jobs) follow(ctx context.Context, name string) error {
	for {
		var job jobDetail
		status, err := j.get(ctx, "/v1/"+name, &job, http.StatusNotFound)
		if err != nil {
			return err
		}
		switch {
		case status == http.StatusNotFound:
			j.book.isLost("%s was acknowledged and there is none", name)
			return nil
		case job.State == "JOB_STATE_SUCCEEDED":
			return nil
		case job.State == "JOB_STATE_FAILED" || job.State == "JOB_STATE_CANCELLED":
			j.book.problem("%s ended %s: %s", name, job.State, job.Error.Message)
			return nil
		}
		if err := pause(ctx, 120*time.Millisecond); err != nil {
			return err
		}
	}
}

// check compares all jobs, also those whose submission was cut off, with the
// ledger of the tasks and with what they wrote.
func (j *jobs) check(ctx context.Context, ledger *taskLedger) error {
	for page := ""; ; {
		var list struct {
			CustomJobs    []jobDetail
			NextPageToken string
		}
		if _, err := j.get(ctx, api+"customJobs?pageSize=100&pageToken="+page, &list); err != nil {
			return err
		}
		for _, job := range list.CustomJobs {
			if err := j.follow(ctx, job.Name); err != nil {
				return err
			}
			ledger.expect(j.book, attempt{job.DisplayName, path.Base(job.Name) + "-0", "0"}, true)
			a, err := j.do(ctx, request{method: http.MethodGet, path: "/storage/v1/b/" + secondBucket + "/o/jobs%2F" + job.DisplayName + "?alt=media"})
			if err != nil {
				return err
			}
			if a.status != http.StatusOK || strings.TrimSpace(string(a.body)) != "0" {
				j.book.isLost("%s succeeded and its file reads %s", job.Name, a)
			}
		}
		if page = list.NextPageToken; page == "" {
			return nil
		}
	}
}
