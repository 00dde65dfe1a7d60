// Package schedule starts pipeline runs when their schedules come due: each tick
// of a schedule once, also over kill -9, because the run's row and the schedule's
// progress are written in one transaction and the run's id is made of the
// schedule and the tick.
//
// It acts on the rows of schedules, which are the API's own messages, and it owns
// the rows of scheduledRuns (which tick a run belongs to) and scheduleQueues (up
// to which tick runs wait for a place). The functions that change a message
// (Begin, Change, Pause, Resume) are the API's; the engine follows with the ticks.
// What a run is, and whether it may be, is the API's too: it hands in Prepare.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/volume"
)

// Run is a pipeline job that passed every check and is not written yet.
type Run interface {
	// Name is the full name that it will have.
	Name() string
	// Insert writes it.
	Insert(ctx context.Context, tx store.Tx) error
}

// Config lists what the engine works with.
type Config struct {
	Store store.Store
	// Prepare makes the run of a tick, named by RunID.
	Prepare func(ctx context.Context, s *pb.Schedule, tick time.Time) (Run, error)
	// Ended reports a state that a pipeline job never leaves.
	Ended func(pb.PipelineState) bool
	Log   *slog.Logger
	Now   func() time.Time
}

// Engine starts the runs of all schedules.
type Engine struct {
	cfg     Config
	due     map[string]time.Time // when to look at a schedule again
	blocked map[string]bool      // schedules whose next run waits for the end of another
}

// New makes an engine; nothing happens before Run.
func New(cfg Config) *Engine {
	return &Engine{cfg: cfg, due: map[string]time.Time{}, blocked: map[string]bool{}}
}

const (
	// lookAgain bounds a wait: timers do not see that the machine's clock was set,
	// or that the machine slept.
	lookAgain = 20 * time.Second
	// tryAgain is the pause after an error that may pass.
	tryAgain = 5 * time.Second
)

// Run follows every active schedule until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	w := e.cfg.Store.Watch(resource.KindSchedules, resource.KindPipelineJobs)
	defer w.Close()
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindSchedules, States: []string{pb.Schedule_ACTIVE.String()}})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("list active schedules: %w", err)
	}
	for _, row := range rows {
		e.due[row.Key] = time.Time{}
	}
	for {
		wait := e.work(ctx)
		if err := e.listen(ctx, w, wait); ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch schedules: %w", err)
		}
	}
}

// work advances every schedule that is due by one step and tells how long
// nothing else is.
func (e *Engine) work(ctx context.Context) time.Duration {
	now := e.cfg.Now()
	for _, name := range slices.Sorted(maps.Keys(e.due)) {
		if e.due[name].After(now) || ctx.Err() != nil {
			continue
		}
		delete(e.due, name)
		delete(e.blocked, name)
		next, err := e.advance(ctx, name)
		switch {
		case err != nil && ctx.Err() == nil:
			e.tell(ctx, name, err)
			e.due[name] = now.Add(tryAgain)
		case next.blocked:
			e.blocked[name] = true
			e.due[name] = next.at // the ticks that come meanwhile
		case !next.idle:
			e.due[name] = next.at
		}
	}
	wait := 24 * time.Hour
	for _, at := range e.due {
		wait = min(wait, lookAgain, max(0, at.Sub(e.cfg.Now())))
	}
	return wait
}

func (e *Engine) tell(ctx context.Context, name string, err error) {
	if volume.Blocked(err) {
		e.cfg.Log.WarnContext(ctx, "a schedule waits for the disk", slog.String("schedule", name), slog.Any("error", err))
		return
	}
	e.cfg.Log.ErrorContext(ctx, "a schedule cannot go on", slog.String("schedule", name), slog.Any("error", err))
}

// listen waits for a change, but not longer than said.
func (e *Engine) listen(ctx context.Context, w store.Watcher, wait time.Duration) error {
	if wait == 0 {
		return nil // changes are taken up when nothing is due
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	changes, err := w.Next(waiting)
	if err != nil {
		if waiting.Err() != nil {
			return nil
		}
		return err
	}
	for _, c := range changes {
		if c.Kind == resource.KindSchedules {
			e.due[c.Key] = time.Time{}
			continue
		}
		for name := range e.blocked { // a run may have ended
			e.due[name] = time.Time{}
		}
	}
	return nil
}
