package docker_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime/docker"
)

// TestMachineRestarted: of the time before, nothing counts. The engine still has
// the containers, as ended with codes of its own, and files that they left may be
// torn: nothing of that is told or published.
func TestMachineRestarted(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		known bool
	}{
		"ran":      {map[string]string{"record.json": `{"Workload":{"ID":"a"},"Boot":"first"}`, "container.json": `{"ID":"c1","Socket":"/nowhere"}`, "fetched.json": "{}"}, false},
		"torn":     {map[string]string{"record.json": "", "container.json": `{"ID":"c1"}`}, false},
		"ended":    {map[string]string{"record.json": "", "end.json": `{"Code":3,"Ended":"2026-01-02T03:04:05Z","Record":{"Workload":{"ID":"a"},"Boot":"first"}}`}, false},
		"now":      {map[string]string{"record.json": "", "end.json": `{"Code":3,"Ended":"2026-01-02T03:04:05Z","Record":{"Workload":{"ID":"a"},"Boot":"second"}}`}, true},
		"old end":  {map[string]string{"record.json": `{"Workload":{"ID":"a"}}`, "end.json": `{"Code":3,"Ended":"2026-01-02T03:04:05Z"}`}, true},
		"half end": {map[string]string{"record.json": `{"Workload":{"ID":"a"},"Boot":"first"}`, "end.json": `{"Code":`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, filepath.Join(t.TempDir(), "no engine"), images{})
			cfg.Boot = "second"
			for file, text := range tc.files {
				if err := errors.Join(os.MkdirAll(filepath.Join(cfg.Dir, "a"), 0o700), os.WriteFile(filepath.Join(cfg.Dir, "a", file), []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			r, err := docker.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			in, err := r.Find(t.Context(), "a")
			if !tc.known {
				if _, gone := os.Stat(filepath.Join(cfg.Dir, "a")); !resource.IsNotFound(err) || gone == nil || r.Adopted() != 0 {
					t.Errorf("found %v, directory %v, adopted %d", err, gone, r.Adopted())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if exit := in.Status().Exit; exit == nil || exit.Code != 3 || r.Adopted() != 0 {
				t.Errorf("%+v, adopted %d", exit, r.Adopted())
			}
		})
	}
}
