package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// A rerun is a run of its own that takes over what tasks of another run did. What
// it takes over is copied to rows of its own when it is made, so that it needs
// nothing of its original any more.

const kindTaken store.Kind = "pipelineTaken"

// taken is what a rerun was told of one task; it is a row.
type taken struct {
	Path string `json:"path"`           // without attempts
	Skip bool   `json:"skip,omitempty"` // it ends as it did in the original
	// Fresh says that it ran in the original and is to run again, whatever the cache
	// has.
	Fresh      bool           `json:"fresh,omitempty"`
	Last       bool           `json:"last,omitempty"`       // nothing after it runs
	Parameters map[string]any `json:"parameters,omitempty"` // used instead of those that it is given
	Row        string         `json:"row,omitempty"`        // of the task in the original
	Task       *Task          `json:"task,omitempty"`       // as it was there, with Skip
}

// TakeOver writes what a new run takes over from its original. Both are full names.
func TakeOver(ctx context.Context, tx store.Tx, plan *Plan, original, job string, configs []*pb.PipelineTaskRerunConfig) error {
	o, err := readOriginal(ctx, tx, original)
	if err != nil {
		return err
	}
	told := map[string]*taken{}
	whole, open := map[string]bool{}, map[string]bool{}
	for i, c := range configs {
		where := fmt.Sprintf("pipeline_job.pipeline_task_rerun_configs[%d]", i)
		t, err := o.task(where, c)
		if err != nil {
			return err
		}
		at := plain(t.Path)
		said := &taken{Path: at, Skip: c.SkipTask, Last: c.SkipDownstreamTasks, Row: taskRow(original, t.ID)}
		if said.Parameters, err = plan.overridden(where, at, c.GetInputs()); err != nil {
			return err
		}
		leaf := t.Kind == kindContainer || t.Kind == kindImporter
		switch {
		case c.SkipTask:
			said.Task = t
		case leaf && t.State == Skipped && c.TaskId != 0 && said.Parameters == nil && !said.Last:
			// It ran in yet another run. The SDK skips what SUCCEEDED alone and means no
			// more by it (google-cloud-aiplatform 2.7.0); who wants it to run names it.
			said.Skip, said.Task = true, t
		case leaf:
			said.Fresh = t.State.done() && t.State != NotTriggered
			above(at, open)
		case t.State.ok(): // only a wish makes a rerun of it: clients skip what succeeded
			whole[at] = true
			above(at, open)
		}
		told[at] = said
	}
	for _, at := range sortedKeys(told) {
		said := told[at]
		if said.Last {
			for p := parentOf(at); p != ""; p = parentOf(p) {
				if told[p] == nil {
					told[p] = &taken{Path: p}
				}
				told[p].Last = true
			}
		}
		if said.Skip && (at == "" || open[at] || within(whole, at)) {
			said.Skip, said.Task = false, nil
		}
	}
	for at, said := range told {
		data, err := json.Marshal(said)
		if err != nil {
			return fmt.Errorf("encode task %s: %w", at, err)
		}
		if err := tx.Put(ctx, store.Row{Kind: kindTaken, Key: job + "/taken/" + at, Parent: job, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// original is a run that another one goes on with.
type original struct {
	name   string
	byID   map[int64]*Task
	byPath map[string]*Task // without attempts: of several the latest
}

func readOriginal(ctx context.Context, r store.Reader, name string) (*original, error) {
	rows, err := r.List(ctx, store.Query{Kind: KindTasks, Parent: name})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	o := &original{name: name, byID: map[int64]*Task{}, byPath: map[string]*Task{}}
	for _, row := range rows {
		t, err := decodeTask(row)
		if err != nil {
			return nil, err
		}
		o.byID[t.ID] = t
		if before := o.byPath[plain(t.Path)]; before == nil || before.Created.Before(t.Created) {
			o.byPath[plain(t.Path)] = t
		}
	}
	return o, nil
}

// task finds what a config is about: by its id, or else by its name.
func (o *original) task(where string, c *pb.PipelineTaskRerunConfig) (*Task, error) {
	t, what := o.byPath[plain(c.GetTaskName())], fmt.Sprintf("%q", c.GetTaskName())
	if c.GetTaskId() != 0 {
		if t, what = o.byID[c.GetTaskId()], fmt.Sprintf("with the id %d", c.GetTaskId()); t != nil {
			t = o.byPath[plain(t.Path)]
		}
	}
	if t == nil {
		return nil, resource.Invalid(where, "the original run %s has no task %s", o.name, what).WithHint("its tasks are: %s", strings.Join(sortedKeys(o.byPath), " "))
	}
	return t, nil
}

// overridden checks parameters that a task is to have instead of its own.
func (p *Plan) overridden(where, at string, in *pb.PipelineTaskRerunConfig_Inputs) (map[string]any, error) {
	if len(in.GetArtifacts()) > 0 {
		return nil, resource.Unimplemented(where + ".inputs.artifacts")
	}
	if len(in.GetParameterValues()) == 0 {
		return nil, nil
	}
	t := p.find(at)
	if t == nil {
		return nil, resource.Unimplemented(where + ".inputs of a run or of an iteration of a loop")
	}
	out := map[string]any{}
	types := inputTypes(t.comp)
	for _, k := range sortedKeys(in.GetParameterValues()) {
		v := in.GetParameterValues()[k].AsInterface()
		field := where + ".inputs.parameter_values[" + k + "]"
		if _, ok := types[k]; !ok {
			return nil, resource.Invalid(field, "task %q has no parameter %q", at, k).WithHint("its parameters are: %s", strings.Join(sortedKeys(types), ", "))
		}
		if err := checkType(v, types[k]); err != nil {
			return nil, resource.Invalid(field, "parameter %q: %v", k, err)
		}
		out[k] = v
	}
	return out, nil
}

// find gives the task of a path that leads through graphs alone.
func (p *Plan) find(at string) *task {
	var t *task
	g := p.root
	for name := range strings.SplitSeq(at, "/") {
		if g == nil || g.tasks[name] == nil {
			return nil
		}
		t = g.tasks[name]
		if g = t.graph; t.iterates() {
			g = nil
		}
	}
	return t
}

// plain is a path without the numbers of attempts.
func plain(at string) string {
	if !strings.Contains(at, "#") {
		return at
	}
	parts := strings.Split(at, "/")
	for i := range parts {
		parts[i], _, _ = strings.Cut(parts[i], "#")
	}
	return strings.TrimPrefix(path.Join(parts...), "/")
}

func parentOf(at string) string {
	if i := strings.LastIndexByte(at, '/'); i >= 0 {
		return at[:i]
	}
	return ""
}

// above marks the graphs around a task.
func above(at string, marks map[string]bool) {
	for p := parentOf(at); p != ""; p = parentOf(p) {
		marks[p] = true
	}
}

// within reports a path in one of the marked ones.
func within(marks map[string]bool, at string) bool {
	for p := at; p != ""; p = parentOf(p) {
		if marks[p] {
			return true
		}
	}
	return marks[""]
}

// readTaken gives what a run takes over, by path.
func readTaken(ctx context.Context, r store.Reader, job string) (map[string]*taken, error) {
	rows, err := r.List(ctx, store.Query{Kind: kindTaken, Parent: job})
	if err != nil {
		return nil, fmt.Errorf("list what is taken over: %w", err)
	}
	out := map[string]*taken{}
	for _, row := range rows {
		t := &taken{}
		if err := json.Unmarshal(row.Data, t); err != nil {
			return nil, fmt.Errorf("read %s: %w", row.Key, err)
		}
		if t.Task != nil {
			t.Task.Inputs.fill()
			t.Task.Outputs.fill()
		}
		out[t.Path] = t
	}
	return out, nil
}

// replay ends a task whose turn it is without running it, if it is to be taken over
// or nothing after the tasks before it runs.
func (m *machine) replay(n *node) bool {
	if len(m.run.taken) == 0 || m.cancelling {
		return false
	}
	if m.takeOver(n) {
		return true
	}
	for _, d := range n.def.deps {
		dep := n.parent.children[d]
		if t := m.run.taken[plain(dep.Path)]; dep.LeftOut || t != nil && t.Last {
			n.LeftOut, n.Reason = true, fmt.Sprintf("left out: the rerun ends with %q", d)
			m.finish(n, NotTriggered, nil)
			return true
		}
	}
	return false
}

// takeOver ends a task as it did in the original. What succeeded counts as from the
// cache, and what failed there is no news to a run that fails fast.
func (m *machine) takeOver(n *node) bool {
	t := m.run.taken[plain(n.Path)]
	if t == nil || !t.Skip {
		return false
	}
	o := t.Task
	if !o.State.done() {
		n.LeftOut, n.Reason = true, "left out: it had not ended in the original run"
		m.finish(n, NotTriggered, nil)
		return true
	}
	n.Inputs, n.Outputs, n.Cached, n.Reason, n.Blocked, n.LeftOut = o.Inputs, o.Outputs, t.Row, o.Reason, o.Blocked, o.LeftOut
	n.inputs = n.Inputs
	if n.parent.loop != nil {
		n.inputs = iterationInputs(n.parent, n.Inputs)
	}
	state := o.State
	if state.ok() {
		state = Skipped
	}
	m.finish(n, state, o.Failure)
	return true
}

// fresh reports a task that must not come from the cache.
func (m *machine) fresh(n *node) bool {
	t := m.run.taken[plain(n.Path)]
	return t != nil && t.Fresh
}

// override puts parameters in place that the rerun was given for this task.
func (m *machine) override(n *node, v Values) {
	if t := m.run.taken[plain(n.Path)]; t != nil {
		maps.Copy(v.Parameters, t.Parameters)
	}
}
