package serving_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// TestSamplesAreCheckedAtDeploy: in process and in a program alike, a row that differs
// refuses the deployment and is told; rows that fit do not.
func TestSamplesAreCheckedAtDeploy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3 to be the server of a model")
	}
	w.deploy("1", "native", nil)
	_, text, err := w.predict(row)
	if err != nil {
		t.Fatal(err)
	}
	value := strings.TrimSuffix(strings.TrimPrefix(text, `{"predictions":[`), "]}")
	line := func(prediction string) string {
		return fmt.Sprintf(`{"instance":[1,2,3,4,5,6],"prediction":%s}`+"\n", prediction)
	}
	echo, err := filepath.Abs("../../examples/echo/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	server := &pb.ModelContainerSpec{ImageUri: "echo", Args: []string{echo}, PredictRoute: "/predict", HealthRoute: "/health"}
	tree := w.objects["gs://b/good/model.txt"]
	for _, name := range []string{"fits", "differs", "torn"} {
		w.objects["gs://b/"+name+"/model.txt"] = tree
	}
	w.objects["gs://b/fits/tategu-samples.jsonl"] = line(value) + line(value)
	w.objects["gs://b/differs/tategu-samples.jsonl"] = line(value) + line("17.5")
	w.objects["gs://b/torn/tategu-samples.jsonl"] = line(value) + `{"instance":`
	w.objects["gs://b/echo-fits/tategu-samples.jsonl"] = `{"instance":"a","prediction":"a"}`
	w.objects["gs://b/echo-differs/tategu-samples.jsonl"] = `{"instance":"a","prediction":"b"}`
	w.withProcesses()
	for i, c := range []struct {
		model string
		spec  *pb.ModelContainerSpec
		want  string // "" = it is deployed
	}{
		{"fits", nil, ""},
		{"differs", nil, "line 2 of gs://b/differs/tategu-samples.jsonl: the model predicts " + value + " where 17.5 is wanted"},
		{"torn", nil, "gs://b/torn/tategu-samples.jsonl: line 2"},
		{"echo-fits", server, ""},
		{"echo-differs", server, `line 1 of gs://b/echo-differs/tategu-samples.jsonl: the model predicts "a" where "b" is wanted`},
	} {
		w.model(c.model, &pb.Model{ArtifactUri: "gs://b/" + c.model, ContainerSpec: c.spec})
		op := w.deploy(strconv.Itoa(10+i), c.model, nil)
		if got := op.GetError().GetMessage(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.model, got, c.want)
		}
		if c.want != "" && !strings.Contains(fmt.Sprint(op.GetError().GetDetails()), "SAMPLES_DIFFER") && c.model != "torn" {
			t.Errorf("%s: details %v", c.model, op.GetError().GetDetails())
		}
	}
	if n := len(w.endpoint().GetDeployedModels()); n != 3 {
		t.Errorf("%d deployed models", n)
	}
}
