package process_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

func TestContract(t *testing.T) {
	// What the server must not hand on.
	for _, name := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		t.Setenv(name, "secret")
	}
	for name, noMounts := range map[string]bool{"Mounted": false, "Hook": true} {
		t.Run(name, func(t *testing.T) {
			runtimetest.Run(t, func(t *testing.T, o runtimetest.Options) runtimetest.Adapter {
				t.Helper()
				return contractAdapter(t, o, func(c *process.Config) { c.NoMounts = noMounts })
			})
		})
	}
}

func contractAdapter(t *testing.T, o runtimetest.Options, set func(*process.Config)) runtimetest.Adapter {
	t.Helper()
	cfg := config(t)
	cfg.Dir, cfg.Files, cfg.Credentials, cfg.Logs = filepath.Join(o.Dir, "w"), o.Files, o.Credentials, o.Logs
	cfg.Schedule = o.Schedule
	set(&cfg)
	if uv, err := exec.LookPath("uv"); err == nil {
		cfg.UV = uv
	}
	r, err := process.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
