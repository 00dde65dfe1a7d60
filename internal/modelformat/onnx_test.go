package modelformat

import (
	"errors"
	"slices"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func TestONNXModelsAreForTheRunner(t *testing.T) {
	t.Parallel()
	const prebuilt = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-3:latest"
	there := Runner{Program: func() (string, error) { return "/bin/tategu-runner", nil }}
	absent := Runner{Program: func() (string, error) {
		return "", resource.Errorf(codes.FailedPrecondition, "the program is not here").WithHint("put it there")
	}}
	library := there
	library.Library = "/lib/libonnxruntime.so"
	for _, c := range []struct {
		name, image, artifact string
		runner                Runner
		path                  string // of the model, "" = an error
		code                  codes.Code
	}{
		{"no image", "", "gs://b/one", there, "/gcs/b/one/net.onnx", codes.OK},
		{"the file itself", "", "gs://b/one/net.onnx", there, "/gcs/b/one/net.onnx", codes.OK},
		{"prebuilt", prebuilt, "gs://b/one/", there, "/gcs/b/one/net.onnx", codes.OK},
		{"our image", "eu.example/tategu/onnx:1", "gs://b/one", library, "/gcs/b/one/net.onnx", codes.OK},
		{"model.onnx of two", "", "gs://b/named", there, "/gcs/b/named/model.onnx", codes.OK},
		{"two", "", "gs://b/two", there, "", codes.FailedPrecondition},
		{"none", "tategu/onnx", "gs://b/trees", there, "", codes.FailedPrecondition},
		{"of another library's image", "tategu/xgboost", "gs://b/one", there, "", codes.FailedPrecondition},
		{"no program", "", "gs://b/one", absent, "", codes.FailedPrecondition},
		{"no runner at all", "", "gs://b/one", Runner{}, "", codes.Unimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, files := &Planner{Runner: c.runner}, objects{
				"gs://b/one/net.onnx": "x", "gs://b/one/notes.md": "x", "gs://b/one/net.onnx.data": "x", "gs://b/named/model.onnx": "x", "gs://b/named/other.onnx": "x",
				"gs://b/two/a.onnx": "x", "gs://b/two/b.onnx": "x", "gs://b/trees/readme": "x",
			}
			m := &pb.Model{ArtifactUri: c.artifact, ContainerSpec: &pb.ModelContainerSpec{ImageUri: c.image, Args: []string{"--of-the-image"}}}
			plan, err := p.Plan(t.Context(), files, m, Target{Endpoint: "e", DeployedModel: "d"})
			if resource.CodeOf(err) != c.code {
				t.Fatalf("error %v, want %v", err, c.code)
			}
			if e, ok := errors.AsType[*resource.Error](err); ok && c.code == codes.FailedPrecondition && e.Hint == "" {
				t.Errorf("no next step: %v", err)
			}
			if err != nil {
				return
			}
			w := plan.Container.Workload("id", "owner", "p", "", Needs(nil))
			if !slices.Equal(w.Command, []string{"/bin/tategu-runner", c.path}) || len(w.Args) > 0 || w.Image != "" || !slices.Equal(w.Fetch, []string{c.artifact}) {
				t.Errorf("workload %+v", w)
			}
			if byPackage := w.Python != nil; byPackage != (c.runner.Library == "") || w.Env[libraryVariable] != c.runner.Library {
				t.Errorf("library %q, Python %+v", w.Env[libraryVariable], w.Python)
			}
			if plan.Container.PredictRoute == "" || w.Env["AIP_PREDICT_ROUTE"] != plan.Container.PredictRoute {
				t.Errorf("routes %+v", w.Env)
			}
		})
	}
}

func TestTreesAreServedInProcessBesideAnONNXModel(t *testing.T) {
	t.Parallel()
	files := objects{"gs://b/d/model.onnx": "x", "gs://b/d/model.txt": "tree\nversion=v4\n"}
	_, err := (&Planner{}).Plan(t.Context(), files, &pb.Model{ArtifactUri: "gs://b/d"}, Target{})
	if resource.CodeOf(err) != codes.FailedPrecondition || err == nil {
		t.Errorf("error %v, want that of the damaged LightGBM file: it is what is served", err)
	}
}

// TestTheEngineOfAnONNXModel: the model's own, else the configuration's, else ONNX
// Runtime; a library that is named is that of the configuration's.
func TestTheEngineOfAnONNXModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ engine, library, asked, want, packages string }{
		{"", "", "", "onnxruntime", "--no-deps onnxruntime=="},
		{"", "/lib/ort.so", "", "onnxruntime", ""},
		{"", "/lib/ort.so", "tract", "tract", "--no-deps tract=="},
		{"tract", "", "", "tract", "--no-deps tract=="},
		{"tract", "/lib/tract.so", "tract", "tract", ""},
		{"tract", "/lib/tract.so", "onnxruntime", "onnxruntime", "--no-deps onnxruntime=="},
		{"", "", "torch", "", ""},
	} {
		p := &Planner{Runner: Runner{Program: func() (string, error) { return "/bin/tategu-runner", nil }, Engine: c.engine, Library: c.library}}
		m := &pb.Model{ArtifactUri: "gs://b/net.onnx", ContainerSpec: &pb.ModelContainerSpec{}}
		if c.asked != "" {
			m.ContainerSpec.Env = []*pb.EnvVar{{Name: "TATEGU_ONNX_ENGINE", Value: c.asked}}
		}
		plan, err := p.Plan(t.Context(), objects{"gs://b/net.onnx": "x"}, m, Target{Endpoint: "e", DeployedModel: "d"})
		if c.want == "" {
			if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"torch"`) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		w := plan.Container.Workload("id", "owner", "p", "", Needs(nil))
		packages := ""
		if w.Python != nil {
			packages = w.Python.Packages[0]
		}
		if w.Env["TATEGU_ONNX_ENGINE"] != c.want || !strings.HasPrefix(packages, c.packages) || (c.packages == "") != (packages == "") {
			t.Errorf("%+v: %v, packages %q", c, w.Env, packages)
		}
	}
}
