package modelformat

import (
	"slices"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

const predictorSource = `"""Doubles."""
from __future__ import annotations
import numpy as np
import helper
from google.cloud.aiplatform.prediction.predictor import Predictor

class Double(Predictor):
    def load(self, uri):
        import late
`

// TestRoutine: sources and requirements in an artifact become a program without an image.
func TestRoutine(t *testing.T) {
	t.Parallel()
	p, files := &Planner{}, objects{
		"gs://b/m/predictor.py": predictorSource, "gs://b/m/helper.py": "", "gs://b/m/requirements.txt": "numpy<3 # arrays\n-r more.txt\n", "gs://b/m/more.txt": "six",
		"gs://b/apart/model.pkl": "x", "gs://b/apart/src/mine.py": "import os\nos.environ['A'] = 'b'\nimport numpy\n",
		"gs://b/none/model.pkl": "x", "gs://b/out/predictor.py": "", "gs://b/out/requirements.txt": "-r ../secret.txt", "gs://b/bad/predictor.py": "", "gs://b/bad/requirements.txt": "-e .",
	}
	model := func(image, artifact string, env ...string) *pb.Model {
		spec := &pb.ModelContainerSpec{ImageUri: image, PredictRoute: "/predict", HealthRoute: "/health"}
		for i := 0; i < len(env); i += 2 {
			spec.Env = append(spec.Env, &pb.EnvVar{Name: env[i], Value: env[i+1]})
		}
		return &pb.Model{ArtifactUri: artifact, ContainerSpec: spec}
	}
	plan, err := p.Plan(t.Context(), files, model("tategu/cpr:3.12", "gs://b/m/"), Target{Endpoint: "7", Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Container
	if c.Image != "" || c.Python.Version != "3.12" || !slices.Equal(c.Python.Packages, []string{routineSDK, "numpy<3", "six"}) {
		t.Errorf("image %q, Python %s with %q", c.Image, c.Python.Version, c.Python.Packages)
	}
	if got := strings.Join(c.Args, " "); got != "--source /gcs/b/m --uri gs://b/m --port $(PORT) --workers 2" || c.Env["AIP_PREDICT_ROUTE"] != "/predict" {
		t.Errorf("%s, %v", got, c.Env)
	}
	more := c.Python.Preload[len(routinePreload()):]
	if !slices.Equal(more, []string{"numpy", "google.cloud.aiplatform.prediction.predictor"}) {
		t.Errorf("loaded beforehand: %q", more)
	}
	plan, err = p.Plan(t.Context(), files, model("any.registry/tategu/cpr:latest", "gs://b/apart", "PREDICTOR_MODULE", "mine"), Target{})
	if err != nil {
		t.Fatal(err)
	}
	if c = plan.Container; c.Args[1] != "/gcs/b/apart/src" || c.Python.Version != "" || len(c.Python.Packages) != 1 || len(c.Python.Preload) != len(routinePreload()) {
		t.Errorf("%q, %+v", c.Args, c.Python)
	}
	for _, bad := range []struct {
		image, artifact, says string
		code                  codes.Code
	}{
		{"tategu/cpr", "", "no artifact_uri", codes.FailedPrecondition},
		{"tategu/cpr", "gs://b/none", "no sources of a predictor in gs://b/none", codes.FailedPrecondition},
		{"tategu/cpr", "gs://b/out", "outside of the sources", codes.FailedPrecondition},
		{"tategu/cpr", "gs://b/bad", `"-e"`, codes.FailedPrecondition},
		{"tategu/cpr:new", "gs://b/m", "a version of Python", codes.InvalidArgument},
	} {
		if _, err := p.Plan(t.Context(), files, model(bad.image, bad.artifact), Target{}); resource.CodeOf(err) != bad.code || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s, %s: %v", bad.image, bad.artifact, err)
		}
	}
}

func FuzzTopImports(f *testing.F) {
	f.Add(predictorSource)
	f.Add("import a.b\nfrom .c import d\nimport\r\nfrom x.y.z import (\n")
	f.Fuzz(func(t *testing.T, text string) {
		found := topImports(text)
		for _, name := range found {
			if name == "" || strings.ContainsAny(name, " \t\n:-/") || !strings.Contains(text, name) {
				t.Fatalf("%q in %q", name, text)
			}
		}
		if len(found) > mostTopImports {
			t.Fatalf("%d modules", len(found))
		}
	})
}
