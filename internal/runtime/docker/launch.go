package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/oom"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
)

// Places in every container besides /gcs and /tmp.
const (
	insideWork = "/tategu/work" // the workload's own directory
	insideCert = "/tategu/env"  // files that variables of the server name
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

// prepare makes everything the container needs and describes it.
func (in *instance) prepare(ctx context.Context) (body creation, note string, err error) {
	image, config, err := in.bring(ctx)
	if err != nil {
		return creation{}, "", err
	}
	for _, d := range []string{workload.DirGCS, dirWork, dirTmp} {
		if err := os.MkdirAll(in.path(d), 0o700); err != nil {
			return creation{}, "", err
		}
	}
	if err := in.place().Fetch(ctx); err != nil {
		return creation{}, "", err
	}
	in.set(runtime.Preparing, "starting")
	if err := in.place().WriteScript(dirWork); err != nil {
		return creation{}, "", err
	}
	argv, err := workload.Argv(in.rec.Workload, config, path.Join(insideWork, workload.ScriptFile), in.rec.Port)
	if err != nil {
		return creation{}, "", err
	}
	plan, err := runtime.Choose(ctx, in.r.cfg.Images, in.r.runnable(), in.rec.Workload.Image)
	if err != nil {
		return creation{}, "", err
	}
	binds, err := in.binds(plan)
	if err != nil {
		return creation{}, "", err
	}
	env, certificates := in.variables(config, plan)
	body = creation{
		Image: image, Entrypoint: argv, Cmd: []string{}, Hostname: workload.HostName(in.ID()),
		Labels:     map[string]string{labelData: in.r.data, labelWorkload: in.ID()},
		HostConfig: in.host(append(binds, certificates...), plan),
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		body.Env = append(body.Env, name+"="+env[name])
	}
	note = "in a container of " + in.r.engineName() + ", shares the machine's network"
	if plan.NoNetwork {
		note = "in a container of " + in.r.engineName() + ", no network"
	}
	if len(in.gpus) > 0 && !in.byRequest() {
		note += "; of its GPUs it has the device nodes, the driver's libraries must be in the image"
	}
	return body, note, in.openUp()
}

func (r *Runtime) engineName() string {
	if r.engine.isPodman() {
		return "Podman"
	}
	return "Docker"
}

// host is what the container gets of the machine.
func (in *instance) host(binds []string, plan runtime.Plan) hostConfig {
	want := in.rec.Workload.Resources
	h := hostConfig{
		Binds: binds, NetworkMode: "host", Init: !in.r.withoutInit(),
		// The engine's log is read from its first byte after a restart, so that it must
		// be one that can be read and is not rotated, whatever the engine's default is.
		LogConfig: logConfig{Type: "json-file", Config: map[string]string{"max-size": "1000g"}},
		CapDrop:   []string{"ALL"}, CapAdd: capabilities(), SecurityOpt: []string{"no-new-privileges"},
		PidsLimit: int64(in.r.cfg.Processes), Memory: want.MemoryBytes, MemorySwap: want.MemoryBytes, NanoCPUs: int64(want.Cores * 1e9),
	}
	if plan.NoNetwork {
		h.NetworkMode = "none"
	}
	if in.byRequest() {
		h.DeviceRequests = []deviceRequest{{DeviceIDs: in.gpuIDs(), Capabilities: [][]string{{"gpu"}}}}
		return h
	}
	for _, node := range workload.GPUNodes(in.gpus) {
		h.Devices = append(h.Devices, device{PathOnHost: node, PathInContainer: node, CgroupPermissions: "rw"})
	}
	return h
}

// byRequest reports that Docker mounts the GPUs and the libraries of their driver,
// for which it needs NVIDIA's hook. Otherwise a container gets the device nodes.
func (in *instance) byRequest() bool {
	_, err := exec.LookPath("nvidia-container-runtime-hook")
	return err == nil && len(in.gpus) > 0 && !in.r.engine.isPodman()
}

func (in *instance) gpuIDs() []string {
	ids := make([]string, len(in.gpus))
	for i, g := range in.gpus {
		ids[i] = g.ID
	}
	return ids
}

// gpuVariables show the program its GPUs. Those that Docker mounts are all that
// there are to the program, and an index counts from the first of them.
func (in *instance) gpuVariables() map[string]string {
	env := workload.GPUVariables(in.gpus)
	if in.byRequest() {
		seen := make([]string, len(in.gpus))
		for i := range seen {
			seen[i] = strconv.Itoa(i)
		}
		env["CUDA_VISIBLE_DEVICES"] = strings.Join(seen, ",")
	}
	return env
}

// capabilities are those that programs have in the process adapter's containers.
func capabilities() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"}
}

// binds lists what the container sees of the machine. Z labels our own
// directories for the container where SELinux asks for it.
func (in *instance) binds(plan runtime.Plan) ([]string, error) {
	out := []string{
		in.path(workload.DirGCS) + ":" + runtime.GCSRoot + ":Z", in.path(dirWork) + ":" + insideWork + ":Z", in.path(dirTmp) + ":/tmp:Z",
	}
	volumes, err := workload.Volumes(in.r.cfg.Volumes).Mounts(in.rec.Workload, in.dir)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if strings.Contains(v.From+v.To, ":") {
			return nil, resource.Invalid("volumes", "the volume at %q: a container engine takes a colon for the end of a path", v.To)
		}
		out = append(out, v.From+":"+v.To+":z")
	}
	for _, m := range plan.Mounts {
		parts := strings.Split(m, ":")
		if len(parts) < 2 || len(parts) > 3 || !filepath.IsAbs(parts[0]) || !path.IsAbs(parts[1]) || path.Clean(parts[1]) == "/" || len(parts) == 3 && parts[2] != "ro" {
			return nil, resource.Invalid("images", "the mount %q of image %s is not FROM:TO or FROM:TO:ro with absolute paths", m, in.rec.Workload.Image)
		}
		if _, err := os.Stat(parts[0]); err != nil {
			return nil, resource.Invalid("images", "the mount %q of image %s: %v", m, in.rec.Workload.Image, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// variables are ours, then the workload's; the engine puts the image's beneath.
// Of the server's own only what package managers need passes.
func (in *instance) variables(config runtime.ImageConfig, plan runtime.Plan) (env map[string]string, binds []string) {
	w := in.rec.Workload
	env = map[string]string{}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		said := slices.ContainsFunc(config.Env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if !said && slices.Contains(workload.PackageVariables(), name) {
			env[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.r.cfg.ExtraEnv)) {
		env[name] = in.r.cfg.ExtraEnv[name]
		if st, err := os.Stat(env[name]); filepath.IsAbs(env[name]) && err == nil && st.Mode().IsRegular() {
			inside := path.Join(insideCert, name)
			binds = append(binds, env[name]+":"+inside+":ro,z")
			env[name] = inside
		}
	}
	if plan.NoNetwork {
		env["NO_GCE_CHECK"] = "true" // google-auth for Python would look for a metadata server that cannot be reached
	} else {
		maps.Copy(env, in.credentials)
	}
	maps.Copy(env, workload.Threads(w.Resources))
	env["TMPDIR"], env["PYTHONUNBUFFERED"] = "/tmp", "1"
	if w.Python != nil && w.Python.Script != "" {
		env["_KFP_RUNTIME"] = "true"
	}
	port := workload.PortReplacer(in.rec.Port)
	for name, value := range w.Env {
		env[name] = port(value)
	}
	maps.Copy(env, workload.PortVariables(in.rec.Port))
	maps.Copy(env, in.gpuVariables())
	return env, binds
}

// openUp lets whatever user the image names, by whatever ids the engine gives to
// users, write below the workload's directories. Nobody else of the machine gets
// through to them: their parent is the server's alone.
func (in *instance) openUp() error {
	for d, mode := range map[string]fs.FileMode{workload.DirGCS: 0o777, dirWork: 0o777, dirTmp: 0o777 | fs.ModeSticky} {
		if err := openTree(in.path(d), mode); err != nil {
			return fmt.Errorf("open the directories of %s to its container: %w", in.ID(), err)
		}
	}
	return nil
}

func openTree(dir string, mode fs.FileMode) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return root.Chmod(name, mode)
		case info.Mode().IsRegular():
			return root.Chmod(name, info.Mode().Perm()|0o666)
		}
		return nil
	})
}

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
