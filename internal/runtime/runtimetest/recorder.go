package runtimetest

import (
	"context"
	"slices"
	"sync"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// Recorder is a runtime that takes nothing and remembers what it was asked.
type Recorder struct {
	runtime.Runtime

	mu    sync.Mutex
	asked []runtime.Workload
}

// Start refuses the workload for want of room.
func (r *Recorder) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, w)
	return nil, resource.Errorf(codes.FailedPrecondition, "no room for anything")
}

// List gives none.
func (r *Recorder) List(context.Context) ([]runtime.Instance, error) { return nil, nil }

// Asked gives what Start was called with.
func (r *Recorder) Asked() []runtime.Workload {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}
