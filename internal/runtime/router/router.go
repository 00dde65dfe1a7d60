// Package router is a runtime of two: containers of images go to the one, Python
// environments and programs of the machine to the other. It keeps nothing itself;
// each of the two knows what it has started.
package router

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Part is one of the two.
type Part interface {
	runtime.Runtime
	// Check refuses what can never run.
	Check(w runtime.Workload) error
	// Adopted is how many programs of an earlier server were taken over.
	Adopted() int
	// Run keeps house until ctx ends, and closes.
	Run(ctx context.Context) error
	Close() error
}

// Machine is a part that keeps the volumes of both, and what programs start from.
type Machine interface {
	Part
	runtime.Volumes
	runtime.Warmer
}

// Route reports whether a workload goes to the runtime for containers; an error
// says that nobody can run it.
type Route func(ctx context.Context, w runtime.Workload) (contained bool, err error)

// Router implements runtime.Runtime.
type Router struct {
	programs   Machine
	containers Part
	route      Route
}

// New routes new workloads by route. Those that a part knows already stay there,
// whatever route says by now.
func New(programs Machine, containers Part, route Route) *Router {
	return &Router{programs: programs, containers: containers, route: route}
}

// Start implements runtime.Runtime.
func (r *Router) Start(ctx context.Context, w runtime.Workload) (runtime.Instance, error) {
	if in, err := r.Find(ctx, w.ID); !resource.IsNotFound(err) {
		return in, err
	}
	part, err := r.part(ctx, w)
	if err != nil {
		return nil, err
	}
	return part.Start(ctx, w)
}

// Check refuses what can never run.
func (r *Router) Check(w runtime.Workload) error {
	part, err := r.part(context.Background(), w)
	if err != nil {
		return err
	}
	return part.Check(w)
}

func (r *Router) part(ctx context.Context, w runtime.Workload) (Part, error) {
	contained, err := r.route(ctx, w)
	switch {
	case err != nil:
		return nil, err
	case contained:
		return r.containers, nil
	}
	return r.programs, nil
}

// Find implements runtime.Runtime.
func (r *Router) Find(ctx context.Context, id string) (runtime.Instance, error) {
	in, err := r.programs.Find(ctx, id)
	if !resource.IsNotFound(err) {
		return in, err
	}
	return r.containers.Find(ctx, id)
}

// List implements runtime.Runtime.
func (r *Router) List(ctx context.Context) ([]runtime.Instance, error) {
	all, err := r.programs.List(ctx)
	if err != nil {
		return nil, err
	}
	more, err := r.containers.List(ctx)
	return append(all, more...), err
}

// Adopted is how many programs of an earlier server were taken over.
func (r *Router) Adopted() int { return r.programs.Adopted() + r.containers.Adopted() }

// Run keeps house until ctx ends, and closes.
func (r *Router) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.programs.Run(ctx) })
	g.Go(func() error { return r.containers.Run(ctx) })
	return g.Wait()
}

// Close stops watching; workloads go on.
func (r *Router) Close() error { return errors.Join(r.programs.Close(), r.containers.Close()) }

// KeepWarm implements runtime.Warmer: containers start from nothing that is kept.
func (r *Router) KeepWarm(owner string, keep bool) { r.programs.KeepWarm(owner, keep) }

// VolumeNames implements runtime.Volumes.
func (r *Router) VolumeNames() ([]string, error) { return r.programs.VolumeNames() }

// DropVolume implements runtime.Volumes.
func (r *Router) DropVolume(name string) error { return r.programs.DropVolume(name) }
