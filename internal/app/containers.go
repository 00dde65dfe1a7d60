package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/docker"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/router"
)

// Values of Runtime.Containers and Runtime.Pull.
const (
	containersAuto       = "auto"
	containersNamespaces = "namespaces"
	containersDocker     = "docker"

	pullMissing = "missing"
	pullNever   = "never"
)

func (r Runtime) validate() error {
	switch r.Containers {
	case containersAuto, containersNamespaces, containersDocker:
	default:
		return resource.Invalid("runtime.containers", "runtime.containers is %q", r.Containers).WithHint("write auto, namespaces or docker (which is also for Podman)")
	}
	if r.Pull != pullMissing && r.Pull != pullNever {
		return resource.Invalid("runtime.pull", "runtime.pull is %q", r.Pull).WithHint("write missing or never")
	}
	if r.Socket != "" && !filepath.IsAbs(r.Socket) {
		return resource.Invalid("runtime.socket", "runtime.socket is %q, which is not the full path of a unix socket", r.Socket).
			WithHint("container engines on other machines cannot be used: directories of this machine are mounted into containers")
	}
	return nil
}

// openEngine adds a container engine to the runtime where the configuration wants
// one, or containers of an earlier server are its own.
func (m *Main) openEngine(ctx context.Context, programs *process.Runtime, logs runtime.LogSink) error {
	dir := filepath.Join(m.cfg.Data, "containers")
	used, err := holdsFiles(dir)
	if err != nil {
		return err
	}
	socket, found := m.cfg.Runtime.socket()
	switch mode := m.cfg.Runtime.Containers; {
	case used:
	case mode == containersNamespaces, mode == containersAuto && !found:
		return nil
	}
	engine, err := docker.New(docker.Config{
		Dir: dir, Volumes: filepath.Join(m.cfg.Data, "volumes"), Socket: socket, Images: m.cfg.Images, Files: m.objects, Credentials: m.metadata, Logs: logs, ImageStore: m.images,
		Pull: m.cfg.Runtime.Pull == pullMissing, Log: m.log, Now: m.now, ExtraEnv: m.state.taskEnv(), Schedule: m.schedule,
		Processes: m.cfg.Limits.Processes,
	})
	if err != nil {
		return err
	}
	m.runtime = router.New(programs, engine, m.route(programs, engine, socket))
	if m.cfg.Runtime.Containers != containersDocker {
		return nil
	}
	if err := engine.Ready(ctx); err != nil {
		// It may come up after us; until then containers are refused with this error.
		m.log.WarnContext(ctx, "containers cannot run for now", slog.Any("error", err))
	} else {
		m.log.InfoContext(ctx, "containers are run by a container engine", slog.String("socket", socket))
	}
	return nil
}

// route decides for each new workload who runs it.
func (m *Main) route(programs *process.Runtime, engine *docker.Runtime, socket string) router.Route {
	namespaces := sync.OnceValue(func() bool {
		err := programs.Containers()
		if err != nil {
			m.log.Warn("containers are run by a container engine, since namespaces do not work here", slog.String("socket", socket), slog.Any("error", err))
		}
		return err == nil
	})
	return func(ctx context.Context, w runtime.Workload) (bool, error) {
		switch m.cfg.Runtime.Containers {
		case containersNamespaces:
			return false, nil
		case containersDocker:
			return engine.Takes(ctx, w)
		}
		if plan, err := runtime.Choose(ctx, m.cfg.Images, m.images, w.Image); err == nil && !plan.Kept || namespaces() {
			return false, nil
		}
		return engine.Takes(ctx, w)
	}
}

func holdsFiles(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}

// socket names the container engine's socket: the configured one, else the first
// that is there, else Docker's.
func (r Runtime) socket() (path string, found bool) {
	if r.Socket != "" {
		return r.Socket, true
	}
	var paths []string
	if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		paths = append(paths, path)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman", "podman.sock"))
	}
	const dockers = "/var/run/docker.sock"
	for _, path := range append(paths, dockers, "/run/podman/podman.sock") {
		if st, err := os.Stat(path); err == nil && st.Mode().Type() == fs.ModeSocket { //nolint:gosec // whoever sets our environment may choose the engine
			return path, true
		}
	}
	return dockers, false
}
