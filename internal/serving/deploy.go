package serving

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	goruntime "runtime"
	"sync"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/operation"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/serving/autoscale"
	"tategu/internal/serving/sample"
	"tategu/internal/store"
)

// setName is the prefix of a deployment's workloads.
func setName(key string) string {
	n, err := resource.ParseName(key)
	if err != nil {
		return "replica-" + resource.ETag([]byte(key))
	}
	return "replica-" + n.ID()
}

// begin gives the replicas to start with. A deployment that was there before goes
// on with those that run, and its replicas get numbers that none had.
func (a *actor) begin(ctx context.Context, spec autoscale.Spec, again bool) (count, attempt int, err error) {
	if !again {
		if spec.Min == 0 {
			return spec.Initial, 0, nil
		}
		return spec.Min, 0, nil
	}
	n, err := replica.Running(ctx, a.engine.cfg.Runtime, setName(a.key))
	return min(max(n, spec.Min), spec.Max), int(a.engine.cfg.Now().UnixMilli()), err
}

// start plans the model and starts its set; again says that it was deployed before.
func (a *actor) start(ctx context.Context, req *pb.DeployModelRequest, again bool) error {
	e, dm := a.engine, req.GetDeployedModel()
	model, err := modelformat.LoadModel(ctx, e.cfg.Store, dm.GetModel(), dm.GetModelVersionId())
	if err != nil {
		return err
	}
	endpoint, err := resource.ParseName(req.GetEndpoint())
	if err != nil {
		return err
	}
	shared, err := e.poolOf(ctx, dm)
	if err != nil {
		return err
	}
	machine, spec := dm.GetDedicatedResources().GetMachineSpec(), e.cfg.Scaling.spec(dm)
	if shared != nil {
		spec.Min = 0
		spec.Max, machine = shared.resources()
	}
	// Its files are read as whom its containers run as, in this process too.
	objects := e.cfg.Objects(identity.Account{Project: endpoint.Project(), Email: dm.GetServiceAccount()})
	plan, err := e.planner.Plan(ctx, objects, model, modelformat.Target{
		Project: endpoint.Project(), Endpoint: endpoint.ID(), DeployedModel: dm.GetId(), Machine: machine,
		Threads: int(coresOf(machine)) / max(1, spec.Max),
	})
	if err != nil {
		return err
	}
	samples, err := sample.Load(ctx, objects, model.GetArtifactUri())
	switch {
	case err != nil && !again:
		return err
	case err != nil: // it has served before, and goes on
		a.log.WarnContext(ctx, "the model's samples cannot be read: replicas that start are not checked", slog.Any("error", err))
	}
	d := &deployment{
		key: a.key, id: dm.GetId(), model: model, json: http.Header{"Content-Type": {"application/json"}},
		done: make(chan struct{}), admitted: make(chan struct{}), outcome: make(chan error, 1),
	}
	if dm.GetEnableAccessLogging() {
		d.access = a.log
	}
	d.unlogged.Store(dm.GetDisableContainerLogging())
	limits := e.cfg.Scaling
	cfg := replica.Config{
		Name: setName(a.key), Title: "deployed model " + dm.GetId(), Runtime: e.cfg.Runtime, Log: a.log,
		Queue: limits.Queue, QueueBytes: limits.QueueBytes, Drain: limits.Drain,
	}
	if d.native = plan.Native; plan.Native != nil {
		cfg.Local = replica.Bytes(func(_ context.Context, body []byte) ([]byte, error) { return plan.Native.Predict(body) })
		a.log.InfoContext(ctx, "serving natively", slog.String("model", plan.Native.Describe()))
		if !again {
			if err := checkSamples(ctx, samples, cfg.Local, ""); err != nil {
				return err
			}
		}
	} else {
		c := plan.Container
		if c.Managed {
			if d.manager, err = a.manage(ctx); err != nil {
				return err
			}
			c.Env[modelformat.TorchKeyVariable], cfg.Prepare = d.manager.key, d.manager.prepare
		}
		d.route, cfg.Health, cfg.Start = c.PredictRoute, c.HealthRoute, c.Start
		if c.Frames {
			cfg.Frames = c.PredictRoute
		}
		if c.Note != "" {
			a.log.InfoContext(ctx, c.Note, slog.String("image", model.GetContainerSpec().GetImageUri()))
		}
		cfg.Workload = func(id string) runtime.Workload {
			w := c.Workload(id, a.key, endpoint.Project(), dm.GetServiceAccount(), modelformat.Needs(machine))
			w.Priority, w.Unlogged = runtime.PriorityOnline, d.unlogged.Load()
			return w
		}
		if samples.Len() > 0 {
			cfg.Check = func(ctx context.Context, b replica.Backend) error {
				return checkSamples(ctx, samples, b, c.PredictRoute)
			}
		}
		if cfg.Count, cfg.Attempt, err = a.begin(ctx, spec, again); err != nil {
			return err
		}
		cfg.Required = int(dm.GetDedicatedResources().GetRequiredReplicaCount())
		if err := e.fits(cfg); err != nil {
			return err
		}
		d.scale = newScaler(spec, cmp.Or(c.Concurrency, limits.Concurrency), cfg.Count, coresOf(machine), a.log, e.cfg.Now)
		d.scale.gpu = e.cfg.GPUs
		cfg.Concurrency = d.scale.spec.Concurrency
		if d.scale.pool = shared; shared != nil {
			if err := shared.join(d.scale, cmp.Or(dm.GetDisplayName(), model.GetDisplayName())+" ("+dm.GetId()+")", cfg.Count, again); err != nil {
				return err
			}
		}
		a.keepWarm(true)
		d.invoke, d.explain = c.InvokePrefix != "", c.ExplainRoute
	}
	d.set, d.meters = replica.New(cfg), e.metrics.of(endpoint.Project(), endpoint.ID(), dm.GetId())
	if d.scale != nil {
		d.scale.set = d.set
	}
	a.current = d
	outcome := d.outcome // the field is cleared once it does not matter any more
	go func() {
		defer close(d.done)
		if shared != nil && d.scale != nil {
			defer shared.quit(d.scale)
		}
		var wait sync.WaitGroup
		defer wait.Wait()
		wait.Go(func() { outcome <- d.set.WaitReady(ctx) })
		if d.scale != nil {
			scaled, stop := context.WithCancel(ctx)
			defer stop()
			wait.Go(func() { a.scale(scaled, d) })
		}
		if err := d.set.Run(ctx); err != nil {
			a.log.ErrorContext(ctx, "replica set ended", slog.Any("error", err))
		}
	}()
	return nil
}

// coresOf is how many cores a replica can use: those of its machine type, but not
// more than are here.
func coresOf(m *pb.MachineSpec) float64 {
	here := float64(goruntime.NumCPU())
	if n := modelformat.Needs(m).Cores; n > 0 {
		return min(n, here)
	}
	return here
}

// scale lets the load decide once the model is deployed; until then all replicas to
// begin with have to start.
func (a *actor) scale(ctx context.Context, d *deployment) {
	select {
	case <-ctx.Done():
	case <-d.admitted:
		d.scale.Run(ctx)
	}
}

// fits refuses replicas that can never be there at the same time: a deployment is
// not done before all are ready.
func (e *Engine) fits(cfg replica.Config) error {
	if e.cfg.Fits == nil {
		return nil
	}
	return e.cfg.Fits(cfg.Workloads()...)
}

// started ends the deploy operation after the first start.
func (a *actor) started(ctx context.Context, outcome error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the server ends; the next one goes on
	}
	if outcome != nil {
		return a.failed(ctx, outcome)
	}
	e, d := a.engine, a.current
	e.admit(d)
	var endpoint string
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		endpoint, err = a.commit(ctx, tx)
		return err
	})
	if err == nil {
		e.forget(endpoint)
		a.log.InfoContext(ctx, "model deployed")
		return nil
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the server ends; the next one goes on
	}
	return a.failed(ctx, err)
}

// errNotDeploying says that the row changed under us.
var errNotDeploying = errors.New("the deployment is not wanted any more")

// commit makes the deployed model part of its endpoint and answers the operation. It gives the endpoint's name.
func (a *actor) commit(ctx context.Context, tx store.Tx) (string, error) {
	req := &pb.DeployModelRequest{}
	row, err := store.GetMessage(ctx, tx, resource.KindDeployments, a.key, req)
	if err != nil {
		return "", err
	}
	if row.State != resource.StateDeploying {
		return "", errNotDeploying
	}
	endpoint := &pb.Endpoint{}
	at, err := store.GetMessage(ctx, tx, resource.KindEndpoints, req.GetEndpoint(), endpoint)
	if err != nil {
		return "", err
	}
	now := timestamppb.New(a.engine.cfg.Now())
	dm := proto.CloneOf(req.GetDeployedModel())
	dm.CreateTime = now
	if dm.GetDisplayName() == "" {
		dm.DisplayName = a.current.model.GetDisplayName()
	}
	first := len(endpoint.GetDeployedModels()) == 0
	endpoint.DeployedModels = append(endpoint.DeployedModels, dm)
	if of := dm.GetSystemLabels()[ReplacesLabel]; of != "" {
		arrive(endpoint, dm, of)
	} else {
		endpoint.TrafficSplit = split(endpoint, req.GetTrafficSplit(), dm.GetId(), first)
	}
	endpoint.UpdateTime = now
	if err := seal(endpoint); err != nil {
		return "", err
	}
	if err := store.PutMessage(ctx, tx, store.Row{Kind: at.Kind, Key: at.Key, Parent: at.Parent, State: at.State}, endpoint); err != nil {
		return "", err
	}
	if err := a.answer(ctx, tx, func(op string) (bool, error) {
		done, err := operation.Finish(ctx, tx, op, &pb.DeployModelResponse{DeployedModel: dm})
		return done.GetResponse() == nil, err
	}); err != nil {
		return "", err
	}
	req.DeployedModel = dm
	return endpoint.GetName(), store.PutMessage(ctx, tx, store.Row{Kind: row.Kind, Key: row.Key, Parent: row.Parent, State: resource.StateDeployed}, req)
}

// split gives the new traffic split: the one asked for, else the old one, and
// everything to the first model.
func split(endpoint *pb.Endpoint, asked map[string]int32, id string, first bool) map[string]int32 {
	if len(asked) == 0 {
		if first {
			return map[string]int32{id: 100}
		}
		return endpoint.GetTrafficSplit()
	}
	kept := map[string]int32{}
	for _, dm := range endpoint.GetDeployedModels() {
		if share, ok := asked[dm.GetId()]; ok {
			kept[dm.GetId()] = share
		}
	}
	return kept
}

// seal sets the etag, as package aiplatform does for its own writes.
func seal(endpoint *pb.Endpoint) error {
	endpoint.Etag = ""
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(endpoint)
	if err != nil {
		return fmt.Errorf("etag: %w", err)
	}
	endpoint.Etag = resource.ETag(data)
	return nil
}

// answer ends the operation that waits on this deployment, if there is one.
// finish reports whether the operation had been ended by somebody else.
func (a *actor) answer(ctx context.Context, tx store.Tx, finish func(op string) (cancelled bool, err error)) error {
	row, err := tx.Get(ctx, resource.KindDeploymentOps, a.key)
	if resource.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	cancelled, err := finish(string(row.Data))
	if err != nil {
		return err
	}
	if cancelled {
		return resource.Errorf(codes.Canceled, "the deploy operation was cancelled")
	}
	return tx.Delete(ctx, resource.KindDeploymentOps, a.key)
}

// failed leaves nothing behind: the operation carries the reason, the rows go,
// and so do the replicas.
func (a *actor) failed(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the server ends; the next one goes on
	}
	a.log.WarnContext(ctx, "deployment failed", slog.Any("error", cause))
	if err := a.stop(ctx); err != nil {
		return err
	}
	followed := false
	err := a.engine.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := a.answer(ctx, tx, func(op string) (bool, error) {
			_, err := operation.Fail(ctx, tx, op, withLogs(cause, a.key))
			return false, err
		}); err != nil {
			return err
		}
		var err error
		if followed, err = a.notArrived(ctx, tx, cause); err != nil {
			return err
		}
		if err := tx.Delete(ctx, resource.KindTorchModels, a.key); err != nil {
			return err
		}
		return tx.Delete(ctx, resource.KindDeployments, a.key)
	})
	if err == nil && followed {
		a.engine.metrics.rolledOver(a.key, "failed")
	}
	return err
}

// withLogs adds where the output of the replicas is, if they made any.
func withLogs(err error, key string) error {
	e := resource.Outcome(err)
	name, bad := resource.ParseName(key)
	if bad != nil {
		return e
	}
	return e.WithLogs(path.Base(name.Parent().String()))
}

// undeploy drains and ends the replicas and removes the row. An operation that
// waits on the row is answered with it.
func (a *actor) undeploy(ctx context.Context) error {
	if err := a.stop(ctx); err != nil {
		return ignoreCancel(ctx, err)
	}
	defer a.engine.forgetRollout(a.key)
	return a.engine.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := a.answer(ctx, tx, func(op string) (bool, error) {
			_, err := operation.Finish(ctx, tx, op, &pb.UndeployModelResponse{})
			return false, err
		}); err != nil {
			return err
		}
		if err := tx.Delete(ctx, resource.KindRollouts, a.key); err != nil {
			return err
		}
		if err := tx.Delete(ctx, resource.KindTorchModels, a.key); err != nil {
			return err
		}
		return tx.Delete(ctx, resource.KindDeployments, a.key)
	})
}
