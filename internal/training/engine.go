// Package training runs custom jobs: it watches their rows, starts one workload a
// replica through the runtime port, and writes back how they go. It owns the
// states of CustomJob rows after the API wrote the first one. It does not check
// requests; Workloads, which both sides use, says what a job can ask for.
package training

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/volume"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// kindClusters keeps the addresses given to a job's replicas; key is the job.
const kindClusters store.Kind = "customJobClusters"

// Config names the ports of the engine.
type Config struct {
	Store   store.Store
	Runtime runtime.Runtime
	Log     *slog.Logger
	Now     func() time.Time
}

// Engine runs custom jobs.
type Engine struct {
	cfg Config

	mu     sync.Mutex
	actors map[string]chan struct{} // wake-up of each job's goroutine
}

// New makes an engine; nothing happens before Run.
func New(cfg Config) *Engine { return &Engine{cfg: cfg, actors: map[string]chan struct{}{}} }

// Run takes up unfinished jobs and acts on rows until ctx ends. Programs outlive
// it; the next Run finds them again.
func (e *Engine) Run(ctx context.Context) error {
	w := e.cfg.Store.Watch(resource.KindCustomJobs)
	defer w.Close()
	ctx, cancel := context.WithCancel(ctx)
	var actors sync.WaitGroup
	defer actors.Wait()
	defer cancel()
	left, err := e.cfg.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("training: %w", err)
	}
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindCustomJobs, States: unfinished()})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("training: %w", err)
	}
	for _, row := range rows {
		left = slices.DeleteFunc(left, func(in runtime.Instance) bool { return strings.HasPrefix(in.ID(), jobWorkloads(row.Key)) })
		e.wake(ctx, &actors, row.Key)
	}
	actors.Go(func() { e.putAway(ctx, left) })
	for {
		changes, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("training: %w", err)
		}
		for _, c := range changes {
			e.wake(ctx, &actors, c.Key)
		}
	}
}

// putAway ends what an earlier server left behind between the end of a job and its
// clean-up. Of left it takes what is a custom job's.
func (e *Engine) putAway(ctx context.Context, left []runtime.Instance) {
	for _, in := range left {
		if !strings.HasPrefix(in.ID(), workloadPrefix) {
			continue
		}
		err := in.Stop(ctx, grace)
		if err == nil {
			err = in.Release(ctx)
		}
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.WarnContext(ctx, "put away a replica of an ended custom job", slog.String("workload", in.ID()), slog.Any("error", err))
		}
	}
}

// wake tells a job's goroutine that its row changed, and starts it when there is none.
func (e *Engine) wake(ctx context.Context, actors *sync.WaitGroup, key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ch, ok := e.actors[key]; ok {
		select {
		case ch <- struct{}{}:
		default: // a wake-up is pending already
		}
		return
	}
	ch := make(chan struct{}, 1)
	e.actors[key] = ch
	actors.Go(func() {
		log := e.cfg.Log.With(slog.String("job", key))
		for {
			// A job that the disk blocks goes on from its rows, as after a restart.
			err := volume.Retry(ctx, func(err error) { log.WarnContext(ctx, "custom job waits for the disk", slog.Any("error", err)) }, func() error {
				a := &actor{Engine: e, key: key, log: log, changed: ch}
				return a.run(ctx)
			})
			if err != nil && ctx.Err() == nil {
				log.ErrorContext(ctx, "custom job", slog.Any("error", err))
			}
			if ctx.Err() != nil || e.retire(key) {
				return
			}
			<-ch // the row changed while we finished
		}
	})
}

// retire removes an actor unless its row changed meanwhile.
func (e *Engine) retire(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.actors[key]) > 0 {
		return false
	}
	delete(e.actors, key)
	return true
}

func unfinished() []string {
	return []string{pb.JobState_JOB_STATE_QUEUED.String(), pb.JobState_JOB_STATE_PENDING.String(), pb.JobState_JOB_STATE_RUNNING.String(), pb.JobState_JOB_STATE_CANCELLING.String()}
}

// Finished reports a state that does not change any more.
func Finished(s pb.JobState) bool { return !slices.Contains(unfinished(), s.String()) }

// Images gives the images of the jobs that have not ended: what they may still start.
func Images(ctx context.Context, rows store.Reader) ([]string, error) {
	list, err := rows.List(ctx, store.Query{Kind: resource.KindCustomJobs, States: unfinished()})
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var images []string
	for _, row := range list {
		job := &pb.CustomJob{}
		if err := store.Unmarshal(row, job); err != nil {
			return nil, err
		}
		for _, pool := range job.GetJobSpec().GetWorkerPoolSpecs() {
			if image := pool.GetContainerSpec().GetImageUri(); image != "" {
				images = append(images, image)
			}
		}
	}
	return images, nil
}

// change rewrites a job's row unless it is finished or gone; the job as it is
// now comes back, nil when there is none.
func (e *Engine) change(ctx context.Context, key string, with func(*pb.CustomJob)) (*pb.CustomJob, error) {
	var out *pb.CustomJob
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		job := &pb.CustomJob{}
		row, err := store.GetMessage(ctx, tx, resource.KindCustomJobs, key, job)
		if resource.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		out = job
		if Finished(job.State) {
			return nil
		}
		with(job)
		job.UpdateTime = timestamppb.New(e.cfg.Now())
		row.State = job.State.String()
		if Finished(job.State) {
			if err := tx.Delete(ctx, kindClusters, key); err != nil {
				return err
			}
		}
		return store.PutMessage(ctx, tx, row, job)
	})
	if err != nil {
		return nil, fmt.Errorf("write the state of %s: %w", key, err)
	}
	return out, nil
}

// addresses gives every replica its own, the same ones after a restart.
func (e *Engine) addresses(ctx context.Context, job *pb.CustomJob) (cluster, error) {
	var c cluster
	row, err := e.cfg.Store.Get(ctx, kindClusters, job.Name)
	if err == nil {
		return c, json.Unmarshal(row.Data, &c)
	}
	if !resource.IsNotFound(err) {
		return nil, err
	}
	if c, err = reserve(ctx, placeholder(job)); err != nil {
		return nil, err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return c, e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return tx.Put(ctx, store.Row{Kind: kindClusters, Key: job.Name, Parent: job.Name, Data: data})
	})
}

// reserve finds free loopback ports, all different; they are let go again for the
// replicas to bind.
func reserve(ctx context.Context, c cluster) (cluster, error) {
	for _, pool := range c {
		for i := range pool {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			defer func() { _ = l.Close() }() // held until all are found
			pool[i] = l.Addr().String()
		}
	}
	return c, nil
}
