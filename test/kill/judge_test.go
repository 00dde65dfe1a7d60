package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// story is a run of flow-tick that went well, with the ledger of its programs: the
// first task was tried twice, since its first program was killed.
func story() (*flowRun, traces) {
	at := func(second int) time.Time { return time.Unix(int64(1_000_000+second), 0) }
	task := func(id, name, role, after string, begin, end int, workloads ...string) *flowTask {
		t := &flowTask{TaskID: id, ParentTaskID: "1", TaskName: name, TaskUniqueName: name, State: taskSucceeded, CreateTime: at(0), StartTime: at(begin), EndTime: at(end)}
		last := len(workloads) - 1
		t.ExecutorDetail.ContainerDetail.MainJob, t.ExecutorDetail.ContainerDetail.FailedMainJobs = workloads[last], workloads[:last]
		t.Execution.Metadata = map[string]any{"input:name": role, "input:after": after, "output:token": workloads[last]}
		t.Outputs = map[string]struct{ Artifacts []struct{ URI string } }{"made": {[]struct{ URI string }{{"gs://b/" + workloads[last]}}}}
		t.PipelineTaskStatus = []flowStatus{{at(0), "PENDING", nil}}
		for i := range workloads {
			t.PipelineTaskStatus = append(t.PipelineTaskStatus, flowStatus{at(begin + 10*i), "RUNNING", nil})
			if i < last {
				t.PipelineTaskStatus = append(t.PipelineTaskStatus, flowStatus{at(begin + 10*i + 9), taskFailed, &flowError{"ended by SIGKILL"}}, flowStatus{at(begin + 10*i + 9), "PENDING", nil})
			}
		}
		t.PipelineTaskStatus = append(t.PipelineTaskStatus, flowStatus{at(end), taskSucceeded, nil})
		return t
	}
	root := &flowTask{TaskID: "1", TaskName: "run", TaskUniqueName: "run", State: taskSucceeded, CreateTime: at(0), StartTime: at(0), EndTime: at(60), PipelineTaskStatus: []flowStatus{{at(0), "RUNNING", nil}, {at(60), taskSucceeded, nil}}}
	r := &flowRun{
		id: "run", pipeline: "flow-tick",
		detail: &flowDetail{State: runSucceeded, CreateTime: at(0), StartTime: at(0), EndTime: at(60)},
		data:   map[string]string{"gs://b/task-2-2": "task-2-2", "gs://b/task-3-1": "task-3-1"},
		files:  map[string][]string{"gs://b/task-2-2": {"/data", "/part-task-2-2"}, "gs://b/task-3-1": {"/data", "/part-task-3-1"}},
		log:    "==> tick\nattempt task-2-1 of tick\n==> tick\nattempt task-2-2 of tick\n==> tock\nattempt task-3-1 of tock\n",
	}
	r.detail.JobDetail.TaskDetails = []*flowTask{root, task("2", "step", "tick", "", 1, 30, "task-2-1", "task-2-2"), task("3", "step-2", "tock", "task-2-2", 31, 59, "task-3-1")}
	ran := func(role string, first, last int, steps map[string]int) *trace {
		return &trace{run: "run", name: role, steps: steps, kills: map[string]int{}, first: at(first), last: at(last)}
	}
	ledger := traces{
		"task-2-1": ran("tick", 2, 2, map[string]int{"begin": 1}),
		"task-2-2": ran("tick", 12, 20, map[string]int{"begin": 1, "commit": 1}),
		"task-3-1": ran("tock", 32, 40, map[string]int{"begin": 1, "commit": 1}),
	}
	ledger["task-2-1"].kills[victimProgram] = 1
	return r, ledger
}

// TestJudge: a run that went well passes, and each thing that may be wrong is found.
func TestJudge(t *testing.T) {
	t.Parallel()
	if r, ledger := story(); len(r.judge(ledger)) > 0 {
		t.Fatalf("a good run: %q", r.judge(ledger))
	}
	for want, spoil := range map[string]func(r *flowRun, tick, tock *flowTask, ledger traces){
		"neither by itself nor by a kill": func(_ *flowRun, _, _ *flowTask, ledger traces) { clear(ledger["task-2-1"].kills) },
		"the program of task-2-1 was killed and the error is": func(_ *flowRun, tick, _ *flowTask, _ traces) {
			tick.PipelineTaskStatus[2].Error = &flowError{"out of memory"}
		},
		"ran more than once":    func(_ *flowRun, _, _ *flowTask, ledger traces) { ledger["task-3-1"].steps["begin"] = 2 },
		"not whole":             func(_ *flowRun, _, _ *flowTask, ledger traces) { ledger["task-3-1"].steps["mixed"] = 1 },
		"its program":           func(_ *flowRun, _, _ *flowTask, ledger traces) { delete(ledger["task-3-1"].steps, "commit") },
		"still ran at":          func(_ *flowRun, _, tock *flowTask, ledger traces) { ledger["task-3-1"].last = tock.EndTime.Add(1) },
		"before it was started": func(_ *flowRun, tick, _ *flowTask, ledger traces) { ledger["task-2-2"].first = tick.StartTime },
		"is not of": func(_ *flowRun, tick, _ *flowTask, _ traces) {
			tick.Execution.Metadata["output:token"] = "half of task-2-2"
		},
		"an attempt that counts": func(_ *flowRun, _, tock *flowTask, _ traces) { tock.Execution.Metadata["input:after"] = "task-2-1" },
		"its artifact":           func(r *flowRun, _, _ *flowTask, _ traces) { r.data["gs://b/task-2-2"] = "task-2-1" },
		"part-task-2-1": func(r *flowRun, _, _ *flowTask, _ traces) {
			r.files["gs://b/task-2-2"] = []string{"/data", "/part-task-2-1", "/part-task-2-2"}
		},
		"the log has the output": func(r *flowRun, _, _ *flowTask, _ traces) { r.log = strings.Replace(r.log, "task-2-1", "task-9-1", 1) },
		"it succeeded with": func(r *flowRun, _, _ *flowTask, _ traces) {
			r.detail.JobDetail.TaskDetails = r.detail.JobDetail.TaskDetails[:2]
		},
		"nobody cancelled it": func(r *flowRun, _, _ *flowTask, _ traces) { r.detail.State = runCancelled },
		"by its parts":        func(r *flowRun, _, tock *flowTask, _ traces) { tock.State = taskFailed },
		"after 1 attempts": func(r *flowRun, _, tock *flowTask, _ traces) {
			tock.State, tock.PipelineTaskStatus[2].State = taskFailed, taskFailed
		},
		"does not say why":    func(r *flowRun, _, tock *flowTask, _ traces) { tock.State = taskFailed },
		"these tasks are not": func(r *flowRun, _, tock *flowTask, _ traces) { tock.EndTime = time.Time{} },
		"its state 1 is of": func(_ *flowRun, _, tock *flowTask, _ traces) {
			tock.PipelineTaskStatus[1].UpdateTime = tock.CreateTime.Add(-1)
		},
		"in a run from":            func(_ *flowRun, _, tock *flowTask, _ traces) { tock.EndTime = tock.EndTime.Add(time.Hour) },
		"2 attempts, 1 begins":     func(_ *flowRun, tick, _ *flowTask, _ traces) { tick.PipelineTaskStatus = tick.PipelineTaskStatus[2:] },
		"is cancelled and the run": func(_ *flowRun, _, tock *flowTask, _ traces) { tock.State = taskCancelled },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r, ledger := story()
			tasks := r.detail.JobDetail.TaskDetails
			spoil(r, tasks[1], tasks[2], ledger)
			if got := r.judge(ledger); !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, want) }) {
				t.Errorf("found %q", got)
			}
		})
	}
}

// TestTraces: a line is whole or not there yet, and anything else is an error.
func TestTraces(t *testing.T) {
	t.Parallel()
	all := traces{}
	for _, line := range []string{"12.5,begin,r,n,task-1-1", "12.75,kill-wrapper,,,task-1-1", "13.000000001,commit,r,n,task-1-1"} {
		if err := all.add(line); err != nil {
			t.Fatal(err)
		}
	}
	tr := all["task-1-1"]
	if tr.steps["begin"] != 1 || tr.steps["commit"] != 1 || tr.kills[victimWrapper] != 1 || tr.first != time.Unix(12, 5e8) || tr.last != time.Unix(13, 1) {
		t.Errorf("%+v", tr)
	}
	for _, line := range []string{"", "1.0,begin,r,n", "x,begin,r,n,w", "1.x,begin,r,n,w"} {
		if all.add(line) == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

// TestClock: with catch-up each tick has its run; without, the latest of those that
// passed while there was no server.
func TestClock(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC) }
	downs := []down{{at(8).Add(10 * time.Second), at(9).Add(time.Second)}, {at(10).Add(-time.Second), at(10).Add(time.Second)}}
	for name, tt := range map[string]struct {
		catchUp bool
		runs    []int
		want    int
	}{
		"all":             {true, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0},
		"one is missing":  {true, []int{1, 2, 3, 4, 6, 7, 8, 9, 10}, 1},
		"one twice":       {true, []int{1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10}, 1},
		"one of before":   {true, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 1},
		"the latest":      {false, []int{9, 10}, 0},
		"and one too few": {false, []int{9}, 1},
		"none of them":    {false, []int{10}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &clock{catchUp: tt.catchUp, from: at(1)}
			got := map[time.Time]int{}
			for _, minute := range tt.runs {
				got[at(minute)]++
			}
			if problems := c.judge(got, at(11), downs); len(problems) != tt.want {
				t.Errorf("found %q", problems)
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	run := func(from, to int64) *flowRun {
		return &flowRun{detail: &flowDetail{CreateTime: time.Unix(from, 0), EndTime: time.Unix(to, 0)}}
	}
	if got := overlap([]*flowRun{run(0, 3), run(1, 2), run(2, 4), run(3, 5)}); got != 2 {
		t.Errorf("%d at the same time, want 2", got)
	}
}

// TestJudgeOfRunsThatGoOn: what had succeeded is not run again, and what was to be
// entered again is.
func TestJudgeOfRunsThatGoOn(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(r *flowRun, before *flowTask){
		"":                                func(r *flowRun, _ *flowTask) { r.alone = "step" },
		"it had succeeded and ran again":  func(_ *flowRun, before *flowTask) { before.State = taskSucceeded },
		"to be entered again and did not": func(r *flowRun, _ *flowTask) { r.alone = "step-9" },
	} {
		r, ledger := story()
		before := &flowTask{TaskID: "9", ParentTaskID: "1", TaskName: "step", TaskUniqueName: "step", State: taskFailed}
		before.ExecutorDetail.ContainerDetail.MainJob = "task-9-1"
		r.original = &flowRun{detail: &flowDetail{}}
		r.original.detail.JobDetail.TaskDetails = []*flowTask{before}
		change(r, before)
		problems := strings.Join(r.judge(ledger), "; ")
		if want == "" && problems != "" || !strings.Contains(problems, want) {
			t.Errorf("%q, want %q", problems, want)
		}
	}
}
