// Package pipeline runs compiled Kubeflow pipelines. It parses the IR into a
// plan, keeps each run as rows (the job, its tasks, its events), decides in a pure
// state machine what happens next, and lets the runtime port run the programs.
//
// It owns the state of PipelineJob rows after their creation, the task rows, the
// cache, and the record of runs in the metadata store. It does not own the API
// (api/aiplatform writes the job row and joins the rows on Get) nor environments,
// processes and files (the runtime).
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/volume"
)

// Kinds of rows that the engine writes.
const (
	// KindTasks rows are Tasks as JSON; the parent is the job.
	KindTasks store.Kind = "pipelineTasks"
	kindCache store.Kind = "pipelineCache"
	kindJobs  store.Kind = resource.KindPipelineJobs
)

// Objects is what the engine needs of the object store; *access.View has it.
type Objects interface {
	// ReadAll gives the content of gs://BUCKET/NAME: NotFound when there is none,
	// an error when it is longer than limit.
	ReadAll(ctx context.Context, uri string, limit int64) ([]byte, error)
	// Exists reports an object of that name, or any below it as a folder.
	Exists(ctx context.Context, uri string) (bool, error)
	// EnsureBucket makes a bucket that does not exist yet.
	EnsureBucket(ctx context.Context, project, bucket string) error
	// MayWrite is nil when the account may make the object uri.
	MayWrite(ctx context.Context, uri string) error
}

// Config lists what the engine works with.
type Config struct {
	Store store.Store
	// Objects gives the object store as the account of a run sees it.
	Objects func(as identity.Account) Objects
	Runtime runtime.Runtime
	Volumes runtime.Volumes // nil: the runtime has none
	Secrets Secrets         // nil: there are none
	AtOnce  int             // attempts below one loop of a run that the runtime is given at a time; 0 = 64
	// Launcher is the path of a program whose verb launch runs the modules of
	// google-cloud-pipeline-components; "" = they fail.
	Launcher string
	Log      *slog.Logger
	Now      func() time.Time
}

// defaultAtOnce suits a small machine: three times as many as its cores run at once.
const defaultAtOnce = 64

// Engine runs pipeline jobs: one owner for each unfinished job row.
type Engine struct {
	cfg    Config
	mu     sync.Mutex
	owners map[string]*owner
	wg     sync.WaitGroup
}

// owner is the goroutine that runs one job.
type owner struct {
	poke   chan struct{} // the job row changed
	unread bool          // a poke that the owner has not seen; guarded by Engine.mu
}

// New makes an engine; nothing happens before Run.
func New(cfg Config) *Engine {
	if cfg.AtOnce == 0 {
		cfg.AtOnce = defaultAtOnce
	}
	return &Engine{cfg: cfg, owners: map[string]*owner{}}
}

// Run owns every unfinished job until ctx ends, those of an earlier process
// first. Programs go on running after it returns; the next Run adopts them.
func (e *Engine) Run(ctx context.Context) error {
	defer e.wg.Wait()
	w := e.cfg.Store.Watch(kindJobs)
	defer w.Close()
	e.releaseEnded(ctx)
	e.dropWorkspaces(ctx)
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: kindJobs, States: unfinished()})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("list unfinished pipeline jobs: %w", err)
	}
	for _, row := range rows {
		e.notify(ctx, row.Key)
	}
	for {
		changes, err := w.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("watch pipeline jobs: %w", err)
		}
		for _, c := range changes {
			e.notify(ctx, c.Key)
		}
	}
}

// notify tells the owner of a job about a change, or makes one.
func (e *Engine) notify(ctx context.Context, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.owners[name]; o != nil {
		o.unread = true
		select {
		case o.poke <- struct{}{}:
		default:
		}
		return
	}
	o := &owner{poke: make(chan struct{}, 1)}
	e.owners[name] = o
	e.wg.Go(func() { e.own(ctx, name, o) })
}

// own runs the job as often as its row asks for it: a row may be deleted and
// made again while the old run is being put away.
func (e *Engine) own(ctx context.Context, name string, o *owner) {
	for {
		// A run that the disk blocks goes on from its rows, as after a restart.
		err := volume.Retry(ctx, func(err error) { e.warn(ctx, "pipeline job "+name+" waits for the disk", err) }, func() error { return e.runJob(ctx, name, o) })
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.ErrorContext(ctx, "pipeline job stopped", slog.String("job", name), slog.Any("error", err))
			e.abandon(ctx, name, err)
		}
		e.mu.Lock()
		again := o.unread && ctx.Err() == nil
		o.unread = false
		if !again {
			delete(e.owners, name)
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
	}
}

// seen marks pokes as read; the owner reads the row after it.
func (e *Engine) seen(o *owner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o.unread = false
}

// releaseEnded removes working directories that an earlier process left behind
// between the end of a task and its clean-up: those that no running task needs.
func (e *Engine) releaseEnded(ctx context.Context) {
	instances, err := e.cfg.Runtime.List(ctx)
	if err != nil {
		e.warn(ctx, "cannot list instances", err)
		return
	}
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: KindTasks, States: []string{string(Running)}})
	if err != nil {
		e.warn(ctx, "cannot list running tasks", err)
		return
	}
	needed := map[string]bool{}
	for _, row := range rows {
		t, err := decodeTask(row)
		if err != nil {
			e.warn(ctx, "cannot read a running task", err)
			return
		}
		for _, id := range t.Workload {
			needed[id] = true
		}
	}
	for _, inst := range instances {
		if strings.HasPrefix(inst.ID(), workloadPrefix) && inst.Status().Phase == runtime.Ended && !needed[inst.ID()] {
			e.release(ctx, inst)
		}
	}
}

func (e *Engine) release(ctx context.Context, inst runtime.Instance) {
	if err := inst.Release(ctx); err != nil {
		e.warn(ctx, "cannot release instance "+inst.ID(), err)
	}
}

// warn tells of what does not stop a run; at the end of the engine nothing does.
func (e *Engine) warn(ctx context.Context, message string, err error) {
	if ctx.Err() == nil {
		e.cfg.Log.WarnContext(ctx, message, slog.Any("error", err))
	}
}
