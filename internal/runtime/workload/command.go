package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// ScriptFile is the name of Python.Script's file. The directory may hold files of a
// person, so that it is none that they would take.
const ScriptFile = "tategu_component.py"

// WriteScript writes Python.Script, if there is one, into a directory of the place.
func (p Place) WriteScript(dir string) error {
	if p.Workload.Python == nil || p.Workload.Python.Script == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(p.Dir, dir, ScriptFile), []byte(p.Workload.Python.Script), 0o600)
}

// Words puts the workload's words in the image's: a command replaces the entry point
// and arguments replace the default ones, as in Kubernetes and Vertex AI.
func Words(w runtime.Workload, c runtime.ImageConfig) []string {
	head, tail := c.Entrypoint, c.Cmd
	if len(w.Command) > 0 {
		head, tail = w.Command, nil
	}
	if len(w.Args) > 0 {
		tail = w.Args
	}
	return slices.Concat(head, tail)
}

// Argv is the command line in a container: Words, or the script's own.
// script is where the container sees ScriptFile, port what PortReplacer takes.
func Argv(w runtime.Workload, c runtime.ImageConfig, script string, port int) ([]string, error) {
	command := Words(w, c)
	if w.Python != nil && w.Python.Script != "" && len(w.Command) == 0 {
		command = slices.Concat([]string{"python3", script}, w.Args)
	}
	if len(command) == 0 {
		return nil, resource.Invalid("command", "neither workload %s nor the image %s has a command", w.ID, w.Image).WithCause(resource.CauseInput)
	}
	fill := PortReplacer(port)
	var out []string
	for _, arg := range command {
		out = append(out, fill(strings.ReplaceAll(arg, runtime.ScriptPath, script)))
	}
	if w.Python != nil && len(w.Python.Packages) > 0 {
		out = append(installing(*w.Python), out...)
	}
	return out, nil
}

// installing is a shell that installs packages into the container and becomes the
// program that follows.
func installing(p runtime.Python) []string {
	pip := make([]string, 0, 1+2*len(p.Indexes))
	// The files are the container's own: what a distribution installed may be changed
	// (PEP 668). A pip that is older than the option ignores the variable.
	pip = append(pip, "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore")
	for i, index := range p.Indexes {
		option := "--extra-index-url"
		if i == 0 {
			option = "--index-url"
		}
		pip = append(pip, option, quote(index))
	}
	var plain, alone []string
	for _, r := range p.Packages {
		if name, noDeps := strings.CutPrefix(r, "--no-deps "); noDeps {
			alone = append(alone, quote(name))
		} else {
			plain = append(plain, quote(r))
		}
	}
	steps := []string{"set -e"}
	if len(alone) > 0 {
		steps = append(steps, strings.Join(slices.Concat(pip, []string{"--no-deps"}, alone), " "))
	}
	if len(plain) > 0 {
		steps = append(steps, strings.Join(slices.Concat(pip, plain), " "))
	}
	return []string{"sh", "-c", strings.Join(append(steps, `exec "$@"`), "; "), "task"}
}

// quote makes one word of a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Threads tells numeric libraries how many cores were asked for.
func Threads(want runtime.Resources) map[string]string {
	if want.Cores <= 0 {
		return nil
	}
	env := map[string]string{}
	for _, name := range []string{"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "TORCH_NUM_THREADS"} {
		env[name] = strconv.Itoa(max(1, int(want.Cores)))
	}
	return env
}

// GPUVariables show a program the GPUs that it was given, and none of the others.
// They win over what the workload says itself.
func GPUVariables(gpus []runtime.GPU) map[string]string {
	ids := make([]string, len(gpus))
	for i, g := range gpus {
		ids[i] = g.ID
	}
	list := strings.Join(ids, ",")
	if list == "" {
		// An empty list is none to CUDA. To NVIDIA's container hooks that is "void".
		return map[string]string{"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
	}
	return map[string]string{"CUDA_VISIBLE_DEVICES": list, "NVIDIA_VISIBLE_DEVICES": list}
}

// GPUNodes are the device nodes that a container needs for its GPUs: their own and
// those that all share, where they exist.
func GPUNodes(gpus []runtime.GPU) []string {
	if len(gpus) == 0 {
		return nil
	}
	var nodes []string
	for _, g := range gpus {
		nodes = append(nodes, g.Devices...)
	}
	for _, name := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/dxg"} {
		if Exists(name) {
			nodes = append(nodes, name)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// HostName makes one of a workload's id, by the rules of sethostname(2).
func HostName(id string) string {
	if len(id) > 63 {
		sum := sha256.Sum256([]byte(id))
		return id[:54] + "-" + hex.EncodeToString(sum[:4])
	}
	return id
}

// PackageVariables name what a program takes over from the server's environment so
// that package managers inside find packages as the server does.
func PackageVariables() []string {
	return []string{
		"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_DEFAULT_TIMEOUT",
		"UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS",
	}
}

// PortVariables name the port that was handed out; 0 = none was.
func PortVariables(port int) map[string]string {
	if port == 0 {
		return nil
	}
	return map[string]string{"PORT": strconv.Itoa(port), "AIP_HTTP_PORT": strconv.Itoa(port)}
}

// PortReplacer fills in the port that only the runtime knows, in Kubernetes' way.
func PortReplacer(port int) func(string) string {
	if port == 0 {
		return func(text string) string { return text }
	}
	text := strconv.Itoa(port)
	return strings.NewReplacer("$(PORT)", text, "$(AIP_HTTP_PORT)", text).Replace
}

// Alone refuses by name what a container without a network cannot do.
func Alone(plan runtime.Plan, w runtime.Workload) error {
	var what string
	switch {
	case !plan.NoNetwork:
		return nil
	case w.Port:
		what = "serve a port"
	case w.Python != nil && len(w.Python.Packages) > 0:
		what = "install packages (" + strings.Join(w.Python.Packages, ", ") + ")"
	default:
		return nil
	}
	return resource.Errorf(codes.FailedPrecondition, "image %s runs without a network by its rule in images:, so that it cannot %s", w.Image, what).
		WithResource(w.Image).WithCause(resource.CauseInput).WithHint("say network: host in that rule, or build what it needs into the image")
}

// Untracked asks libraries not to tell their makers of what they do: ONNX Runtime sends
// names and hashes of models since 1.29, others heed consoledonottrack.com. Variables
// of an image and of the program win.
func Untracked() map[string]string {
	return map[string]string{"DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
}

// Inside adds to the variables of an image what every container gets of ours, and
// the workload's own, which win over the image's. One that is alone cannot reach
// its identity.
func Inside(env map[string]string, rec Accepted, credentials map[string]string, alone bool) {
	w := rec.Workload
	if alone {
		env["NO_GCE_CHECK"] = "true" // google-auth for Python would look for a metadata server that cannot be reached
	} else {
		maps.Copy(env, credentials)
	}
	maps.Copy(env, Threads(w.Resources))
	env["TMPDIR"], env["PYTHONUNBUFFERED"] = "/tmp", "1"
	for name, value := range Untracked() {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
	if w.Python != nil && w.Python.Script != "" {
		env["_KFP_RUNTIME"] = "true"
	}
	port := PortReplacer(rec.Port)
	for name, value := range w.Env {
		env[name] = port(value)
	}
	maps.Copy(env, PortVariables(rec.Port))
}
