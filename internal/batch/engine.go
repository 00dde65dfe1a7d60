// Package batch runs batch predictions: objects of records in, objects of results
// out. It acts on the rows of batchPredictionJobs, cuts their input into sections
// (plan), starts replicas of the job's model, or workers of our own binary that
// evaluate its file, and has sections scored by them in bounded memory. A section
// that is written is recorded; a job that a stopped server left unfinished goes on
// with the others, so that each record comes out once.
package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	goruntime "runtime"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/volume"
	"tategu/internal/warehouse"
)

// Objects is what is needed of the object store.
type Objects interface {
	modelformat.Objects
	// OpenLive opens the live generation and says which it is.
	OpenLive(ctx context.Context, bucket, name string) (blob.Object, io.ReadCloser, error)
	// Put makes the content of r the object attrs.Bucket/attrs.Name; it appears
	// when r has ended without an error, not before.
	Put(ctx context.Context, attrs blob.Object, r io.Reader, conds blob.Conditions) (blob.Object, error)
}

// Config names the ports of the engine.
type Config struct {
	Store store.Store
	// Objects gives the object store as the account of a job sees it.
	Objects func(as identity.Account) Objects
	Runtime runtime.Runtime
	// Fits refuses replicas that can never run here at the same time; nil = the
	// runtime's word on each of them is enough.
	Fits     func(together ...runtime.Workload) error
	HasImage func(image string) bool // whether an images rule fits; nil = never
	Runner   modelformat.Runner      // serves ONNX models
	Torch    modelformat.Torch       // serves TorchServe's archives
	// Worker is the path of our own binary, whose verb WorkerVerb evaluates model
	// files; "" = this process does.
	Worker string
	// Warehouses are the databases into which results may go, by name.
	Warehouses map[string]warehouse.Warehouse
	// Projects are those whose jobs may write into a warehouse; all, where it is absent.
	Projects map[string][]string
	Temp     string // directory for files while they are read; "" = the system's
	// Room is asked before Temp is written to; nil = there is some.
	Room *volume.Volume
	// Ended is told of each job that ends, in the transaction in which it does; nil = nobody is.
	Ended func(ctx context.Context, tx store.Tx, job *pb.BatchPredictionJob) error
	// Asked is when an endpoint was asked last: jobs give way while some are. nil = none is.
	Asked func() time.Time
	Jobs  int // jobs that run at the same time; 0 = 4
	Log   *slog.Logger
	Now   func() time.Time
}

// Engine runs batch prediction jobs.
type Engine struct {
	cfg     Config
	planner modelformat.Planner
	slots   chan struct{}
	way     *way

	mu     sync.Mutex
	actors map[string]context.CancelCauseFunc
}

// New makes an engine; nothing happens before Run.
func New(cfg Config) *Engine {
	if cfg.Jobs == 0 {
		cfg.Jobs = 4
	}
	return &Engine{
		cfg: cfg, planner: modelformat.Planner{HasImage: cfg.HasImage, Runner: cfg.Runner, Torch: cfg.Torch},
		slots: make(chan struct{}, cfg.Jobs), way: newWay(cfg, goruntime.NumCPU()), actors: map[string]context.CancelCauseFunc{},
	}
}

// readAgain is the pause before a row that could not be read is read again.
const readAgain = 5 * time.Second

// errCancelled ends a job that its owner cancelled or deleted.
var errCancelled = resource.Errorf(codes.Canceled, "the job was cancelled")

// Run acts on rows until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	w := e.cfg.Store.Watch(resource.KindBatchPredictionJobs)
	defer w.Close()
	ctx, cancel := context.WithCancel(ctx)
	var jobs sync.WaitGroup
	defer jobs.Wait()
	defer cancel()
	rows, err := e.cfg.Store.List(ctx, store.Query{
		Kind: resource.KindBatchPredictionJobs, Order: store.ByCreated,
		States: []string{"JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_CANCELLING"},
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	for _, row := range rows {
		e.look(ctx, &jobs, row.Key, row.State)
	}
	for {
		changes, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("batch: %w", err)
		}
		for _, c := range changes {
			e.read(ctx, &jobs, c.Key)
			if ctx.Err() != nil {
				return nil
			}
		}
	}
}

// read looks at a job whose row changed. One that cannot be read now is read
// again later: no single row ends the server.
func (e *Engine) read(ctx context.Context, jobs *sync.WaitGroup, name string) {
	row, err := e.cfg.Store.Get(ctx, resource.KindBatchPredictionJobs, name)
	switch {
	case err == nil:
		e.look(ctx, jobs, row.Key, row.State)
	case resource.IsNotFound(err):
		e.look(ctx, jobs, name, "")
	case ctx.Err() == nil:
		e.cfg.Log.ErrorContext(ctx, "cannot read a batch prediction job", slog.String("job", name), slog.Any("error", err))
		jobs.Go(func() {
			if pause(ctx, readAgain) {
				e.read(ctx, jobs, name)
			}
		})
	}
}

// look starts or ends the work on a job by its state.
func (e *Engine) look(ctx context.Context, jobs *sync.WaitGroup, name, state string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stop, working := e.actors[name]
	switch state {
	case "JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_CANCELLING":
		if !working {
			var own context.Context
			own, stop = context.WithCancelCause(ctx)
			e.actors[name] = stop
			jobs.Go(func() { e.job(own, ctx, name) })
		}
		if state == "JOB_STATE_CANCELLING" {
			stop(errCancelled)
		}
	case "":
		if working {
			stop(errCancelled)
		}
	}
}

// job runs one job to its end; server ends when the program does, and then the
// job's row stays as it is.
func (e *Engine) job(ctx, server context.Context, name string) {
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.actors[name](nil)
		delete(e.actors, name)
	}()
	log := e.cfg.Log.With(slog.String("job", name))
	outcome := e.admit(ctx, log, name)
	if server.Err() != nil {
		return
	}
	if errors.Is(context.Cause(ctx), errCancelled) {
		// The set let go of its replicas when the job's context ended, and those of
		// an earlier server may not have been taken up yet.
		ending, cancel := context.WithTimeout(server, stopLimit)
		if err := replica.Cleanup(ending, e.cfg.Runtime, setName(name)); err != nil {
			log.WarnContext(ending, "cannot stop the replicas of a cancelled batch prediction job", slog.Any("error", err))
		}
		cancel()
	}
	if outcome.err != nil {
		e.drop(server, log, name)
	}
	err := volume.Retry(server, func(err error) {
		log.WarnContext(server, "batch prediction job waits for the disk", slog.Any("error", err))
	},
		func() error { return e.finish(server, name, outcome) })
	if err != nil && server.Err() == nil {
		log.ErrorContext(server, "cannot record the end of a batch prediction job", slog.Any("error", err))
	}
}

// result is how a job went.
type result struct {
	output   *pb.BatchPredictionJob_OutputInfo
	stats    *pb.CompletionStats
	partial  []error // samples of what failed
	replicas int
	err      error
}

// admit waits for one of the slots and runs.
func (e *Engine) admit(ctx context.Context, log *slog.Logger, name string) result {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return result{err: context.Cause(ctx)}
	}
	if ctx.Err() != nil {
		return result{err: context.Cause(ctx)}
	}
	var job *pb.BatchPredictionJob
	err := volume.Retry(ctx, func(err error) {
		log.WarnContext(ctx, "batch prediction job waits for the disk", slog.Any("error", err))
	}, func() (err error) {
		job, err = e.begin(ctx, name)
		return err
	})
	if ctx.Err() != nil { // cancelled while it began: that, not the broken write, is how it went
		return result{err: context.Cause(ctx)}
	}
	if err != nil {
		return result{err: err}
	}
	log.InfoContext(ctx, "batch prediction starts")
	var r result
	// Without room for its output a job waits: what it writes it writes whole, again.
	_ = volume.Retry(ctx, func(err error) {
		log.WarnContext(ctx, "batch prediction job waits for the disk", slog.Any("error", err))
	}, func() error {
		r = e.run(log, job).do(ctx)
		return r.err
	})
	if ctx.Err() != nil && r.err != nil {
		r.err = context.Cause(ctx)
	}
	return r
}

// drop takes back what a job that did not succeed has written where nobody sees it.
func (e *Engine) drop(ctx context.Context, log *slog.Logger, name string) {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	job := &pb.BatchPredictionJob{}
	_, err := store.GetMessage(ctx, e.cfg.Store, resource.KindBatchPredictionJobs, name, job)
	if resource.IsNotFound(err) {
		return
	}
	if err == nil {
		err = e.run(log, job).abort(ctx)
	}
	if err != nil {
		log.WarnContext(ctx, "the unfinished tables of a batch prediction job stay in the warehouse", slog.Any("error", err))
	}
}

// begin marks the job as running.
func (e *Engine) begin(ctx context.Context, name string) (*pb.BatchPredictionJob, error) {
	job := &pb.BatchPredictionJob{}
	return job, e.change(ctx, name, job, func(store.Tx, *pb.BatchPredictionJob) error {
		if job.State == pb.JobState_JOB_STATE_CANCELLING {
			return nil // asked for meanwhile: the watch ends this work, and must still find it
		}
		job.State = pb.JobState_JOB_STATE_RUNNING
		if job.StartTime == nil {
			job.StartTime = timestamppb.New(e.cfg.Now())
		}
		return nil
	})
}

// change rewrites a job that is not finished.
func (e *Engine) change(ctx context.Context, name string, job *pb.BatchPredictionJob, edit func(store.Tx, *pb.BatchPredictionJob) error) error {
	return e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		row, err := store.GetMessage(ctx, tx, resource.KindBatchPredictionJobs, name, job)
		if err != nil {
			return err
		}
		if job.GetEndTime() != nil {
			return resource.Errorf(codes.FailedPrecondition, "the job has ended already")
		}
		if err := edit(tx, job); err != nil {
			return err
		}
		job.UpdateTime = timestamppb.New(e.cfg.Now())
		return store.PutMessage(ctx, tx, store.Row{Kind: row.Kind, Key: row.Key, Parent: row.Parent, State: job.GetState().String()}, job)
	})
}

// finish records how a job ended.
func (e *Engine) finish(ctx context.Context, name string, r result) error {
	job := &pb.BatchPredictionJob{}
	err := e.change(ctx, name, job, func(tx store.Tx, job *pb.BatchPredictionJob) error {
		job.EndTime = timestamppb.New(e.cfg.Now())
		if r.stats != nil { // else what was done before the end stays told
			job.CompletionStats = r.stats
		}
		if hours := job.GetEndTime().AsTime().Sub(job.GetStartTime().AsTime()).Hours(); job.GetStartTime() != nil && r.replicas > 0 {
			job.ResourcesConsumed = &pb.ResourcesConsumed{ReplicaHours: float64(r.replicas) * hours}
		}
		for _, p := range r.partial {
			job.PartialFailures = append(job.PartialFailures, resource.Outcome(p).GRPCStatus().Proto())
		}
		switch {
		case r.err == nil:
			job.State = pb.JobState_JOB_STATE_SUCCEEDED
			job.OutputInfo = r.output
		case errors.Is(r.err, errCancelled):
			job.State = pb.JobState_JOB_STATE_CANCELLED
			job.Error = errCancelled.GRPCStatus().Proto()
		default:
			job.State = pb.JobState_JOB_STATE_FAILED
			job.Error = resource.Outcome(r.err).WithLogs(path.Base(name)).GRPCStatus().Proto()
		}
		if e.cfg.Ended != nil {
			if err := e.cfg.Ended(ctx, tx, job); err != nil {
				return err
			}
		}
		return forget(ctx, tx, name)
	})
	if resource.IsNotFound(err) {
		return nil // deleted while it ran
	}
	return err
}
