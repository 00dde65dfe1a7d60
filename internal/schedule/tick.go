package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/cron"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// next says when to look at a schedule again.
type next struct {
	at      time.Time
	blocked bool // also when a run has ended
	idle    bool // not before its row changes
}

// errChanged ends a step whose row changed meanwhile; the change wakes us again.
var errChanged = errors.New("the schedule changed")

// view is a schedule as it was read.
type view struct {
	*pb.Schedule
	row   store.Row
	cron  cron.Cron
	queue []span
}

// advance takes one step with a schedule: it waits, ends, or deals with one tick.
func (e *Engine) advance(ctx context.Context, name string) (next, error) {
	s, err := e.read(ctx, name)
	if err != nil || s == nil {
		return next{idle: true}, err
	}
	now := e.cfg.Now()
	switch {
	case spent(s.Schedule, now):
		return e.write(ctx, s, func(store.Tx) error { complete(s.Schedule); return nil })
	case s.NextRunTime == nil:
		return next{at: s.EndTime.AsTime()}, nil
	case s.NextRunTime.AsTime().After(now):
		return next{at: s.NextRunTime.AsTime()}, nil
	}
	tick := s.tick(now)
	if !tick.Equal(s.NextRunTime.AsTime()) {
		e.cfg.Log.WarnContext(ctx, "ticks of a schedule passed while nobody looked: the latest is run",
			slog.String("schedule", name), slog.Time("first", s.NextRunTime.AsTime()), slog.Time("latest", tick))
	}
	free, err := e.free(ctx, s)
	switch {
	case err != nil:
		return next{}, err
	case free:
		return e.launch(ctx, s, tick)
	case waits(s.Schedule, tick):
		return e.enqueue(ctx, s, tick, now)
	default:
		return e.write(ctx, s, func(store.Tx) error {
			s.answer(tick, fmt.Sprintf("skipped: %d runs are active, as many as max_concurrent_active_run_count allows", s.MaxConcurrentActiveRunCount))
			return nil
		})
	}
}

// read gives an active schedule; nil when there is none of the name.
func (e *Engine) read(ctx context.Context, name string) (*view, error) {
	s := &view{Schedule: &pb.Schedule{}}
	var err error
	s.row, err = store.GetMessage(ctx, e.cfg.Store, resource.KindSchedules, name, s.Schedule)
	if resource.IsNotFound(err) || err == nil && s.State != pb.Schedule_ACTIVE {
		return nil, nil //nolint:nilnil // there is nothing to do, and that is no error
	}
	if err != nil {
		return nil, err
	}
	if s.cron, err = cron.Parse("schedule.cron", s.GetCron()); err != nil {
		return nil, err
	}
	s.queue, err = readQueue(ctx, e.cfg.Store, name)
	return s, err
}

// free reports a place among the active runs.
func (e *Engine) free(ctx context.Context, s *view) (bool, error) {
	if s.MaxConcurrentActiveRunCount == 0 {
		return true, nil
	}
	active, _, err := e.active(ctx, e.cfg.Store, s.Name)
	return int64(active) < s.MaxConcurrentActiveRunCount, err
}

// The states of scheduledRuns rows. A row is looked at until its run has ended, so
// that what ran long ago costs nothing.
const (
	runActive = "ACTIVE"
	runEnded  = "ENDED"
)

// active counts the runs of a schedule that have not ended, and gives the rows of
// those that have since the last time.
func (e *Engine) active(ctx context.Context, r store.Reader, name string) (count int, ended []store.Row, err error) {
	rows, err := r.List(ctx, store.Query{Kind: resource.KindScheduledRuns, Parent: name, States: []string{runActive}})
	if err != nil {
		return 0, nil, fmt.Errorf("list the runs of %s: %w", name, err)
	}
	for _, row := range rows {
		job, err := r.Get(ctx, resource.KindPipelineJobs, row.Key)
		switch {
		case resource.IsNotFound(err) || err == nil && e.cfg.Ended(pb.PipelineState(pb.PipelineState_value[job.State])):
			ended = append(ended, row)
		case err != nil:
			return 0, nil, err
		default:
			count++
		}
	}
	return count, ended, nil
}

// launch starts the run of a tick, or records why there is none.
func (e *Engine) launch(ctx context.Context, s *view, tick time.Time) (next, error) {
	run, err := e.cfg.Prepare(ctx, s.Schedule, tick)
	if err == nil {
		var after next
		after, err = e.write(ctx, s, func(tx store.Tx) error { return e.start(ctx, tx, s, tick, run) })
		if err == nil {
			return after, nil
		}
	}
	if !lasting(err) {
		return next{}, err
	}
	e.cfg.Log.WarnContext(ctx, "a scheduled run could not be started", slog.String("schedule", s.Name), slog.Time("tick", tick), slog.Any("error", err))
	again, readErr := e.read(ctx, s.Name)
	if readErr != nil || again == nil || again.row.Revision != s.row.Revision {
		return next{}, readErr
	}
	return e.write(ctx, again, func(store.Tx) error { again.answer(tick, "not started: "+err.Error()); return nil })
}

// lasting reports an error that the same request will meet again.
func lasting(err error) bool {
	switch resource.CodeOf(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return true
	default:
		return false
	}
}

func (e *Engine) start(ctx context.Context, tx store.Tx, s *view, tick time.Time, run Run) error {
	_, ended, err := e.active(ctx, tx, s.Name)
	if err != nil {
		return err
	}
	for _, row := range ended {
		row.State = runEnded
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
	}
	s.answer(tick, run.Name())
	switch _, err := tx.Get(ctx, resource.KindPipelineJobs, run.Name()); {
	case err == nil:
		return nil // the clock was set back, and the tick has had its run
	case !resource.IsNotFound(err):
		return err
	}
	s.StartedRunCount++
	if spent(s.Schedule, e.cfg.Now()) {
		complete(s.Schedule)
	}
	row := store.Row{
		Kind: resource.KindScheduledRuns, Key: run.Name(), Parent: s.Name, State: runActive,
		Data: []byte(tick.UTC().Format(time.RFC3339)),
	}
	if err := tx.Put(ctx, row); err != nil {
		return err
	}
	return run.Insert(ctx, tx)
}

// answer records what became of a tick and goes on to the one after it.
func (s *view) answer(tick time.Time, response string) {
	s.LastScheduledRunResponse = &pb.Schedule_RunResponse{ScheduledRunTime: timestamppb.New(tick), RunResponse: response}
	setNext(s.Schedule, s.cron.Next(tick))
}

func complete(s *pb.Schedule) { s.State, s.NextRunTime = pb.Schedule_COMPLETED, nil }

// write stores what change did to a schedule, unless somebody else changed its row
// since it was read.
func (e *Engine) write(ctx context.Context, s *view, change func(tx store.Tx) error) (next, error) {
	before := proto.CloneOf(s.Schedule)
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		row, err := tx.Get(ctx, resource.KindSchedules, s.Name)
		if resource.IsNotFound(err) || err == nil && row.Revision != s.row.Revision {
			return errChanged
		}
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		if proto.Equal(before, s.Schedule) {
			return nil
		}
		return store.PutMessage(ctx, tx, store.Row{Kind: row.Kind, Key: row.Key, Parent: row.Parent, State: s.State.String()}, s.Schedule)
	})
	if errors.Is(err, errChanged) {
		return next{}, nil
	}
	return next{}, err
}
