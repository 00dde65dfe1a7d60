package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/oom"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
)

// Labels of our containers.
const (
	labelData     = "dev.tategu.data"     // whose
	labelWorkload = "dev.tategu.workload" // its id
)

// engineEvery is the pause between tries of what the engine does not do now.
const engineEvery = time.Second

// launch makes the container run, unless it did already. An end before the program
// ran comes back as an error; Failed turns it into an Exit.
func (in *instance) launch(ctx context.Context) error {
	err := record.ReadWhole(in.path(fileContainer), &in.container)
	switch {
	case err == nil:
		return in.resume(ctx)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case in.stopping():
		return workload.ErrStopped
	}
	prep, cancel := workload.UntilStop(ctx, in.stop)
	defer cancel()
	body, note, err := in.prepare(prep)
	if err != nil {
		if prep.Err() != nil && ctx.Err() == nil {
			return workload.ErrStopped
		}
		return err
	}
	return in.startFresh(ctx, body, note)
}

// resume goes on with a container that an earlier server made, and may not have
// got to start.
func (in *instance) resume(ctx context.Context) error {
	if in.container.Socket != in.engine.socket {
		in.engine = newClient(in.container.Socket)
	}
	c, err := in.inspect(ctx)
	if err != nil {
		return err
	}
	if c.State.Status == "created" {
		return in.begin(ctx)
	}
	return in.running(ctx)
}

// inspect asks for the container until the engine answers.
func (in *instance) inspect(ctx context.Context) (c container, err error) {
	err = in.insist(ctx, func() (err error) {
		c, err = in.engine.inspect(ctx, in.container.ID)
		return err
	})
	return c, err
}

// insist runs what asks the engine until that answers; a container that was
// started outlives an engine that is away.
func (in *instance) insist(ctx context.Context, ask func() error) error {
	for told := false; ; told = true {
		err := ask()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if s := status(err); s == http.StatusNotFound {
			return errLost
		} else if s != 0 && s < 500 {
			return err
		}
		if !told {
			in.r.cfg.Log.WarnContext(ctx, "a container is out of sight for now", slog.String("workload", in.ID()), slog.Any("error", err))
		}
		pause(ctx, engineEvery)
	}
}

// errLost ends a workload whose container somebody removed.
var errLost = errors.New("the container is gone: it was removed by somebody else, or its engine was reset")

// startFresh makes and starts a container, with an init program if the engine has one.
func (in *instance) startFresh(ctx context.Context, body creation, note string) error {
	for {
		err := in.startAs(ctx, body, note)
		if !lacksInit(err) || !body.HostConfig.Init {
			return err
		}
		in.r.cfg.Log.WarnContext(ctx, "the container engine has no init program: programs get no default signal handling", slog.Any("error", err))
		in.r.setWithoutInit()
		body.HostConfig.Init = false
		note += "; the engine has no init program, so that the first program must reap its children and handle SIGTERM"
	}
}

// startAs makes a container, records it and starts it. What has its name already is
// of a server that was killed before it recorded it, and never ran.
func (in *instance) startAs(ctx context.Context, body creation, note string) error {
	name := "tategu-" + in.r.data + "-" + in.ID()
	id, err := in.engine.create(ctx, name, body)
	if err != nil && strings.Contains(err.Error(), "already in use") { // Docker has a code for it, Podman has not
		if err = in.engine.remove(ctx, name); err == nil {
			id, err = in.engine.create(ctx, name, body)
		}
	}
	if err != nil {
		return startError(in.rec.Workload, err)
	}
	in.container = containerFile{ID: id, Socket: in.engine.socket, Program: body.Entrypoint[0], Note: note, OOMs: oom.Kills(), GPUs: in.gpus}
	if st, err := os.Stat(in.path(workload.Output)); err == nil {
		in.container.Before = st.Size()
	}
	if err := record.WriteWhole(in.path(fileContainer), in.container); err != nil {
		return errors.Join(fmt.Errorf("record the container: %w", err), in.engine.remove(context.WithoutCancel(ctx), id))
	}
	return in.begin(ctx)
}

// begin starts the container. What becomes of one that does not start is for drive.
func (in *instance) begin(ctx context.Context) error {
	if in.stopping() {
		return workload.ErrStopped
	}
	if err := in.engine.start(ctx, in.container.ID); err != nil {
		return startError(in.rec.Workload, err)
	}
	return in.running(ctx)
}

// running shows in the status that the container runs, or did.
func (in *instance) running(ctx context.Context) error {
	c, err := in.inspect(ctx)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status.Phase, in.status.PID, in.status.Started, in.status.Message = runtime.Running, c.State.Pid, c.State.StartedAt, in.container.Note
	return nil
}

func (r *Runtime) withoutInit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.noInit
}

func (r *Runtime) setWithoutInit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noInit = true
}
