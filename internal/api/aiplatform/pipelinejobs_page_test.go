package aiplatform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// TestListPipelineJobsEndsLargePages: runs of many tasks make a page shorter, in
// every order, and all of them come; without their tasks they are one page.
func TestListPipelineJobsEndsLargePages(t *testing.T) {
	t.Parallel()
	const tasks = 510 // more than are read at a time
	failure := &pipeline.Failure{Message: strings.Repeat("x", 4000)}
	s := newPipelineServer(t, 0)
	for _, id := range []string{"one", "two", "three"} {
		name := createPipelineJob(t, s, id).Name
		err := s.store.Update(t.Context(), func(tx store.Tx) error {
			for i := range tasks {
				task := pipeline.Task{ID: int64(i + 1), Path: fmt.Sprint("t", i), Name: "t", Kind: "container", State: pipeline.Failed, Failure: failure}
				task.History = []pipeline.Transition{{State: pipeline.Failed, Failure: failure}, {State: pipeline.Failed, Failure: failure}}
				data, err := json.Marshal(task)
				if err != nil {
					return err
				}
				if err := tx.Put(t.Context(), store.Row{Kind: pipeline.KindTasks, Key: fmt.Sprintf("%s/tasks/%04d", name, i), Parent: name, Data: data}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range []string{"", "create_time"} {
		req := &pb.ListPipelineJobsRequest{Parent: location, OrderBy: order}
		var got []string
		for pages := 1; ; pages++ {
			resp := call[*pb.ListPipelineJobsResponse](t, s, pipelineMethod("ListPipelineJobs"), req)
			for _, job := range resp.PipelineJobs {
				if n := len(job.JobDetail.TaskDetails); n != tasks {
					t.Errorf("order %q: %s has %d tasks", order, job.Name, n)
				}
				got = append(got, strings.TrimPrefix(job.Name, jobName))
			}
			if req.PageToken = resp.NextPageToken; req.PageToken == "" {
				if pages < 2 {
					t.Errorf("order %q: %d pages", order, pages)
				}
				break
			}
		}
		if slices.Sort(got); !slices.Equal(got, []string{"one", "three", "two"}) {
			t.Errorf("order %q: listed %v", order, got)
		}
	}
	simple := call[*pb.ListPipelineJobsResponse](t, s, pipelineMethod("ListPipelineJobs"), &pb.ListPipelineJobsRequest{
		Parent: location, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"name", "job_detail.pipeline_run_context"}},
	})
	if len(simple.PipelineJobs) != 3 || simple.NextPageToken != "" {
		t.Errorf("%d runs in a page without tasks", len(simple.PipelineJobs))
	}
}

// TestGetPipelineJobOfALoopAtWork: a run in which much goes on is not about to end,
// though nothing in it is PENDING; one with a few tasks left is waited for.
func TestGetPipelineJobOfALoopAtWork(t *testing.T) {
	t.Parallel()
	s := newPipelineServer(t, time.Hour)
	job := createPipelineJob(t, s, "loop")
	err := s.store.Update(t.Context(), func(tx store.Tx) error {
		job.CreateTime, job.State = timestamppb.New(time.Now().Add(-time.Hour)), pb.PipelineState_PIPELINE_STATE_RUNNING
		for i := range fewTasks + 1 {
			row := store.Row{Kind: pipeline.KindTasks, Key: fmt.Sprintf("%s/tasks/%d", job.Name, i), Parent: job.Name, State: string(pipeline.Running), Data: []byte("{}")}
			if err := tx.Put(t.Context(), row); err != nil {
				return err
			}
		}
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindPipelineJobs, Key: job.Name, Parent: location, State: job.State.String()}, job)
	})
	if err != nil {
		t.Fatal(err)
	}
	// Held, this would take an hour.
	if got := call[*pb.PipelineJob](t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name}); got.State != pb.PipelineState_PIPELINE_STATE_RUNNING {
		t.Errorf("state %s", got.State)
	}
	err = s.store.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(t.Context(), pipeline.KindTasks, job.Name+"/tasks/0") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.do(ctx, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: job.Name}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one with few tasks left was not waited for: %v", err)
	}
}
