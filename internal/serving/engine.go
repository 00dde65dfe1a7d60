// Package serving keeps deployed models running and answers predictions. It acts
// on the rows that the API writes (deployments) and finishes their operations;
// its data plane is called directly by the API. What to start comes from
// modelformat, keeping it alive from replica, how many from autoscale.
package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/serving/follow"
	"tategu/internal/serving/shadow"
	"tategu/internal/store"
)

// Config names the ports of the engine.
type Config struct {
	Store store.Store
	// Objects gives the object store as the account of a deployed model sees it.
	Objects func(as identity.Account) modelformat.Objects
	Runtime runtime.Runtime
	// Warm is told which deployed models have programs that will start again; nil: the
	// runtime keeps nothing warm.
	Warm runtime.Warmer
	// Fits refuses replicas that can never run here at the same time; nil = the
	// runtime's word on each of them is enough.
	Fits func(together ...runtime.Workload) error
	// Rights answers for those who asked for following an alias; nil = they may all.
	Rights Rights
	// Journal takes logged requests; nil = they are not logged.
	Journal  Journal
	HasImage func(image string) bool // whether an images rule fits; nil = never
	Limit    time.Duration           // longest prediction, where the endpoint does not say; 0 = one minute
	Scaling  Scaling
	Runner   modelformat.Runner // serves ONNX models
	Torch    modelformat.Torch  // serves TorchServe's archives
	// GPUs tells how busy they are, from 0 to 1 by their ids, and when that was read; nil =
	// nobody knows. It is asked once a second by each model that is scaled by it.
	GPUs   GPUReader
	Log    *slog.Logger
	Now    func() time.Time
	Random func(n int) int // for the traffic split; nil = math/rand
}

// GPUReader reads how busy GPUs are; inventory.Duty does.
type GPUReader interface {
	Busy(ctx context.Context, now time.Time) (busy map[string]float64, read time.Time, err error)
}

// Engine runs deployed models.
type Engine struct {
	cfg     Config
	planner modelformat.Planner
	metrics *metrics

	mu        sync.RWMutex
	running   map[string]*deployment // by deployment key: those that take requests
	endpoints map[string]*entry
	epoch     int                      // grows when something is forgotten
	canaries  map[string]*canary       // by endpoint
	rollouts  map[string]Rollout       // by deployment key
	actors    map[string]chan struct{} // wake-up of each deployment's goroutine
	follows   map[string]follow.State  // by endpoint

	judged chan *canary // whose verdict is new

	copies    budget
	shadowed  chan *exchange
	journaled chan *exchange
	reports   reports
	pools     pools

	asked   atomic.Int64  // when a prediction came last, nanoseconds of Unix time
	ready   chan struct{} // closed once the rows of an earlier run are taken over
	adopted sync.WaitGroup
}

// New makes an engine; nothing happens before Run.
func New(cfg Config) *Engine {
	if cfg.Limit == 0 {
		cfg.Limit = time.Minute
	}
	cfg.Scaling = cfg.Scaling.withDefaults()
	if cfg.Random == nil {
		cfg.Random = rand.IntN
	}
	return &Engine{
		cfg: cfg, planner: modelformat.Planner{HasImage: cfg.HasImage, Runner: cfg.Runner, Torch: cfg.Torch}, metrics: newMetrics(),
		running: map[string]*deployment{}, endpoints: map[string]*entry{}, canaries: map[string]*canary{}, rollouts: map[string]Rollout{}, follows: map[string]follow.State{},
		judged: make(chan *canary, 16), shadowed: make(chan *exchange, copiesQueue), journaled: make(chan *exchange, copiesQueue),
		reports: reports{byName: map[string]*shadow.Report{}, changed: map[string]bool{}},
		pools:   pools{byName: map[string]*pool{}},
		actors:  map[string]chan struct{}{}, ready: make(chan struct{}),
	}
}

// Ready waits until the deployed models of an earlier run take requests again
// (their replicas may still be starting).
func (e *Engine) Ready(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ready:
		return nil
	}
}

// Run acts on rows until ctx ends. Replicas outlive it: the next Run of a server
// on the same rows finds them again.
func (e *Engine) Run(ctx context.Context) error {
	w := e.cfg.Store.Watch(resource.KindDeployments, resource.KindEndpoints, resource.KindDeploymentResourcePools)
	defer w.Close()
	following := e.newFollower()
	defer following.close()
	ctx, cancel := context.WithCancel(ctx)
	var actors sync.WaitGroup
	defer actors.Wait()
	defer cancel()
	var rows []store.Row
	err := errors.Join(e.loadRollouts(ctx), e.loadReports(ctx))
	if err == nil {
		rows, err = e.cfg.Store.List(ctx, store.Query{Kind: resource.KindDeployments})
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	for _, row := range rows {
		if row.State == resource.StateDeployed {
			e.adopted.Add(1)
		}
		e.wake(ctx, &actors, row.Key, row.State == resource.StateDeployed)
	}
	actors.Go(func() { e.tend(ctx) })
	actors.Go(func() { following.run(ctx) })
	actors.Go(func() { e.runShadows(ctx) })
	actors.Go(func() { e.runJournal(ctx) })
	actors.Go(func() {
		e.adopted.Wait()
		close(e.ready)
	})
	for {
		changes, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving: %w", err)
		}
		for _, c := range changes {
			if c.Kind == resource.KindDeployments {
				e.wake(ctx, &actors, c.Key, false)
				continue
			}
			if c.Kind == resource.KindDeploymentResourcePools {
				if err := e.repool(ctx, c.Key, c.Deleted); err != nil && ctx.Err() == nil {
					e.cfg.Log.ErrorContext(ctx, "cannot read a pool", slog.String("pool", c.Key), slog.Any("error", err))
				}
				continue
			}
			e.forget(c.Key)
			if c.Deleted {
				e.reports.drop(c.Key)
			}
		}
	}
}

// wake tells a deployment's goroutine that its row changed, and starts it when
// there is none. first marks a row that Ready waits for.
func (e *Engine) wake(ctx context.Context, actors *sync.WaitGroup, key string, first bool) {
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
		a := &actor{engine: e, key: key, log: e.cfg.Log.With(slog.String("deployment", key)), pending: first}
		a.run(ctx, ch)
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

// forget drops what is cached of an endpoint.
func (e *Engine) forget(endpoint string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.endpoints, endpoint)
	e.epoch++
}

// ignoreCancel drops the error of work that the end of the server cut short.
func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
