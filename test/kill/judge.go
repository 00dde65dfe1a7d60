package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// shape is what is known of a pipeline beforehand.
type shape struct {
	retries map[string]int // of each program, by its name in the ledger; 0 = none
	graphs  map[string]int // likewise of graphs, by task name
	wanted  map[string]int // programs that succeed in a run that does
}

func shapes() map[string]shape {
	return map[string]shape{
		"flow-weave": {
			retries: map[string]int{"start": 6, "item": 5, "only": 5, "gather": 5, "last": 5, nameFinish: 5},
			graphs:  map[string]int{"part": 5},
			wanted:  map[string]int{"start": 1, "item": 6, "only": 1, "gather": 1, "first": 1, "second": 1, "last": 1, nameFinish: 1},
		},
		"flow-brittle": {
			retries: map[string]int{"weak": 1, nameFinish: 5},
			wanted:  map[string]int{"start": 1, "weak": 1, "last": 1, "beside": 1, nameFinish: 1},
		},
		"flow-tick": {retries: map[string]int{"tick": 9, "tock": 9}, wanted: map[string]int{"tick": 1, "tock": 1}},
	}
}

// verdict gathers what is wrong with one run.
type verdict struct {
	*flowRun
	shape    shape
	ledger   traces
	problems []string
	children map[string][]*flowTask // by the parent's id
	speakers map[string]bool        // attempts whose outputs count: the last of each task that succeeded
}

// judge compares what the API says of a run that has ended, its artifacts and its
// log with what its programs and the striker wrote. It gives what is wrong.
func (r *flowRun) judge(ledger traces) []string {
	v := &verdict{flowRun: r, shape: shapes()[r.pipeline], ledger: ledger, children: map[string][]*flowTask{}, speakers: map[string]bool{}}
	for _, t := range r.detail.JobDetail.TaskDetails {
		v.children[t.ParentTaskID] = append(v.children[t.ParentTaskID], t)
	}
	for _, run := range []*flowRun{r, r.original, r.earlier} {
		if run == nil {
			continue
		}
		for _, t := range run.detail.JobDetail.TaskDetails {
			if w := t.workloads(); len(w) > 0 && t.State == taskSucceeded {
				v.speakers[w[len(w)-1]] = true
			}
		}
	}
	v.run()
	for _, t := range r.detail.JobDetail.TaskDetails {
		v.times(t)
		switch {
		case t.isProgram():
			v.program(t)
		default:
			v.graph(t)
		}
	}
	v.again()
	v.exit()
	v.gathered()
	return v.problems
}

func (v *verdict) wrong(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// run judges the whole: its state and that nothing in it is open, missing or double.
func (v *verdict) run() {
	if d := v.detail; d.StartTime.Before(d.CreateTime) || d.EndTime.Before(d.StartTime) {
		v.wrong("created %v, started %v, ended %v", d.CreateTime, d.StartTime, d.EndTime)
	}
	if names := v.detail.open(); names != "" {
		v.wrong("it is %s and these tasks are not: %s", v.detail.State, names)
	}
	if v.detail.State == runCancelled && !v.cancelled {
		v.wrong("nobody cancelled it")
	}
	if v.detail.State != runSucceeded {
		return
	}
	if v.original != nil {
		return // what it took over is not in its shape
	}
	got := map[string]int{}
	for _, t := range v.detail.JobDetail.TaskDetails {
		if t.isProgram() && (t.State == taskSucceeded || t.State == taskSkipped) && v.counts(t) {
			got[t.role()]++
		}
	}
	if !maps.Equal(got, v.shape.wanted) {
		v.wrong("it succeeded with the programs %v, want %v", got, v.shape.wanted)
	}
}

// counts reports a task that belongs to the last attempt of each graph around it.
func (v *verdict) counts(t *flowTask) bool {
	parent := above(t.TaskUniqueName)
	last := ""
	for _, other := range v.children[t.ParentTaskID] {
		if p := above(other.TaskUniqueName); len(p) > len(last) || len(p) == len(last) && p > last {
			last = p
		}
	}
	return parent == last
}

// above is the path of the graph around a task, with its attempt.
func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// times judges that nothing happened before what it follows from.
func (v *verdict) times(t *flowTask) {
	if !t.StartTime.IsZero() && t.StartTime.Before(t.CreateTime) || t.EndTime.Before(t.StartTime) || t.CreateTime.Before(v.detail.CreateTime) || t.EndTime.After(v.detail.EndTime) {
		v.wrong("task %s: created %v, started %v, ended %v, in a run from %v to %v", t.TaskUniqueName, t.CreateTime, t.StartTime, t.EndTime, v.detail.CreateTime, v.detail.EndTime)
	}
	at := t.CreateTime
	for i, h := range t.PipelineTaskStatus {
		if h.UpdateTime.Before(at) {
			v.wrong("task %s: its state %d is of %v, before %v", t.TaskUniqueName, i, h.UpdateTime, at)
		}
		at = h.UpdateTime
	}
	if n := len(t.PipelineTaskStatus); n == 0 || t.PipelineTaskStatus[n-1].State != t.State {
		v.wrong("task %s: it is %s and its history does not end so: %+v", t.TaskUniqueName, t.State, t.PipelineTaskStatus)
	}
}

// again judges that a run which goes on with another, or enters a task of it again, runs
// nothing that had succeeded, and that the task which it enters has run.
func (v *verdict) again() {
	if v.original == nil {
		return
	}
	succeeded := map[string]bool{}
	for _, t := range v.original.detail.JobDetail.TaskDetails {
		succeeded[t.TaskUniqueName] = t.isProgram() && t.State == taskSucceeded && t.TaskName != nameFinish
	}
	entered := v.alone == "" || v.cancelled
	for _, t := range v.detail.JobDetail.TaskDetails {
		ran := len(t.workloads()) > 0
		if ran && succeeded[t.TaskUniqueName] {
			v.wrong("task %s: it had succeeded and ran again", t.TaskUniqueName)
		}
		entered = entered || ran && t.TaskUniqueName == v.alone
	}
	if !entered {
		v.wrong("task %s: it was to be entered again and did not run", v.alone)
	}
}

// program judges a task that runs one: its attempts, its outputs, its log.
func (v *verdict) program(t *flowTask) {
	workloads := t.workloads()
	failures := v.attempts(t, workloads)
	most := v.shape.retries[t.role()]
	switch t.State {
	case taskSucceeded:
		v.outputs(t, workloads)
	case taskSkipped:
		if me := t.said(); !v.speakers[me[strings.LastIndexByte(me, '/')+1:]] && t.TaskName != "gather" {
			v.wrong("task %s: taken over from %q, whose outputs do not count", t.TaskUniqueName, me)
		}
	case taskFailed:
		if failures != most+1 && !v.tookOver(t) {
			v.wrong("task %s: it failed after %d attempts, want %d", t.TaskUniqueName, failures, most+1)
		}
		if t.Error == nil || t.Error.Message == "" {
			v.wrong("task %s: it failed and does not say why", t.TaskUniqueName)
		}
	case taskNotTriggered:
		if len(workloads) > 0 {
			v.wrong("task %s: it was not triggered and ran %v", t.TaskUniqueName, workloads)
		}
	case taskCancelled:
		if !v.cancelled {
			v.wrong("task %s: it is cancelled and the run is not", t.TaskUniqueName)
		}
	}
	if failures > most+1 {
		v.wrong("task %s: %d attempts failed of %d", t.TaskUniqueName, failures, most+1)
	}
}

// tookOver reports a task that failed in the run that this one goes on with, and
// was not to run again.
func (v *verdict) tookOver(t *flowTask) bool { return v.original != nil && len(t.workloads()) == 0 }

// attempts judges each start of a task's program, and gives how many failed.
func (v *verdict) attempts(t *flowTask, workloads []string) (failures int) {
	ends := []struct {
		at  time.Time
		why *flowError
	}{}
	begins := []time.Time{}
	for _, h := range t.PipelineTaskStatus {
		switch h.State {
		case "RUNNING":
			begins = append(begins, h.UpdateTime)
		case taskFailed, taskSucceeded, taskCancelled:
			ends = append(ends, struct {
				at  time.Time
				why *flowError
			}{h.UpdateTime, h.Error})
			if h.State == taskFailed {
				failures++
			}
		}
	}
	if len(begins) != len(workloads) || len(workloads) > 0 && len(ends) < len(workloads) && t.State != taskCancelled {
		v.wrong("task %s: %d attempts, %d begins and %d ends", t.TaskUniqueName, len(workloads), len(begins), len(ends))
		return failures
	}
	for i, w := range workloads {
		tr := v.ledger[w]
		if tr == nil {
			tr = &trace{}
		}
		failed := i < len(workloads)-1 || t.State == taskFailed
		v.attempt(t, w, tr)
		if failed && i < len(ends) {
			v.cause(t, w, tr, ends[i].why)
		}
		if tr.steps["begin"] == 0 {
			continue
		}
		if tr.first.Before(begins[i]) {
			v.wrong("task %s: the program of %s ran at %v, before it was started at %v", t.TaskUniqueName, w, tr.first, begins[i])
		}
		if i < len(ends) && tr.last.After(ends[i].at) {
			v.wrong("task %s: the program of %s still ran at %v, after its end at %v", t.TaskUniqueName, w, tr.last, ends[i].at)
		}
	}
	if t.State == taskSucceeded && len(workloads) > 0 {
		if tr := v.ledger[workloads[len(workloads)-1]]; tr == nil || tr.steps["commit"] != 1 || tr.steps["fails"] > 0 {
			v.wrong("task %s: it succeeded and its program %s did not: %+v", t.TaskUniqueName, workloads[len(workloads)-1], tr)
		}
	}
	return failures
}

// attempt judges that a program ran once at most, on whole inputs, with its log.
func (v *verdict) attempt(t *flowTask, w string, tr *trace) {
	if tr.steps["begin"] > 1 || tr.steps["commit"] > 1 || tr.steps["fails"] > 1 {
		v.wrong("task %s: the program of %s ran more than once: %v", t.TaskUniqueName, w, tr.steps)
	}
	if tr.steps["mixed"] > 0 {
		v.wrong("task %s: %s got an input that was not whole", t.TaskUniqueName, w)
	}
	line := "\nattempt " + w + " of " + tr.name + "\n" // a whole one: errors quote it
	if n := strings.Count(v.log, line); tr.steps["begin"] > 0 && n != 1 {
		v.wrong("task %s: the log has the output of %s %d times", t.TaskUniqueName, w, n)
	}
}

// cause judges that a failed attempt failed for what happened to it.
func (v *verdict) cause(t *flowTask, w string, tr *trace, why *flowError) {
	message := ""
	if why != nil {
		message = why.Message
	}
	switch {
	case tr.steps["fails"] > 0 && len(tr.kills) == 0:
		if !strings.Contains(message, "exit code 7") {
			v.wrong("task %s: %s failed by itself and the error is %q", t.TaskUniqueName, w, message)
		}
	case tr.steps["fails"] > 0: // either may be told
	case tr.kills[victimLaunch] > 0 && strings.Contains(message, "before it began"):
	case tr.kills[victimWrapper]+tr.kills[victimLaunch] > 0:
		if !strings.Contains(message, "its wrapper was killed") && !strings.Contains(message, "SIGKILL") {
			v.wrong("task %s: the wrapper of %s was killed and the error is %q", t.TaskUniqueName, w, message)
		}
	case tr.kills[victimProgram] > 0:
		if !strings.Contains(message, "SIGKILL") {
			v.wrong("task %s: the program of %s was killed and the error is %q", t.TaskUniqueName, w, message)
		}
	default:
		v.wrong("task %s: %s failed, and neither by itself nor by a kill: %q", t.TaskUniqueName, w, message)
	}
}

// outputs judges that all that a task hands on is of one attempt, the last.
func (v *verdict) outputs(t *flowTask, workloads []string) {
	if len(workloads) == 0 {
		v.wrong("task %s: it succeeded and no program ran", t.TaskUniqueName)
		return
	}
	me := workloads[len(workloads)-1]
	said := t.said()
	switch t.TaskName {
	case "gather", nameFinish:
		var out struct{ Me string }
		if err := json.Unmarshal([]byte(said), &out); err != nil || out.Me != me {
			v.wrong("task %s: its output %q is not of %s", t.TaskUniqueName, said, me)
		}
		return
	case "item":
		if _, token, _ := strings.Cut(said, "/"); !strings.HasSuffix(token, "/"+me) {
			v.wrong("task %s: its output %q is not of %s", t.TaskUniqueName, said, me)
		}
	default:
		if said != me {
			v.wrong("task %s: its output %q is not of %s", t.TaskUniqueName, said, me)
		}
	}
	made := t.Outputs["made"].Artifacts
	if len(made) != 1 {
		v.wrong("task %s: it has %d artifacts, want one", t.TaskUniqueName, len(made))
		return
	}
	uri := made[0].URI
	want := []string{"/data", "/part-" + me}
	if t.TaskName == "item" {
		want = []string{""}
	}
	if v.data[uri] != me || !slices.Equal(v.files[uri], want) {
		v.wrong("task %s: its artifact %s has %q in %q, want %s in %q", t.TaskUniqueName, uri, v.data[uri], v.files[uri], me, want)
	}
	if after, ok := t.Execution.Metadata["input:after"].(string); ok && after != "" && !v.speakers[after] {
		v.wrong("task %s: it was given %q, which is not of an attempt that counts", t.TaskUniqueName, after)
	}
}

// graph judges a task that is made of tasks by these.
func (v *verdict) graph(t *flowTask) {
	if t.State == taskCancelled || t.State == taskNotTriggered || v.cancelled {
		return
	}
	want := taskSucceeded
	rounds := map[string]bool{}
	for _, c := range v.children[t.TaskID] {
		rounds[above(c.TaskUniqueName)] = true
		if c.State == taskFailed && v.counts(c) {
			want = taskFailed
		}
	}
	if t.State != want {
		v.wrong("task %s: it is %s, and by its parts it is %s", t.TaskUniqueName, t.State, want)
	}
	most := v.shape.graphs[t.TaskName] + 1
	if len(rounds) > most || want == taskFailed && len(rounds) != most {
		v.wrong("task %s: %s after %d attempts, with %d allowed", t.TaskUniqueName, t.State, len(rounds), most)
	}
}
