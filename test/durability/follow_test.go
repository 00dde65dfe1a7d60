//go:build linux

package durability

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// followed is what the API says of an endpoint.
type followed struct {
	DeployedModels []struct {
		ID, ModelVersionID string
		Status             struct{ Message string }
	}
	TrafficSplit map[string]int
}

// TestFollowOverKills moves an alias again and again, by hand of a seed, and kills the
// server while the endpoint that follows rolls over: each time it ends with one deployed
// model, of the version that the alias says, with all of the traffic and one program.
func TestFollowOverKills(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("the model server of this test is in Python: ", err)
	}
	echo, err := filepath.Abs("../../examples/echo/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	const versions, kills, location = 3, 10, "/v1/projects/p/locations/l"
	o := options{config: fmt.Sprintf("images: [{match: echo, command: [%q, %q]}]\n", python, echo)}
	data := filepath.Join(t.TempDir(), "data")
	s := start(t, data, o)
	for i := range versions {
		body := `{"modelId":"ranker","model":{"displayName":"ranker","versionAliases":["champion"],"containerSpec":{"imageUri":"echo","predictRoute":"/predict","healthRoute":"/health"}}}`
		if i > 0 {
			body = `{"parentModel":"projects/p/locations/l/models/ranker","model":{"displayName":"ranker","containerSpec":{"imageUri":"echo","predictRoute":"/predict","healthRoute":"/health"}}}`
		}
		s.do(http.MethodPost, location+"/models:upload", body).decode(t, &struct{}{})
	}
	s.do(http.MethodPost, location+"/endpoints?endpointId=7001", `{"displayName":"e","labels":{"tategu-follow":"champion"}}`).decode(t, &struct{}{})
	s.do(http.MethodPost, location+"/endpoints/7001:deployModel", `{"deployedModel":{"id":"1","model":"projects/p/locations/l/models/ranker@1","automaticResources":{"minReplicaCount":1,"maxReplicaCount":1}}}`).decode(t, &struct{}{})
	s.rollsOverTo("1")

	random := rand.New(rand.NewPCG(7, 3))
	for i := range kills {
		version := strconv.Itoa(1 + (i+1)%versions)
		s.do(http.MethodPost, location+"/models/ranker@"+version+":mergeVersionAliases", `{"versionAliases":["champion"]}`).decode(t, &struct{}{})
		wait(t, time.Duration(random.IntN(250))*time.Millisecond)
		s.kill()
		s = start(t, data, o)
		if i%2 == 0 { // else it moves on while this one is on its way
			s.rollsOverTo(version)
		}
	}
	last := strconv.Itoa(1 + kills%versions)
	s.rollsOverTo(last)
	var answer struct{ ModelVersionID string }
	s.do(http.MethodPost, location+"/endpoints/7001:predict", `{"instances":[1]}`).decode(t, &answer)
	if answer.ModelVersionID != last {
		t.Errorf("version %q answers, not %s", answer.ModelVersionID, last)
	}
	s.runs(1) // those of others still drain
	var e followed
	s.get("/v1beta1/projects/p/locations/l/endpoints/7001", &e)
	s.do(http.MethodPost, location+"/endpoints/7001:undeployModel", fmt.Sprintf(`{"deployedModelId":%q}`, e.DeployedModels[0].ID)).decode(t, &struct{}{})
	s.runs(0) // or it would outlive the test
}

// runs waits until so many programs are there.
func (s *server) runs(n int) {
	s.t.Helper()
	for begun := time.Now(); ; wait(s.t, 20*time.Millisecond) {
		var status struct{ Machine struct{ Running int } }
		s.get("/tategu/v1/status", &status)
		if status.Machine.Running == n {
			return
		}
		if time.Since(begun) > time.Minute {
			s.t.Fatalf("%d programs run, not %d", status.Machine.Running, n)
		}
	}
}

// rollsOverTo waits until a version alone is deployed, with all of the traffic.
func (s *server) rollsOverTo(version string) {
	s.t.Helper()
	for begun := time.Now(); ; wait(s.t, 10*time.Millisecond) {
		var e followed
		s.get("/v1beta1/projects/p/locations/l/endpoints/7001", &e)
		if len(e.DeployedModels) == 1 && e.DeployedModels[0].ModelVersionID == version && e.TrafficSplit[e.DeployedModels[0].ID] == 100 {
			return
		}
		if time.Since(begun) > time.Minute || s.t.Context().Err() != nil {
			s.t.Fatalf("the endpoint has %+v, not version %s", e, version)
		}
	}
}
