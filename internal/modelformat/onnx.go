package modelformat

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// engine is a library that evaluates ONNX models.
type engine struct {
	name string // for people
	// python is the package that the library is taken from. It needs no Python to run; the
	// packages that the package needs are left away.
	python string
}

// defaultEngine evaluates all models; others are asked for by their names.
const defaultEngine = "onnxruntime"

// engines are the libraries, by the names that tategu-runner has for them.
func engines() map[string]engine {
	return map[string]engine{
		defaultEngine: {"ONNX Runtime", "--no-deps onnxruntime==1.32.0"},
		"tract":       {"Tract", "--no-deps tract==0.23.9"},
	}
}

// CheckEngine refuses the name of an engine that is not there; "" is the default one.
func CheckEngine(name string) error {
	if name == "" {
		return nil
	}
	if _, ok := engines()[name]; !ok {
		return fmt.Errorf("there is no engine %q for ONNX models: onnxruntime (all models) and tract (neural nets) are there", name)
	}
	return nil
}

// Runner is the program that serves ONNX models. The zero value has none.
type Runner struct {
	// Program gives the path of tategu-runner; an error says what to do. Nil = there
	// is none.
	Program func() (string, error)
	// Engine evaluates models that do not name one; "" = ONNX Runtime.
	Engine string
	// Library is the path of that engine's shared library; "" = that of its package.
	Library string
}

// Variables of the runner's.
const (
	libraryVariable = "TATEGU_ONNXRUNTIME" // the path of the library
	engineVariable  = "TATEGU_ONNX_ENGINE" // also the model's own choice, in its container_spec
	glibcVariable   = "GLIBC_TUNABLES"     // of the C library that the engines are linked to
)

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
	usual := cmp.Or(p.Runner.Engine, defaultEngine)
	name := cmp.Or(c.Env[engineVariable], usual)
	if err := CheckEngine(name); err != nil {
		return nil, resource.Invalid("container_spec.env", "%s: %w", engineVariable, err).WithResource(model.GetName())
	}
	c.Env[engineVariable] = name
	if _, ok := c.Env[glibcVariable]; !ok {
		c.Env[glibcVariable] = "glibc.malloc.hugetlb=1" // large pages, where the kernel gives them: a fifth less CPU until the model is loaded
	}
	c.Note = "tategu-runner, with " + engines()[name].name
	c.Frames = true
	c.InvokePrefix = "/*" // the routes of the Open Inference Protocol
	if p.Runner.Library != "" && name == usual {
		c.Env[libraryVariable] = p.Runner.Library
	} else {
		c.Python = &runtime.Python{Packages: []string{engines()[name].python}}
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
