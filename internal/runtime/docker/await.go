package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
	"tategu/internal/volume"
)

// await returns once the container has ended and its output is here.
func (in *instance) await(ctx context.Context) (runtime.Exit, error) {
	watching, cancel := context.WithCancel(ctx)
	stopper := make(chan struct{})
	go func() { // ends with watching
		defer close(stopper)
		in.endOnStop(watching)
	}()
	follower := make(chan struct{})
	go func() { // likewise
		defer close(follower)
		in.follow(watching)
	}()
	err := in.insist(ctx, func() error { return in.engine.wait(ctx, in.container.ID) })
	cancel()
	<-stopper
	<-follower
	if err != nil {
		return runtime.Exit{}, err
	}
	in.copyRest(ctx)
	c, err := in.inspect(ctx)
	if err != nil {
		return runtime.Exit{}, err
	}
	return in.explain(c.State), nil
}

// endOnStop asks the program to end when Stop is called, and ends everything in
// the container after the grace.
func (in *instance) endOnStop(ctx context.Context) {
	if workload.Exists(in.path(fileStop)) {
		in.once.Do(func() { close(in.stop) }) // asked for in the time of an earlier server
	}
	select {
	case <-in.stop:
	case <-ctx.Done():
		return
	}
	in.signal(ctx, "SIGTERM")
	for {
		var s stopFile
		if err := workload.ReadJSON(in.path(fileStop), &s); err != nil {
			s.Grace = 0 // it could not be written
		}
		grace := time.NewTimer(s.Grace)
		select {
		case <-in.again: // with another grace
			grace.Stop()
			continue
		case <-grace.C:
		case <-ctx.Done():
			grace.Stop()
			return
		}
		in.signal(ctx, "SIGKILL")
		return
	}
}

// signal tells the container's first process; the end of that is everybody's.
func (in *instance) signal(ctx context.Context, name string) {
	_ = in.insist(ctx, func() error {
		err := in.engine.kill(ctx, in.container.ID, name)
		if status(err) != 0 {
			// It has ended, which is what was asked for; engines disagree on how to say so.
			in.r.cfg.Log.DebugContext(ctx, "signal a container", slog.String("workload", in.ID()), slog.String("signal", name), slog.Any("error", err))
			return nil
		}
		return err
	}) // ctx ends with the container
}

// follow copies the output as it is made, until ctx ends or the container does.
func (in *instance) follow(ctx context.Context) {
	for {
		err := in.copyLog(ctx, true)
		if err == nil || ctx.Err() != nil {
			return
		}
		in.r.cfg.Log.DebugContext(ctx, "follow a container's output", slog.String("workload", in.ID()), slog.Any("error", err))
		pause(ctx, engineEvery)
	}
}

// copyLog adds to the output file what the engine's log has more. Behind our own
// lines both begin with the program's first byte, so that the length of the file is
// the place in the log.
func (in *instance) copyLog(ctx context.Context, follow bool) (err error) {
	out, err := workload.AppendOutput(in.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	st, err := out.Stat()
	if err != nil {
		return err
	}
	log, err := in.engine.logs(ctx, in.container.ID, follow)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // read to where it is of interest
	have := st.Size() - in.container.Before
	if n, err := io.CopyN(io.Discard, log, have); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the container engine's log has %d bytes, and %d were here before", n, have)
		}
		return err
	}
	_, err = io.Copy(out, log)
	return err
}

// copyRest copies what the follower did not: it may have been cut off, and an
// engine may end it early. A full disk is waited for.
func (in *instance) copyRest(ctx context.Context) {
	for tries := 1; ; tries++ {
		err := in.copyLog(ctx, false)
		if err == nil || ctx.Err() != nil {
			return
		}
		in.r.cfg.Log.WarnContext(ctx, "copy the end of a container's output", slog.String("workload", in.ID()), slog.Any("error", err))
		if tries >= copyTries && !volume.Blocked(err) {
			return
		}
		pause(ctx, engineEvery)
	}
}

const copyTries = 5

// pause waits; the caller looks at ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
