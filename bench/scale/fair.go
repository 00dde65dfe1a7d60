package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/bench/harness"
)

// length is how many tasks in a row each of the equal runs has.
const length = 10

// fair submits equal runs at once: of one project, then of two, of which one has a
// single run.
func (b *bench) fair(ctx context.Context, s *server) error {
	spec, err := chain("equal", length, false)
	if err != nil {
		return err
	}
	say("fair: %d runs of one project", b.runs)
	took, err := s.atOnce(ctx, map[string]int{"alone": b.runs}, func(ctx context.Context, project, id string) error { return s.submit(ctx, project, id, spec) })
	if err != nil {
		return err
	}
	all := took["alone"].sorted()
	ratio := float64(all.at(1)) / float64(all[0])
	b.last["fair"] = fmt.Sprintf("%.2f", ratio)
	row("equal runs of one project", "%d of %d tasks: %s, slowest/fastest %.2f", b.runs, length, all.line(), ratio)
	say("fair: %d runs of a project beside one of another", b.runs-1)
	took, err = s.atOnce(ctx, map[string]int{"many": b.runs - 1, "few": 1}, func(ctx context.Context, project, id string) error { return s.submit(ctx, project, id, spec) })
	if err != nil {
		return err
	}
	row("  the other project's single run", "%.0f ms beside a median of %.0f ms", ms(took["few"][0]), ms(took["many"].sorted().at(0.5)))
	return b.besideLoop(ctx, s)
}

// besideLoop measures a small run while the same project has a wide loop at work.
func (b *bench) besideLoop(ctx context.Context, s *server) error {
	spec, err := chain("small", 3, false)
	if err != nil {
		return err
	}
	measure := func(prefix string, n int) (times, error) {
		var out times
		for i := range n {
			id := fmt.Sprint(prefix, i)
			if err := s.submit(ctx, "wide", id, spec); err != nil {
				return nil, err
			}
			job, err := s.wait(ctx, "wide", id, pb.PipelineState_PIPELINE_STATE_SUCCEEDED, 20*time.Minute)
			if err != nil {
				return nil, err
			}
			out = append(out, job.EndTime.AsTime().Sub(job.CreateTime.AsTime()))
		}
		return out, nil
	}
	alone, err := measure("alone-", 5)
	if err != nil {
		return err
	}
	loop, err := loopOf(b.tasks, s.dir+"/mark")
	if err != nil {
		return err
	}
	if err := s.submit(ctx, "wide", "loop", loop); err != nil {
		return err
	}
	if err := harness.Until(ctx, time.Minute, 10*time.Millisecond, "200 tasks have run", func() (bool, error) { return marks(s.dir+"/mark") >= 200, nil }); err != nil {
		return err
	}
	beside, err := measure("beside-", 5)
	if err != nil {
		return err
	}
	row("run of 3 tasks", "alone %s", alone.line())
	row("  beside a loop of its project", "%s", beside.line())
	return s.stop(ctx, "wide", "loop")
}

// atOnce submits so many runs of each project and gives how long each took by the
// server's account, from its creation to its end.
func (s *server) atOnce(ctx context.Context, runs map[string]int, submit func(ctx context.Context, project, id string) error) (map[string]times, error) {
	group, inner := errgroup.WithContext(ctx)
	for project, n := range runs {
		for i := range n {
			group.Go(func() error { return submit(inner, project, fmt.Sprint("run-", i)) })
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := map[string]times{}
	for project, n := range runs {
		if err := s.allDone(ctx, project, 20*time.Minute); err != nil {
			return nil, err
		}
		resp, err := s.jobs.ListPipelineJobs(ctx, &pb.ListPipelineJobsRequest{
			Parent: location(project), PageSize: int32(n), ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"name", "state", "create_time", "end_time"}},
		})
		if err != nil {
			return nil, err
		}
		for _, job := range resp.PipelineJobs {
			if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
				return nil, fmt.Errorf("%s ended as %s", job.Name, job.State)
			}
			took[project] = append(took[project], job.EndTime.AsTime().Sub(job.CreateTime.AsTime()))
		}
		if len(took[project]) == 0 {
			return nil, errors.New("no run of " + project + " is listed")
		}
	}
	return took, nil
}
