package serving

import (
	"maps"
	"path/filepath"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/serving/follow"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// TestArrive: a version that replaces another one gets its share by the wish of now, and
// nothing where the endpoint follows nothing any more.
func TestArrive(t *testing.T) {
	t.Parallel()
	following := map[string]string{FollowLabel: "champion"}
	canaries := map[string]string{FollowLabel: "champion", CanaryLabel: CanaryNewest, CanaryLabel + "-steps": "10-100"}
	for name, tt := range map[string]struct {
		labels      map[string]string
		split, want map[string]int32
	}{
		"all at once":         {following, map[string]int32{"old": 60, "other": 40}, map[string]int32{"new": 60, "other": 40}},
		"a canary":            {canaries, map[string]int32{"old": 60, "other": 40}, map[string]int32{"new": 6, "old": 54, "other": 40}},
		"nothing is replaced": {following, map[string]int32{"other": 100}, map[string]int32{"other": 100}},
		"nothing is followed": {nil, map[string]int32{"old": 60, "other": 40}, map[string]int32{"old": 60, "other": 40}},
	} {
		e := &pb.Endpoint{Labels: tt.labels, TrafficSplit: tt.split, DeployedModels: []*pb.DeployedModel{{Id: "old"}, {Id: "other"}}}
		arrive(e, &pb.DeployedModel{Id: "new"}, "old")
		if !maps.Equal(e.GetTrafficSplit(), tt.want) {
			t.Errorf("%s: %v, want %v", name, e.GetTrafficSplit(), tt.want)
		}
	}
}

// TestEndedIsNoFailure: a version whose deployment was ended while it started has not
// failed by itself: why it was ended decides whether it is tried again.
func TestEndedIsNoFailure(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	st, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	const endpoint = "projects/p/locations/us-central1/endpoints/7"
	a := &actor{engine: New(Config{Store: st, Now: time.Now}), key: resource.DeploymentKey(endpoint, "new")}
	err = st.Update(ctx, func(tx store.Tx) error {
		if err := writeFollow(ctx, tx, endpoint, follow.State{Alias: "champion", Phase: follow.Deploying, Old: "old", New: "new"}); err != nil {
			return err
		}
		_, err := a.notArrived(ctx, tx, errNotDeploying)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := readFollow(ctx, st, endpoint)
	if err != nil || s.Failed != nil || s.New != "new" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestTakenBackAtOnce: what a canary had that is judged and still has its share by the row
// goes to the model that it was to replace; others get theirs.
func TestTakenBackAtOnce(t *testing.T) {
	t.Parallel()
	e := New(Config{Now: time.Now})
	at := &entry{keys: map[string]string{}, endpoint: &pb.Endpoint{
		Name: "e", Labels: map[string]string{FollowLabel: "champion", CanaryLabel: CanaryNewest, CanaryLabel + "-steps": "10-100"},
		TrafficSplit:   map[string]int32{"old": 54, "new": 6, "other": 40},
		DeployedModels: []*pb.DeployedModel{{Id: "old"}, {Id: "other"}, {Id: "new", SystemLabels: map[string]string{ReplacesLabel: "old"}}},
	}}
	for id := range at.endpoint.GetTrafficSplit() {
		at.keys[id] = id
		e.running[id] = &deployment{id: id}
	}
	at.canary = e.canaryOf(at.endpoint)
	at.canary.out.Store(true)
	got := map[string]int32{}
	for n := range 100 {
		e.cfg.Random = func(int) int { return n }
		got[e.draw(at, "").id]++
	}
	if want := map[string]int32{"old": 60, "other": 40}; !maps.Equal(got, want) {
		t.Errorf("of 100 requests %v, want %v", got, want)
	}
}
