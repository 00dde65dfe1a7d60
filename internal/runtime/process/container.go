package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/process/oci"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"

	"google.golang.org/grpc/codes"
)

// Places in every container besides /gcs and /tmp.
const (
	insideDir  = "/tategu"
	insideWork = insideDir + "/work" // the workload's own directory
	insideCert = insideDir + "/env"  // files that variables of the server name
)

// defaultPath is what an image without PATH gets, as from every other runtime.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// boxes is what containers need of the machine.
type boxes struct {
	mode   box.Mode
	groups *box.Cgroups
}

func openBoxes(cfg Config, wrappers launcher) boxes {
	b := boxes{groups: cgroups(cfg)}
	b.mode = box.Probe(cfg.Dir, func(cmd *exec.Cmd) *exec.Cmd {
		return wrappers.command(cmd, wrapper.ProbeContainer, cmd.Dir, cmd.Args[0])
	})
	if b.mode.Err != nil {
		b.mode.Err = resource.Errorf(codes.FailedPrecondition, "containers cannot run on this machine: %w", b.mode.Err).WithCause(resource.CausePlatform).
			WithHint("allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), run tategu as root, or map the image to a program in images: of tategu.yaml")
	}
	return b
}

// Containers says why no container can run here; nil = they can.
func (r *Runtime) Containers() error { return r.boxes().mode.Err }

// cgroups are those of one data directory.
func cgroups(cfg Config) *box.Cgroups {
	sum := sha256.Sum256([]byte(cfg.Dir))
	return box.NewCgroups("tategu-" + hex.EncodeToString(sum[:4]))
}

// imageStore is where images of a mapping are unpacked; collecting needs none.
func (r *Runtime) imageStore(ids box.Mapping) *oci.Store {
	limits := oci.DefaultLimits()
	if r.cfg.ImageBytes > 0 {
		limits.KeepBytes = r.cfg.ImageBytes
	}
	return oci.NewStore(filepath.Join(r.cfg.CacheDir, "images"), limits, ids, r.cfg.Log, r.cfg.Now)
}

// groupOf is the control group of what runs; programs of the machine have one only
// where they give way.
func groupOf(s wrapper.Spec) box.Cgroup {
	if s.Container == nil {
		return s.Cgroup
	}
	return s.Container.Cgroup
}

// draft is a container that is being described.
type draft struct {
	in    *instance
	plan  runtime.Plan
	image runtime.Image // zero for a rootfs
	c     *box.Container
	notes []string
}

// contain makes everything a container needs and says how to run it.
func (in *instance) contain(ctx context.Context, plan runtime.Plan) (wrapper.Spec, error) {
	in.contained = true
	b := &draft{in: in, plan: plan, c: &box.Container{Image: in.rec.Workload.Image, Host: workload.HostName(in.ID())}}
	if err := b.rootfs(ctx); err != nil {
		return wrapper.Spec{}, err
	}
	if err := in.place().Fetch(ctx); err != nil {
		return wrapper.Spec{}, b.drop(err)
	}
	in.set(runtime.Preparing, "starting")
	s, err := b.describe()
	if err != nil {
		return wrapper.Spec{}, b.drop(err)
	}
	return s, nil
}

// drop gives the image up for a container that does not start.
func (b *draft) drop(err error) error { return errors.Join(err, b.in.tree.Close()) }

// rootfs finds or unpacks the file system, and says whose it is.
func (b *draft) rootfs(ctx context.Context) (err error) {
	mode := b.in.r.boxes().mode
	if mode.Err != nil {
		return mode.Err
	}
	b.c.IDs, b.c.Overlay, b.c.Filter = mode.IDs, mode.Overlay, mode.Filter
	b.c.Alone = b.plan.NoNetwork
	if b.c.Alone {
		b.notes = append(b.notes, mode.Say+", no network")
	} else {
		b.notes = append(b.notes, mode.Say+", shares the machine's network")
	}
	if b.plan.Rootfs != "" {
		return b.directory(mode)
	}
	if b.image, err = b.in.r.cfg.ImageStore.Image(ctx, b.in.rec.Workload.Image); err != nil {
		return err
	}
	store := b.in.r.imageStore(mode.IDs)
	b.in.tree, err = store.Get(ctx, b.image, func(message string) { b.in.set(runtime.Preparing, "%s", message) })
	if err != nil {
		return err
	}
	b.c.Root, b.c.Lock = b.in.tree.Dir, b.in.tree.Lock
	return nil
}

// directory takes an image that a person has unpacked, with the owners it has.
func (b *draft) directory(mode box.Mode) (err error) {
	if b.c.Root, err = filepath.Abs(b.plan.Rootfs); err != nil {
		return err
	}
	if st, err := os.Stat(b.c.Root); err != nil || !st.IsDir() {
		return resource.Invalid("images", "the rootfs %s of image %s is not a directory", b.plan.Rootfs, b.c.Image).
			WithCause(resource.CauseInput).WithHint("unpack the image there, or change its rule in images: of tategu.yaml")
	}
	b.c.IDs = box.MappingOf(b.c.Root, mode.IDs)
	if b.c.IDs != mode.IDs {
		b.notes = append(b.notes, "ids of files are the machine's own")
	}
	return nil
}

func (b *draft) describe() (wrapper.Spec, error) {
	if err := b.user(); err != nil {
		return wrapper.Spec{}, err
	}
	b.c.Dir = b.image.Config.WorkingDir
	if !path.IsAbs(b.c.Dir) {
		b.c.Dir = path.Join("/", b.c.Dir)
	}
	if err := b.mounts(); err != nil {
		return wrapper.Spec{}, err
	}
	env := b.variables()
	command, err := b.command()
	if err != nil {
		return wrapper.Spec{}, err
	}
	if err := b.own(); err != nil {
		return wrapper.Spec{}, err
	}
	b.limits()
	s := wrapper.Spec{Container: b.c, Dir: b.c.Dir, Command: command, Note: strings.Join(b.notes, "; "), GPUs: gpuIDs(b.in.gpus)}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		s.Env = append(s.Env, name+"="+env[name])
	}
	return s, nil
}

func (b *draft) user() (err error) {
	if b.c.User, err = oci.LookUser(b.c.Root, b.image.Config.User); err != nil {
		return err
	}
	u := &b.c.User
	if b.c.IDs.Count <= 1 && b.c.IDs.User {
		if u.UID != 0 {
			b.notes = append(b.notes, fmt.Sprintf("user %s of the image is the container's root (no ids to map here)", b.image.Config.User))
			u.UID = 0
		}
		u.GID, u.Groups = 0, nil
		return nil
	}
	if !b.c.IDs.Has(u.UID) || !b.c.IDs.Has(u.GID) {
		return resource.Invalid("image", "the image runs as user %d:%d; ids of images go up to %d", u.UID, u.GID, b.c.IDs.Count-1).WithCause(resource.CauseInput)
	}
	u.Groups = slices.DeleteFunc(u.Groups, func(g int) bool { return !b.c.IDs.Has(g) })
	return nil
}

// mounts lists what the container sees of the machine.
func (b *draft) mounts() error {
	dir := b.in.dir
	for _, d := range []string{dirGCS, dirWork, dirTmp} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, dirTmp), 0o777|os.ModeSticky); err != nil { // the container's /tmp
		return err
	}
	b.c.Binds = []box.Bind{
		{From: filepath.Join(dir, dirGCS), To: runtime.GCSRoot},
		{From: filepath.Join(dir, dirWork), To: insideWork},
		{From: filepath.Join(dir, dirTmp), To: "/tmp"},
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if _, err := os.Stat(name); err == nil {
			b.c.Binds = append(b.c.Binds, box.Bind{From: name, To: name, ReadOnly: true})
		}
	}
	for _, node := range workload.GPUNodes(b.in.gpus) {
		b.c.Binds = append(b.c.Binds, box.Bind{From: node, To: node, Device: true})
	}
	volumes, err := b.in.r.volumes().Mounts(b.in.rec.Workload, dir)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		b.c.Binds = append(b.c.Binds, box.Bind{From: v.From, To: v.To})
	}
	binds, err := workload.Binds(b.c.Image, b.plan.Mounts)
	for _, m := range binds {
		b.c.Binds = append(b.c.Binds, box.Bind{From: m.From, To: m.To, ReadOnly: m.ReadOnly})
	}
	return err
}

// variables are the image's, then ours, then the workload's. Of the server's own
// only what package managers need passes.
func (b *draft) variables() map[string]string {
	in := b.in
	env := map[string]string{"PATH": defaultPath, "HOME": b.c.User.Home}
	for _, name := range workload.PackageVariables() {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	for _, v := range b.image.Config.Env {
		if name, value, ok := strings.Cut(v, "="); ok && name != "" {
			env[name] = value
		}
	}
	for name, value := range in.r.cfg.ExtraEnv {
		env[name] = value
		if st, err := os.Stat(value); filepath.IsAbs(value) && err == nil && st.Mode().IsRegular() {
			env[name] = path.Join(insideCert, name)
			b.c.Binds = append(b.c.Binds, box.Bind{From: value, To: env[name], ReadOnly: true})
		}
	}
	workload.Inside(env, in.rec, in.credentials, b.c.Alone)
	maps.Copy(env, workload.GPUVariables(in.gpus))
	slices.SortFunc(b.c.Binds[3:], func(x, y box.Bind) int { return strings.Compare(x.To, y.To) })
	return env
}

// command puts the workload's words in the image's.
func (b *draft) command() ([]string, error) {
	w := b.in.rec.Workload
	script := path.Join(insideWork, workload.ScriptFile)
	if err := b.in.place().WriteScript(dirWork); err != nil {
		return nil, err
	}
	return workload.Argv(w, b.image.Config, script, b.in.rec.Port)
}

// own gives the workload's directories and its output to the container's user.
func (b *draft) own() error {
	if err := box.Make(b.in.dir, b.c.IDs); err != nil {
		return err
	}
	if b.c.IDs.Count <= 1 {
		return nil
	}
	uid, gid := b.c.IDs.Host(b.c.User.UID), b.c.IDs.Host(b.c.User.GID)
	for _, d := range []string{dirGCS, dirWork, dirTmp} {
		if err := box.ChownTree(filepath.Join(b.in.dir, d), uid, gid); err != nil {
			return err
		}
	}
	out, err := workload.AppendOutput(b.in.dir)
	if err != nil {
		return err
	}
	// Programs open /dev/stdout anew.
	return errors.Join(out.Chown(uid, gid), out.Close())
}

// limits asks for a control group; what is refused is said and not enforced.
func (b *draft) limits() {
	in, want := b.in, b.in.rec.Workload.Resources
	b.c.Low = in.rec.Workload.Priority == runtime.PriorityBatch
	ask := box.Ask{Cores: want.Cores, Memory: want.MemoryBytes, Processes: in.r.cfg.Processes, Low: b.c.Low}
	group, err := in.r.boxes().groups.Make(in.ID(), ask)
	b.c.Cgroup, b.c.Limits.Processes = group, uint64(in.r.cfg.Processes)
	if err != nil {
		b.notes = append(b.notes, "limits are not enforced ("+refused(err)+")")
		in.r.cfg.Log.Warn("limit a container", slog.String("workload", in.ID()), slog.Any("error", err))
	}
}

// refused is the short form of why control groups cannot be made.
func refused(err error) string {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return "control groups are not writable here"
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
