package workload

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/volume"
)

const (
	identityEvery = time.Second // pause between tries to open an identity again
	identityTries = 20          // for a program that has not started
)

// Identity opens a workload's credentials. After a restart they are those it had,
// whose address another program may have taken meanwhile.
type Identity struct {
	Credentials runtime.Credentials // nil: no identity
	Workload    runtime.Workload
	Adopted     bool // accepted by an earlier server
	Log         *slog.Logger
}

// Open is for a workload that has not started: an adopted one waits a while for
// its address and fails then. stop ends the wait with ErrStopped. The identity
// lives until end or, kept for the next server, until ctx ends.
func (i Identity) Open(ctx context.Context, stop <-chan struct{}) (env map[string]string, end func(), err error) {
	if i.Credentials == nil {
		return nil, func() {}, nil
	}
	trying, cancel := UntilStop(ctx, stop)
	defer cancel()
	for n := 1; ; n++ {
		env, end, err = i.open(trying, ctx)
		switch {
		case err == nil:
			return env, end, nil
		case trying.Err() != nil && ctx.Err() == nil:
			return nil, func() {}, ErrStopped
		case !i.Adopted || n == identityTries || !i.pause(trying, err):
			return nil, func() {}, err
		}
	}
}

// Later opens the identity beside a program that runs: that must neither fail for
// an address nor run unwatched, and goes on without until the address is free.
func (i Identity) Later(ctx context.Context) (end func()) {
	if i.Credentials == nil {
		return func() {}
	}
	trying, cancel := context.WithCancel(ctx)
	opened := make(chan func(), 1)
	go func() { // ends with the program: end waits for it
		defer close(opened)
		for {
			_, end, err := i.open(trying, ctx)
			if err == nil {
				opened <- end
				return
			}
			if !i.pause(trying, err) {
				return
			}
		}
	}()
	return func() {
		cancel()
		if end, ok := <-opened; ok {
			end()
		}
	}
}

// pause tells why and waits for the next try; false when ctx ended.
func (i Identity) pause(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	i.Log.WarnContext(ctx, "a workload is without its credentials for now", slog.String("workload", i.Workload.ID), slog.Any("error", err))
	t := time.NewTimer(identityEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// open gets the workload's credentials; after a restart they are the same. It
// waits for the disk until trying ends; the identity lives until server ends.
func (i Identity) open(trying, server context.Context) (env map[string]string, end func(), err error) {
	w := i.Workload
	err = volume.Retry(trying, func(err error) {
		i.Log.WarnContext(trying, "the credentials of a workload wait for the disk", slog.String("workload", i.Workload.ID), slog.Any("error", err))
	}, func() (err error) {
		env, end, err = i.Credentials.Open(server, w.ID, w.Project, w.ServiceAccount)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	return env, end, nil
}
