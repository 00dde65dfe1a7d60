package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/bench/harness"
)

// early is the task at which memory is looked at first.
const early = 1000

// loop runs one loop of many tasks and watches the server's memory.
func (b *bench) loop(ctx context.Context, s *server) error {
	mark := filepath.Join(s.dir, "mark")
	spec, err := loopOf(b.tasks, mark)
	if err != nil {
		return err
	}
	idle, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	if err := s.submit(ctx, project, "loop", spec); err != nil {
		return err
	}
	reads := newReader(s, "loop")
	atEarly, half, err := b.watch(ctx, s, mark, reads)
	if err != nil {
		return err
	}
	job, err := s.wait(ctx, project, "loop", pb.PipelineState_PIPELINE_STATE_SUCCEEDED, 10*time.Minute)
	if err != nil {
		return err
	}
	atEnd, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	peak, err := s.memory("VmHWM")
	if err != nil {
		return err
	}
	own, children, err := s.processor()
	if err != nil {
		return err
	}
	if n := marks(mark); n != int64(b.tasks) {
		return fmt.Errorf("%d programs of %d ran", n, b.tasks)
	}
	took := job.EndTime.AsTime().Sub(job.CreateTime.AsTime())
	rate, ratio := float64(b.tasks)/took.Seconds(), float64(atEnd)/float64(atEarly)
	b.last["tasks_per_s"], b.last["rss_ratio"] = fmt.Sprintf("%.1f", rate), fmt.Sprintf("%.2f", ratio)
	row("loop", "%d tasks in %.1f s: %.1f a second; first half %.1f, second half %.1f a second", b.tasks, took.Seconds(), rate,
		float64(b.tasks)/2/half.Seconds(), float64(b.tasks)/2/(took-half).Seconds())
	row("  memory of the server", "idle %.1f  at task %d %.1f  at the end %.1f  most %.1f MB", mb(idle), early, mb(atEarly), mb(atEnd), mb(peak))
	row("  processor time a task", "server %.2f  programs and wrappers that it waited for %.2f ms", ms(own)/float64(b.tasks), ms(children)/float64(b.tasks))
	row("  list while they run", "%s", reads.lists.line())
	row("  get while they run", "%s", reads.gets.line())
	return b.afterwards(ctx, s)
}

// watch follows a loop to its last task: the memory at an early one, and when half of
// them had run.
func (b *bench) watch(ctx context.Context, s *server, mark string, reads *reader) (atEarly int64, half time.Duration, err error) {
	began, told, looked := time.Now(), 0, time.Now()
	err = harness.Until(ctx, time.Hour, 20*time.Millisecond, "all tasks have run", func() (bool, error) {
		n := int(marks(mark))
		if atEarly == 0 && n >= early {
			if atEarly, err = s.memory("VmRSS"); err != nil {
				return false, err
			}
		}
		if half == 0 && n >= b.tasks/2 {
			half = time.Since(began)
		}
		if n/1000 > told {
			told = n / 1000
			rss, _ := s.memory("VmRSS") // the figures that count are read elsewhere
			say("%d tasks have run, %.1f MB", n, mb(rss))
			if err := reads.one(ctx, told == b.tasks/2000); err != nil { // a get amid the loop, as memory is measured at its end
				return false, err
			}
		}
		if time.Since(looked) > 5*time.Second { // a run that has failed makes no more
			looked = time.Now()
			if job, err := s.look(ctx, project, "loop"); err != nil || job.State == pb.PipelineState_PIPELINE_STATE_FAILED {
				return false, cmp.Or(err, fmt.Errorf("the loop failed after %d tasks: %s", n, job.GetError().GetMessage()))
			}
		}
		return n >= b.tasks, nil
	})
	return atEarly, half, err
}

// afterwards reads the whole run, checks the order of what was collected, and looks
// at what a task leaves on the disk.
func (b *bench) afterwards(ctx context.Context, s *server) error {
	began := time.Now()
	job, err := s.jobs.GetPipelineJob(ctx, &pb.GetPipelineJobRequest{Name: jobName(project, "loop")})
	if err != nil {
		return err
	}
	row("  get of the whole run", "%.0f ms, %d task details, %.1f MB", ms(time.Since(began)), len(job.GetJobDetail().GetTaskDetails()), mb(int64(proto.Size(job))))
	text, err := output(job, "all", "out")
	if err != nil {
		return err
	}
	var collected []int
	if err := json.Unmarshal([]byte(text), &collected); err != nil {
		return fmt.Errorf("what was collected: %w", err)
	}
	for i, n := range collected {
		if n != i {
			return fmt.Errorf("collected[%d] is %d", i, n)
		}
	}
	if len(collected) != b.tasks {
		return fmt.Errorf("%d results were collected of %d", len(collected), b.tasks)
	}
	data := filepath.Join(s.dir, "data")
	all, err := files(data)
	if err != nil {
		return err
	}
	workloads, err := files(filepath.Join(data, "workloads"))
	if err != nil {
		return err
	}
	row("  files left a task", "%.2f, of which %.2f in working directories; state.db %.0f bytes a task", float64(all)/float64(b.tasks),
		float64(workloads-1)/float64(b.tasks), float64(marks(filepath.Join(data, "state.db")))/float64(b.tasks))
	return nil
}

// kill ends the server amid a loop, starts it again, cancels the rest and deletes
// the run.
func (b *bench) kill(ctx context.Context, s *server) error {
	mark := filepath.Join(s.dir, "mark")
	spec, err := loopOf(b.tasks, mark)
	if err != nil {
		return err
	}
	if err := s.submit(ctx, project, "loop", spec); err != nil {
		return err
	}
	reached := func(n int64) error {
		return harness.Until(ctx, time.Hour, time.Millisecond, fmt.Sprint(n, " tasks have run"), func() (bool, error) { return marks(mark) >= n, nil })
	}
	say("kill: waits for %d tasks", b.tasks/4)
	if err := reached(int64(b.tasks / 4)); err != nil {
		return err
	}
	if err := s.end(syscall.SIGKILL); err != nil {
		return err
	}
	before := int64(-1) // the programs that ran on their own have ended when the number rests
	err = harness.Until(ctx, time.Minute, 500*time.Millisecond, "programs that outlived the server have ended", func() (bool, error) {
		n := marks(mark)
		rests := n == before
		before = n
		return rests, nil
	})
	if err != nil {
		return err
	}
	began := time.Now()
	ready, err := s.start(ctx)
	if err != nil {
		return err
	}
	if err := reached(before + 1); err != nil {
		return err
	}
	first := time.Since(began)
	if err := reached(before + 200); err != nil {
		return err
	}
	row("kill -9 amid the loop", "after %d tasks: ready in %.0f ms, first further task after %.0f ms, 200 after %.0f ms", before, ms(ready), ms(first), ms(time.Since(began)))
	return b.cancel(ctx, s)
}

func (b *bench) cancel(ctx context.Context, s *server) error {
	name := jobName(project, "loop")
	began := time.Now()
	if _, err := s.jobs.CancelPipelineJob(ctx, &pb.CancelPipelineJobRequest{Name: name}); err != nil {
		return err
	}
	asked := time.Since(began)
	if _, err := s.wait(ctx, project, "loop", pb.PipelineState_PIPELINE_STATE_CANCELLED, 5*time.Minute); err != nil {
		return err
	}
	row("cancel of the loop", "answered in %.0f ms, CANCELLED after %.0f ms", ms(asked), ms(time.Since(began)))
	began = time.Now()
	if _, err := s.jobs.DeletePipelineJob(ctx, &pb.DeletePipelineJobRequest{Name: name}); err != nil {
		return err
	}
	deleted := time.Since(began)
	left := 0
	err := harness.Until(ctx, time.Minute, 100*time.Millisecond, "working directories are gone", func() (bool, error) {
		entries, err := os.ReadDir(filepath.Join(s.dir, "data", "workloads"))
		left = 0
		for _, e := range entries {
			if !slices.Contains([]string{".spare", ".layers", ".nest"}, e.Name()) { // what the next programs take over
				left++
			}
		}
		return left == 0, err
	})
	if err != nil {
		return fmt.Errorf("%d working directories are left: %w", left, err)
	}
	row("delete of the loop", "%.0f ms, no working directory left", ms(deleted))
	return nil
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }
