package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
)

// Places in every container besides /gcs and /tmp.
const (
	insideWork = "/tategu/work" // the workload's own directory
	insideCert = "/tategu/env"  // files that variables of the server name
)

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

// lowShares of the processor, of 1024, is what containers get that give way to others.
const lowShares = 102

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
	if in.rec.Workload.Priority == runtime.PriorityBatch {
		h.CPUShares = lowShares
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
	asked, err := workload.Binds(in.rec.Workload.Image, plan.Mounts)
	for _, m := range asked {
		bind := m.From + ":" + m.To
		if m.ReadOnly {
			bind += ":ro"
		}
		out = append(out, bind)
	}
	return out, err
}

// variables are ours, then the workload's; the engine puts the image's beneath.
// Of the server's own only what package managers need passes.
func (in *instance) variables(config runtime.ImageConfig, plan runtime.Plan) (env map[string]string, binds []string) {
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
	workload.Inside(env, in.rec, in.credentials, plan.NoNetwork)
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
