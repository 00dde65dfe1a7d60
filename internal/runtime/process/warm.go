package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"
)

func (r *Runtime) openNursery() error {
	if r.cfg.Zygotes == "" || goruntime.GOOS != "linux" { // it looks at itself by /proc
		return nil
	}
	dir, err := filepath.Abs(r.cfg.Zygotes)
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	// Those of a killed server have ended, or are about to.
	if err := errors.Join(workload.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("process: %w", err)
	}
	r.nursery = &nursery{
		dir: dir, idle: r.cfg.Idle, schedule: r.cfg.Schedule, log: r.cfg.Log, now: r.cfg.Now, spawn: r.spawn,
		importer: newImporter(), families: map[string]*family{}, kept: map[string]bool{},
		wrappers:   func() launcher { return r.launcher() },
		namespaces: func() uintptr { return r.mounts().flags },
	}
	r.spawn(r.nursery.run)
	return nil
}

// Starts is how Python components were started since New.
func (r *Runtime) Starts() Starts {
	if r.nursery == nil {
		return Starts{}
	}
	r.nursery.mu.Lock()
	defer r.nursery.mu.Unlock()
	return r.nursery.starts
}

// KeepWarm implements runtime.Warmer.
func (r *Runtime) KeepWarm(owner string, keep bool) {
	if r.nursery != nil {
		r.nursery.keep(owner, keep)
	}
}

// warmable says in a description whether it is of a Python component, run by kfp's
// executor or as a script: what else is called python may be anything.
func (in *instance) warmable(plan runtime.Plan, s *wrapper.Spec) {
	w, c := in.rec.Workload, s.Command
	if w.Python == nil || w.Python.Script == "" || len(plan.Command) > 0 || len(c) < 2 || c[0] != "python3" && c[0] != "python" {
		return
	}
	script := c[1] == filepath.Join(in.dir, dirWork, workload.ScriptFile)
	executor := len(c) > 2 && c[1] == "-m" && strings.HasSuffix(c[2], ".executor_main")
	if s.Python = script || executor; s.Python && in.r.nursery != nil {
		in.recipe = newRecipe(in.base, in.dir, *s, perTask(in.credentials), *w.Python, in.r.nursery.importer)
	}
}

// startNote says how a Python component was started, before what else is to know.
func startNote(s wrapper.Spec, w wrapper.Running) string {
	switch {
	case w.Warm:
		return "warm start; " + s.Note
	case s.Python:
		return "cold start; " + s.Note
	}
	return s.Note
}

const (
	zygoteLook = 50 * time.Millisecond // how often one that has not answered is looked at
	zygoteWait = time.Second           // then the program is started cold, and whoever comes first has it
)

var (
	errStopped = errors.New("it was stopped")
	errLate    = errors.New("it has not answered yet")
)

// hear waits until a wrapper has taken the workload or has ended without. stopped looks
// at who is to bring that about.
func hear(ctx context.Context, stopped func() bool, taken <-chan bool) error {
	look, late := time.NewTicker(zygoteLook), time.NewTimer(zygoteWait)
	defer look.Stop()
	defer late.Stop()
	for {
		select {
		case <-taken:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errLate
		case <-look.C:
			if stopped() {
				return errStopped
			}
		}
	}
}

// hear is that of a zygote. One that says nothing at all is ended later.
func (n *nursery) hear(ctx context.Context, z *zygote, taken <-chan bool) error {
	err := hear(ctx, z.stopped, taken)
	if errors.Is(err, errLate) {
		n.spawn(func(ctx context.Context) { z.expect(ctx, taken) })
	}
	return err
}

// expect ends a zygote that has not answered when its patience is over.
func (z *zygote) expect(ctx context.Context, taken <-chan bool) {
	late := time.NewTimer(zygotePatience - zygoteWait)
	defer late.Stop()
	select {
	case <-taken:
	case <-z.ended:
	case <-ctx.Done():
	case <-late.C:
		z.kill()
	}
}

// stopped reports a zygote that will answer nothing until somebody lets it go on.
func (z *zygote) stopped() bool { return wrapper.Stopped(z.cmd.Process.Pid) }

// wrapWarm lets a zygote fork the program, if one can: false = it has to be started.
// A wrapper that comes too late finds that another has taken the workload.
func (in *instance) wrapWarm(ctx context.Context, out *os.File) bool {
	n := in.r.nursery
	if n == nil {
		return false
	}
	z := n.get(in.recipe, in.rec.Workload.Owner)
	if z == nil {
		n.count(nil, false)
		return false
	}
	err := errStopped
	if !z.stopped() {
		var said heard
		if said, err = z.fork(in.dir, out); err == nil {
			err = n.hear(ctx, z, said.taken)
			in.over = said.over
		}
	}
	if errors.Is(err, errStopped) {
		z.kill() // whoever stopped it may let it go on, but nobody waits for that
	}
	ours := in.reattach()
	n.count(z, ours && in.watch.Warm)
	if !ours && ctx.Err() == nil {
		in.r.cfg.Log.WarnContext(ctx, "a program is started cold after its parent process failed", slog.String("workload", in.ID()), slog.Any("error", err))
	}
	return ours
}
