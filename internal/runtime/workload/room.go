package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// Admit returns once the scheduler has room for the workload, or stop is closed
// (ErrStopped). One that had to wait says so in the first line of its output.
func Admit(ctx context.Context, s *scheduler.Scheduler, dir, id string, stop <-chan struct{}) (scheduler.Grant, error) {
	waiting, cancel := UntilStop(ctx, stop)
	defer cancel()
	g, err := s.Wait(waiting, id)
	switch {
	case err != nil && waiting.Err() != nil && ctx.Err() == nil:
		return g, ErrStopped
	case err != nil || g.Reason == "":
		return g, err
	}
	out, err := AppendOutput(dir)
	if err != nil {
		return g, err
	}
	_, err = fmt.Fprintf(out, "tategu: waited %v for %s\n", g.Waited.Round(time.Millisecond), g.Reason)
	return g, errors.Join(err, out.Close())
}

// AppendOutput opens the file that the program and adapters write to.
func AppendOutput(dir string) (*os.File, error) {
	f, err := os.OpenFile(outputOf(dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the output file: %w", err)
	}
	return f, nil
}

// Queued shows in a status that the workload waits for room.
func Queued(s *scheduler.Scheduler, id string, st runtime.Status) runtime.Status {
	if st.Phase != runtime.Preparing {
		return st
	}
	if q, waits := s.Place(id); waits {
		st.Phase, st.Queue, st.Message = runtime.Queued, &q, fmt.Sprintf("waits for %s; number %d of %d", q.Waits, q.Position, q.Length)
	}
	return st
}
