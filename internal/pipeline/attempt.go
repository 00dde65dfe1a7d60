package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"strings"
	"time"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/volume"
)

const (
	stopGrace = 10 * time.Second // between SIGTERM and SIGKILL of a cancelled task
	// maxOutput bounds what the engine reads of one parameter file; bulk data
	// belongs into artifacts.
	maxOutput = 8 << 20
)

// attempt is a started program of this process's run of the engine.
type attempt struct {
	path  string
	ready chan struct{} // closed when inst is set or starting failed
	inst  runtime.Instance
}

// start runs an attempt; the same one twice is one. An event says at once that
// it cannot run.
func (j *job) start(ctx context.Context, a start) event {
	n := j.m.nodes[a.path]
	id := n.Workload[len(n.Workload)-1]
	if j.attempts[id] != nil {
		return nil
	}
	p := j.m.program(n)
	w, err := p.workload(n.def)
	if n.def.launcher != "" && err == nil {
		err = j.launch(&w, n)
	}
	if err == nil {
		w.Volumes, err = j.m.volumes(n)
	}
	if err == nil {
		var secrets map[string]string
		secrets, err = j.secretEnv(ctx, n)
		maps.Copy(w.Env, secrets)
	}
	if err != nil {
		exit := runtime.Refuse(resource.Invalid("", "%w", err), j.cfg.Now())
		return ended{path: a.path, attempt: a.attempt, outcome: outcome{exit: exit}}
	}
	w.ID, w.Owner, w.Project, w.ServiceAccount = id, taskRow(j.m.run.name, n.ID), j.m.run.project, j.m.run.account
	if _, set := w.Env["VERTEX_AI_PIPELINES_RUN_LABELS"]; !set {
		w.Env["VERTEX_AI_PIPELINES_RUN_LABELS"] = string(encode(j.m.run.labels)) // how kfp knows where it runs
	}
	w.Port = asksPort(w)
	att := &attempt{path: a.path, ready: make(chan struct{})}
	j.attempts[id] = att
	j.wg.Go(func() {
		o, err := j.run(ctx, att, w, p)
		if ctx.Err() != nil {
			return // the program goes on; the next process adopts it
		}
		if err != nil {
			o = outcome{exit: runtime.Refuse(err, j.cfg.Now())}
		}
		select {
		case j.events <- ended{path: a.path, attempt: a.attempt, workload: id, outcome: o}:
		case <-ctx.Done():
		}
	})
	return nil
}

// run starts or adopts the program, waits for its end and gathers what it left.
func (j *job) run(ctx context.Context, att *attempt, w runtime.Workload, p *program) (outcome, error) {
	var inst runtime.Instance
	err := volume.Retry(ctx, func(err error) { j.warn(ctx, "task "+w.ID+" waits for the disk", err) }, func() (err error) {
		inst, err = j.cfg.Runtime.Start(ctx, w)
		return err
	})
	att.inst = inst
	close(att.ready)
	if err != nil {
		return outcome{}, err
	}
	exit, err := inst.Wait(ctx)
	if err != nil {
		return outcome{}, fmt.Errorf("wait for the program: %w", err)
	}
	if !exit.OK() {
		o := outcome{exit: exit}
		if p.launched {
			text, err := j.read(ctx, p.dir+"/"+gcpc.FaultFile)
			if err != nil {
				return o, err
			}
			o.fault = gcpc.ParseFault(text)
		}
		return o, nil
	}
	return j.gather(ctx, p, exit)
}

// gather reads the outputs that the runtime published.
func (j *job) gather(ctx context.Context, p *program, exit runtime.Exit) (outcome, error) {
	o := outcome{exit: exit, files: map[string][]byte{}, content: map[string]bool{}}
	var err error
	if o.output, err = j.read(ctx, p.dir+"/"+path.Base(p.output)); err != nil {
		return o, err
	}
	said, err := decodeOutput(o.output)
	if err != nil {
		said = &executorOutput{} // the machine reports it
	}
	for k := range p.files {
		if _, told := said.parameter(k); told {
			continue // its file, if there is one, does not count
		}
		text, err := j.read(ctx, p.dir+"/"+k)
		if err != nil {
			return o, err
		}
		if text != nil {
			o.files[k] = text
		}
	}
	for _, uri := range j.mentioned(p, said) {
		there, err := j.objects.Exists(ctx, uri)
		if err != nil {
			return o, fmt.Errorf("look for output %s: %w", uri, err)
		}
		o.content[uri] = there
	}
	return o, nil
}

// mentioned lists the gs:// URIs of the output artifacts, those planned and those
// that the program named itself.
func (j *job) mentioned(p *program, said *executorOutput) []string {
	var uris []string
	for _, list := range p.artifacts {
		for _, a := range list {
			uris = append(uris, a.URI)
		}
	}
	for _, list := range said.Artifacts {
		for _, a := range list.Artifacts {
			if strings.HasPrefix(a.URI, "gs://") {
				uris = append(uris, a.URI)
			}
		}
	}
	return uris
}

// read gives an object, nil when there is none.
func (j *job) read(ctx context.Context, uri string) ([]byte, error) {
	data, err := j.objects.ReadAll(ctx, uri, maxOutput)
	if resource.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read output %s: %w", uri, err)
	}
	if data == nil {
		data = []byte{} // an empty file was written, and counts
	}
	return data, nil
}

// stop ends the program of an attempt; the outcome comes as for any other end.
func (j *job) stop(ctx context.Context, workload string) {
	att := j.attempts[workload]
	if att == nil {
		return
	}
	j.wg.Go(func() {
		<-att.ready
		if att.inst == nil {
			return
		}
		if err := att.inst.Stop(ctx, stopGrace); err != nil && ctx.Err() == nil {
			j.cfg.Log.ErrorContext(ctx, "cannot stop task", slog.String("workload", workload), slog.Any("error", err))
		}
	})
}

// ended gives the workloads whose end the events tell of.
func (j *job) ended(queue []event) []string {
	var ids []string
	for _, ev := range queue {
		if ev, ok := ev.(ended); ok {
			ids = append(ids, ev.workload)
		}
	}
	return ids
}

// releaseDone removes the working directories of attempts whose outcome is
// durable by now. The run does not wait for that.
func (j *job) releaseDone(ctx context.Context, ids []string) {
	var done []runtime.Instance
	for _, id := range ids {
		if att := j.attempts[id]; att != nil && att.inst != nil {
			done = append(done, att.inst)
		}
		delete(j.attempts, id)
	}
	if len(done) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // also at the end of the run
	j.wg.Go(func() {
		for _, inst := range done {
			j.release(ctx, inst)
		}
	})
}
