package pipeline

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/gcpc"
	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// Bounds of a run. Nested components multiply tasks, so that both are needed: the
// depth is what reading a chain of components takes.
const (
	maxTasks = 20_000
	maxDepth = 64
	maxSpec  = 16 << 20 // bytes of a pipeline spec
)

// MaxSpec is the most bytes of a pipeline spec, as JSON and in its wire form.
const MaxSpec = maxSpec

// MaxValues is how many values a request with a pipeline may hold: as many as
// 20,000 tasks need, each with inputs from others.
const MaxValues = 1 << 20

// field is where a client finds the IR in its request.
const field = "pipeline_job.pipeline_spec"

// Parse reads the IR that the kfp compiler writes (schema 2.0.0 and 2.1.0) and
// checks everything that can be known before a run. Its errors name the task and
// the field; parts of the IR that tategu cannot honour are Unimplemented errors.
func Parse(spec *structpb.Struct) (*Plan, error) {
	if len(spec.GetFields()) == 0 {
		return nil, resource.Invalid(field, "the pipeline spec is empty")
	}
	if n := proto.Size(spec); n > maxSpec { // before it is read any further
		return nil, tooBig(n)
	}
	text, err := protojson.Marshal(spec)
	if err != nil {
		return nil, resource.Invalid(field, "the pipeline spec is not JSON: %v", err)
	}
	return ParseJSON(text)
}

// ParseJSON is Parse for the IR as JSON text.
func ParseJSON(text []byte) (*Plan, error) {
	if len(text) > maxSpec {
		return nil, tooBig(len(text))
	}
	text, platform, err := cutPlatforms(text)
	if err != nil {
		return nil, err
	}
	ir := &ps.PipelineSpec{}
	if err := protojson.Unmarshal(text, ir); err != nil {
		return nil, resource.Invalid(field, "the pipeline spec is not KFP IR: %s", protoError(err))
	}
	switch v := ir.GetSchemaVersion(); v {
	case "2.0.0", "2.1.0":
	case "":
		return nil, resource.Invalid(field+".schemaVersion", "the pipeline spec has no schemaVersion").
			WithHint("compile the pipeline with kfp 1.8 (v2) or newer")
	default:
		return nil, resource.Unimplemented("pipeline spec schemaVersion " + v)
	}
	if ir.GetRoot().GetDag() == nil {
		return nil, resource.Invalid(field+".root.dag", "the pipeline spec has no root dag")
	}
	if ir.GetPipelineInfo().GetName() == "" {
		return nil, resource.Invalid(field+".pipelineInfo.name", "the pipeline has no name")
	}
	config := &ps.PipelineDeploymentConfig{}
	if d := ir.GetDeploymentSpec(); d != nil {
		text, err := protojson.Marshal(d)
		if err != nil {
			return nil, resource.Invalid(field+".deploymentSpec", "the deployment spec is not JSON: %v", err)
		}
		if err := protojson.Unmarshal(text, config); err != nil {
			return nil, resource.Invalid(field+".deploymentSpec", "the deployment spec is not KFP IR: %s", protoError(err))
		}
	}
	exprs, err := newExpressions()
	if err != nil {
		return nil, err
	}
	p := &parser{ir: ir, executors: config.GetExecutors(), platform: platform, exprs: exprs, graphs: map[string]*graph{}}
	root, err := p.graph("root", ir.GetRoot(), nil)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Name: ir.GetPipelineInfo().GetName(), Root: ir.GetDefaultPipelineRoot(), Warnings: platform.warnings(root), root: root}
	plan.workspace = platform.Config["workspace"] != nil || bytes.Contains(text, []byte("{{$.workspace_path}}"))
	return plan, nil
}

func tooBig(bytes int) error {
	return resource.Invalid(field, "the pipeline spec has %d bytes; %d (16 MiB) is the most", bytes, maxSpec)
}

// protoError drops what protojson varies on purpose between builds.
func protoError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}

type parser struct {
	ir        *ps.PipelineSpec
	executors map[string]*ps.PipelineDeploymentConfig_ExecutorSpec
	platform  platform
	exprs     *expressions
	graphs    map[string]*graph
}

// graph builds a component made of tasks. above lists the components that are
// being built: one that contains itself would never end.
func (p *parser) graph(name string, comp *ps.ComponentSpec, above []string) (*graph, error) {
	if g, ok := p.graphs[name]; ok {
		return g, nil
	}
	if slices.Contains(above, name) {
		return nil, resource.Invalid(field+".components["+name+"]", "component %q contains itself", name)
	}
	if len(above) == maxDepth {
		return nil, resource.Invalid(field+".components["+name+"]", "components are nested more than %d deep", maxDepth)
	}
	if n := len(comp.GetDag().GetTasks()); n > maxTasks {
		return nil, resource.Invalid(field+".components["+name+"]", "component %q has %d tasks: the pipeline has more than %d tasks", name, n, maxTasks)
	}
	g := &graph{name: name, comp: comp, tasks: map[string]*task{}}
	for _, n := range sortedKeys(comp.GetDag().GetTasks()) {
		t, err := p.task(g, n, comp.GetDag().GetTasks()[n], append(slices.Clip(above), name))
		if err != nil {
			return nil, err
		}
		g.tasks[n] = t
		g.size++
		if t.graph != nil {
			g.size += t.graph.size
		}
		if g.size > maxTasks {
			return nil, resource.Invalid(at(g, n, ""), "the pipeline has more than %d tasks", maxTasks)
		}
	}
	if err := p.connect(g); err != nil {
		return nil, err
	}
	if err := checkOutputs(g); err != nil {
		return nil, err
	}
	p.graphs[name] = g
	return g, nil
}

// at is the path of a task's field in the request.
func at(g *graph, name, sub string) string {
	where := field + ".root.dag.tasks[" + name + "]"
	if g.name != "root" {
		where = field + ".components[" + g.name + "].dag.tasks[" + name + "]"
	}
	if sub != "" {
		where += "." + sub
	}
	return where
}

func invalid(g *graph, name, sub, format string, args ...any) error {
	return resource.Invalid(at(g, name, sub), "task %q: %s", name, fmt.Sprintf(format, args...)).WithResource(name)
}

func unsupported(name, what string) error {
	e := resource.Unimplemented(fmt.Sprintf("task %q: %s", name, what))
	return e.WithResource(name)
}

// task reads one task without its relations to its neighbours.
func (p *parser) task(g *graph, name string, spec *ps.PipelineTaskSpec, above []string) (*task, error) {
	if strings.ContainsAny(name, "/#") {
		return nil, invalid(g, name, "", "the name of a task has no / and no #")
	}
	ref := spec.GetComponentRef().GetName()
	comp := p.ir.GetComponents()[ref]
	if comp == nil {
		return nil, invalid(g, name, "componentRef.name", "there is no component %q", ref)
	}
	t := &task{name: name, spec: spec, comp: comp, selectors: map[string]cel.Program{}}
	t.always = spec.GetTriggerPolicy().GetStrategy() == ps.PipelineTaskSpec_TriggerPolicy_ALL_UPSTREAM_TASKS_COMPLETED
	var err error
	if c := spec.GetTriggerPolicy().GetCondition(); c != "" {
		if t.condition, err = compile(p.exprs.conditions, c); err != nil {
			return nil, invalid(g, name, "triggerPolicy.condition", "the condition %v", err)
		}
	}
	for k, in := range spec.GetInputs().GetParameters() {
		if s := in.GetParameterExpressionSelector(); s != "" {
			if t.selectors[k], err = compile(p.exprs.selectors, s); err != nil {
				return nil, invalid(g, name, "inputs.parameters["+k+"].parameterExpressionSelector", "the selector %v", err)
			}
		}
	}
	if comp.GetDag() != nil {
		t.graph, err = p.graph(ref, comp, above)
		return t, err
	}
	return t, p.executor(g, t)
}

func (p *parser) executor(g *graph, t *task) (err error) {
	label := t.comp.GetExecutorLabel()
	t.exec = p.executors[label]
	if t.exec == nil {
		return invalid(g, t.name, "componentRef.name", "its component has no dag and no executor %q", label)
	}
	switch x := t.exec.GetSpec().(type) {
	case *ps.PipelineDeploymentConfig_ExecutorSpec_Container:
		if x.Container.GetLifecycle().GetPreCacheCheck() != nil {
			return unsupported(t.name, "lifecycle.preCacheCheck")
		}
		if x.Container.GetImage() == "" && len(x.Container.GetCommand()) == 0 {
			return invalid(g, t.name, "", "its container has neither an image nor a command")
		}
		if t.kubernetes, err = p.platform.kubernetesOf(g, t, label); err != nil {
			return err
		}
		t.templates = templatesOf(t.comp)
		if module, ok := gcpc.ModuleOf(x.Container.GetCommand()); ok {
			if err := gcpc.Check(module); err != nil {
				return named(t.name, err)
			}
			t.launcher = module
		}
		return checkPlaceholders(g, t)
	case *ps.PipelineDeploymentConfig_ExecutorSpec_Importer:
		if len(t.comp.GetOutputDefinitions().GetArtifacts()) != 1 {
			return invalid(g, t.name, "", "an importer has exactly one output artifact")
		}
		return nil
	case *ps.PipelineDeploymentConfig_ExecutorSpec_Resolver:
		return unsupported(t.name, "a resolver")
	case *ps.PipelineDeploymentConfig_ExecutorSpec_CustomJob:
		return unsupported(t.name, "a customJob executor")
	default:
		return invalid(g, t.name, "", "executor %q says nothing to run", label)
	}
}
