package schedule

import (
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/cron"
	"tategu/internal/resource"
)

// Begin checks the times of a new schedule and makes it active.
func Begin(s *pb.Schedule, now time.Time) error {
	if err := check(s, now); err != nil {
		return err
	}
	if s.StartTime == nil {
		s.StartTime = timestamppb.New(now)
	}
	s.State = pb.Schedule_ACTIVE
	return plan(s, now)
}

// Change checks a schedule that was changed. Its runs go on with the first tick
// from now: those that had not started are skipped, as the API documents.
func Change(before, s *pb.Schedule, now time.Time) error {
	if before.State == pb.Schedule_COMPLETED {
		return failed(s, "is completed and cannot be changed").WithHint("create a new one")
	}
	for _, f := range []struct {
		name     string
		had, has bool
	}{
		{"cron", before.GetCron() != "", s.GetCron() != ""},
		{"start_time", before.StartTime != nil, s.StartTime != nil},
		{"end_time", before.EndTime != nil, s.EndTime != nil},
		{"max_run_count", before.MaxRunCount != 0, s.MaxRunCount != 0},
		{"max_concurrent_active_run_count", before.MaxConcurrentActiveRunCount != 0, s.MaxConcurrentActiveRunCount != 0},
	} {
		if f.had && !f.has {
			return resource.Invalid("schedule."+f.name, "%s is set and cannot be unset", f.name)
		}
	}
	if err := check(s, now); err != nil {
		return err
	}
	return plan(s, now)
}

// Pause stops the start of runs. Pausing twice is no error.
func Pause(s *pb.Schedule, now time.Time) error {
	switch s.State {
	case pb.Schedule_PAUSED:
		return nil
	case pb.Schedule_COMPLETED:
		return failed(s, "is completed and cannot be paused")
	default:
		s.State, s.LastPauseTime = pb.Schedule_PAUSED, timestamppb.New(now)
		return nil
	}
}

// Resume goes on with a paused schedule: from now, or with catchUp from where it
// was paused.
func Resume(s *pb.Schedule, catchUp bool, now time.Time) error {
	if s.State != pb.Schedule_PAUSED {
		return failed(s, "is %s; only a paused schedule can be resumed", s.State)
	}
	s.State, s.LastResumeTime, s.CatchUp = pb.Schedule_ACTIVE, timestamppb.New(now), catchUp
	if catchUp {
		return nil
	}
	return plan(s, now)
}

func failed(s *pb.Schedule, format string, args ...any) *resource.Error {
	e := resource.Errorf(codes.FailedPrecondition, s.GetName()+" "+format, args...)
	return e.WithResource(s.GetName()).WithCause(resource.CauseInput)
}

func check(s *pb.Schedule, now time.Time) error {
	switch {
	case s.GetCron() == "":
		return resource.Invalid("schedule.cron", "cron is not set")
	case s.MaxRunCount < 0:
		return resource.Invalid("schedule.max_run_count", "max_run_count is %d; want 1 or more, or none", s.MaxRunCount)
	case s.MaxConcurrentRunCount < 1:
		return resource.Invalid("schedule.max_concurrent_run_count", "max_concurrent_run_count is %d; want 1 or more", s.MaxConcurrentRunCount)
	case s.MaxConcurrentActiveRunCount < 0:
		return resource.Invalid("schedule.max_concurrent_active_run_count", "max_concurrent_active_run_count is %d; want 1 or more, or none", s.MaxConcurrentActiveRunCount)
	case s.StartTime != nil && !s.StartTime.IsValid():
		return resource.Invalid("schedule.start_time", "start_time is not a time")
	case s.EndTime == nil:
		return nil
	case !s.EndTime.IsValid():
		return resource.Invalid("schedule.end_time", "end_time is not a time")
	case !s.EndTime.AsTime().After(now):
		return resource.Invalid("schedule.end_time", "end_time %s has passed", s.EndTime.AsTime().Format(time.RFC3339))
	case s.StartTime != nil && !s.EndTime.AsTime().After(s.StartTime.AsTime()):
		return resource.Invalid("schedule.end_time", "end_time is not after start_time")
	}
	return nil
}

// plan sets the next tick to the first after now, not before the start.
func plan(s *pb.Schedule, now time.Time) error {
	c, err := cron.Parse("schedule.cron", s.GetCron())
	if err != nil {
		return err
	}
	after := now
	if start := s.GetStartTime().AsTime(); start.After(now) {
		after = start.Add(-1) // a tick at the start itself counts
	}
	setNext(s, c.Next(after))
	return nil
}

// setNext sets the next tick; one beyond the end does not come.
func setNext(s *pb.Schedule, t time.Time) {
	s.NextRunTime = nil
	if !t.IsZero() && (s.EndTime == nil || !t.After(s.EndTime.AsTime())) {
		s.NextRunTime = timestamppb.New(t)
	}
}

// spent reports that no run may follow, at any time.
func spent(s *pb.Schedule, now time.Time) bool {
	if s.MaxRunCount > 0 && s.StartedRunCount >= s.MaxRunCount {
		return true
	}
	return s.NextRunTime == nil && (s.EndTime == nil || !now.Before(s.EndTime.AsTime()))
}

// waits reports a tick that waits for a place among the active runs when there is
// none; any other is skipped then. What is caught up after a pause waits.
func waits(s *pb.Schedule, tick time.Time) bool {
	return s.AllowQueueing || s.CatchUp && s.LastResumeTime != nil && !tick.After(s.LastResumeTime.AsTime())
}

// RunID is the id of the run of a tick. It names the pipeline first, as ids that
// the SDK makes do, and ends in the tick's time in UTC.
func RunID(pipelineName, schedule string, tick time.Time) string {
	const longest = 128 // of a pipeline job's id
	suffix := "-" + schedule + "-" + tick.UTC().Format("20060102150405")
	return pipelineName[:max(0, min(len(pipelineName), longest-len(suffix)))] + suffix
}
