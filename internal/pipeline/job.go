package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/volume"
)

// RunNumberLabel is the label whose value is the numeric id of a run.
const RunNumberLabel = "vertex-ai-pipelines-run-billing-id"

// unfinished lists the states of jobs that need an owner.
func unfinished() []string {
	return []string{
		pb.PipelineState_PIPELINE_STATE_QUEUED.String(), pb.PipelineState_PIPELINE_STATE_PENDING.String(),
		pb.PipelineState_PIPELINE_STATE_RUNNING.String(), pb.PipelineState_PIPELINE_STATE_CANCELLING.String(),
	}
}

// Finished reports a state that a job never leaves.
func Finished(s pb.PipelineState) bool { return !slices.Contains(unfinished(), s.String()) }

// job runs the machine of one PipelineJob: it feeds it events, makes what it
// decided durable, and only then acts on it.
type job struct {
	*Engine
	m        *machine
	objects  Objects // as the run's account sees them
	parent   string
	events   chan event
	attempts map[string]*attempt // by workload id
	wg       sync.WaitGroup
	wakes    []wake
	started  bool // the row says RUNNING

	unconfirmed chan struct{} // something was committed that the disk may not have
}

// runJob runs one job to its end. It returns nil when there is nothing to run.
func (e *Engine) runJob(ctx context.Context, name string, o *owner) error {
	e.seen(o)
	j, queue, err := e.loadJob(ctx, name)
	if err != nil || j == nil {
		return err
	}
	ctx, stopAll := context.WithCancel(ctx)
	defer j.wg.Wait()
	defer stopAll()
	j.wg.Go(func() { j.confirm(ctx) })
	for {
		if err := j.apply(ctx, queue); err != nil {
			return err
		}
		if j.m.done() {
			if j.m.plan.workspace {
				j.dropWorkspace(ctx, j.m.run.number)
			}
			return nil
		}
		if queue, err = j.next(ctx, o); err != nil {
			return err
		}
	}
}

// loadJob reads a job and what it has done so far. It gives nil for a job that
// does not exist or has ended.
func (e *Engine) loadJob(ctx context.Context, name string) (*job, []event, error) {
	msg := &pb.PipelineJob{}
	row, err := store.GetMessage(ctx, e.cfg.Store, kindJobs, name, msg)
	switch {
	case resource.IsNotFound(err):
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read job: %w", err)
	case Finished(msg.State):
		return nil, nil, nil
	}
	plan, err := Parse(msg.PipelineSpec)
	if err != nil {
		return nil, nil, err
	}
	r, err := e.describe(ctx, plan, msg)
	if err != nil {
		return nil, nil, err
	}
	j := &job{Engine: e, m: newMachine(plan, r), objects: e.objectsOf(&r), parent: row.Parent, events: make(chan event, 64), attempts: map[string]*attempt{}, unconfirmed: make(chan struct{}, 1)}
	j.started = msg.StartTime != nil
	var tasks []*Task
	err = eachTask(ctx, e.cfg.Store, name, func(t *Task, _ store.Row) error {
		tasks = append(tasks, t)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := j.m.restore(tasks, msg.State == pb.PipelineState_PIPELINE_STATE_CANCELLING); err != nil {
		return nil, nil, err
	}
	return j, []event{began{}}, nil
}

// describe takes from the job message what the machine needs.
func (e *Engine) describe(ctx context.Context, plan *Plan, msg *pb.PipelineJob) (run, error) {
	name, err := resource.ParseName(msg.Name)
	if err != nil {
		return run{}, err
	}
	config := msg.GetRuntimeConfig()
	params, err := plan.Parameters(config)
	if err != nil {
		return run{}, err
	}
	r := run{
		name: msg.Name, id: name.ID(), project: name.Project(), location: name.Location(), number: msg.Labels[RunNumberLabel],
		root: strings.TrimRight(config.GetGcsOutputDirectory(), "/"), account: msg.ServiceAccount, network: msg.Network, labels: msg.Labels,
		context: msg.GetJobDetail().GetPipelineRunContext().GetName(),
		created: msg.CreateTime.AsTime(), parameters: params, artifacts: map[string][]Artifact{},
		atOnce:   e.cfg.AtOnce,
		failFast: config.GetFailurePolicy() == pb.PipelineFailurePolicy_PIPELINE_FAILURE_POLICY_FAIL_FAST,
	}
	if r.scheduled, err = e.tick(ctx, msg); err != nil {
		return run{}, err
	}
	if r.taken, err = readTaken(ctx, e.cfg.Store, msg.Name); err != nil {
		return run{}, err
	}
	for k, in := range config.GetInputArtifacts() {
		a, err := InputArtifact(ctx, e.cfg.Store, name.Project(), name.Location(), in.GetArtifactId())
		if err != nil {
			return run{}, err
		}
		r.artifacts[k] = []Artifact{a}
	}
	if msg.StartTime == nil {
		if err := e.openRoot(ctx, &r); err != nil {
			return run{}, fmt.Errorf("pipeline root %s: %w", r.root, err)
		}
	}
	return r, nil
}

// objectsOf gives the object store as the account of a run sees it.
func (e *Engine) objectsOf(r *run) Objects {
	return e.cfg.Objects(identity.Account{Project: r.project, Email: r.account})
}

// openRoot makes the bucket of a run's root where there is none yet, and refuses a
// run that could not write its outputs before its first task.
func (e *Engine) openRoot(ctx context.Context, r *run) error {
	objects := e.objectsOf(r)
	bucket, _, _ := strings.Cut(strings.TrimPrefix(r.root, "gs://"), "/")
	if err := objects.EnsureBucket(ctx, r.project, bucket); err != nil {
		return err
	}
	return objects.MayWrite(ctx, r.root+"/"+r.id)
}

// next waits for something to happen and takes all that has.
func (j *job) next(ctx context.Context, o *owner) ([]event, error) {
	timer := time.NewTimer(j.untilWake())
	defer timer.Stop()
	var queue []event
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
	case ev := <-j.events:
		queue = append(queue, ev)
	case <-o.poke:
		cancelled, err := j.cancelled(ctx, o)
		if err != nil {
			return nil, err
		}
		if cancelled {
			queue = append(queue, cancel{})
		}
	}
	for {
		select {
		case ev := <-j.events:
			queue = append(queue, ev)
		default:
			return append(queue, j.due()...), nil
		}
	}
}

// cancelled reads whether the API asked for the end of the job.
func (j *job) cancelled(ctx context.Context, o *owner) (bool, error) {
	j.seen(o)
	row, err := j.cfg.Store.Get(ctx, kindJobs, j.m.run.name)
	if resource.IsNotFound(err) {
		return true, nil
	}
	return row.State == pb.PipelineState_PIPELINE_STATE_CANCELLING.String(), err
}

// untilWake is the time to the next retry; without one, long.
func (j *job) untilWake() time.Duration {
	until := 24 * time.Hour
	for _, w := range j.wakes {
		until = min(until, w.at.Sub(j.cfg.Now()))
	}
	return max(until, 0)
}

// due takes the wakes whose time has come.
func (j *job) due() []event {
	var events []event
	now := j.cfg.Now()
	j.wakes = slices.DeleteFunc(j.wakes, func(w wake) bool {
		if w.at.After(now) {
			return false
		}
		events = append(events, due{path: w.path})
		return true
	})
	return events
}

// apply steps through events, makes the result durable, then acts. Lookups in the
// cache give further events at once.
func (j *job) apply(ctx context.Context, queue []event) error {
	over := j.ended(queue)
	for len(queue) > 0 {
		actions := make([]action, 0, len(queue))
		for _, ev := range queue {
			actions = append(actions, j.m.step(j.cfg.Now(), ev)...)
		}
		if err := j.commit(ctx); err != nil {
			return err
		}
		queue = nil
		for _, a := range actions {
			ev, err := j.act(ctx, a)
			if err != nil {
				return err
			}
			if ev != nil {
				queue = append(queue, ev)
			}
		}
	}
	j.releaseDone(ctx, over)
	return nil
}

func (j *job) act(ctx context.Context, a action) (event, error) {
	switch a := a.(type) {
	case lookup:
		entry, err := j.findCached(ctx, a.key)
		return looked{path: a.path, entry: entry}, err
	case start:
		return j.start(ctx, a), nil
	case stop:
		j.stop(ctx, a.workload)
	case wake:
		j.wakes = append(j.wakes, a)
	case find:
		name, err := j.findArtifact(ctx, a.want)
		return found{path: a.path, name: name}, err
	case grow:
		return grown(a), nil
	}
	return nil, nil
}

// commit writes what changed since the last commit in one transaction: tasks,
// cache entries, events, the record of runs, and the job row when its own state
// changes (not for each task). While the run goes on, what it decided is acted on before
// the disk has it: a kill loses nothing, and a power loss ends all programs as well, so
// that the run goes on from what the disk has (docs/adr/0004). The end of a run waits.
func (j *job) commit(ctx context.Context) error {
	m := j.m
	update := j.cfg.Store.UpdateSoon
	if m.done() {
		update = j.cfg.Store.Update
	}
	err := update(ctx, func(tx store.Tx) error {
		for _, path := range sortedKeys(m.changed) {
			if err := j.putTask(ctx, tx, m.nodes[path]); err != nil {
				return err
			}
		}
		for _, c := range m.entries {
			if err := tx.Put(ctx, store.Row{Kind: kindCache, Key: cacheRow(&m.run, c.Key), Data: encode(c)}); err != nil {
				return err
			}
		}
		for _, i := range m.imports {
			if err := tx.Put(ctx, store.Row{Kind: kindImports, Key: j.importRow(i.key), Data: []byte(i.name)}); err != nil {
				return err
			}
		}
		for _, n := range m.notes {
			if err := tx.Append(ctx, m.run.name, "task."+strings.ToLower(string(n.State)), encode(n)); err != nil {
				return err
			}
		}
		return j.putJob(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("write the state of the run: %w", err)
	}
	clear(m.changed)
	m.entries, m.imports, m.notes = nil, nil, nil
	m.forget()
	j.started = true
	select {
	case j.unconfirmed <- struct{}{}:
	default: // one commit confirms all before it
	}
	return nil
}

// confirmPause is how long a commit waits for others that one fsync confirms as well.
// The store writes nothing meanwhile, and what starts a task waits for its writes.
const confirmPause = 25 * time.Millisecond

// confirm brings to the disk what was committed, beside the run, until ctx ends: then
// the end of the run has done so, or nobody acts on it any more.
func (j *job) confirm(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.unconfirmed:
		}
		pause.Reset(confirmPause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		if err := j.cfg.Store.Update(ctx, func(store.Tx) error { return nil }); err != nil && !volume.Blocked(err) { // of a full disk the next commit tells
			j.warn(ctx, "pipeline job "+j.m.run.name+": its progress is not on the disk yet", err)
		}
	}
}

func (j *job) putTask(ctx context.Context, tx store.Tx, n *node) error {
	data, err := json.Marshal(n.Task)
	if err != nil {
		return fmt.Errorf("encode task %s: %w", n.Path, err)
	}
	row := store.Row{Kind: KindTasks, Key: taskRow(j.m.run.name, n.ID), Parent: j.m.run.name, State: string(n.State), Data: data}
	if err := tx.Put(ctx, row); err != nil {
		return err
	}
	return j.m.record(ctx, tx, n)
}

// taskRow is the key of a task's row.
func taskRow(job string, id int64) string { return job + "/tasks/" + strconv.FormatInt(id, 10) }

func decodeTask(row store.Row) (*Task, error) {
	t := &Task{}
	if err := json.Unmarshal(row.Data, t); err != nil {
		return nil, fmt.Errorf("read task %s: %w", row.Key, err)
	}
	return t, nil
}

// putJob writes the job row when it starts and when it ends.
func (j *job) putJob(ctx context.Context, tx store.Tx) error {
	if j.started && !j.m.done() {
		return nil
	}
	msg := &pb.PipelineJob{}
	row, err := store.GetMessage(ctx, tx, kindJobs, j.m.run.name, msg)
	if resource.IsNotFound(err) {
		return nil // deleted while it ran
	}
	if err != nil {
		return err
	}
	now := timestamppb.New(j.cfg.Now())
	msg.UpdateTime = now
	if msg.StartTime == nil {
		msg.StartTime = now
		if msg.State != pb.PipelineState_PIPELINE_STATE_CANCELLING {
			msg.State = pb.PipelineState_PIPELINE_STATE_RUNNING
		}
	}
	if j.m.done() {
		msg.EndTime = now
		msg.State, msg.Error = verdict(j.m.root.Task, msg.State)
	}
	if err := tx.Append(ctx, msg.Name, "job."+strings.ToLower(strings.TrimPrefix(msg.State.String(), "PIPELINE_STATE_")), nil); err != nil {
		return err
	}
	row.State = msg.State.String()
	return store.PutMessage(ctx, tx, row, msg)
}

// verdict is the last state of a job whose root task ended. A cancel that was
// acknowledged wins over a run that ended at the same moment.
func verdict(root *Task, asked pb.PipelineState) (pb.PipelineState, *status.Status) {
	switch {
	case root.State == Cancelled || asked == pb.PipelineState_PIPELINE_STATE_CANCELLING:
		return pb.PipelineState_PIPELINE_STATE_CANCELLED, nil
	case root.State == Failed:
		return pb.PipelineState_PIPELINE_STATE_FAILED, root.Failure.status()
	default:
		return pb.PipelineState_PIPELINE_STATE_SUCCEEDED, nil
	}
}

// abandon ends a job that the engine cannot run.
func (e *Engine) abandon(ctx context.Context, name string, cause error) {
	err := e.insist(ctx, name, func(tx store.Tx) error {
		msg := &pb.PipelineJob{}
		row, err := store.GetMessage(ctx, tx, kindJobs, name, msg)
		if err != nil || Finished(msg.State) {
			return err
		}
		msg.EndTime = timestamppb.New(e.cfg.Now())
		msg.UpdateTime, msg.State = msg.EndTime, pb.PipelineState_PIPELINE_STATE_FAILED
		msg.Error = resource.Outcome(cause).GRPCStatus().Proto()
		row.State = msg.State.String()
		return store.PutMessage(ctx, tx, row, msg)
	})
	if err != nil && !resource.IsNotFound(err) && ctx.Err() == nil {
		e.cfg.Log.ErrorContext(ctx, "cannot end pipeline job", slog.String("job", name), slog.Any("error", err))
	}
}

// insist writes as soon as the disk lets it.
func (e *Engine) insist(ctx context.Context, name string, fn func(tx store.Tx) error) error {
	return volume.Retry(ctx, func(err error) { e.warn(ctx, "pipeline job "+name+" waits for the disk", err) },
		func() error { return e.cfg.Store.Update(ctx, fn) })
}
