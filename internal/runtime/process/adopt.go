package process

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
)

// adopt loads every record and goes on where the last server stopped.
func (r *Runtime) adopt() error {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("read workloads: %w", err)
	}
	prepared, ended := 0, 0
	var found []*instance
	for _, e := range entries {
		dir := filepath.Join(r.cfg.Dir, e.Name())
		rec, exit, err := workload.Load(dir, r.cfg.Boot)
		switch {
		case record.Absent(err):
			r.forget(dir)
			continue
		case err != nil:
			return fmt.Errorf("read workload %s: %w", e.Name(), err)
		case exit != nil:
			ended++
		case workload.Exists(filepath.Join(dir, fileWrapper)):
			r.adopted++
		default:
			prepared++
		}
		in := newInstance(r, rec)
		in.adopted = true
		if exit != nil {
			in.finish(*exit)
		}
		found = append(found, in)
	}
	r.resume(found)
	if r.adopted+prepared+ended > 0 {
		r.cfg.Log.Info("workloads of an earlier server taken over",
			slog.Int("adopted", r.adopted), slog.Int("prepared_again", prepared), slog.Int("ended", ended))
	}
	return nil
}

// forget removes the directory of a workload that nobody counts on.
func (r *Runtime) forget(dir string) {
	if workload.Exists(filepath.Join(dir, fileWrapper)) {
		wrapper.KillStrays(-1, dir) // by its mark alone: after a restart the number is another program's
	}
	if err := workload.RemoveAll(dir); err != nil {
		r.cfg.Log.Warn("remove an unfinished workload directory", slog.String("dir", dir), slog.Any("error", err))
	}
}

// Adopted is how many programs New found started by an earlier server and not yet
// put away: they run, or ended while no server did, and are not started again.
func (r *Runtime) Adopted() int { return r.adopted }
