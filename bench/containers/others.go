package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func missing(name string, err error) *way { return &way{name: name, why: err} }

func bubblewrap(dir string) *way {
	path, err := exec.LookPath("bwrap")
	if err != nil {
		return missing("bubblewrap", err)
	}
	return command("bubblewrap", path, "--unshare-all", "--share-net", "--bind", filepath.Join(dir, "rootfs"), "/", "--proc", "/proc", "--dev", "/dev", "/program")
}

// runc runs the bundle that its own `spec` makes, without a terminal and with the
// machine's network.
func runc(ctx context.Context, dir string) *way {
	path, err := exec.LookPath("runc")
	if err != nil {
		return missing("runc", err)
	}
	if err := runcSpec(ctx, path, dir); err != nil {
		return missing("runc", err)
	}
	started := 0
	return &way{name: "runc", run: func(ctx context.Context) (string, error) {
		started++
		cmd := exec.CommandContext(ctx, path, "--root", filepath.Join(dir, "runc"), "run", "--bundle", dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), started))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}}
}

func runcSpec(ctx context.Context, path, dir string) error {
	if out, err := exec.CommandContext(ctx, path, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	config := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec struct {
		Version  string           `json:"ociVersion"`
		Process  map[string]any   `json:"process"`
		Root     map[string]any   `json:"root"`
		Hostname string           `json:"hostname"`
		Mounts   []map[string]any `json:"mounts"`
		Linux    map[string]any   `json:"linux"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	spec.Process["terminal"], spec.Process["args"] = false, []string{"/program"}
	delete(spec.Process, "rlimits") // raising them is refused on some machines
	spec.Linux["namespaces"] = []map[string]string{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(config, b, 0o600)
}
