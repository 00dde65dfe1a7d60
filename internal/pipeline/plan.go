package pipeline

import (
	"maps"
	"slices"

	"cel.dev/cel-go/cel"

	ps "tategu/internal/pipeline/pipelinespec"
)

// Plan is a parsed pipeline that has been found to be runnable. It is not changed
// by runs and may be shared.
type Plan struct {
	// Name is the pipeline's own name (pipelineInfo.name).
	Name string
	// Root is the default pipeline root, "" without one.
	Root string
	// Warnings tell of what the pipeline asks for and does not get.
	Warnings []string

	workspace bool // the tasks of a run share a directory
	root      *graph
}

// graph is a component made of tasks. A component used twice is one graph.
type graph struct {
	name  string
	comp  *ps.ComponentSpec
	tasks map[string]*task
	order []string // every task after those that it waits for
	size  int      // tasks in it and below
}

// task is one node of a graph; its instances in a run are Tasks.
type task struct {
	name  string
	spec  *ps.PipelineTaskSpec
	comp  *ps.ComponentSpec
	graph *graph // set for a component made of tasks
	exec  *ps.PipelineDeploymentConfig_ExecutorSpec

	kubernetes kubernetes
	templates  map[string]any // inputs whose default names placeholders
	launcher   string         // the module of google-cloud-pipeline-components that it runs; "" = none

	deps      []string // tasks that must be done first
	users     []string // tasks that have this one in deps
	condition cel.Program
	selectors map[string]cel.Program // by input
	always    bool                   // runs whatever became of the tasks before it
}

func (t *task) container() *ps.PipelineDeploymentConfig_PipelineContainerSpec {
	return t.exec.GetContainer()
}

func (t *task) importer() *ps.PipelineDeploymentConfig_ImporterSpec { return t.exec.GetImporter() }

func (t *task) caches() bool { return t.spec.GetCachingOptions().GetEnableCache() }

// inputTypes and outputTypes give the declared type of each parameter.
func inputTypes(c *ps.ComponentSpec) map[string]paramType {
	types := map[string]paramType{}
	for k, p := range c.GetInputDefinitions().GetParameters() {
		types[k] = typeOf(p)
	}
	return types
}

func outputTypes(c *ps.ComponentSpec) map[string]paramType {
	types := map[string]paramType{}
	for k, p := range c.GetOutputDefinitions().GetParameters() {
		types[k] = typeOf(p)
	}
	return types
}

// optionalFrom reports whether every input that t takes from producer may be
// absent (and there is one): then t runs even if producer was not triggered.
func (t *task) optionalFrom(producer string) bool {
	found := false
	for k, p := range t.spec.GetInputs().GetParameters() {
		if p.GetTaskOutputParameter().GetProducerTask() != producer {
			continue
		}
		def := t.comp.GetInputDefinitions().GetParameters()[k]
		if !def.GetIsOptional() && def.GetDefaultValue() == nil {
			return false
		}
		found = true
	}
	for k, a := range t.spec.GetInputs().GetArtifacts() {
		if a.GetTaskOutputArtifact().GetProducerTask() != producer {
			continue
		}
		if !t.comp.GetInputDefinitions().GetArtifacts()[k].GetIsOptional() {
			return false
		}
		found = true
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
