package pipeline

import (
	"strings"

	"tategu/internal/store"
)

// Kinds of task, as Task.Kind has them.
const (
	KindRun       = kindRoot
	KindGraph     = kindGraph
	KindLoop      = kindLoop
	KindContainer = kindContainer
	KindImporter  = kindImporter
)

// Step is a task as a pipeline names it, however many of it a run has: in a loop
// each iteration has one.
type Step struct {
	Path  string // names of tasks from the root, joined with "/", without iterations
	Name  string
	Kind  string
	After []string // paths of the steps beside it that it waits for
}

// Steps gives what a graph of a pipeline is made of: that of the step at a path,
// or with "" the pipeline itself. Each comes after all that it waits for. A step
// that is no graph has none.
func (p *Plan) Steps(at string) []Step {
	g := p.root
	if at != "" {
		for name := range strings.SplitSeq(at, "/") {
			if g == nil || g.tasks[name] == nil {
				return nil
			}
			g = g.tasks[name].graph
		}
		if g == nil {
			return nil
		}
		at += "/"
	}
	out := make([]Step, 0, len(g.order))
	for _, name := range g.order {
		t := g.tasks[name]
		s := Step{Path: at + name, Name: name, Kind: t.kind(), After: make([]string, 0, len(t.deps))}
		for _, d := range t.deps {
			s.After = append(s.After, at+d)
		}
		out = append(out, s)
	}
	return out
}

// StepOf gives the path of the step that a task is of, by the task's path: an
// iteration is of the step of its loop. A path that leads nowhere in this pipeline
// is given back.
func (p *Plan) StepOf(task string) string {
	var names []string
	if !p.walk(task, func(_ *graph, _, name string) { names = append(names, name) }) {
		return task
	}
	return strings.Join(names, "/")
}

// kind is that of the task which stands for the step; its iterations have another.
func (t *task) kind() string {
	switch {
	case t.iterates():
		return kindLoop
	case t.graph != nil:
		return kindGraph
	case t.importer() != nil:
		return kindImporter
	default:
		return kindContainer
	}
}

// ReadTask reads a row of KindTasks.
func ReadTask(row store.Row) (*Task, error) { return decodeTask(row) }
