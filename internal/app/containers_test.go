package app

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRuntimeConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Runtime)
		say    string
	}{
		"defaults":   {func(*Runtime) {}, ""},
		"docker":     {func(r *Runtime) { r.Containers, r.Pull, r.Socket = "docker", "never", "/run/docker.sock" }, ""},
		"containers": {func(r *Runtime) { r.Containers = "podman" }, "runtime.containers"},
		"pull":       {func(r *Runtime) { r.Pull = "always" }, "runtime.pull"},
		"remote":     {func(r *Runtime) { r.Socket = "tcp://10.0.0.1:2375" }, "runtime.socket"},
	} {
		c := Defaults()
		tc.change(&c.Runtime)
		err := c.Validate()
		if (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSocket: what is configured wins, then what is there.
func TestSocket(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("DOCKER_HOST", "tcp://10.0.0.1:2375") // no socket of this machine
	listen := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	want := func(path string) {
		t.Helper()
		if got, found := (Runtime{}).socket(); got != path || !found {
			t.Errorf("socket = %s, %t, want %s", got, found, path)
		}
	}
	podman, docker, host := filepath.Join(dir, "podman", "podman.sock"), filepath.Join(dir, "docker.sock"), filepath.Join(dir, "host.sock")
	if err := os.WriteFile(docker, nil, 0o600); err != nil { // a file is no socket
		t.Fatal(err)
	}
	listen(podman)
	want(podman)
	if err := os.Remove(docker); err != nil {
		t.Fatal(err)
	}
	listen(docker)
	want(docker)
	t.Setenv("DOCKER_HOST", "unix://"+host)
	want(docker) // it is not there
	listen(host)
	want(host)
	if got, found := (Runtime{Socket: "/named"}).socket(); got != "/named" || !found {
		t.Errorf("socket = %s, %t", got, found)
	}
}
