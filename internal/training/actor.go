package training

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/volume"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// grace between the request to end and the kill, as for a stopped container.
	grace = 10 * time.Second
	// look is how often the phase of starting workloads is read.
	look = 50 * time.Millisecond
)

// actor sees one job from its row to its end.
type actor struct {
	*Engine
	key     string
	log     *slog.Logger
	changed <-chan struct{}

	instances []runtime.Instance
}

// run returns once the job is finished, gone, or ctx ends.
func (a *actor) run(ctx context.Context) error {
	job := &pb.CustomJob{}
	_, err := store.GetMessage(ctx, a.cfg.Store, resource.KindCustomJobs, a.key, job)
	if resource.IsNotFound(err) || err == nil && Finished(job.State) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := a.start(ctx, job); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if volume.Blocked(err) {
			return err // tried again
		}
		a.stopAll(ctx)
		return a.finish(ctx, pb.JobState_JOB_STATE_FAILED, resource.Outcome(err))
	}
	return a.watch(ctx, job)
}

// start starts every replica; those that run already are found again. A job that
// was cancelled before it started gets no program.
func (a *actor) start(ctx context.Context, job *pb.CustomJob) error {
	addresses, err := a.addresses(ctx, job)
	if err != nil {
		return err
	}
	list, err := workloads(job, addresses)
	if err != nil {
		return err
	}
	for _, w := range list {
		if job.State == pb.JobState_JOB_STATE_CANCELLING {
			in, err := a.cfg.Runtime.Find(ctx, w.ID)
			if resource.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			a.instances = append(a.instances, in)
			continue
		}
		in, err := a.cfg.Runtime.Start(ctx, w)
		if err != nil {
			return err
		}
		a.instances = append(a.instances, in)
	}
	return nil
}

// end is the end of one replica.
type end struct {
	replica int
	exit    runtime.Exit
	err     error
}

// watch follows the replicas until the chief ends, one fails, somebody cancels,
// or the time is over.
func (a *actor) watch(ctx context.Context, job *pb.CustomJob) error {
	waits, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	ends := make(chan end, len(a.instances))
	for i, in := range a.instances {
		waiting.Go(func() {
			exit, err := in.Wait(waits)
			ends <- end{i, exit, err}
		})
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	job, err := a.started(ctx, job)
	if err != nil {
		return err
	}
	deadline := a.deadline(job)
	for {
		if job.State == pb.JobState_JOB_STATE_CANCELLING {
			a.stopAll(ctx)
			return a.finish(ctx, pb.JobState_JOB_STATE_CANCELLED, cancelled())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.changed:
			now := &pb.CustomJob{}
			if _, err := store.GetMessage(ctx, a.cfg.Store, resource.KindCustomJobs, a.key, now); resource.IsNotFound(err) {
				a.stopAll(ctx)
				a.release(ctx)
				return nil
			} else if err != nil {
				return err
			}
			job = now
		case <-tick.C:
			if !early(job.State) {
				tick.Stop()
				break
			}
			now, err := a.started(ctx, job)
			if err != nil {
				return err
			}
			job, deadline = now, a.deadline(now)
		case <-deadline:
			a.stopAll(ctx)
			return a.finish(ctx, pb.JobState_JOB_STATE_FAILED, a.overtime(ctx, job))
		case e := <-ends:
			if e.err != nil {
				return e.err
			}
			if done, err := a.ended(ctx, job, e); done || err != nil {
				return err
			}
		}
	}
}

// early reports a job whose programs do not all run yet.
func early(s pb.JobState) bool {
	return s == pb.JobState_JOB_STATE_QUEUED || s == pb.JobState_JOB_STATE_PENDING
}

// started writes PENDING once there is room for every program, and RUNNING once
// every one is past its preparation. Until then the job is QUEUED.
func (a *actor) started(ctx context.Context, job *pb.CustomJob) (*pb.CustomJob, error) {
	at, to := a.cfg.Now(), pb.JobState_JOB_STATE_RUNNING
	for _, in := range a.instances {
		st := in.Status()
		if st.Phase == runtime.Queued {
			return job, nil
		}
		if st.Phase == runtime.Preparing || st.Started.IsZero() {
			to = pb.JobState_JOB_STATE_PENDING
		} else {
			at = st.Started
		}
	}
	if !early(job.State) || job.State == to {
		return job, nil
	}
	now, err := a.change(ctx, a.key, func(j *pb.CustomJob) {
		if !early(j.State) {
			return
		}
		if j.State = to; to == pb.JobState_JOB_STATE_RUNNING {
			j.StartTime = timestamppb.New(at)
		}
	})
	if err != nil || now == nil {
		return job, err
	}
	return now, nil
}

// deadline fires when the job has run for its timeout; without one it never does.
func (a *actor) deadline(job *pb.CustomJob) <-chan time.Time {
	timeout := job.JobSpec.GetScheduling().GetTimeout().AsDuration()
	if timeout <= 0 || job.StartTime == nil {
		return nil
	}
	return time.After(job.StartTime.AsTime().Add(timeout).Sub(a.cfg.Now()))
}

// ended handles the end of a replica: a failure is the job's, and so is the
// chief's end. Other replicas may end before it.
func (a *actor) ended(ctx context.Context, job *pb.CustomJob, e end) (done bool, err error) {
	if e.exit.OK() && e.replica != 0 {
		return false, nil
	}
	if early(job.State) {
		// It was over before anybody looked.
		if _, err := a.started(ctx, job); err != nil {
			return true, err
		}
	}
	a.stopAll(ctx)
	if !e.exit.OK() {
		return true, a.finish(ctx, pb.JobState_JOB_STATE_FAILED, a.failure(a.instances[e.replica], e.exit))
	}
	// Other replicas may have made files: their uploads count.
	for _, in := range a.instances[1:] {
		exit, err := in.Wait(ctx)
		if err != nil {
			return true, err
		}
		if exit.Code == resource.NeverStarted {
			return true, a.finish(ctx, pb.JobState_JOB_STATE_FAILED, a.failure(in, exit))
		}
	}
	return true, a.finish(ctx, pb.JobState_JOB_STATE_SUCCEEDED, nil)
}

// failure is the error of a job by the end of one of its replicas.
func (a *actor) failure(in runtime.Instance, exit runtime.Exit) *resource.Error {
	return exit.Err("replica " + in.ID()).WithResource(in.ID()).WithLogs(path.Base(a.key))
}

// overtime is the error of a job that was ended by its timeout.
func (a *actor) overtime(ctx context.Context, job *pb.CustomJob) *resource.Error {
	e := &resource.Error{
		Code: codes.DeadlineExceeded, Cause: resource.CauseUserCode, Reason: "TIMEOUT", Resource: a.key,
		Message: fmt.Sprintf("the job ran longer than its timeout of %s", job.JobSpec.Scheduling.Timeout.AsDuration()),
		Hint:    "raise scheduling.timeout, or make the job faster",
		Program: &resource.Program{ExitCode: resource.NeverStarted},
	}
	if exit, err := a.instances[0].Wait(ctx); err == nil {
		e.Program.Tail = exit.Tail
	}
	return e.WithLogs(path.Base(a.key))
}

func cancelled() *resource.Error { return resource.Errorf(codes.Canceled, "the job was cancelled") }

// stopAll ends every replica that still runs.
func (a *actor) stopAll(ctx context.Context) {
	var stops sync.WaitGroup
	defer stops.Wait()
	for _, in := range a.instances {
		stops.Go(func() {
			if err := in.Stop(ctx, grace); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "stop a replica", slog.String("workload", in.ID()), slog.Any("error", err))
			}
		})
	}
}

// finish writes the end, then lets go of the working directories.
func (a *actor) finish(ctx context.Context, state pb.JobState, cause *resource.Error) error {
	_, err := a.change(ctx, a.key, func(j *pb.CustomJob) {
		if j.State == pb.JobState_JOB_STATE_CANCELLING && state == pb.JobState_JOB_STATE_FAILED {
			state, cause = pb.JobState_JOB_STATE_CANCELLED, cancelled()
		}
		j.State, j.EndTime = state, timestamppb.New(a.cfg.Now())
		if cause != nil {
			j.Error = cause.GRPCStatus().Proto()
		}
	})
	if err != nil {
		return err
	}
	a.release(ctx)
	return nil
}

func (a *actor) release(ctx context.Context) {
	for _, in := range a.instances {
		if err := in.Release(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "release a replica", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
}
