package docker

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"tategu/internal/runtime/record"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/runtime/workload"
)

// ask is what the scheduler decides by; its age is that of the record.
func (in *instance) ask() scheduler.Ask { return scheduler.For(in.rec.Workload, in.rec.Created) }

// take takes up what an earlier server accepted. The scheduler hears of all that
// may run before it hears of what waits, and of that at once.
func (r *Runtime) take(found []*instance) {
	slices.SortFunc(found, func(a, b *instance) int {
		return cmp.Or(a.rec.Created.Compare(b.rec.Created), cmp.Compare(a.ID(), b.ID()))
	})
	var asks []scheduler.Ask
	for _, in := range found {
		r.instances[in.ID()] = in
		switch {
		case in.Status().Exit != nil:
		case workload.Exists(in.path(fileContainer)):
			r.adopted++
			in.keep()
		default:
			asks = append(asks, in.ask())
		}
	}
	r.cfg.Schedule.Enqueue(asks...)
	for _, in := range found {
		if in.Status().Exit == nil {
			r.spawn(in.drive)
		}
	}
}

// keep counts a container of an earlier server, with the GPUs it was given.
func (in *instance) keep() {
	var c containerFile
	if err := record.ReadWhole(in.path(fileContainer), &c); err != nil {
		in.r.cfg.Log.Warn("read which GPUs a container has", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	in.status.GPUs = c.GPUs // nobody reads it yet
	if in.r.cfg.Schedule.Adopt(in.ask(), scheduler.Grant{GPUs: c.GPUs}) {
		in.r.cfg.Log.Warn("containers that were found hold more than this machine has; others wait until enough of them have ended", slog.String("workload", in.ID()))
	}
}

// admit returns once the workload may run. One whose container was made may.
func (in *instance) admit(ctx context.Context) error {
	if workload.Exists(in.path(fileContainer)) {
		return nil
	}
	if in.stopping() {
		return workload.ErrStopped
	}
	g, err := workload.Admit(ctx, in.r.cfg.Schedule, in.dir, in.ID(), in.stop)
	if err != nil {
		return err
	}
	in.gpus = g.GPUs
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status.GPUs = g.GPUs
	return nil
}
