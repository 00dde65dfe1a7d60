package process

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"tategu/internal/volume"
)

const (
	identityEvery = time.Second // pause between tries to open an identity again
	identityTries = 20          // for a program that has not started
)

// identify opens the workload's identity and gives what ends it. After a restart
// the identity has the address that it had, which another program may have taken
// meanwhile. A workload that runs goes on without, until the address is free again:
// it must neither fail for that nor run unwatched. One that has not started waits
// a while, and fails then.
func (in *instance) identify(ctx context.Context) (end func(), err error) {
	if in.r.cfg.Credentials == nil {
		return func() {}, nil
	}
	if exists(filepath.Join(in.dir, fileWrapper)) {
		return in.identifyLater(ctx), nil
	}
	trying, cancel := in.untilStop(ctx)
	defer cancel()
	for n := 1; ; n++ {
		in.credentials, end, err = in.open(trying, ctx)
		switch {
		case err == nil:
			return end, nil
		case trying.Err() != nil && ctx.Err() == nil:
			return func() {}, errStopped
		case !in.adopted || n == identityTries || !in.identityPause(trying, err):
			return func() {}, err
		}
	}
}

// identifyLater opens the identity beside the program.
func (in *instance) identifyLater(ctx context.Context) (end func()) {
	trying, cancel := context.WithCancel(ctx)
	opened := make(chan func(), 1)
	go func() { // ends with the program: end waits for it
		defer close(opened)
		for {
			_, end, err := in.open(trying, ctx)
			if err == nil {
				opened <- end
				return
			}
			if !in.identityPause(trying, err) {
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

// identityPause tells why and waits for the next try; false when ctx ended.
func (in *instance) identityPause(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	in.r.cfg.Log.WarnContext(ctx, "a workload is without its credentials for now", slog.String("workload", in.ID()), slog.Any("error", err))
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
func (in *instance) open(trying, server context.Context) (env map[string]string, end func(), err error) {
	w := in.rec.Workload
	err = volume.Retry(trying, func(err error) {
		in.r.cfg.Log.WarnContext(trying, "the credentials of a workload wait for the disk", slog.String("workload", in.ID()), slog.Any("error", err))
	}, func() (err error) {
		env, end, err = in.r.cfg.Credentials.Open(server, w.ID, w.Project, w.ServiceAccount)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open credentials: %w", err)
	}
	return env, end, nil
}
