package pipeline

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// The kfp compiler writes what is meant for Kubernetes as a second document, with
// one key: platforms. It travels as a field of the pipeline spec beside the
// others. What has a meaning on any machine is honoured: workspaces, volumes,
// empty directories. What a program cannot do without is refused. The rest tells
// a cluster where and how to run it, and is listed as ignored.

// workspacePath is where programs see the workspace of their run
// (kfp.dsl.constants.WORKSPACE_MOUNT_PATH).
const workspacePath = "/kfp-workspace"

// platform is what a pipeline asks of Kubernetes.
type platform struct {
	Config    map[string]json.RawMessage
	Executors map[string]map[string]json.RawMessage // by executor label
}

// kubernetes is what tategu honours for one executor.
type kubernetes struct {
	volumes []volumeMount
	secrets []secretUse
	ignored []string // names of fields
}

// volumeMount is a directory that outlives the program, or with no source one
// that is the program's alone.
type volumeMount struct {
	source  *ps.TaskInputsSpec_InputParameterSpec // the name of the volume
	path    string
	subPath string
}

// cutPlatforms takes the platforms out of the IR, which as JSON must not be
// longer than a person can have written.
func cutPlatforms(text []byte) (ir []byte, p platform, err error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, p, resource.Invalid(field, "the pipeline spec is not JSON: %v", err)
	}
	raw, ok := doc["platforms"]
	if !ok {
		return text, p, nil
	}
	delete(doc, "platforms")
	var all map[string]struct {
		DeploymentSpec struct {
			Executors map[string]map[string]json.RawMessage `json:"executors"`
		} `json:"deploymentSpec"`
		PipelineConfig map[string]json.RawMessage `json:"pipelineConfig"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, p, resource.Invalid(field+".platforms", "platforms is not a platform spec of kfp: %v", err)
	}
	for _, name := range sortedKeys(all) {
		if name != "kubernetes" {
			return nil, p, resource.Unimplemented("the platform " + name + " of the pipeline spec")
		}
	}
	p.Executors, p.Config = all["kubernetes"].DeploymentSpec.Executors, all["kubernetes"].PipelineConfig
	ir, err = json.Marshal(doc)
	return ir, p, err
}

// kubernetesOf reads what an executor asks for.
func (p platform) kubernetesOf(g *graph, t *task, label string) (kubernetes, error) {
	var k kubernetes
	fields := p.Executors[label]
	for _, name := range sortedKeys(fields) {
		where := "platforms.kubernetes." + name
		var err error
		switch name {
		case "pvcMount":
			err = k.claims(fields[name])
		case "emptyDirMounts":
			err = k.scratch(fields[name])
		case "secretAsEnv":
			err = k.secretVariables(fields[name])
		case "secretAsVolume", "configMapAsEnv", "configMapAsVolume":
			var needed bool
			if needed, err = anyNeeded(fields[name]); needed {
				return k, unsupported(t.name, where+" that is not optional")
			}
			k.ignored = append(k.ignored, name)
		default:
			k.ignored = append(k.ignored, name)
		}
		if err != nil {
			return k, invalid(g, t.name, where, "%v", err)
		}
	}
	return k, k.check(g, t)
}

// anyNeeded reports an entry without which a program must not run.
func anyNeeded(text json.RawMessage) (bool, error) {
	var entries []struct {
		Optional bool `json:"optional"`
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		return false, err
	}
	for _, e := range entries {
		if !e.Optional {
			return true, nil
		}
	}
	return false, nil
}

// claims reads mounts of persistent volume claims; the name is given in one of
// the ways of an input, or by a key of its own (kubernetes_executor_config.proto).
func (k *kubernetes) claims(text json.RawMessage) error {
	var entries []map[string]json.RawMessage
	if err := json.Unmarshal(text, &entries); err != nil {
		return err
	}
	for _, e := range entries {
		m := volumeMount{source: &ps.TaskInputsSpec_InputParameterSpec{}}
		source := map[string]json.RawMessage{}
		for name, value := range e {
			var err error
			switch name {
			case "mountPath":
				err = json.Unmarshal(value, &m.path)
			case "subPath":
				err = json.Unmarshal(value, &m.subPath)
			case "constant":
				source["runtimeValue"] = encode(map[string]json.RawMessage{"constant": value})
			case "componentInputParameter", "taskOutputParameter":
				source[name] = value
			case "pvcNameParameter":
				err = json.Unmarshal(value, &source)
			default:
				err = fmt.Errorf("%q is not known", name)
			}
			if err != nil {
				return err
			}
		}
		if err := protojson.Unmarshal(encode(source), m.source); err != nil {
			return fmt.Errorf("the name of the claim: %s", protoError(err))
		}
		if m.source.GetKind() == nil {
			return fmt.Errorf("the claim at %q has no name", m.path)
		}
		k.volumes = append(k.volumes, m)
	}
	return nil
}

func (k *kubernetes) scratch(text json.RawMessage) error {
	var entries []struct {
		MountPath string `json:"mountPath"`
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		return err
	}
	for _, e := range entries {
		k.volumes = append(k.volumes, volumeMount{path: e.MountPath})
	}
	return nil
}

func (k *kubernetes) check(g *graph, t *task) error {
	for _, m := range k.volumes {
		if clean := path.Clean(m.path); !path.IsAbs(m.path) || clean == "/" || clean == runtime.GCSRoot {
			return invalid(g, t.name, "platforms.kubernetes", "the mount path %q is not an absolute path below /", m.path)
		}
		if m.subPath != "" && (path.IsAbs(m.subPath) || slices.Contains(strings.Split(m.subPath, "/"), "..")) {
			return invalid(g, t.name, "platforms.kubernetes.pvcMount", "the path %q leads out of the claim", m.subPath)
		}
		if !waits(t, m.source) {
			return invalid(g, t.name, "platforms.kubernetes.pvcMount", "the claim is named by a task that it does not wait for")
		}
	}
	for _, u := range k.secrets {
		if u.source.GetKind() == nil || !waits(t, u.source) {
			return invalid(g, t.name, "platforms.kubernetes.secretAsEnv", "the secret has no name, or is named by a task that it does not wait for")
		}
	}
	return nil
}

// waits reports that a name comes from no task, or from one that t waits for.
func waits(t *task, source *ps.TaskInputsSpec_InputParameterSpec) bool {
	producer := source.GetTaskOutputParameter().GetProducerTask()
	return source.GetTaskOutputParameter() == nil || slices.Contains(t.spec.GetDependentTasks(), producer)
}

// warnings tells of what the pipeline asks for and does not get.
func (p platform) warnings(root *graph) []string {
	var out []string
	for _, name := range sortedKeys(p.Config) {
		if name != "workspace" {
			out = append(out, "platforms.kubernetes.pipelineConfig."+name+" is ignored")
		}
	}
	seen := map[string]bool{}
	var walk func(g *graph)
	walk = func(g *graph) {
		if seen[g.name] {
			return
		}
		seen[g.name] = true
		for _, name := range g.order {
			t := g.tasks[name]
			if t.graph != nil {
				walk(t.graph)
			}
			for _, f := range t.kubernetes.ignored {
				out = append(out, fmt.Sprintf("task %q: platforms.kubernetes.%s is ignored", name, f))
			}
		}
	}
	walk(root)
	return out
}

// volumes gives the directories that a program is to see.
func (m *machine) volumes(n *node) ([]runtime.Volume, error) {
	var out []runtime.Volume
	if m.plan.workspace {
		out = append(out, runtime.Volume{Name: workspaceVolume(m.run.number), Path: workspacePath})
	}
	for _, k := range n.def.kubernetes.volumes {
		v := runtime.Volume{Path: k.path, SubPath: k.subPath}
		if k.source != nil {
			value, _, err := m.source(n, k.source)
			if err != nil {
				return nil, err
			}
			name, ok := value.(string)
			if !ok || !claimName().MatchString(name) {
				return nil, fmt.Errorf("the persistent volume claim at %s: %s is not the name of one", k.path, describe(value))
			}
			v.Name = "pvc-" + name + "-" + digest(m.run.project)[:8]
		}
		out = append(out, v)
	}
	return out, nil
}

func claimName() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,100}[a-z0-9])?$`) }

// workspacePrefix starts the names of the volumes of runs.
const workspacePrefix = "run-"

func workspaceVolume(number string) string { return workspacePrefix + number }
