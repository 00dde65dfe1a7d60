package docker

import (
	"context"
	"log/slog"
)

// sweep removes old directories, and containers of ours that no workload has any
// more: their end was recorded while the engine was away.
func (r *Runtime) sweep(ctx context.Context) {
	for _, in := range r.known() {
		exit := in.Status().Exit
		if exit == nil || r.cfg.Now().Sub(exit.Ended) < r.cfg.Keep {
			continue
		}
		if err := in.Release(ctx); err != nil {
			r.cfg.Log.WarnContext(ctx, "remove an old workload directory", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
	if err := r.engine.ping(ctx); err != nil {
		return // who needs it is told when it is needed
	}
	list, err := r.engine.list(ctx, labelData+"="+r.data)
	if err != nil {
		r.cfg.Log.WarnContext(ctx, "list containers", slog.Any("error", err))
		return
	}
	for _, c := range list {
		if !r.lost(c) {
			continue
		}
		if err := r.engine.remove(ctx, c.ID); err != nil && ctx.Err() == nil {
			r.cfg.Log.WarnContext(ctx, "remove a container that no workload has", slog.String("container", c.ID), slog.Any("error", err))
		}
	}
}

// lost reports a container whose workload has ended or is unknown. One that is
// being made is its workload's.
func (r *Runtime) lost(c listed) bool {
	r.mu.Lock()
	in := r.instances[c.Labels[labelWorkload]]
	r.mu.Unlock()
	return in == nil || in.Status().Exit != nil
}
