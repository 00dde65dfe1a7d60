package process

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/process/oci"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/runtime/workload"

	"google.golang.org/grpc/codes"
)

// Check refuses what can never run here: an unknown image, more than the machine has.
func (r *Runtime) Check(w runtime.Workload) error { return r.check(context.Background(), w) }

func (r *Runtime) check(ctx context.Context, w runtime.Workload) error {
	if !r.ids.MatchString(w.ID) {
		return resource.Invalid("id", "%q is not a workload id: 1 to 200 letters, digits and . _ -", w.ID)
	}
	plan, err := runtime.Choose(ctx, r.cfg.Images, r.cfg.ImageStore, w.Image)
	if err != nil {
		return err
	}
	if plan.Container() {
		if err := r.boxes().mode.Err; err != nil {
			return err
		}
		if err := workload.Alone(plan, w); err != nil {
			return err
		}
	}
	if len(plan.Command)+len(w.Command)+len(w.Args) == 0 && (w.Python == nil || w.Python.Script == "") {
		if err := r.hasCommand(ctx, plan, w); err != nil {
			return err
		}
	}
	if r.cfg.Files == nil && (len(w.Fetch) > 0 || w.Publish) {
		return resource.Errorf(codes.FailedPrecondition, "workload %s needs objects, and there is no object store", w.ID)
	}
	return r.cfg.Schedule.Fits(scheduler.For(w, time.Time{}))
}

// hasCommand leaves it to the image what to run, where there is one.
func (r *Runtime) hasCommand(ctx context.Context, plan runtime.Plan, w runtime.Workload) error {
	if plan.Kept || plan.Files {
		image, err := r.cfg.ImageStore.Image(ctx, w.Image)
		if err != nil {
			return err
		}
		if len(image.Config.Entrypoint)+len(image.Config.Cmd) > 0 {
			return nil
		}
	}
	return resource.Invalid("command", "workload %s has no command", w.ID)
}

// prepare makes everything the program needs and says how to run it.
func (in *instance) prepare(ctx context.Context) (wrapper.Spec, error) {
	w := in.rec.Workload
	for _, d := range []string{dirGCS, dirWork, dirTmp} {
		if err := os.MkdirAll(filepath.Join(in.dir, d), 0o700); err != nil {
			return wrapper.Spec{}, err
		}
	}
	plan, err := runtime.Choose(ctx, in.r.cfg.Images, in.r.cfg.ImageStore, w.Image)
	if err != nil {
		return wrapper.Spec{}, err
	}
	if plan.Container() {
		if in.credentials, err = in.identity.wait(); err != nil {
			return wrapper.Spec{}, err
		}
		return in.contain(ctx, plan)
	}
	out, err := workload.AppendOutput(in.dir)
	if err != nil {
		return wrapper.Spec{}, err
	}
	defer func() { _ = out.Close() }() // every line was written when its Write returned
	var image runtime.ImageConfig
	if plan.Files {
		if image, err = in.unpack(ctx); err != nil {
			return wrapper.Spec{}, err
		}
	}
	var venv string
	if plan.Python || w.Python != nil {
		if venv, err = in.environment(ctx, plan, out); err != nil {
			return wrapper.Spec{}, err
		}
	}
	if err := in.place().Fetch(ctx); err != nil {
		return wrapper.Spec{}, err
	}
	if in.credentials, err = in.identity.wait(); err != nil {
		return wrapper.Spec{}, err
	}
	in.set(runtime.Preparing, "starting")
	return in.describe(plan, image, venv)
}

// unpack copies the files of an image into the working directory: anew, should a
// server have been killed in the middle.
func (in *instance) unpack(ctx context.Context) (runtime.ImageConfig, error) {
	image, err := in.r.cfg.ImageStore.Image(ctx, in.rec.Workload.Image)
	if err != nil {
		return runtime.ImageConfig{}, err
	}
	work := filepath.Join(in.dir, dirWork)
	if err := workload.RemoveAll(work); err != nil {
		return runtime.ImageConfig{}, err
	}
	in.set(runtime.Preparing, "copying the files of the working directory")
	if err := oci.Unpack(ctx, work, image, oci.DefaultLimits(), func(string) {}); err != nil {
		return runtime.ImageConfig{}, fmt.Errorf("put the files of image %s into the working directory: %w", image.Reference, err)
	}
	return image.Config, nil
}

// describe turns the workload into a command line and an environment. The image
// is that of files; others say nothing here.
func (in *instance) describe(plan runtime.Plan, image runtime.ImageConfig, venv string) (wrapper.Spec, error) {
	w := in.rec.Workload
	work := filepath.Join(in.dir, dirWork)
	script := filepath.Join(work, workload.ScriptFile)
	if err := in.place().WriteScript(dirWork); err != nil {
		return wrapper.Spec{}, err
	}
	command := slices.Concat(plan.Command, workload.Words(w, image))
	if w.Python != nil && w.Python.Script != "" && len(w.Command) == 0 {
		command = slices.Concat(plan.Command, []string{"python3", script}, w.Args)
	}
	s := wrapper.Spec{Dir: work, Command: make([]string, len(command)), Note: in.r.mounts().say, GPUs: gpuIDs(in.gpus)}
	if in.python != "" {
		s.Note = in.python + "; " + s.Note
	}
	volumes, err := in.r.volumes().Mounts(w, in.dir)
	if err != nil {
		return wrapper.Spec{}, err
	}
	show := func(text string) string { return text }
	env := in.variables(image, venv)
	if in.r.mounts().flags != 0 {
		s.GCS, s.GCSRoot = filepath.Join(in.dir, dirGCS), runtime.GCSRoot
		for _, v := range volumes {
			s.Volumes = append(s.Volumes, wrapper.Mount(v))
		}
	} else {
		if !w.Literal {
			show = func(text string) string { return rewrite(text, in.dir, volumes) }
		}
		env[gcsVariable] = filepath.Join(in.dir, dirGCS)
	}
	port := workload.PortReplacer(in.rec.Port)
	for i, arg := range command {
		s.Command[i] = port(show(strings.ReplaceAll(arg, runtime.ScriptPath, script)))
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		if _, ours := w.Env[name]; ours {
			value = port(show(value))
		}
		s.Env = append(s.Env, name+"="+value)
	}
	if s.Low = w.Priority == runtime.PriorityBatch; s.Low {
		var err error
		// Without a group, its niceness and its session still have it give way.
		if s.Cgroup, err = cgroups(in.r.cfg).Make(in.ID(), box.Ask{Low: true}); err != nil {
			in.r.cfg.Log.Debug("no control group for a program that gives way", slog.String("workload", in.ID()), slog.Any("error", err))
		}
		return s, nil
	}
	in.warmable(plan, &s)
	return s, nil
}

// variables builds the environment from an allow-list: nothing of the server's
// own settings and secrets passes to a program.
func (in *instance) variables(image runtime.ImageConfig, venv string) map[string]string {
	w := in.rec.Workload
	env := workload.Untracked()
	for _, name := range inherited() {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	for _, v := range image.Env {
		if name, value, ok := strings.Cut(v, "="); ok && name != "" {
			env[name] = value
		}
	}
	maps.Copy(env, in.r.cfg.ExtraEnv)
	maps.Copy(env, in.credentials)
	maps.Copy(env, workload.Threads(w.Resources))
	env["TMPDIR"] = filepath.Join(in.dir, dirTmp)
	env["PYTHONUNBUFFERED"] = "1" // output shows as it is made
	if w.Python != nil && w.Python.Script != "" {
		env["_KFP_RUNTIME"] = "true" // kfp skips what only its compiler needs; its own command line sets it too
	}
	maps.Copy(env, w.Env)
	maps.Copy(env, workload.PortVariables(in.rec.Port))
	maps.Copy(env, workload.GPUVariables(in.gpus))
	env[wrapper.DirVariable] = in.dir
	if venv != "" {
		activate(env, in.dir, venv, in.base)
	}
	return env
}

// inherited names what a program takes over from the server's environment.
func inherited() []string {
	return append([]string{
		"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	}, workload.PackageVariables()...)
}
