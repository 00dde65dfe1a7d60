package vector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Objects are where the files of batch updates are.
type Objects interface {
	List(ctx context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error)
	OpenLive(ctx context.Context, bucket, name string) (blob.Object, io.ReadCloser, error)
}

// EngineConfig names the ports of the engine.
type EngineConfig struct {
	Store store.Store
	// Objects gives the object store as the account of an index's project sees it.
	Objects func(as identity.Account) Objects
	Backend Backend
	Log     *slog.Logger
	Now     func() time.Time
}

// Engine is vector search.
type Engine struct {
	cfg     EngineConfig
	metrics *metrics

	mu      sync.RWMutex
	targets map[string]target   // by deployed index, see targetKey
	places  map[string][]string // the endpoints of a deployed index's id
	epoch   int                 // grows when targets are forgotten
	busy    map[string]bool     // indexes with a batch update at work
	ended   chan struct{}       // one of them is done, so that what waits for it may begin
}

// target is what a deployed index leads to.
type target struct {
	index    Index
	endpoint string
}

// New makes an engine; batch updates wait for Run.
func New(cfg EngineConfig) *Engine {
	return &Engine{cfg: cfg, metrics: newMetrics(), targets: map[string]target{}, places: map[string][]string{}, busy: map[string]bool{}, ended: make(chan struct{}, 1)}
}

// Run does batch updates until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	w := e.cfg.Store.Watch(resource.KindIndexes, resource.KindIndexEndpoints, resource.KindIndexUpdates)
	defer w.Close()
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	failed := make(chan error, 2) // its two senders never wait, however this ends
	work.Go(func() { failed <- e.cfg.Backend.Run(ctx) })
	work.Go(func() { e.measure(ctx) })
	changes := make(chan []store.Change)
	work.Go(func() { watch(ctx, w, changes, failed) })
	for {
		if err := e.startUpdates(ctx, &work); err != nil && ctx.Err() == nil {
			return fmt.Errorf("vector: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("vector: %w", err)
		case <-e.ended:
		case batch := <-changes:
			e.forget(batch)
		}
	}
}

// watch passes changes on, and the error that ends them.
func watch(ctx context.Context, w store.Watcher, changes chan<- []store.Change, failed chan<- error) {
	for {
		batch, err := w.Next(ctx)
		if err != nil {
			select {
			case failed <- err:
			default:
			}
			return
		}
		select {
		case changes <- batch:
		case <-ctx.Done():
			return
		}
	}
}

// forget drops what is cached of indexes and endpoints that changed.
func (e *Engine) forget(changes []store.Change) {
	for _, c := range changes {
		if c.Kind != resource.KindIndexUpdates {
			e.Forget()
			return
		}
	}
}

// Forget drops what is cached of deployed indexes: who changed one says so, since
// the news of it come later than the answer.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.targets)
	clear(e.places)
	e.epoch++
}

// startUpdates begins the oldest batch update of each index that has none at work.
func (e *Engine) startUpdates(ctx context.Context, work *sync.WaitGroup) error {
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindIndexUpdates, Order: store.ByCreated})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !e.begin(row.Parent) {
			continue
		}
		work.Go(func() {
			defer e.end(row.Parent)
			if err := e.update(ctx, row); err != nil && ctx.Err() == nil {
				e.cfg.Log.ErrorContext(ctx, "cannot record a batch update", slog.String("index", row.Parent), slog.Any("error", err))
			}
		})
	}
	return nil
}

// most is how many batch updates are at work at a time: a build uses every core.
const most = 2

func (e *Engine) begin(index string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[index] || len(e.busy) >= most {
		return false
	}
	e.busy[index] = true
	return true
}

func (e *Engine) end(index string) {
	e.mu.Lock()
	delete(e.busy, index)
	e.mu.Unlock()
	select {
	case e.ended <- struct{}{}:
	default:
	}
}

// Index reads what a backend has to know of an index.
func (e *Engine) Index(ctx context.Context, name string) (Index, error) {
	index := &pb.Index{}
	if _, err := store.GetMessage(ctx, e.cfg.Store, resource.KindIndexes, name, index); err != nil {
		return Index{}, err
	}
	cfg, err := ParseConfig(index)
	if err != nil {
		return Index{}, fmt.Errorf("index %s: %w", name, err)
	}
	return Index{Name: name, Config: cfg}, nil
}

// deployed finds the index of a deployed index.
func (e *Engine) deployed(ctx context.Context, endpoint, id string) (target, error) {
	key := endpoint + "\x00" + id
	e.mu.RLock()
	t, ok := e.targets[key]
	epoch := e.epoch
	e.mu.RUnlock()
	if ok {
		return t, nil
	}
	t, err := e.lookup(ctx, endpoint, id)
	if err != nil {
		return target{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch == epoch {
		e.targets[key] = t
	}
	return t, nil
}

func (e *Engine) lookup(ctx context.Context, endpoint, id string) (found target, err error) {
	if endpoint == "" { // which would be any, of whatever project
		return target{}, resource.Invalid("index_endpoint", "index_endpoint is missing")
	}
	err = e.eachDeployed(ctx, endpoint, func(name string, d *pb.DeployedIndex) (err error) {
		if d.GetId() == id {
			found.endpoint = name
			found.index, err = e.Index(ctx, d.GetIndex())
		}
		return err
	})
	if err == nil && found.endpoint == "" {
		err = resource.Errorf(codes.NotFound, "%s has no deployed index %q", endpoint, id).WithResource(endpoint).
			WithHint("deploy the index there, or name the id that it was deployed with")
	}
	return found, err
}

// eachDeployed visits the deployed indexes of an endpoint, or of all.
func (e *Engine) eachDeployed(ctx context.Context, endpoint string, visit func(endpoint string, d *pb.DeployedIndex) error) error {
	var rows []store.Row
	var err error
	if endpoint == "" {
		rows, err = e.cfg.Store.List(ctx, store.Query{Kind: resource.KindIndexEndpoints})
	} else {
		rows = make([]store.Row, 1)
		rows[0], err = e.cfg.Store.Get(ctx, resource.KindIndexEndpoints, endpoint)
	}
	if err != nil {
		return err
	}
	for _, row := range rows {
		ep := &pb.IndexEndpoint{}
		if err := store.Unmarshal(row, ep); err != nil {
			return err
		}
		for _, d := range ep.GetDeployedIndexes() {
			if err := visit(row.Key, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Warm makes the first query of an index as fast as the next.
func (e *Engine) Warm(ctx context.Context, name string) error {
	index, err := e.Index(ctx, name)
	if err != nil {
		return err
	}
	return e.cfg.Backend.Warm(ctx, index)
}

// Stats of an index.
func (e *Engine) Stats(ctx context.Context, name string) (Stats, error) {
	index, err := e.Index(ctx, name)
	if err != nil {
		return Stats{}, err
	}
	return e.cfg.Backend.Stats(ctx, index)
}

// Drop forgets an index in the transaction that deletes it.
func (e *Engine) Drop(ctx context.Context, tx store.Tx, name string) error {
	rows, err := tx.List(ctx, store.Query{Kind: resource.KindIndexUpdates, Parent: name, Limit: 1})
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		return resource.Errorf(codes.FailedPrecondition, "%s is being updated", name).WithResource(name).WithHint("wait for the operation to end")
	}
	return e.cfg.Backend.Drop(ctx, tx, name)
}

// isEnd tells the end of the server from a failure.
func isEnd(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}
