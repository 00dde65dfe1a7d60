package pipeline

import "slices"

// Program is what a task runs, taken apart as people compare it.
type Program struct {
	Image    string
	Source   string   // of a Python function; "" for other programs
	Command  []string // with its arguments; of a function its arguments alone
	Packages []string // pip requirements and indexes
	Env      map[string]string
}

// ProgramOf gives what the task of a path runs; false when it runs no program.
func (p *Plan) ProgramOf(at string) (Program, bool) {
	var t *task
	if !p.walk(at, func(g *graph, _, name string) { t = g.tasks[name] }) || t.container() == nil {
		return Program{}, false
	}
	c := t.container()
	out := Program{Image: c.GetImage(), Command: slices.Concat(c.GetCommand(), c.GetArgs()), Env: map[string]string{}}
	for _, e := range c.GetEnv() {
		out.Env[e.GetName()] = e.GetValue()
	}
	if l, ok := parseLightweight(c.GetCommand(), c.GetImage()); ok {
		out.Source, out.Command, out.Packages = l.source, c.GetArgs(), slices.Concat(l.install.packages, l.install.indexes)
	}
	return out, true
}
