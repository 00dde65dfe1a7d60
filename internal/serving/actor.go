package serving

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// retryAfter is the pause before a deployed model that could not be planned is
// tried again (its file may be back).
const retryAfter = 30 * time.Second

// deployment is a deployed model whose set runs.
type deployment struct {
	key, id string
	model   *pb.Model
	set     *replica.Set
	scale   *scaler // nil in process
	meters  meters
	route   string              // of predictions in a replica
	json    http.Header         // of requests that have none of their own; never changed
	explain string              // the route of explanations, "" = it has none
	manager *manager            // of TorchServe's models; nil = it is none
	invoke  bool                // its other routes are open too
	native  *modelformat.Native // nil = it has replicas
	access  *slog.Logger        // of requests; nil where the deployed model does not ask for it

	unlogged atomic.Bool // the output of replicas that start from now on is not kept

	admitted chan struct{} // closed once it takes requests
	done     chan struct{} // closed when the set has ended
	outcome  chan error    // of the first start, one value
}

// actor brings one deployment row about.
type actor struct {
	engine  *Engine
	key     string
	log     *slog.Logger
	pending bool // Ready waits for us
	current *deployment
	broken  bool // a deployed model that could not be planned
}

func (a *actor) run(ctx context.Context, wake <-chan struct{}) {
	defer a.adopted()
	defer func() {
		if a.current != nil {
			<-a.current.done
		}
	}()
	for {
		again, err := a.step(ctx)
		if err != nil && ctx.Err() == nil {
			a.log.ErrorContext(ctx, "cannot act on a deployment", slog.Any("error", err))
			a.broken = true
		}
		a.adopted()
		if !again && a.engine.retire(a.key) {
			return
		}
		if !a.wait(ctx, wake) {
			return
		}
	}
}

// adopted tells Ready, once, that this row has been taken over.
func (a *actor) adopted() {
	if a.pending {
		a.pending = false
		a.engine.adopted.Done()
	}
}

// wait returns when something happened; false at the end of the server.
func (a *actor) wait(ctx context.Context, wake <-chan struct{}) bool {
	var outcome chan error
	if a.current != nil {
		outcome = a.current.outcome
	}
	var retry <-chan time.Time
	if a.broken {
		a.broken = false
		t := time.NewTimer(retryAfter)
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-retry:
	case err := <-outcome:
		a.current.outcome = nil
		if err := ignoreCancel(ctx, a.started(ctx, err)); err != nil {
			a.log.ErrorContext(ctx, "cannot record a deployment", slog.Any("error", err))
			a.broken = true
		}
	}
	return ctx.Err() == nil
}

// step compares the row with what runs. It reports whether there is more to do
// for this row, ever.
func (a *actor) step(ctx context.Context) (again bool, err error) {
	req := &pb.DeployModelRequest{}
	row, err := store.GetMessage(ctx, a.engine.cfg.Store, resource.KindDeployments, a.key, req)
	if resource.IsNotFound(err) {
		return false, a.stop(ctx)
	}
	if err != nil {
		return true, err
	}
	switch row.State {
	case resource.StateDeploying:
		if a.current != nil {
			return true, nil
		}
		if err := a.start(ctx, req, false); err != nil {
			return true, a.failed(ctx, err)
		}
	case resource.StateDeployed:
		if a.current == nil {
			if err := a.start(ctx, req, true); err != nil {
				return true, err
			}
			a.engine.admit(a.current)
			a.current.outcome = nil // the operation is over: the set keeps trying
			return true, nil
		}
		a.current.unlogged.Store(req.GetDeployedModel().GetDisableContainerLogging())
		if s := a.current.scale; s != nil {
			if s.pool == nil { // else the pool says how many
				s.configure(a.engine.cfg.Scaling.spec(req.GetDeployedModel()))
			}
		}
	case resource.StateUndeploying:
		return true, a.undeploy(ctx)
	}
	return true, nil
}

// keepWarm says whether replicas of the deployed model will start again.
func (a *actor) keepWarm(keep bool) {
	if w := a.engine.cfg.Warm; w != nil {
		w.KeepWarm(a.key, keep)
	}
}

// stop ends what runs for the row, whatever it was.
func (a *actor) stop(ctx context.Context) error {
	a.keepWarm(false)
	d := a.current
	if d == nil {
		return replica.Cleanup(ctx, a.engine.cfg.Runtime, setName(a.key))
	}
	a.engine.dismiss(d)
	if err := d.set.Stop(ctx, a.engine.cfg.Scaling.Drain); err != nil {
		return err
	}
	<-d.done
	d.meters.forget()
	a.current = nil
	return nil
}

// admit puts a deployment into rotation.
func (e *Engine) admit(d *deployment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running[d.key] = d
	if d.scale != nil && d.scale.pool != nil {
		d.scale.pool.open(d.scale)
	}
	close(d.admitted)
}

// dismiss takes it out.
func (e *Engine) dismiss(d *deployment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running[d.key] == d {
		delete(e.running, d.key)
	}
}
