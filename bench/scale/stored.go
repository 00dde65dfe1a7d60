package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/bench/harness"
)

// simple is what the SDK's PipelineJob.list asks for with enable_simple_view.
func simple() *fieldmaskpb.FieldMask {
	return &fieldmaskpb.FieldMask{Paths: []string{
		"name", "state", "display_name", "pipeline_spec.pipeline_info", "create_time", "start_time", "end_time", "update_time", "labels",
		"template_uri", "template_metadata.version", "job_detail.pipeline_run_context", "job_detail.pipeline_context",
	}}
}

// reader times what people look at.
type reader struct {
	s           *server
	run         string
	lists, gets times
}

func newReader(s *server, run string) *reader { return &reader{s: s, run: run} }

// one times a list, and a get too where it is asked for.
func (r *reader) one(ctx context.Context, get bool) error {
	took, err := timed(func() error {
		_, err := r.s.jobs.ListPipelineJobs(ctx, &pb.ListPipelineJobsRequest{Parent: location(project), ReadMask: simple()})
		return err
	})
	if err != nil {
		return err
	}
	r.lists = append(r.lists, took)
	if !get {
		return nil
	}
	took, err = timed(func() error {
		_, err := r.s.jobs.GetPipelineJob(ctx, &pb.GetPipelineJobRequest{Name: jobName(project, r.run)})
		return err
	})
	r.gets = append(r.gets, took)
	return err
}

func timed(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

// storedRuns fills the store with finished runs, through the API: each is a chain of
// three tasks, which all but the first take from the cache.
func (b *bench) storedRuns(ctx context.Context, s *server) error {
	spec, err := chain("quick", 3, true)
	if err != nil {
		return err
	}
	if err := s.submit(ctx, project, "run-0", spec); err != nil {
		return err
	}
	if _, err := s.wait(ctx, project, "run-0", pb.PipelineState_PIPELINE_STATE_SUCCEEDED, time.Minute); err != nil {
		return err
	}
	began := time.Now()
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := 1; i < b.stored; i++ {
		group.Go(func() error { return s.submit(inner, project, fmt.Sprint("run-", i), spec) })
		if i%1000 == 0 {
			rss, _ := s.memory("VmRSS") // for the eye alone
			say("%d runs are submitted, %.1f MB", i, mb(rss))
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := s.allDone(ctx, project, 10*time.Minute); err != nil {
		return err
	}
	took := time.Since(began)
	rss, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	row("stored", "%d runs of 3 cached tasks through the API, %.0f a second; server %.1f MB", b.stored, float64(b.stored)/took.Seconds(), mb(rss))
	worst, err := b.timeReads(ctx, s, "with nothing else at work", func() bool { return true })
	if err != nil {
		return err
	}
	b.last["list_p99_ms"] = fmt.Sprintf("%.1f", ms(worst))
	busy, err := b.whileBusy(ctx, s)
	if err != nil {
		return err
	}
	if busy > 0 {
		row("worst p99 of these", "%.1f ms, beside a loop at work %.1f ms", ms(worst), ms(busy))
	}
	return nil
}

// allDone waits until no run of a project goes on.
func (s *server) allDone(ctx context.Context, project string, patience time.Duration) error {
	return harness.Until(ctx, patience, 100*time.Millisecond, "all runs have ended", func() (bool, error) {
		resp, err := s.jobs.ListPipelineJobs(ctx, &pb.ListPipelineJobsRequest{
			Parent: location(project), Filter: `state="PIPELINE_STATE_PENDING" OR state="PIPELINE_STATE_RUNNING"`, PageSize: 1,
			ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
		})
		return err == nil && len(resp.GetPipelineJobs()) == 0, err
	})
}

// kind is one request that is timed.
type kind struct {
	name string
	call func(ctx context.Context, i int) error
}

func (s *server) kinds(stored int) []kind {
	list := func(req *pb.ListPipelineJobsRequest) func(context.Context, int) error {
		req.Parent = location(project)
		return func(ctx context.Context, _ int) error {
			resp, err := s.jobs.ListPipelineJobs(ctx, req, grpc.MaxCallRecvMsgSize(1<<30))
			if err == nil && len(resp.PipelineJobs) == 0 {
				err = errors.New("the list is empty")
			}
			return err
		}
	}
	pages := &paging{s: s}
	return []kind{
		{"list, simple view", list(&pb.ListPipelineJobsRequest{ReadMask: simple()})},
		{"list, in full with tasks", list(&pb.ListPipelineJobsRequest{})},
		{"list, next pages (simple view)", pages.next},
		{"list, by state", list(&pb.ListPipelineJobsRequest{ReadMask: simple(), Filter: `state="PIPELINE_STATE_SUCCEEDED"`, PageSize: 20})},
		{"get", func(ctx context.Context, i int) error {
			_, err := s.jobs.GetPipelineJob(ctx, &pb.GetPipelineJobRequest{Name: jobName(project, fmt.Sprint("run-", i*7919%stored))})
			return err
		}},
	}
}

// paging walks through all pages, again and again.
type paging struct {
	s     *server
	token string
}

func (p *paging) next(ctx context.Context, _ int) error {
	resp, err := p.s.jobs.ListPipelineJobs(ctx, &pb.ListPipelineJobsRequest{Parent: location(project), ReadMask: simple(), PageToken: p.token})
	p.token = resp.GetNextPageToken()
	return err
}

// timeReads times every kind of request in turns, while goOn holds, and gives the worst
// of their p99; 0 = it never held.
func (b *bench) timeReads(ctx context.Context, s *server, when string, goOn func() bool) (worst time.Duration, err error) {
	kinds := s.kinds(b.stored)
	took := make([]times, len(kinds))
	for i := 0; i < 200 && goOn(); i++ {
		for k := range kinds {
			d, err := timed(func() error { return kinds[k].call(ctx, i) })
			if err != nil {
				return 0, fmt.Errorf("%s: %w", kinds[k].name, err)
			}
			took[k] = append(took[k], d)
		}
	}
	row("reads", "%s", when)
	for k := range kinds {
		row("  "+kinds[k].name, "%s", took[k].line())
		if len(took[k]) > 0 {
			worst = max(worst, took[k].sorted().at(0.99))
		}
	}
	return worst, nil
}

// whileBusy times the same beside a loop that runs.
func (b *bench) whileBusy(ctx context.Context, s *server) (worst time.Duration, err error) {
	spec, err := loopOf(b.tasks, s.dir+"/mark")
	if err != nil {
		return 0, err
	}
	if err := s.submit(ctx, "other", "busy", spec); err != nil {
		return 0, err
	}
	say("stored: waits for the loop to be at work")
	if err := harness.Until(ctx, time.Minute, 10*time.Millisecond, "100 tasks have run", func() (bool, error) { return marks(s.dir+"/mark") >= 100, nil }); err != nil {
		return 0, err
	}
	atWork := func() bool { return marks(s.dir+"/mark") < int64(b.tasks) }
	if worst, err = b.timeReads(ctx, s, "beside a loop at work", atWork); err != nil {
		return 0, err
	}
	return worst, s.stop(ctx, "other", "busy")
}

// stop ends a run that may have come to its end.
func (s *server) stop(ctx context.Context, project, id string) error {
	if _, err := s.jobs.CancelPipelineJob(ctx, &pb.CancelPipelineJobRequest{Name: jobName(project, id)}); err != nil {
		return err
	}
	return harness.Until(ctx, 5*time.Minute, 100*time.Millisecond, "run "+id+" has ended", func() (bool, error) {
		job, err := s.look(ctx, project, id)
		return err == nil && finished(job.State), err
	})
}
