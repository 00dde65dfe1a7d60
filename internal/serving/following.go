package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving/follow"
	"tategu/internal/store"
)

// Labels of an endpoint that follows an alias.
const (
	FollowLabel      = follow.Label
	FollowModelLabel = follow.LabelModel
)

// ReplacesLabel is the system label of a deployed model that is to take the place of
// another one, whose id it holds. It goes with the end of the roll-over.
const ReplacesLabel = "tategu-replaces"

// Rights answers whether who asked for something may have it done; a caller is in ctx
// where no principal is named.
type Rights interface {
	MayRun(ctx context.Context, image string) error
	MayRead(ctx context.Context, uri string) error
	ActAs(ctx context.Context, p identity.Principal, email string) error
}

// AskFollow writes down who asked for following, when the labels of an endpoint change so
// that it follows something else than before; the engine acts on that row. What failed
// before is tried again.
func AskFollow(ctx context.Context, tx store.Tx, endpoint *pb.Endpoint, before map[string]string, now time.Time) error {
	labels := endpoint.GetLabels()
	if labels[FollowLabel] == "" || follow.Same(before, labels) {
		return nil
	}
	s, err := readFollow(ctx, tx, endpoint.GetName())
	if err != nil && !resource.IsNotFound(err) {
		return err
	}
	s.Asker, s.Asked, s.Alias = follow.NewAsker(identity.FromContext(ctx)), now, labels[FollowLabel]
	s.Reached, s.Failed = follow.Target{}, nil
	return writeFollow(ctx, tx, endpoint.GetName(), s)
}

// TakenOff ends the deployment of a version that was to replace a deployed model which is
// undeployed by hand: it would find nothing to replace.
func TakenOff(ctx context.Context, tx store.Tx, endpoint, id string) error {
	s, err := readFollow(ctx, tx, endpoint)
	if err != nil || s.New == "" || s.Old != id {
		return ignoreMissing(err)
	}
	return recall(ctx, tx, endpoint, s.New, resource.StateDeploying)
}

// Replaces reports whether a deployment was begun to replace a deployed model.
func Replaces(deployment store.Row) bool {
	req := &pb.DeployModelRequest{}
	return store.Unmarshal(deployment, req) == nil && req.GetDeployedModel().GetSystemLabels()[ReplacesLabel] != ""
}

// recall ends a deployment that is in one of some states.
func recall(ctx context.Context, tx store.Tx, endpoint, id string, states ...string) error {
	row, err := tx.Get(ctx, resource.KindDeployments, resource.DeploymentKey(endpoint, id))
	if err != nil {
		return ignoreMissing(err)
	}
	if !slices.Contains(states, row.State) {
		return nil
	}
	row.State = resource.StateUndeploying
	return tx.Put(ctx, row)
}

func ignoreMissing(err error) error {
	if resource.IsNotFound(err) {
		return nil
	}
	return err
}

func readFollow(ctx context.Context, r store.Reader, endpoint string) (s follow.State, err error) {
	row, err := r.Get(ctx, resource.KindFollows, endpoint)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(row.Data, &s); err != nil {
		return s, fmt.Errorf("what %s follows: %w", endpoint, err)
	}
	return s, nil
}

func writeFollow(ctx context.Context, tx store.Tx, endpoint string, s follow.State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: resource.KindFollows, Key: endpoint, State: string(s.Phase), Data: data})
}

// wishOf reads what an endpoint follows, nil = nothing. Roll-overs are canaries where the
// canary's rule is about the newest deployed model, not about one by its id.
func wishOf(endpoint *pb.Endpoint) (*follow.Wish, error) {
	w, err := follow.FromLabels(endpoint.GetLabels())
	if w == nil || err != nil {
		return nil, err
	}
	rule, err := ruleOf(endpoint)
	if rule == nil || err != nil || rule.Canary != CanaryNewest {
		return w, err
	}
	if n := len(rule.Steps); n == 0 || rule.Steps[n-1] != 100 {
		return nil, resource.Invalid("endpoint.labels", "the labels %s and %s make each version a canary, whose steps have to end with 100", FollowLabel, CanaryLabel).
			WithHint("set %s-steps to the shares of a new version, such as 5-25-100", CanaryLabel)
	}
	if w.First = rule.Steps[0]; w.First == 100 {
		w.First = 0
	}
	return w, nil
}

// sight is an endpoint that follows, as it is now.
type sight struct {
	row      store.Row
	endpoint *pb.Endpoint
	state    follow.State
	wish     *follow.Wish
	view     follow.View
}

// look reads what Decide wants to know.
func look(ctx context.Context, r store.Reader, name string) (*sight, error) {
	at := &sight{endpoint: &pb.Endpoint{}}
	var err error
	if at.state, err = readFollow(ctx, r, name); err != nil {
		return nil, err
	}
	if at.row, err = store.GetMessage(ctx, r, resource.KindEndpoints, name, at.endpoint); err != nil {
		return nil, err
	}
	if at.wish, err = wishOf(at.endpoint); err != nil {
		return nil, err
	}
	return at, at.see(ctx, r)
}

// see makes the view of the endpoint, which may have been changed since it was read.
func (at *sight) see(ctx context.Context, r store.Reader) error {
	v, split := follow.View{}, at.endpoint.GetTrafficSplit()
	for _, d := range at.endpoint.GetDeployedModels() {
		v.Models = append(v.Models, follow.Deployed{
			ID: d.GetId(), Model: d.GetModel(), Version: d.GetModelVersionId(), Share: split[d.GetId()], Created: d.GetCreateTime().AsTime(),
		})
	}
	if err := at.seeNew(ctx, r, &v); err != nil {
		return err
	}
	if at.wish != nil {
		var model string
		if model, _, v.Problem = follow.Subject(at.state, at.wish, v.Models); v.Problem == "" {
			var err error
			if v.Target, v.Problem, err = target(ctx, r, model, at.wish.Alias); err != nil {
				return err
			}
		}
	}
	at.view = v
	return nil
}

// seeNew adds how the deployed model does that is to replace another one.
func (at *sight) seeNew(ctx context.Context, r store.Reader, v *follow.View) error {
	if at.state.New == "" {
		return nil
	}
	key := resource.DeploymentKey(at.endpoint.GetName(), at.state.New)
	row, err := r.Get(ctx, resource.KindDeployments, key)
	if ignoreMissing(err) != nil {
		return err
	}
	v.Arriving = err == nil && row.State == resource.StateDeploying
	trial, err := r.Get(ctx, resource.KindRollouts, key)
	if err != nil || trial.State != RolloutBack {
		return ignoreMissing(err)
	}
	var known Rollout
	if err := json.Unmarshal(trial.Data, &known); err != nil {
		return fmt.Errorf("rollout of %s: %w", key, err)
	}
	v.Back = fmt.Sprintf("it was taken back from its share of %d%%: %s", known.Share, known.Reason)
	return nil
}

// target is what an alias says; problem is why it says nothing.
func target(ctx context.Context, r store.Reader, model, alias string) (t follow.Target, problem string, err error) {
	m, err := modelformat.AliasedModel(ctx, r, model, alias)
	if resource.IsNotFound(err) {
		return t, fmt.Sprintf("no version of %s has this alias", path.Base(model)), nil
	}
	if err != nil {
		return t, "", err
	}
	move, err := r.Get(ctx, resource.KindModelAliases, resource.VersionName(model, alias))
	if ignoreMissing(err) != nil {
		return t, "", err
	}
	return follow.Target{Model: model, Version: m.GetVersionId(), Move: move.Revision}, "", nil
}

// grant is the answer about the rights of who asked, for a version and its parts.
type grant struct {
	target  follow.Target
	image   string
	files   string
	account string
	refusal string // "" = they may
}

// covers reports that it is about a version, and about the account of what it replaces.
func (g *grant) covers(t follow.Target, old *pb.DeployedModel) bool {
	return g != nil && g.target == t && g.account == old.GetServiceAccount()
}

// granted asks whether who asked for following may deploy the version in the place of a
// deployed model: its image and its files are used, and it runs as the same account.
func (e *Engine) granted(ctx context.Context, at *sight, old *pb.DeployedModel) (*grant, error) {
	t := at.view.Target
	m, err := modelformat.LoadModel(ctx, e.cfg.Store, t.Model, t.Version)
	if err != nil {
		return nil, err
	}
	g := &grant{target: t, image: m.GetContainerSpec().GetImageUri(), files: m.GetArtifactUri(), account: old.GetServiceAccount()}
	name, err := resource.ParseName(at.endpoint.GetName())
	if err != nil || e.cfg.Rights == nil {
		return g, err
	}
	asker := at.state.Asker.Principal()
	ctx = identity.NewContext(ctx, asker)
	if g.image != "" {
		err = e.cfg.Rights.MayRun(ctx, g.image)
	}
	if err == nil && g.files != "" {
		err = e.cfg.Rights.MayRead(ctx, g.files)
	}
	if err == nil && g.account != "" && g.account != identity.DefaultServiceAccount(name.Project()) {
		err = e.cfg.Rights.ActAs(ctx, asker, g.account)
	}
	switch resource.CodeOf(err) {
	case codes.OK:
		return g, nil
	case codes.PermissionDenied, codes.Unauthenticated, codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		if known, ok := errors.AsType[*resource.Error](err); ok {
			err = known
		}
		g.refusal = fmt.Sprintf("%s, who asked for following, may not deploy it: %v", asker.Email, err)
		return g, nil
	default:
		return nil, err
	}
}
