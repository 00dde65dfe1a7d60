package serving_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/serving/follow"
	"tategu/internal/serving/rollout"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

const ranker = project + "/models/ranker"

// version writes a version of the model ranker.
func (w *world) version(id string, m *pb.Model) {
	w.t.Helper()
	m.Name, m.VersionId, m.DisplayName = ranker, id, "ranker"
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindModelVersions, Key: resource.VersionName(ranker, id), Parent: ranker}, m)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// program is a version whose server is bad in some way, "" = in none.
func (w *world) program(id, how string) {
	w.t.Helper()
	script, err := filepath.Abs("testdata/canary.py")
	if err != nil {
		w.t.Fatal(err)
	}
	w.version(id, &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{script, how}, HealthRoute: "/health", PredictRoute: "/predict"}})
}

// moveAlias gives champion to a version, as the API does; "" = to none.
func (w *world) moveAlias(st store.Store, to string) {
	w.t.Helper()
	ctx := w.t.Context()
	err := st.Update(ctx, func(tx store.Tx) error {
		rows, err := tx.List(ctx, store.Query{Kind: resource.KindModelVersions, Parent: ranker})
		if err != nil {
			return err
		}
		for _, row := range rows {
			m := &pb.Model{}
			if err := store.Unmarshal(row, m); err != nil {
				return err
			}
			m.VersionAliases = nil
			if m.GetVersionId() == to {
				m.VersionAliases = []string{"champion"}
			}
			if err := store.PutMessage(ctx, tx, row, m); err != nil {
				return err
			}
		}
		if to == "" {
			return tx.Delete(ctx, resource.KindModelAliases, ranker+"@champion")
		}
		return tx.Put(ctx, store.Row{Kind: resource.KindModelAliases, Key: ranker + "@champion", Parent: ranker, Data: []byte(to)})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// relabel changes the labels of the endpoint as the API does, for somebody.
func (w *world) relabel(labels map[string]string) {
	w.t.Helper()
	ctx := identity.NewContext(w.t.Context(), identity.Principal{Email: "ann@example.com", Grants: map[string]identity.Role{"p": identity.User}})
	if err := serving.CheckLabels(labels); err != nil {
		w.t.Fatal(err)
	}
	err := w.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.Endpoint{}
		row, err := store.GetMessage(ctx, tx, resource.KindEndpoints, endpoint, e)
		if err != nil {
			return err
		}
		before := e.GetLabels()
		e.Labels = labels
		if err := serving.AskFollow(ctx, tx, e, before, time.Now()); err != nil {
			return err
		}
		return store.PutMessage(ctx, tx, row, e)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) follows(more ...string) {
	w.t.Helper()
	labels := map[string]string{serving.FollowLabel: "champion"}
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	w.relabel(labels)
}

// followed waits until the endpoint is in a phase, about a version where one is given.
func (w *world) followed(phase follow.Phase, version string) follow.State {
	w.t.Helper()
	watch := w.store.Watch(resource.KindFollows)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		var s follow.State
		if row, err := w.store.Get(ctx, resource.KindFollows, endpoint); err == nil {
			if err := json.Unmarshal(row.Data, &s); err != nil {
				w.t.Fatal(err)
			}
			about := map[follow.Phase]string{follow.InStep: s.Reached.Version, follow.Deploying: s.Target.Version, follow.Canary: s.Target.Version}[s.Phase]
			if s.Failed != nil && s.Phase == follow.Held {
				about = s.Failed.Target.Version
			}
			if s.Phase == phase && (version == "" || version == about) {
				return s
			}
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("the endpoint is %+v, not %s %s: %v", s, phase, version, err)
		}
	}
}

// serves wants exactly these shares of versions, and no other deployed model or row of one.
func (w *world) serves(shares map[string]int32) {
	w.t.Helper()
	e, got := w.endpoint(), map[string]int32{}
	for _, d := range e.GetDeployedModels() {
		got[d.GetModelVersionId()] += e.GetTrafficSplit()[d.GetId()]
		if d.GetSystemLabels()[serving.ReplacesLabel] != "" {
			w.t.Errorf("%s has %v", d.GetId(), d.GetSystemLabels())
		}
	}
	if len(got) != len(shares) || len(e.GetDeployedModels()) != len(shares) {
		w.t.Errorf("%v is deployed with %v; want %v", e.GetDeployedModels(), e.GetTrafficSplit(), shares)
	}
	for version, share := range shares {
		if got[version] != share {
			w.t.Errorf("version %s has %d%%; want %v", version, got[version], shares)
		}
	}
	w.rows(len(shares))
}

// rows waits until so many deployments are left.
func (w *world) rows(n int) {
	w.t.Helper()
	watch := w.store.Watch(resource.KindDeployments)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		rows, err := w.store.List(ctx, store.Query{Kind: resource.KindDeployments})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(rows) == n {
			return
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("%d deployments are left, not %d", len(rows), n)
		}
	}
}

func (w *world) deployRanker(id, version string, change ...func(*pb.DeployModelRequest)) {
	w.t.Helper()
	op := w.deploy(id, "ranker", func(r *pb.DeployModelRequest) {
		r.DeployedModel.ModelVersionId = version
		dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})(r)
		for _, f := range change {
			f(r)
		}
	})
	if op.GetError() != nil {
		w.t.Fatal(op.GetError())
	}
}

// natives writes versions that are evaluated in process; bad ones cannot be.
func (w *world) natives(good, bad string) {
	w.t.Helper()
	for id := range strings.FieldsSeq(good) {
		w.version(id, &pb.Model{ArtifactUri: "gs://b/good", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "tategu/lightgbm"}})
	}
	for id := range strings.FieldsSeq(bad) {
		w.version(id, &pb.Model{ArtifactUri: "gs://b/bad", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "tategu/lightgbm"}})
	}
}

// TestFollow: an endpoint under load goes from version to version as the alias moves, and
// no request fails. A new version has what the one before had, and another model of the
// endpoint keeps its share. What moved while no server ran is seen.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = -1
	w.withProcesses()
	echoModel(t, w)
	for _, id := range []string{"1", "2", "3", "4"} {
		w.program(id, "")
	}
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1", func(r *pb.DeployModelRequest) {
		r.DeployedModel.EnableAccessLogging, r.DeployedModel.DisableContainerLogging, r.DeployedModel.DisplayName = true, true, "mine"
		r.DeployedModel.GetDedicatedResources().MaxReplicaCount = 2
	})
	if op := w.deploy("b", "echo", func(r *pb.DeployModelRequest) {
		dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})(r)
		r.TrafficSplit = map[string]int32{"1": 90, "b": 10}
	}); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	w.follows(serving.FollowModelLabel, "ranker")
	w.followed(follow.InStep, "1")
	w.says("1", "Follows the alias champion of ranker: version 1, since ")
	tr := startTraffic(w, 5*time.Millisecond)
	for _, id := range []string{"2", "3"} {
		w.moveAlias(w.store, id)
		s := w.followed(follow.InStep, id)
		tr.until(t, 50)
		w.says(s.Current, "Follows the alias champion of ranker: version "+id)
	}
	tr.end()
	if len(tr.failed) > 0 {
		t.Errorf("%d of %d requests failed, such as %s", len(tr.failed), tr.total, tr.failed[0])
	}
	rows, err := w.store.List(t.Context(), store.Query{Kind: resource.KindDeployments, States: []string{resource.StateDeployed}})
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	s := w.followed(follow.InStep, "3")
	for _, d := range w.endpoint().GetDeployedModels() {
		same := d.GetEnableAccessLogging() && d.GetDisableContainerLogging() && d.GetDisplayName() == "mine" && d.GetDedicatedResources().GetMaxReplicaCount() == 2
		if d.GetId() == s.Current && !same {
			t.Errorf("the new deployed model is %v", d)
		}
	}
	w.stop()
	st, err := sqlite.Open(t.Context(), w.path)
	if err != nil {
		t.Fatal(err)
	}
	w.moveAlias(st, "4")
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.followed(follow.InStep, "4")
	split := w.endpoint().GetTrafficSplit()
	if split["b"] != 10 || len(split) != 2 {
		t.Errorf("split %v", split)
	}
	w.rows(2)
}

// TestFollowBad: a version that cannot be deployed does not take over and is not tried
// again, over a restart, until the alias moves or it is asked for again.
func TestFollowBad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.natives("1 3", "2")
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1")
	w.follows()
	w.followed(follow.InStep, "1")
	registry := prometheus.NewPedanticRegistry()
	for _, c := range w.engine.Metrics() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	w.moveAlias(w.store, "2")
	first := w.followed(follow.Held, "2")
	if !strings.Contains(first.Failed.Reason, "it was not deployed: ") {
		t.Errorf("reason %q", first.Failed.Reason)
	}
	w.says("1", "Follows the alias champion of ranker, but version 2 did not take over", "It is tried again when the alias moves")
	w.serves(map[string]int32{"1": 100})
	const labels = "endpoint:7 "
	for _, want := range []string{"tategu_follow_rollovers_total " + labels + "outcome:failed project:p = 1", "tategu_follow_behind " + labels + "project:p = 1"} {
		w.exposes(registry, want)
	}
	// A restart, and whatever happens to the endpoint, try nothing.
	w.stop()
	w.open()
	w.put(resource.KindEndpoints, endpoint, w.endpoint())
	w.says("1", "version 2 did not take over")
	if s := w.followed(follow.Held, "2"); !s.Failed.At.Equal(first.Failed.At) {
		t.Errorf("it was tried again: %+v", s)
	}
	// Away and back is a move, as is asking again; both may come at once.
	w.moveAlias(w.store, "1")
	w.moveAlias(w.store, "2")
	second := w.failedAfter(first)
	w.relabel(nil)
	w.follows()
	w.failedAfter(second)
	w.moveAlias(w.store, "3")
	if s := w.followed(follow.InStep, "3"); s.Failed != nil {
		t.Errorf("%+v", s)
	}
	w.serves(map[string]int32{"3": 100})
}

// exposes waits until a registry has a line: what is counted is counted when the row that
// tells of it has been written.
func (w *world) exposes(r *prometheus.Registry, want string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		text := exposition(w.t, r)
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("no %q in\n%s", want, text)
		}
	}
}

// failedAfter waits until the version failed once more.
func (w *world) failedAfter(before follow.State) follow.State {
	w.t.Helper()
	watch := w.store.Watch(resource.KindFollows)
	defer watch.Close()
	for {
		if s := w.followed(follow.Held, "2"); s.Failed.At.After(before.Failed.At) {
			return s
		}
		if _, err := watch.Next(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestFollowCanary: with a rule each version is a canary. A bad one goes back, is undeployed
// and not tried again; a good one takes its steps, over a restart, and replaces the one
// before. The other model of the endpoint keeps its share all the time.
func TestFollowCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = -1
	w.withProcesses()
	echoModel(t, w)
	w.program("1", "")
	w.program("2", "fails")
	w.program("3", "")
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1")
	if op := w.deploy("b", "echo", func(r *pb.DeployModelRequest) {
		dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})(r)
		r.TrafficSplit = map[string]int32{"1": 80, "b": 20}
	}); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	w.follows(serving.FollowModelLabel, "ranker", rollout.Label, rollout.Newest, rollout.LabelSteps, "10-50-100", rollout.LabelInterval, "1s", rollout.LabelMinRequests, "3", rollout.LabelMaxP99, "10s")
	w.followed(follow.InStep, "1")
	tr := startTraffic(w, 5*time.Millisecond)
	w.moveAlias(w.store, "2")
	s := w.followed(follow.Held, "2")
	if !strings.Contains(s.Failed.Reason, "it was taken back from its share of 10%: ") || !strings.Contains(s.Failed.Reason, "requests failed") {
		t.Errorf("reason %q", s.Failed.Reason)
	}
	w.rows(2)
	if split := w.endpoint().GetTrafficSplit(); split["1"] != 80 || split["b"] != 20 {
		t.Errorf("split %v", split)
	}
	w.moveAlias(w.store, "3")
	s = w.followed(follow.Canary, "3")
	if split := w.endpoint().GetTrafficSplit(); split[s.New] < 8 || split["1"]+split[s.New] != 80 || split["b"] != 20 {
		t.Errorf("split %v, %+v", split, s)
	}
	w.says(s.New, "of the traffic of what it replaces")
	w.says("1", "version 3 is on trial as "+s.New)
	tr.end()
	w.stop()
	w.open()
	later := startTraffic(w, 5*time.Millisecond)
	w.followed(follow.InStep, "3")
	later.until(t, 50)
	later.end()
	if failed := slices.Concat(tr.failed, later.failed); len(failed) > 0 {
		t.Errorf("%d failed, such as %s", len(failed), failed[0])
	}
	if split := w.endpoint().GetTrafficSplit(); split[s.New] != 80 || split["b"] != 20 {
		t.Errorf("split %v", split)
	}
	w.rows(2)
}

// TestFollowNewest: a move while another version is on its way gives that up, and so do
// the end of following, and the end of the alias.
func TestFollowNewest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	w.natives("1 3", "")
	w.version("2", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ // it never gets ready
		ImageUri: "echo", Args: []string{"-c", "import time; time.sleep(3600)"}, HealthRoute: "/health", PredictRoute: "/predict",
	}})
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1")
	w.follows()
	w.followed(follow.InStep, "1")
	for _, stop := range []func(){
		func() { w.moveAlias(w.store, "1") },
		func() { w.moveAlias(w.store, "") },
		func() { w.relabel(nil) },
	} {
		w.follows()
		w.moveAlias(w.store, "2")
		w.followed(follow.Deploying, "2")
		programsBecome(t, w, 1)
		stop()
		programsBecome(t, w, 0)
		w.serves(map[string]int32{"1": 100})
		w.moveAlias(w.store, "1")
	}
	w.follows()
	w.moveAlias(w.store, "2")
	w.followed(follow.Deploying, "2")
	w.moveAlias(w.store, "3")
	w.followed(follow.InStep, "3")
	w.serves(map[string]int32{"3": 100})
	w.moveAlias(w.store, "")
	if s := w.followed(follow.Waiting, ""); !strings.Contains(s.Reason, "no version of ranker has this alias") {
		t.Errorf("%+v", s)
	}
	w.relabel(nil)
	w.unfollowed()
}

// unfollowed waits until nothing is kept of following.
func (w *world) unfollowed() {
	w.t.Helper()
	watch := w.store.Watch(resource.KindFollows)
	defer watch.Close()
	for {
		if _, err := w.store.Get(w.t.Context(), resource.KindFollows, endpoint); resource.IsNotFound(err) {
			return
		}
		if _, err := watch.Next(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rights lets nobody but one use the image of a version.
type rights struct{}

func (rights) MayRun(ctx context.Context, image string) error {
	if image == "secret" {
		return resource.Errorf(codes.PermissionDenied, "%s may not pull %s", identity.FromContext(ctx).Email, image)
	}
	return nil
}

func (rights) MayRead(_ context.Context, uri string) error {
	if uri == "gs://theirs/m" {
		return resource.Errorf(codes.PermissionDenied, "it may not be read")
	}
	return nil
}

func (rights) ActAs(_ context.Context, _ identity.Principal, email string) error {
	return resource.Errorf(codes.PermissionDenied, "not as %s", email)
}

// TestFollowRights: a version whose image or files may not be used by who asked for
// following is not deployed, nor is one as an account that is not theirs.
func TestFollowRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.rights = rights{}
	w.open()
	w.natives("1 4", "")
	w.version("2", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "secret"}})
	w.version("3", &pb.Model{ArtifactUri: "gs://theirs/m"})
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1", func(r *pb.DeployModelRequest) { r.DeployedModel.ServiceAccount = "robot@p.iam.tategu.internal" })
	w.follows()
	w.followed(follow.InStep, "1")
	for version, want := range map[string]string{"2": "ann@example.com may not pull secret", "3": "it may not be read", "4": "not as robot@p"} {
		w.moveAlias(w.store, version)
		s := w.followed(follow.Held, version)
		if !strings.Contains(s.Failed.Reason, "ann@example.com, who asked for following, may not deploy it: ") || !strings.Contains(s.Failed.Reason, want) {
			t.Errorf("version %s: %q", version, s.Failed.Reason)
		}
		w.serves(map[string]int32{"1": 100})
	}
}

// TestFollowByHand: what is deployed by hand stands until the alias moves; one of the
// version that has a share takes over then.
func TestFollowByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.natives("1 2 3 9", "")
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1")
	w.follows()
	w.followed(follow.InStep, "1")
	w.deployRanker("x", "9", func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{"x": 100} })
	w.change(map[string]int32{"x": 100}, "1")
	w.says("x", "Follows the alias champion of ranker: version 1, but what was deployed by hand stands until it moves.")
	w.serves(map[string]int32{"9": 100})
	w.moveAlias(w.store, "2")
	w.followed(follow.InStep, "2")
	w.serves(map[string]int32{"2": 100})
	id := w.endpoint().GetDeployedModels()[0].GetId()
	w.deployRanker("y", "3", func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{id: 95, "y": 5} })
	w.moveAlias(w.store, "3")
	if s := w.followed(follow.InStep, "3"); s.Current != "y" {
		t.Errorf("%+v", s)
	}
	w.serves(map[string]int32{"3": 100})
}

// TestFollowWaits: an endpoint that follows before anything is deployed waits, and takes
// what is deployed first as what is to be replaced. Labels that do not go together are
// refused.
func TestFollowWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.natives("1 2", "")
	w.moveAlias(w.store, "2")
	w.follows()
	w.followed(follow.Waiting, "")
	w.deployRanker("1", "1")
	w.followed(follow.InStep, "2")
	w.serves(map[string]int32{"2": 100})
	for _, bad := range []map[string]string{
		{serving.FollowLabel: "champion", rollout.Label: rollout.Newest},
		{serving.FollowLabel: "champion", rollout.Label: rollout.Newest, rollout.LabelSteps: "5-25"},
	} {
		if err := serving.CheckLabels(bad); err == nil || !strings.Contains(err.Error(), "end with 100") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := serving.CheckLabels(map[string]string{serving.FollowLabel: "champion", rollout.Label: "4711"}); err != nil {
		t.Error(err)
	}
}

// meddler changes what is deployed while somebody's rights are looked at.
type meddler struct {
	rights
	meddle func()
}

func (m *meddler) ActAs(context.Context, identity.Principal, string) error {
	m.meddle()
	return nil
}

// TestFollowAnother: when another deployed model is to be replaced than the one whose
// account was asked about, it is asked about that one's.
func TestFollowAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	once := sync.OnceFunc(func() { w.change(map[string]int32{"x": 100}, "1") })
	w.rights = &meddler{meddle: once}
	w.open()
	w.natives("1 2 9", "")
	w.moveAlias(w.store, "1")
	as := func(email string) func(*pb.DeployModelRequest) {
		return func(r *pb.DeployModelRequest) { r.DeployedModel.ServiceAccount = email }
	}
	w.deployRanker("1", "1", as("robot@p.iam.tategu.internal"))
	w.follows()
	w.followed(follow.InStep, "1")
	w.deployRanker("x", "9", as("other@p.iam.tategu.internal"))
	w.moveAlias(w.store, "2")
	if s := w.followed(follow.InStep, "2"); s.Failed != nil {
		t.Errorf("%+v", s)
	}
	w.serves(map[string]int32{"2": 100})
}

// TestFollowBesideBad: a version is compared with the one that it is to replace, not with
// another model of the endpoint, which may be much worse.
func TestFollowBesideBad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = -1
	w.withProcesses()
	echoModel(t, w)
	w.program("1", "")
	w.program("2", "fails half")
	w.moveAlias(w.store, "1")
	w.deployRanker("1", "1")
	script, err := filepath.Abs("testdata/canary.py")
	if err != nil {
		t.Fatal(err)
	}
	w.model("broken", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{script, "fails"}, HealthRoute: "/health", PredictRoute: "/predict"}})
	if op := w.deploy("b", "broken", func(r *pb.DeployModelRequest) {
		dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})(r)
		r.TrafficSplit = map[string]int32{"1": 40, "b": 60}
	}); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	w.follows(serving.FollowModelLabel, "ranker", rollout.Label, rollout.Newest, rollout.LabelSteps, "50-100", rollout.LabelInterval, "2s", rollout.LabelMinRequests, "20", rollout.LabelMaxP99, "10s")
	w.followed(follow.InStep, "1")
	tr := startTraffic(w, 5*time.Millisecond)
	w.moveAlias(w.store, "2")
	if s := w.followed(follow.Held, "2"); !strings.Contains(s.Failed.Reason, "requests failed") {
		t.Errorf("reason %q", s.Failed.Reason)
	}
	tr.end()
	if split := w.endpoint().GetTrafficSplit(); split["1"] != 40 || split["b"] != 60 {
		t.Errorf("split %v", split)
	}
}
