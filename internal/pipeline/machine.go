package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
)

// The machine is a run as plain data: step takes one event, changes the state and
// says what to do. It reads no clock, starts nothing and knows no store, so that
// a table of events tests all of it and a restart needs the task rows alone.

// Run is what the machine knows of its job.
type run struct {
	name       string // full resource name
	id         string
	project    string
	location   string
	number     string // the numeric id, pipeline_job_uuid
	root       string // gs:// pipeline root, without a slash at its end
	account    string
	network    string
	context    string // name of the run's context in the metadata store
	labels     map[string]string
	created    time.Time
	scheduled  time.Time // created, unless a schedule says otherwise
	parameters map[string]any
	artifacts  map[string][]Artifact
	failFast   bool
	atOnce     int               // attempts below one loop at a time; 0 = any number
	taken      map[string]*taken // of a rerun, by path
}

// node is a Task with its place in the plan.
type node struct {
	*Task
	def      *task  // nil for the run itself
	graph    *graph // of what is made of tasks: the run, a DAG, an iteration over one
	loop     *loop  // of a task with an iterator
	parent   *node
	children map[string]*node // of a graph, those of its latest attempt
	open     int              // children that are not done
	inputs   Values           // what it works with: its Inputs, in an iteration the loop's too
	recorded bool             // its execution is in the context of the run
	queued   bool             // its next attempt waits in machine.ready
}

// failedFast is why a task was not run that nothing else kept from running.
const failedFast = "another task failed and the failure policy is to fail fast"

// workloadPrefix starts the workload ids of tasks.
const workloadPrefix = "task-"

// note is one line of the history of a job.
type note struct {
	Task    string   `json:"task"`
	Name    string   `json:"name"`
	State   State    `json:"state"`
	Attempt int      `json:"attempt,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
}

type machine struct {
	plan *Plan
	run  run

	nodes      map[string]*node
	root       *node
	cancelling bool
	broken     bool // a task failed for good: with failFast nothing new starts
	iterations int  // of all loops
	running    int  // attempts
	ready      []*node

	now     time.Time
	actions []action
	changed map[string]bool // tasks to write
	over    []*node         // ended, and not needed once they are written
	entries []cacheEntry    // cache entries to write
	imports []importEntry   // rows to write
	notes   []note          // events to append
}

func newMachine(plan *Plan, r run) *machine {
	return &machine{plan: plan, run: r, nodes: map[string]*node{}, changed: map[string]bool{}}
}

// step is the only way to change the machine.
func (m *machine) step(now time.Time, ev event) []action {
	m.now, m.actions = now, nil
	switch ev := ev.(type) {
	case began:
		m.begin()
	case looked:
		if n := m.nodes[ev.path]; n != nil && n.State == Pending {
			m.answer(n, ev.entry)
		}
	case ended:
		if n := m.nodes[ev.path]; n != nil && n.State == Running && n.Attempt == ev.attempt {
			m.running--
			m.busy(n, -1)
			m.finishAttempt(n, ev.outcome)
			m.refill(n)
		}
	case due:
		if n := m.nodes[ev.path]; n != nil && n.State == Pending && !n.RetryAt.IsZero() {
			m.again(n)
		}
	case grown:
		if n := m.nodes[ev.path]; n != nil && n.State == Running && n.loop != nil {
			n.loop.asked = false
			m.grow(n)
		}
	case found:
		if n := m.nodes[ev.path]; n != nil && n.State == Pending {
			m.imported(n, ev.name)
		}
	case cancel:
		m.cancel()
	}
	return m.actions
}

// done reports the end of the run.
func (m *machine) done() bool { return m.root != nil && m.root.State.done() }

// begin creates the run, or wakes up what a restored run was waiting for.
func (m *machine) begin() {
	if m.root == nil {
		m.root = m.add(nil, nil, m.run.id)
		m.root.graph, m.root.Kind = m.plan.root, kindRoot
		m.root.Inputs = Values{Parameters: m.run.parameters, Artifacts: m.run.artifacts}
		m.root.inputs, m.root.Warnings = m.root.Inputs, m.plan.Warnings
		m.open(m.root)
		return
	}
	for _, path := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[path]
		switch {
		case n.State == Running && n.leaf():
			m.do(start{path: n.Path, attempt: n.Attempt})
		case n.State == Pending && !n.RetryAt.IsZero():
			m.do(wake{path: n.Path, at: n.RetryAt})
		case n.State == Pending && n.parent.loop != nil:
			m.launch(n)
		case n.State == Pending:
			m.consider(n)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(m.nodes)) { // once all that waits has been counted
		if n := m.nodes[path]; n.State == Running && n.loop != nil {
			m.grow(n)
		}
	}
	if m.cancelling { // after the starts, which adopt what is to be stopped
		m.cancelling = false
		m.cancel()
	}
	m.settleAll()
}

func (m *machine) do(a action) { m.actions = append(m.actions, a) }

// add makes the row of a task: of one in a graph, or of an iteration of a loop.
func (m *machine) add(parent *node, def *task, name string) *node {
	path := ""
	if parent != nil {
		path = parent.below(name)
	}
	n := &node{
		Task:   &Task{ID: m.id(path), Path: path, Name: name, State: Pending, Created: m.now, Inputs: newValues(), Outputs: newValues()},
		parent: parent,
	}
	if parent != nil {
		n.Parent, n.Round = parent.ID, parent.Attempt
		parent.open++
		n.place(def)
	}
	n.History = []Transition{{Time: m.now, State: Pending}}
	m.nodes[path] = n
	m.changed[path] = true
	return n
}

// place makes the node an instance of a task, and a child of its parent.
func (n *node) place(def *task) {
	n.def = def
	switch p := n.parent; {
	case p.loop == nil && def.iterates():
		n.loop, n.Kind = &loop{}, kindLoop
	case def.graph != nil:
		n.graph, n.Kind = def.graph, kindGraph
	case def.importer() != nil:
		n.Kind = kindImporter
	default:
		n.Kind = kindContainer
	}
	if n.parent.loop == nil {
		n.parent.children[n.Name] = n
	}
}

// leaf reports a task that has none below it.
func (n *node) leaf() bool { return n.graph == nil && n.loop == nil }

// below is the path of a child. The second attempt of a graph has tasks of its
// own, so that those of the first stay to be looked at.
func (n *node) below(name string) string {
	at := n.Path
	if n.graph != nil && n.Attempt > 1 {
		at += "#" + strconv.Itoa(n.Attempt)
	}
	return strings.TrimPrefix(at+"/"+name, "/")
}

// id gives a number that a repeated creation gives again, and another run never.
func (m *machine) id(path string) int64 {
	h := sha256.Sum256([]byte(m.run.name + "\x00" + strconv.FormatInt(m.run.created.UnixNano(), 10) + "\x00" + path))
	return int64(binary.BigEndian.Uint64(h[:])>>2 | 1<<60)
}

// set moves a task to a state.
func (m *machine) set(n *node, s State, f *Failure) {
	n.State, n.Failure = s, f
	if s == Running && n.Started.IsZero() {
		n.Started = m.now
	}
	if s.done() {
		n.Ended = m.now
	}
	n.History = append(n.History, Transition{Time: m.now, State: s, Failure: f})
	m.changed[n.Path] = true
	m.notes = append(m.notes, note{Task: n.Path, Name: n.Name, State: s, Attempt: n.Attempt, Reason: n.Reason, Failure: f})
}

// open starts the tasks of a graph.
func (m *machine) open(n *node) {
	m.over = slices.AppendSeq(m.over, maps.Values(n.children)) // of the attempt before
	n.children, n.open = map[string]*node{}, 0
	n.Attempt++
	n.RetryAt, n.Outputs = time.Time{}, newValues()
	m.set(n, Running, nil)
	for _, name := range n.graph.order {
		m.add(n, n.graph.tasks[name], name)
	}
	for _, name := range n.graph.order {
		if c := n.children[name]; c.idle() {
			m.consider(c)
		}
	}
	m.settle(n)
}

// idle reports a task that has not been triggered.
func (n *node) idle() bool {
	return n.State == Pending && n.CacheKey == "" && n.RetryAt.IsZero() && !n.queued
}

// consider starts a task if everything before it is done.
func (m *machine) consider(n *node) {
	blocked, skipped := "", ""
	for _, d := range n.def.deps {
		dep := n.parent.children[d]
		switch {
		case !dep.State.done():
			return
		case dep.State.ok():
		case dep.State == NotTriggered && !dep.Blocked:
			if !n.def.optionalFrom(d) {
				skipped = d
			}
		default:
			blocked = d
		}
	}
	if m.replay(n) {
		return
	}
	switch {
	case m.cancelling:
		m.finish(n, Cancelled, nil)
	case m.halted(n):
		m.keepOut(n)
	case n.def.always:
		m.trigger(n)
	case blocked != "":
		n.Reason, n.Blocked = fmt.Sprintf("task %q before it did not succeed", blocked), true
		m.finish(n, NotTriggered, nil)
	case skipped != "":
		n.Reason = fmt.Sprintf("task %q before it was not triggered", skipped)
		m.finish(n, NotTriggered, nil)
	default:
		m.trigger(n)
	}
}

// trigger works out the inputs and starts the task.
func (m *machine) trigger(n *node) {
	inputs, err := m.resolve(n)
	if err != nil {
		m.finish(n, Failed, badInput(err))
		return
	}
	m.override(n, inputs)
	n.Inputs, n.inputs = inputs, inputs
	if n.def.condition != nil {
		yes, err := evalCondition(n.def.condition, m.conditionInputs(n))
		if err != nil {
			m.finish(n, Failed, badInput(err))
			return
		}
		if !yes {
			n.Reason = "its condition is false: " + n.def.spec.GetTriggerPolicy().GetCondition()
			m.finish(n, NotTriggered, nil)
			return
		}
	}
	m.launch(n)
}

// launch starts a task, or one iteration of it, whose inputs are known.
func (m *machine) launch(n *node) {
	switch {
	case m.takeOver(n): // an iteration; other tasks were considered
	case n.loop != nil:
		m.openLoop(n)
	case n.graph != nil:
		m.open(n)
	case n.def.importer() != nil:
		m.importArtifact(n)
	case n.def.caches() && !m.fresh(n):
		n.CacheKey = cacheKey(m.plan.Name, n.def, n.inputs)
		m.changed[n.Path] = true
		m.do(lookup{path: n.Path, key: n.CacheKey})
	default:
		m.attempt(n)
	}
}

// badInput is the failure of a task whose inputs make no sense: it did not start.
func badInput(err error) *Failure {
	return &Failure{Message: err.Error(), Cause: resource.CauseInput, Reason: "BAD_INPUT", ExitCode: resource.NeverStarted}
}

// answer goes on after a cache lookup.
func (m *machine) answer(n *node, entry *cacheEntry) {
	if m.cancelling {
		m.finish(n, Cancelled, nil)
		return
	}
	if entry == nil {
		m.attempt(n)
		return
	}
	n.Cached, n.Outputs = entry.Task, entry.Outputs
	m.finish(n, Skipped, nil)
}

// begun starts the next attempt of a container.
func (m *machine) begun(n *node) {
	m.running++
	n.Attempt++
	n.RetryAt = time.Time{}
	n.Workload = append(n.Workload, fmt.Sprintf("%s%d-%d", workloadPrefix, n.ID, n.Attempt))
	m.set(n, Running, nil)
	m.do(start{path: n.Path, attempt: n.Attempt})
}
