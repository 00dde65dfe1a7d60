package modelformat

import (
	"path"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// onnxPackage is the Python package that ONNX Runtime's library is taken from. The
// library needs no Python to run; pip's other packages are left away.
const onnxPackage = "--no-deps onnxruntime==1.32.0"

// Runner is the program that serves ONNX models. The zero value has none.
type Runner struct {
	// Program gives the path of tategu-runner; an error says what to do. Nil = there
	// is none.
	Program func() (string, error)
	// Library is the path of ONNX Runtime's shared library; "" = that of onnxPackage.
	Library string
}

// libraryVariable names the library to the runner.
const libraryVariable = "TATEGU_ONNXRUNTIME"

func isONNX(name string) bool { return path.Ext(name) == ".onnx" }

// onnx plans a replica of the runner for the model that was found.
func (p *Planner) onnx(model *pb.Model, t Target, found listing) (*Container, error) {
	file, err := found.chooseONNX(model.GetArtifactUri())
	if err != nil {
		return nil, err
	}
	if p.Runner.Program == nil {
		return nil, resource.Unimplemented("an ONNX model without the program tategu-runner").WithResource(model.GetName()).WithCause(resource.CauseDependency)
	}
	program, err := p.Runner.Program()
	if err != nil {
		return nil, err
	}
	c, err := container(model, t)
	if err != nil {
		return nil, err
	}
	c.Image, c.Args = "", nil
	c.Command = []string{program, runtime.GCSRoot + "/" + file.bucket + "/" + file.name}
	c.Note = "tategu-runner, with ONNX Runtime"
	c.Frames = true
	c.InvokePrefix = "/*" // the routes of the Open Inference Protocol
	if p.Runner.Library != "" {
		c.Env[libraryVariable] = p.Runner.Library
	} else {
		c.Python = &runtime.Python{Packages: []string{onnxPackage}}
	}
	return c, nil
}

// chooseONNX takes model.onnx, else the only one.
func (l listing) chooseONNX(uri string) (object, error) {
	if i := slices.IndexFunc(l.onnx, func(o object) bool { return o.name == l.dir+"model.onnx" }); i >= 0 {
		return l.onnx[i], nil
	}
	if len(l.onnx) == 1 {
		return l.onnx[0], nil
	}
	return object{}, resource.Errorf(codes.FailedPrecondition, "%s holds several ONNX models: %s and %s", uri, path.Base(l.onnx[0].name), strings.TrimPrefix(l.onnx[1].name, l.dir)).
		WithCause(resource.CauseModel).WithHint("name the one to serve model.onnx, or make artifact_uri its URI")
}
