package pipeline

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// random plays a run in a random order, with restarts where it likes: what each
// program does depends on its path alone.
type random struct {
	t       *testing.T
	m       *machine
	rng     *rand.Rand
	seed    uint64
	pending []action
	now     time.Time
	rows    map[string][]byte // by path, as they were committed
}

// FuzzOrder: whatever the order of events, however often the process is killed,
// and however few attempts there may be at once, a run ends in the same states, and
// loops keep to their limits.
func FuzzOrder(f *testing.F) {
	var plans []*Plan
	for _, ir := range machinePipelines(f) {
		plan, err := ParseJSON(ir)
		if err != nil {
			continue // a case of what is refused
		}
		if _, err := plan.Parameters(nil); err == nil {
			plans = append(plans, plan)
		}
	}
	for i := range plans {
		for seed := range uint64(5) {
			f.Add(i, seed)
		}
	}
	f.Fuzz(func(t *testing.T, index int, seed uint64) {
		if index < 0 || index >= len(plans) {
			return
		}
		calm := playRandom(t, plans[index], seed, 0)
		for order := range uint64(3) {
			if got := playRandom(t, plans[index], seed, order+1); got != calm {
				t.Fatalf("pipeline %s, seed %d, order %d:\n%s\nwithout restarts:\n%s", plans[index].Name, seed, order, got, calm)
			}
		}
	})
}

// playRandom gives the states that a run ends in; order 0 has no restarts.
func playRandom(t *testing.T, plan *Plan, seed, order uint64) string {
	t.Helper()
	params, err := plan.Parameters(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := run{name: "projects/p/locations/l/pipelineJobs/j", id: "j", number: "1", root: "gs://b/r", parameters: params, artifacts: map[string][]Artifact{}}
	r.atOnce = int(order) // 0 = any number
	p := &random{t: t, m: newMachine(plan, r), rng: rand.New(rand.NewPCG(seed, order)), seed: seed, now: time.Unix(1, 0), rows: map[string][]byte{}}
	p.send(began{})
	for steps := 0; !p.m.done(); steps++ {
		if steps > 20_000 || len(p.pending) == 0 {
			t.Fatalf("the run does not end: %d steps, %d things to do", steps, len(p.pending))
		}
		if order > 0 && p.rng.IntN(6) == 0 {
			p.restart()
			continue
		}
		i := p.rng.IntN(len(p.pending))
		a := p.pending[i]
		p.pending = slices.Delete(p.pending, i, i+1)
		p.act(a)
	}
	if n := len(p.m.ready); n > 0 || p.m.running > 0 {
		t.Fatalf("it ended with %d attempts at work and %d that wait", p.m.running, n)
	}
	var out strings.Builder
	for _, path := range sortedKeys(p.rows) {
		n := &Task{}
		if err := json.Unmarshal(p.rows[path], n); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s %d %s\n", path, n.State, n.Attempt, encode(n.Outputs.Parameters))
	}
	return out.String()
}

func (p *random) act(a action) {
	switch a := a.(type) {
	case lookup:
		p.send(looked{path: a.path})
	case find:
		p.send(found{path: a.path})
	case grow:
		p.send(grown(a))
	case wake:
		p.now = a.at
		p.send(due{path: a.path})
	case start:
		p.send(ended{path: a.path, attempt: a.attempt, outcome: p.outcome(a)})
	default:
		p.t.Fatalf("nobody asked for %T", a)
	}
}

// outcome fails some programs, by their path and attempt.
func (p *random) outcome(a start) outcome {
	h := fnv.New64()
	_, _ = fmt.Fprintf(h, "%d %s %d", p.seed, a.path, a.attempt)
	if h.Sum64()%6 == 0 {
		return outcome{exit: runtime.Exit{Code: 1, Message: "no luck", Cause: resource.CauseUserCode}}
	}
	o := outcome{files: map[string][]byte{}}
	for k, t := range outputTypes(p.m.nodes[a.path].def.comp) {
		o.files[k] = []byte(map[paramType]string{
			ps.ParameterType_LIST: "[1,2,3]", ps.ParameterType_STRUCT: `{"a":1}`, ps.ParameterType_BOOLEAN: "true",
		}[t])
		if len(o.files[k]) == 0 {
			o.files[k] = []byte(itoa(int(h.Sum64() % 10)))
		}
	}
	return o
}

func (p *random) send(ev event) {
	p.now = p.now.Add(time.Second)
	p.pending = append(p.pending, p.m.step(p.now, ev)...)
	p.commit()
	if most := p.m.run.atOnce * spread; most > 0 && p.m.running > most {
		p.t.Fatalf("%d attempts run, %d may", p.m.running, most)
	}
	for path, n := range p.m.nodes {
		if n.loop == nil {
			continue
		}
		limit := int(n.def.spec.GetIteratorPolicy().GetParallelismLimit())
		if running := len(n.loop.nodes) - finished(n); limit > 0 && running > limit {
			p.t.Fatalf("%d iterations of %s run, %d may", running, path, limit)
		}
	}
}

func finished(n *node) int {
	count := 0
	for _, c := range n.loop.nodes {
		if c.State.done() {
			count++
		}
	}
	return count
}

// commit does what a job does after each step.
func (p *random) commit() {
	for path := range p.m.changed {
		p.rows[path] = encode(p.m.nodes[path].Task)
	}
	clear(p.m.changed)
	p.m.forget()
}

// restart makes a new machine of the rows.
func (p *random) restart() {
	p.m = restoredFrom(p.t, p.m, p.rows)
	p.pending = nil
	p.send(began{})
}

func restored(t *testing.T, m *machine) *machine {
	t.Helper()
	rows := map[string][]byte{}
	for path, n := range m.nodes {
		rows[path] = encode(n.Task)
	}
	return restoredFrom(t, m, rows)
}

func restoredFrom(t *testing.T, m *machine, rows map[string][]byte) *machine {
	t.Helper()
	var tasks []*Task
	for _, path := range sortedKeys(rows) {
		task := &Task{}
		if err := json.Unmarshal(rows[path], task); err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task)
	}
	next := newMachine(m.plan, m.run)
	if err := next.restore(tasks, m.cancelling); err != nil {
		t.Fatal(err)
	}
	return next
}

// loopIR is a loop over a list of the run, with as many at once as limit says.
func loopIR(limit int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"loop"},
		"components":{"comp-loop":{"inputDefinitions":{"parameters":{"items":{"parameterType":"LIST"},"item":{"parameterType":"NUMBER_INTEGER"}}},
				"outputDefinitions":{"parameters":{"out":{"parameterType":"LIST"}}},
				"dag":{"outputs":{"parameters":{"out":{"valueFromParameter":{"producerSubtask":"work","outputParameterKey":"out"}}}},
					"tasks":{"work":{"taskInfo":{"name":"work"},"componentRef":{"name":"comp-work"},"inputs":{"parameters":{"in":{"componentInputParameter":"item"}}}}}}},
			"comp-work":{"executorLabel":"exec","inputDefinitions":{"parameters":{"in":{"parameterType":"NUMBER_INTEGER"}}},"outputDefinitions":{"parameters":{"out":{"parameterType":"NUMBER_INTEGER"}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"none","command":["work"],"args":["{{$.inputs.parameters['in']}}","{{$.outputs.parameters['out'].output_file}}"]}}}},
		"root":{"inputDefinitions":{"parameters":{"items":{"parameterType":"LIST"}}},
			"dag":{"tasks":{"loop":{"taskInfo":{"name":"loop"},"componentRef":{"name":"comp-loop"},"iteratorPolicy":{"parallelismLimit":%d},
				"inputs":{"parameters":{"items":{"componentInputParameter":"items"}}},"parameterIterator":{"itemInput":"item","items":{"inputParameter":"items"}}}}}}}`, limit)
}

func loopRun(n int) run {
	items := make([]any, n)
	for i := range items {
		items[i] = float64(i)
	}
	return run{
		name: "projects/p/locations/l/pipelineJobs/j", id: "j", number: "1", root: "gs://b/r",
		parameters: map[string]any{"items": items}, artifacts: map[string][]Artifact{},
	}
}

// TestLongLoop: a step starts a burst at most, and the rows of the iterations do
// not each hold the list.
func TestLongLoop(t *testing.T) {
	t.Parallel()
	plan, err := ParseJSON(loopIR(0))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(plan, loopRun(1000))
	started, now := 0, time.Unix(1, 0)
	queue := []event{began{}}
	for len(queue) > 0 {
		actions := m.step(now, queue[0])
		queue = queue[1:]
		if len(actions) > burst+1 {
			t.Fatalf("%d actions in a step", len(actions))
		}
		for _, a := range actions {
			switch a := a.(type) {
			case grow:
				queue = append(queue, grown(a))
			case start:
				started++
			default:
				t.Fatalf("nobody asked for %T", a)
			}
		}
	}
	size := 0
	for _, n := range m.nodes {
		size += len(encode(n.Task))
	}
	if started != 1000 || size > 2_000_000 {
		t.Errorf("%d programs started, %d bytes of rows", started, size)
	}
	if m = newMachine(plan, loopRun(maxIterations+1)); len(m.step(now, began{})) != 0 || m.root.State != Failed || !strings.Contains(m.root.Failure.Message, "100001 iterations are too many") {
		t.Errorf("a loop of %d: %s %v", maxIterations+1, m.root.State, m.root.Failure)
	}
}

// BenchmarkLoop runs loops of 1,000 iterations: the machine's own work.
func BenchmarkLoop(b *testing.B) {
	plan, err := ParseJSON(loopIR(0))
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(1, 0)
	for b.Loop() {
		m := newMachine(plan, loopRun(1000))
		queue := []event{began{}}
		for ; len(queue) > 0; queue = queue[1:] {
			for _, a := range m.step(now, queue[0]) {
				switch a := a.(type) {
				case grow:
					queue = append(queue, grown(a))
				case start:
					queue = append(queue, ended{path: a.path, attempt: a.attempt, outcome: outcome{files: map[string][]byte{"out": []byte("1")}}})
				}
			}
		}
		if m.root.State != Succeeded {
			b.Fatal(m.root.Failure)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/iteration")
}

// TestItemNamesASource: kfp 1.8 gives the item of a loop, around another loop, a source
// that does not exist; the item is the iteration's all the same.
func TestItemNamesASource(t *testing.T) {
	t.Parallel()
	const iterator = `"parameterIterator":{"itemInput":"item"`
	for _, source := range []string{
		`{"taskOutputParameter":{"producerTask":"numbers","outputParameterKey":"Output-loop-item"}}`,
		`{"componentInputParameter":"items-loop-item"}`,
	} {
		ir := strings.Replace(string(loopIR(0)), `"inputs":{"parameters":{"items":`, `"inputs":{"parameters":{"item":`+source+`,"items":`, 1)
		plan, err := ParseJSON([]byte(ir))
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		m := newMachine(plan, loopRun(3))
		var got []any
		queue := []event{began{}}
		for len(queue) > 0 {
			for _, a := range m.step(time.Unix(1, 0), queue[0]) {
				if s, ok := a.(start); ok {
					got = append(got, m.nodes[s.path].inputs.Parameters["in"])
				}
			}
			queue = queue[1:]
		}
		if len(got) != 3 {
			t.Errorf("%s: started with %v", source, got)
		}
		if other := strings.Replace(ir, iterator, `"parameterIterator":{"itemInput":"items"`, 1); !refused(other) {
			t.Errorf("%s is taken for an input that is no item", source)
		}
	}
}

func refused(ir string) bool {
	_, err := ParseJSON([]byte(ir))
	return err != nil
}
