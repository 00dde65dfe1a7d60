package process

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"slices"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/runtime/workload"
)

// ask is what the scheduler decides by; its age is that of the record.
func (in *instance) ask() scheduler.Ask { return scheduler.For(in.rec.Workload, in.rec.Created) }

// resume takes up what an earlier server accepted. The scheduler hears of all that
// runs before it hears of what waits, and of that at once.
func (r *Runtime) resume(found []*instance) {
	slices.SortFunc(found, func(a, b *instance) int {
		return cmp.Or(a.rec.Created.Compare(b.rec.Created), cmp.Compare(a.ID(), b.ID()))
	})
	var asks []scheduler.Ask
	var live []*instance
	for _, in := range found {
		r.mu.Lock()
		r.instances[in.ID()] = in
		r.mu.Unlock()
		if in.Status().Exit != nil {
			continue
		}
		live = append(live, in)
		switch {
		case workload.Exists(filepath.Join(in.dir, fileExit)):
		case workload.Exists(filepath.Join(in.dir, fileWrapper)), in.locked():
			in.keep()
		default:
			asks = append(asks, in.ask())
		}
	}
	r.cfg.Schedule.Enqueue(asks...)
	for _, in := range live {
		r.spawn(in.drive)
	}
}

// keep counts a program that was found running.
func (in *instance) keep() {
	var s wrapper.Spec
	if err := record.ReadWhole(filepath.Join(in.dir, fileSpec), &s); err != nil {
		in.r.cfg.Log.Warn("read which GPUs a running workload has", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	has := in.r.gpus(s.GPUs)
	in.mu.Lock()
	in.status.GPUs = has
	in.mu.Unlock()
	if in.r.cfg.Schedule.Adopt(in.ask(), scheduler.Grant{GPUs: has}) {
		in.r.cfg.Log.Warn("programs that were found running hold more than this machine has; others wait until enough of them have ended",
			slog.String("workload", in.ID()))
	}
}

// admit returns once the workload may run. One that runs already may.
func (in *instance) admit(ctx context.Context) error {
	if workload.Exists(filepath.Join(in.dir, fileWrapper)) {
		return nil
	}
	if workload.Exists(filepath.Join(in.dir, fileStop)) {
		return workload.ErrStopped
	}
	if in.r.nursery != nil {
		in.r.nursery.makeRoom()
	}
	g, err := workload.Admit(ctx, in.r.cfg.Schedule, in.dir, in.ID(), in.stop)
	if err != nil {
		return err
	}
	in.granted, in.gpus = true, g.GPUs
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status.GPUs = g.GPUs
	return nil
}

// gpuIDs is how the wrapper's description names GPUs.
func gpuIDs(gpus []runtime.GPU) []string {
	ids := make([]string, len(gpus))
	for i, g := range gpus {
		ids[i] = g.ID
	}
	return ids
}

// gpus finds them again; one that is gone is an id and no more.
func (r *Runtime) gpus(ids []string) []runtime.GPU {
	out := make([]runtime.GPU, 0, len(ids))
	for _, id := range ids {
		g := runtime.GPU{ID: id}
		for _, known := range r.cfg.Schedule.Inventory().GPUs {
			if known.ID == id {
				g = known
			}
		}
		out = append(out, g)
	}
	return out
}
