package pipeline

import (
	"slices"
	"strings"
)

// After gives the paths of what comes after a task: of the tasks that wait for it,
// those that wait for them, and the same for each graph around it.
func (p *Plan) After(at string) []string {
	var out []string
	p.walk(at, func(g *graph, prefix, name string) {
		seen := map[string]bool{}
		for todo := []string{name}; len(todo) > 0; todo = todo[1:] {
			for _, u := range g.tasks[todo[0]].users {
				if !seen[u] {
					seen[u] = true
					todo = append(todo, u)
				}
			}
		}
		for u := range seen {
			out = append(out, strings.TrimPrefix(prefix+"/"+u, "/"))
		}
	})
	slices.Sort(out)
	return out
}

// Executor is what a task of a compiled pipeline runs.
type Executor struct {
	Label string // of deploymentSpec.executors; "" for a task that runs no program
	Graph string // component whose DAG has the task; "root" for the pipeline's own
	Task  string // its name in there
}

// ExecutorOf finds what the task of a path runs; false when the pipeline has no
// such task.
func (p *Plan) ExecutorOf(at string) (Executor, bool) {
	var e Executor
	last := p.walk(at, func(g *graph, _, name string) {
		t := g.tasks[name]
		e = Executor{Graph: first(g.name, "root"), Task: name}
		if t.container() != nil {
			e.Label = t.comp.GetExecutorLabel()
		}
	})
	return e, last
}

// walk visits the tasks on a path, iterations aside. It reports whether the path
// led to a task.
func (p *Plan) walk(at string, visit func(g *graph, prefix, name string)) bool {
	g, loop, prefix := p.root, "", ""
	for name := range strings.SplitSeq(plain(at), "/") {
		if loop != "" { // what a loop is made of is its iterations
			if !strings.HasPrefix(name, loop+"-") {
				return false
			}
			prefix, loop = strings.TrimPrefix(prefix+"/"+name, "/"), ""
			continue
		}
		if g == nil || g.tasks[name] == nil {
			return false
		}
		t := g.tasks[name]
		visit(g, prefix, name)
		prefix = strings.TrimPrefix(prefix+"/"+name, "/")
		if t.iterates() {
			loop = name
		}
		g = t.graph
	}
	return true
}
