package serving

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving/follow"
	"tategu/internal/serving/rollout"
	"tategu/internal/store"
)

// turn takes the steps of one endpoint in a transaction.
type turn struct {
	*sight
	tx    store.Tx
	grant *grant
	now   time.Time

	changed  bool // the endpoint's row is to be written
	ended    bool // nobody follows any more
	outcomes []string
	told     []line
}

// line is for the log, once the transaction is over.
type line struct {
	level slog.Level
	attrs []slog.Attr
}

func (t *turn) tell(level slog.Level, what string, attrs ...slog.Attr) {
	t.told = append(t.told, line{level, append([]slog.Attr{slog.String("step", what)}, attrs...)})
}

// take goes on until there is nothing to do but to wait; over is false when it stopped
// before a step that needs another grant.
func (t *turn) take(ctx context.Context) (over bool, err error) {
	for {
		step := follow.Decide(t.state, t.wish, t.view)
		if step.Do == follow.Start && !t.grant.covers(t.view.Target, t.deployed(step.Old)) {
			return false, t.write(ctx)
		}
		if step.Phase != "" && (step.Phase != t.state.Phase || step.Do != follow.Nothing) {
			t.state.Phase, t.state.Since = step.Phase, t.now
		}
		t.state.Reason = ""
		if err := t.do(ctx, step); err != nil {
			return false, err
		}
		if t.ended {
			return true, t.tx.Delete(ctx, resource.KindFollows, t.endpoint.GetName())
		}
		if step.Do == follow.Nothing || step.Do == follow.Start {
			return true, t.write(ctx)
		}
		if err := t.see(ctx, t.tx); err != nil {
			return false, err
		}
	}
}

func (t *turn) do(ctx context.Context, step follow.Step) error {
	s := &t.state
	switch step.Do {
	case follow.Nothing:
		if s.Reason = step.Reason; t.stale() {
			s.Current = ""
		}
	case follow.End:
		t.ended = true
	case follow.Settle:
		s.Reached, s.Current, s.Failed = t.view.Target, step.Old, nil
	case follow.Adopt:
		if err := t.handOver(ctx, step.Old, step.New); err != nil {
			return err
		}
		s.Reached, s.Current, s.Failed = t.view.Target, step.New, nil
		t.outcomes = append(t.outcomes, "done")
		t.tell(slog.LevelInfo, "taken over by a model that was deployed", slog.String("version", s.Reached.Version), slog.String("deployed_model", step.New))
	case follow.Start:
		return t.start(ctx, step.Old)
	case follow.Finish:
		if err := t.handOver(ctx, step.Old, step.New); err != nil {
			return err
		}
		s.Reached, s.Current, s.Failed = s.Target, step.New, nil
		t.outcomes = append(t.outcomes, "done")
		t.tell(slog.LevelInfo, "taken over", slog.String("version", s.Reached.Version), slog.String("deployed_model", step.New))
		t.over()
	case follow.GiveBack:
		return t.giveBack(ctx, step)
	}
	return nil
}

// over ends a roll-over.
func (t *turn) over() { t.state.Old, t.state.New, t.state.Target = "", "", follow.Target{} }

// handOver gives a deployed model what another one has of the traffic, and takes that off.
func (t *turn) handOver(ctx context.Context, from, to string) error {
	if t.endpoint.GetTrafficSplit()[from] > 0 {
		t.endpoint.TrafficSplit = rollout.Between(t.endpoint.GetTrafficSplit(), from, to, 100)
		t.changed = true
	}
	if d := t.deployed(to); d.GetSystemLabels()[ReplacesLabel] != "" {
		delete(d.SystemLabels, ReplacesLabel)
		t.changed = true
		if err := t.rewrite(ctx, d); err != nil {
			return err
		}
	}
	return t.takeOff(ctx, from)
}

// rewrite puts a deployed model into the row of its deployment, too.
func (t *turn) rewrite(ctx context.Context, d *pb.DeployedModel) error {
	req := &pb.DeployModelRequest{}
	row, err := store.GetMessage(ctx, t.tx, resource.KindDeployments, resource.DeploymentKey(t.endpoint.GetName(), d.GetId()), req)
	if err != nil {
		return ignoreMissing(err)
	}
	req.DeployedModel = d
	return store.PutMessage(ctx, t.tx, row, req)
}

// takeOff undeploys a model, or ends its deployment.
func (t *turn) takeOff(ctx context.Context, id string) error {
	if t.deployed(id) != nil {
		t.endpoint.DeployedModels = slices.DeleteFunc(t.endpoint.GetDeployedModels(), func(d *pb.DeployedModel) bool { return d.GetId() == id })
		delete(t.endpoint.GetTrafficSplit(), id)
		t.changed = true
	}
	return recall(ctx, t.tx, t.endpoint.GetName(), id, resource.StateDeploying, resource.StateDeployed)
}

// giveBack ends a roll-over before its time. With a reason, its version is not tried again.
func (t *turn) giveBack(ctx context.Context, step follow.Step) error {
	if t.endpoint.GetTrafficSplit()[step.New] > 0 && t.deployed(step.Old) != nil {
		t.endpoint.TrafficSplit = rollout.Between(t.endpoint.GetTrafficSplit(), step.New, step.Old, 100)
		t.changed = true
	}
	if err := t.takeOff(ctx, step.New); err != nil {
		return err
	}
	version := slog.String("version", t.state.Target.Version)
	if step.Reason == "" {
		t.outcomes = append(t.outcomes, "superseded")
		t.tell(slog.LevelInfo, "given up: it is not wanted any more", version)
	} else {
		t.outcomes = append(t.outcomes, "failed")
		t.state.Failed = &follow.Failure{Target: t.state.Target, Reason: step.Reason, At: t.now}
		t.tell(slog.LevelWarn, "not taken over", version, slog.String("reason", step.Reason))
	}
	t.over()
	return nil
}

// start deploys the version of the alias with all that the model has that it replaces.
func (t *turn) start(ctx context.Context, replaces string) error {
	old, target := t.deployed(replaces), t.view.Target
	model, err := modelformat.LoadModel(ctx, t.tx, target.Model, target.Version)
	if err != nil {
		return err
	}
	refusal := t.grant.refusal
	if refusal == "" && (model.GetContainerSpec().GetImageUri() != t.grant.image || model.GetArtifactUri() != t.grant.files) {
		refusal = "it was changed while its rights were looked at"
	}
	if refusal != "" {
		t.state.Failed = &follow.Failure{Target: target, Reason: refusal, At: t.now}
		t.outcomes = append(t.outcomes, "failed")
		t.state.Phase, t.state.Since = follow.Held, t.now
		t.tell(slog.LevelWarn, "not taken over", slog.String("version", target.Version), slog.String("reason", refusal))
		return nil
	}
	before, err := modelformat.LoadModel(ctx, t.tx, old.GetModel(), old.GetModelVersionId())
	if ignoreMissing(err) != nil {
		return err
	}
	d := proto.CloneOf(old)
	d.Id, d.Model, d.ModelVersionId, d.CheckpointId, d.Status, d.CreateTime = resource.NewID(), target.Model, target.Version, "", nil, timestamppb.New(t.now)
	if d.DisplayName == before.GetDisplayName() {
		d.DisplayName = model.GetDisplayName()
	}
	d.SystemLabels = map[string]string{ReplacesLabel: replaces}
	for name, value := range old.GetSystemLabels() {
		if name != ReplacesLabel {
			d.SystemLabels[name] = value
		}
	}
	name := t.endpoint.GetName()
	row := store.Row{Kind: resource.KindDeployments, Key: resource.DeploymentKey(name, d.GetId()), Parent: name, State: resource.StateDeploying}
	if err := store.PutMessage(ctx, t.tx, row, &pb.DeployModelRequest{Endpoint: name, DeployedModel: d}); err != nil {
		return err
	}
	t.state.Old, t.state.New, t.state.Target, t.state.Current = replaces, d.GetId(), target, replaces
	t.state.Failed = nil
	t.tell(slog.LevelInfo, "deploying", slog.String("version", target.Version), slog.String("deployed_model", d.GetId()), slog.String("replaces", replaces))
	return nil
}

// stale reports that the deployed model that followed is not there any more.
func (at *sight) stale() bool { return at.state.Current != "" && at.deployed(at.state.Current) == nil }

func (at *sight) deployed(id string) *pb.DeployedModel {
	for _, d := range at.endpoint.GetDeployedModels() {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// write puts what changed into the store.
func (t *turn) write(ctx context.Context) error {
	if t.changed {
		t.endpoint.UpdateTime = timestamppb.New(t.now)
		if err := seal(t.endpoint); err != nil {
			return err
		}
		if err := store.PutMessage(ctx, t.tx, store.Row{Kind: t.row.Kind, Key: t.row.Key, Parent: t.row.Parent, State: t.row.State}, t.endpoint); err != nil {
			return err
		}
	}
	return writeFollow(ctx, t.tx, t.endpoint.GetName(), t.state)
}

// arrive gives a deployed model that is ready the first share, or all, of what the one
// has that it replaces. What was changed of that one meanwhile holds for it as well. When
// there is nothing to replace, or to follow, any more it gets nothing, and the follower
// takes it off.
func arrive(endpoint *pb.Endpoint, d *pb.DeployedModel, of string) {
	w, err := wishOf(endpoint)
	if endpoint.GetTrafficSplit()[of] == 0 || err != nil || w == nil {
		return
	}
	for _, old := range endpoint.GetDeployedModels() {
		if old.GetId() == of {
			d.PredictionResources, d.DisableContainerLogging = proto.CloneOf(old).GetPredictionResources(), old.GetDisableContainerLogging()
		}
	}
	share := int32(100)
	if w.First > 0 {
		share = w.First
	}
	endpoint.TrafficSplit = rollout.Between(endpoint.GetTrafficSplit(), of, d.GetId(), share)
}

// notArrived writes down why a deployment failed that was to replace another one; false =
// it was to replace none, or was ended by others, of whom the follower knows.
func (a *actor) notArrived(ctx context.Context, tx store.Tx, cause error) (bool, error) {
	if errors.Is(cause, errNotDeploying) {
		return false, nil
	}
	name, err := resource.ParseName(a.key)
	if err != nil {
		return false, err
	}
	endpoint := name.Parent().String()
	s, err := readFollow(ctx, tx, endpoint)
	if err != nil || s.New != name.ID() {
		return false, ignoreMissing(err)
	}
	now := a.engine.cfg.Now()
	s.Failed = &follow.Failure{Target: s.Target, Reason: "it was not deployed: " + withLogs(cause, a.key).Error(), At: now}
	s.Old, s.New, s.Target, s.Phase, s.Since = "", "", follow.Target{}, follow.Held, now
	return true, writeFollow(ctx, tx, endpoint, s)
}
