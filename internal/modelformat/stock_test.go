package modelformat

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
)

// TestStock: a prebuilt image becomes a program in an environment with its library.
func TestStock(t *testing.T) {
	t.Parallel()
	p, files := &Planner{}, objects{"gs://b/m/model.pkl": "x"}
	model := &pb.Model{ArtifactUri: "gs://b/m/", ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "asia-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-2@sha256:aa", Env: []*pb.EnvVar{{Name: "OMP_NUM_THREADS", Value: "3"}},
	}}
	plan, err := p.Plan(t.Context(), files, model, Target{Endpoint: "7", DeployedModel: "9", Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Container
	if c.Image != "" || c.Python == nil || c.Python.Version != "3.11" || !slices.Contains(c.Python.Packages, "scikit-learn==1.2.*") {
		t.Fatalf("image %q, Python %+v", c.Image, c.Python)
	}
	got := strings.Join(c.Args, " ")
	want := "--library sklearn --image sklearn-cpu.1-2 --uri gs://b/m --directory /gcs/b/m --port $(PORT)" +
		" --health /v1/endpoints/7/deployedModels/9 --predict /v1/endpoints/7/deployedModels/9:predict --slots 2 --together 1024"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c.Env["OMP_NUM_THREADS"] != "3" || c.Env["OPENBLAS_NUM_THREADS"] != "1" {
		t.Errorf("threads: %v", c.Env)
	}
	for value, want := range map[string]string{"1": "--together 1", "0": "", "many": ""} {
		batched := proto.CloneOf(model)
		batched.ContainerSpec.Env = append(batched.ContainerSpec.Env, &pb.EnvVar{Name: "TATEGU_MAX_BATCH", Value: value})
		switch plan, err := p.Plan(t.Context(), files, batched, Target{}); {
		case want == "" && resource.CodeOf(err) != codes.InvalidArgument:
			t.Errorf("TATEGU_MAX_BATCH=%s gives %v", value, err)
		case want != "" && (err != nil || !strings.HasSuffix(strings.Join(plan.Container.Args, " "), want)):
			t.Errorf("TATEGU_MAX_BATCH=%s: %v", value, err)
		}
	}
	model.ContainerSpec.Command = []string{"x"}
	if _, err := p.Plan(t.Context(), files, model, Target{}); resource.CodeOf(err) != codes.Unimplemented {
		t.Errorf("a command gives %v", err)
	}
}

// TestPickledServerIsWarm: what would keep a parent from loading its modules
// beforehand is not in it, even without Preload.
func TestPickledServerIsWarm(t *testing.T) {
	t.Parallel()
	if found := regexp.MustCompile(`\b(environ|warnings|importlib|subprocess)\b|sys\.(path|modules)`).FindString(pickledServer); found != "" {
		t.Errorf("stock/pickled.py says %q", found)
	}
}

// TestReleases: each has its library once, and a Python.
func TestReleases(t *testing.T) {
	t.Parallel()
	for name, r := range releases() {
		library, version, _ := strings.Cut(name, " ")
		pip := map[string]string{"sklearn": "scikit-learn", "xgboost": "xgboost"}[library]
		found := strings.TrimSuffix(strings.Replace(r.packages[0], "-cpu", "", 1), ".*")
		if found != pip+"=="+version || r.python == "" {
			t.Errorf("%s: %v", name, r)
		}
	}
}
