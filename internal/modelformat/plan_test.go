package modelformat

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// objects are objects by gs:// URI.
type objects map[string]string

func (f objects) List(_ context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error) {
	var page blob.ListPage
	for uri := range f {
		name, ok := strings.CutPrefix(uri, "gs://"+bucket+"/")
		if ok && strings.HasPrefix(name, q.Prefix) && !strings.Contains(strings.TrimPrefix(name, q.Prefix), "/") {
			page.Objects = append(page.Objects, blob.Object{Bucket: bucket, Name: name})
		}
	}
	return page, nil
}

func (f objects) ReadObject(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	text, ok := f["gs://"+bucket+"/"+name]
	if !ok {
		return nil, resource.NotFound(name)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func TestPlan(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("lightgbm/testdata/golden/regression.model.txt")
	if err != nil {
		t.Fatal(err)
	}
	model := string(text)
	booster := map[string]string{}
	for format, path := range map[string]string{"json": "3.2.0/binary.json", "ubj": "3.2.0/binary.ubj", "bst": "2.1.4/binary.bst"} {
		text, err := os.ReadFile("xgboost/testdata/golden/" + path)
		if err != nil {
			t.Fatal(err)
		}
		booster[format] = string(text)
	}
	p := &Planner{
		HasImage: func(image string) bool { return strings.HasPrefix(image, "ruled") },
		Torch:    Torch{Program: func() ([]string, error) { return []string{"/bin/tategu", "torch-replica"}, nil }},
	}
	files := objects{
		"gs://b/dir/model.txt": model, "gs://b/dir/other.txt": model, "gs://b/dir/notes.txt": "tree of life",
		"gs://b/one/x.lgb": model, "gs://b/one/deep/model.txt": model, "gs://b/file": model,
		"gs://b/two/a.txt": model, "gs://b/two/b.txt": model, "gs://b/text/model.txt": "tree of life", "gs://b/cut/model.txt": "tree\nversion=v4\n",
		"gs://b/json/model.json": booster["json"], "gs://b/json/package.json": `{"name": "other"}`, "gs://b/ubj/weights.ubj": booster["ubj"], "gs://b/bst/model.bst": booster["bst"],
		"gs://b/wrong/model.txt": booster["ubj"], "gs://b/saved/model.bst": booster["ubj"], "gs://b/saved/model.json": booster["json"], "gs://b/saved/model.joblib": "x",
		"gs://b/pickled/model.pkl": "x", "gs://b/picklebst/model.bst": "\x80\x04x", "gs://b/torch/model.mar": "x", "gs://b/torch/other.mar": "x", "gs://b/mars/a.mar": "x", "gs://b/mars/b.mar": "x", "gs://b/wars/a.war": "x", "gs://b/wars/b.war": "x", "gs://b/flow/a.mar": "x", "gs://b/flow/b.mar": "x", "gs://b/flow/f.war": "x", "gs://b/tf/saved_model.pb": "x", "gs://b/pickled/copy.json": booster["json"], "gs://b/both/a.txt": model, "gs://b/both/b.json": booster["json"], "gs://b/cutx/model.json": booster["json"][:900],
	}
	const prebuiltXGBoost = "europe-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"
	const prebuilt = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-3:latest"
	for _, c := range []struct {
		name, image, artifact string
		native                bool
		code                  codes.Code
	}{
		{"no image", "", "gs://b/dir", true, codes.OK},
		{"slash", "", "gs://b/dir/", true, codes.OK},
		{"our image", "tategu/lightgbm", "gs://b/dir", true, codes.OK},
		{"our image with registry and tag", "eu.example/x/tategu/lightgbm:4", "gs://b/dir", true, codes.OK},
		{"prebuilt", prebuilt, "gs://b/dir", true, codes.OK},
		{"one lgb file", "", "gs://b/one", true, codes.OK},
		{"the file itself", "", "gs://b/file", true, codes.OK},
		{"an image of the user's", "mine/lightgbm:1", "gs://b/dir", false, codes.OK},
		{"an image with a rule", "ruled", "gs://b/dir", false, codes.OK},
		{"two files", "", "gs://b/two", false, codes.FailedPrecondition},
		{"other text", "", "gs://b/text", false, codes.FailedPrecondition},
		{"cut off", "", "gs://b/cut", false, codes.FailedPrecondition},
		{"nothing there", "tategu/lightgbm", "gs://b/empty", false, codes.FailedPrecondition},
		{"nothing at all", "", "", false, codes.FailedPrecondition},
		{"prebuilt with another format", prebuilt, "gs://b/text", false, codes.FailedPrecondition},
		{"not gs", "", "s3://b/x", false, codes.InvalidArgument},
		{"XGBoost JSON", "", "gs://b/json", true, codes.OK},
		{"XGBoost UBJSON", prebuiltXGBoost, "gs://b/ubj", true, codes.OK},
		{"XGBoost binary", prebuiltXGBoost, "gs://b/bst", true, codes.OK},
		{"XGBoost by its image", "x/tategu/xgboost:1", "gs://b/json/model.json", true, codes.OK},
		{"XGBoost called as another", "", "gs://b/wrong", true, codes.OK},
		{"XGBoost in LightGBM's image", "tategu/lightgbm", "gs://b/json", false, codes.FailedPrecondition},
		{"LightGBM in XGBoost's image", "tategu/xgboost", "gs://b/dir", false, codes.FailedPrecondition},
		{"one of two libraries", "tategu/xgboost", "gs://b/both", true, codes.OK},
		{"two libraries", "", "gs://b/both", false, codes.FailedPrecondition},
		{"cut off JSON", "", "gs://b/cutx", false, codes.FailedPrecondition},
		{"model.bst before model.joblib", prebuiltXGBoost, "gs://b/saved", true, codes.OK},
		{"model.joblib of sklearn", prebuilt, "gs://b/saved", false, codes.OK},
		{"model.pkl before others", prebuiltXGBoost, "gs://b/pickled", false, codes.OK},
		{"model.bst that is a pickle", prebuiltXGBoost, "gs://b/picklebst", false, codes.OK},
		{"model.bst that is a pickle, of sklearn", prebuilt, "gs://b/picklebst", false, codes.Unimplemented},
		{"a version that is not known", strings.Replace(prebuilt, "1-3", "9-9", 1), "gs://b/pickled", false, codes.Unimplemented},
		{"another framework's file", "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-11:latest", "gs://b/tf", false, codes.Unimplemented},
		{"an archive in PyTorch's image", "us-docker.pkg.dev/vertex-ai/prediction/pytorch-cpu.2-1:latest", "gs://b/torch", false, codes.OK},
		{"an archive by its image", "tategu/torchserve", "gs://b/torch/model.mar", false, codes.OK},
		{"an archive without an image", "", "gs://b/torch", false, codes.OK},
		{"an archive in another image", prebuilt, "gs://b/torch", false, codes.FailedPrecondition},
		{"no archive", "tategu/torchserve", "gs://b/dir", false, codes.FailedPrecondition},
		{"several archives", "", "gs://b/mars", false, codes.FailedPrecondition},
		{"several workflows", "", "gs://b/wars", false, codes.FailedPrecondition},
		{"a workflow with its models", "", "gs://b/flow", false, codes.OK},
		{"a workflow by its image", "tategu/torchserve", "gs://b/flow/f.war", false, codes.OK},
		{"no image beside model.pkl", "", "gs://b/pickled", true, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &pb.Model{ArtifactUri: c.artifact}
			if c.image != "" {
				m.ContainerSpec = &pb.ModelContainerSpec{ImageUri: c.image}
			}
			plan, err := p.Plan(t.Context(), files, m, Target{})
			if resource.CodeOf(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			if err == nil && (plan.Native != nil) != c.native {
				t.Fatalf("native is %v", plan.Native != nil)
			}
		})
	}
}

func TestExplainRoute(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{"/why": true, "/why?top=$(A)": true, "why": false, "": true} {
		model := &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "own", Env: []*pb.EnvVar{{Name: "A", Value: "3"}, {Name: ExplainVariable, Value: value}}}}
		plan, err := (&Planner{}).Plan(t.Context(), nil, model, Target{})
		switch {
		case !ok:
			if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), ExplainVariable) {
				t.Errorf("%q: %v", value, err)
			}
		case err != nil:
			t.Errorf("%q: %v", value, err)
		case plan.Container.ExplainRoute != strings.ReplaceAll(value, "$(A)", "3"):
			t.Errorf("%q: %q", value, plan.Container.ExplainRoute)
		}
	}
}

func TestContainer(t *testing.T) {
	t.Parallel()
	p := &Planner{}
	plan, err := p.Plan(t.Context(), nil, &pb.Model{ArtifactUri: "gs://b/m", ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "img:1", Command: []string{"serve", "--at=$(AIP_STORAGE_URI)"}, Args: []string{"$(A)", "--port=$(AIP_HTTP_PORT)"},
		Env: []*pb.EnvVar{{Name: "A", Value: "a"}, {Name: "B", Value: "$(A)$$(A)"}},
	}}, Target{Project: "p", Endpoint: "7", DeployedModel: "9", Machine: &pb.MachineSpec{MachineType: "n1-standard-2"}})
	if err != nil {
		t.Fatal(err)
	}
	got := plan.Container.Workload("id", "owner", "p", "sa", runtime.Resources{})
	want := runtime.Workload{
		ID: "id", Owner: "owner", Project: "p", ServiceAccount: "sa", Image: "img:1", Port: true, Fetch: []string{"gs://b/m"},
		Command: []string{"serve", "--at=gs://b/m"}, Args: []string{"a", "--port=$(AIP_HTTP_PORT)"},
		Env: map[string]string{
			"A": "a", "B": "a$(A)",
			"AIP_HEALTH_ROUTE": "/v1/endpoints/7/deployedModels/9", "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/9:predict",
			"AIP_STORAGE_URI": "gs://b/m", "AIP_ENDPOINT_ID": "7", "AIP_DEPLOYED_MODEL_ID": "9", "AIP_MODEL_NAME": "7", "AIP_VERSION_NAME": "9",
			"AIP_MODE": "PREDICTION", "AIP_MODE_VERSION": "1.0.0", "AIP_FRAMEWORK": "CUSTOM_CONTAINER", "AIP_MACHINE_TYPE": "n1-standard-2",
			"AIP_ACCELERATOR_TYPE": "", "AIP_PROJECT_NUMBER": "p",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	env := map[string]string{"A": "1", "LONG": "$(A)"}
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(A)": "1", "x$(A)y$(A)": "x1y1", "$$(A)": "$(A)", "$$$(A)": "$1", "$(B)": "$(B)",
		"$": "$", "$x": "$x", "$(A": "$(A", "$(LONG)": "$(A)", "a$$b": "a$b",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBadModelNamesTheLine(t *testing.T) {
	t.Parallel()
	files := objects{"gs://b/model.txt": "tree\nversion=v9\nmax_feature_idx=0\nfeature_names=x\nTree=0\n"}
	_, err := (&Planner{}).Plan(t.Context(), files, &pb.Model{ArtifactUri: "gs://b"}, Target{})
	e, ok := errors.AsType[*resource.Error](err)
	if !ok || e.Cause != resource.CauseModel || !strings.Contains(e.Message, `line 2: version "v9"`) {
		t.Fatalf("got %v", err)
	}
}

func TestTorchServe(t *testing.T) {
	t.Parallel()
	p := &Planner{Torch: Torch{Program: func() ([]string, error) { return []string{"/bin/tategu", "torch-replica"}, nil }}}
	for _, c := range []struct {
		files                     objects
		archive, predict, explain string
	}{
		{objects{"gs://b/m/net.mar": "x"}, "net.mar", "/predictions/model", "/explanations/model"},
		{objects{"gs://b/m/net.mar": "x", "gs://b/m/model.mar": "x", "gs://b/m/f.war": "x"}, "model.mar", "/predictions/model", "/explanations/model"},
		{objects{"gs://b/m/net.mar": "x", "gs://b/m/f.war": "x"}, "f.war", "/.tategu/instances", ""},
		{objects{"gs://b/m/f.war": "x", "gs://b/m/model.war": "x"}, "model.war", "/.tategu/instances", ""},
	} {
		plan, err := p.Plan(t.Context(), c.files, &pb.Model{ArtifactUri: "gs://b/m/"}, Target{Endpoint: "7", DeployedModel: "9", Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		w := plan.Container.Workload("id", "owner", "p", "sa", runtime.Resources{})
		if want := []string{"/bin/tategu", "torch-replica", "--workers", "2", "/gcs/b/m/" + c.archive}; !cmp.Equal(w.Command, want) || w.Image != "" || !w.Port || !cmp.Equal(w.Fetch, []string{"gs://b/m/"}) {
			t.Errorf("%+v", w)
		}
		if got := plan.Container; got.HealthRoute != "/ping" || got.PredictRoute != c.predict || got.ExplainRoute != c.explain || got.InvokePrefix != "/*" || got.Env["AIP_PREDICT_ROUTE"] != c.predict {
			t.Errorf("%s: %+v", c.archive, got)
		}
	}
}
