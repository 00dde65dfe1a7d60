package process

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"tategu/internal/runtime/workload"
)

// adopt loads every record and goes on where the last server stopped.
func (r *Runtime) adopt() error {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("read workloads: %w", err)
	}
	prepared, ended := 0, 0
	for _, e := range entries {
		dir := filepath.Join(r.cfg.Dir, e.Name())
		var rec record
		switch err := workload.ReadJSON(filepath.Join(dir, fileRecord), &rec); {
		case errors.Is(err, fs.ErrNotExist):
			// Start did not return, so nobody counts on it.
			if err := workload.RemoveAll(dir); err != nil {
				r.cfg.Log.Warn("remove an unfinished workload directory", slog.String("dir", dir), slog.Any("error", err))
			}
			continue
		case err != nil:
			return fmt.Errorf("read workload %s: %w", e.Name(), err)
		}
		switch {
		case workload.Exists(filepath.Join(dir, fileEnd)):
			ended++
		case workload.Exists(filepath.Join(dir, fileWrapper)):
			r.adopted++
		default:
			prepared++
		}
		in := newInstance(r, rec)
		in.adopted = true
		r.begin(in)
	}
	if r.adopted+prepared+ended > 0 {
		r.cfg.Log.Info("workloads of an earlier server taken over",
			slog.Int("adopted", r.adopted), slog.Int("prepared_again", prepared), slog.Int("ended", ended))
	}
	return nil
}

// Adopted is how many programs New found started by an earlier server and not yet
// put away: they run, or ended while no server did, and are not started again.
func (r *Runtime) Adopted() int { return r.adopted }
