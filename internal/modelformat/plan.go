// Package modelformat says what to start for a model: a server in the model's
// container image, or an evaluator of ours inside this process. It reads model
// files; it starts nothing and keeps no state.
//
// A model is served natively when its artifact_uri holds a LightGBM text model or
// an XGBoost model in any of its formats, and its container image is absent, is
// tategu/lightgbm or tategu/xgboost (any registry and tag), or is one of Vertex AI's
// prebuilt prediction images, unless the artifact has a file that such an image
// would load instead. An ONNX model is served by the program tategu-runner under the
// same conditions (tategu/onnx), and a custom prediction routine by the SDK's own server
// in a Python environment (tategu/cpr). An archive of TorchServe's (.mar, .war) is served by its stock
// workers (tategu/torchserve, and the prebuilt images for PyTorch). An image that the configuration has a rule for, and every
// other image, is started as it is: a server of the user's own may do more than
// evaluate the file.
package modelformat

import (
	"context"
	"io"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Objects is what is needed of the object store, as whom the model is served sees it.
type Objects interface {
	List(ctx context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error)
	ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error)
}

// defaultStart bounds how long a replica may take until its first good health
// answer, when the model does not say.
const defaultStart = 15 * time.Minute

// Planner plans; the zero value of HasImage means that no image has a rule.
type Planner struct {
	HasImage func(image string) bool
	Runner   Runner
	Torch    Torch
}

// Target says for whom replicas run; it fills the AIP_* variables.
type Target struct {
	Project       string
	Endpoint      string // id; "" for batch prediction
	DeployedModel string // id; the job's id for batch prediction
	Machine       *pb.MachineSpec
	// Threads is how many cores one replica has for itself when all that may come are
	// there; 0 = one.
	Threads int
}

// planning is the plan of one model whose files are read to make it.
type planning struct {
	*Planner
	Objects Objects
}

// Plan is what to start. Exactly one of Native and Container is set.
type Plan struct {
	Native    *Native
	File      string // gs:// URI of what Native was read from
	Container *Container
}

// Container is a server to start, once for every replica.
type Container struct {
	Image         string
	Python        *runtime.Python // an environment for a server of ours; nil = the image says
	Note          string          // what stands in for the image, for people; "" = nothing
	Command, Args []string
	Env           map[string]string
	Artifact      string // gs:// URI, "" without one
	HealthRoute   string
	PredictRoute  string
	ExplainRoute  string // "" = it explains nothing
	InvokePrefix  string
	Concurrency   int           // requests that it takes at a time, as it declares; 0 = it does not
	Start         time.Duration // until the first good health answer
	Managed       bool          // it is TorchServe, whose management API is there for its server
	Frames        bool          // it is a program of ours that takes predictions in frames
}

// concurrencyVariable in the env of a model's container says how many requests a
// replica takes at a time; its server can read it too.
const concurrencyVariable = "TATEGU_CONCURRENCY"

// ExplainVariable in the env of a model's container names the route of its server that
// explains predictions: the container contract has none.
const ExplainVariable = "TATEGU_EXPLAIN_ROUTE"

// Workload gives the container as a program to run.
func (c *Container) Workload(id, owner, project, account string, res runtime.Resources) runtime.Workload {
	w := runtime.Workload{
		ID: id, Owner: owner, Project: project, ServiceAccount: account,
		Image: c.Image, Python: c.Python, Command: c.Command, Args: c.Args, Env: maps.Clone(c.Env),
		Resources: res, Port: true,
	}
	if c.Artifact != "" {
		w.Fetch = []string{c.Artifact}
	}
	return w
}

// Plan decides for a model, whose files it reads from objects.
func (p *Planner) Plan(ctx context.Context, objects Objects, model *pb.Model, t Target) (Plan, error) {
	spec := model.GetContainerSpec()
	image := spec.GetImageUri()
	ruled := image != "" && p.HasImage != nil && p.HasImage(image)
	prebuilt := prebuiltImage(image)
	if python, ok := routineImage(image); ok && !ruled {
		c, err := (&planning{p, objects}).routine(ctx, model, python, t)
		return Plan{Container: c}, err
	}
	want, named := nativeImage(image)
	torch := torchImage(image)
	if ruled || image != "" && !named && !prebuilt && !torch {
		c, err := container(model, t)
		return Plan{Container: c}, err
	}
	uri := model.GetArtifactUri()
	found, err := list(ctx, objects, uri, want)
	if err != nil {
		return Plan{}, err
	}
	if torch && (len(found.archives) > 0 || !prebuilt) {
		c, err := p.torchserve(model, t, found)
		return Plan{Container: c}, err
	}
	file, err := found.choose(uri)
	if prebuilt && found.other != "" && (err != nil || !loadsFirst(image, file, found)) {
		return other(model, image, found.other, t)
	}
	if err != nil {
		return Plan{}, err
	}
	if file.name == "" && len(found.onnx) > 0 {
		c, err := p.onnx(model, t, found)
		return Plan{Container: c}, err
	}
	if file.name == "" && len(found.archives) > 0 && image == "" {
		c, err := p.torchserve(model, t, found)
		return Plan{Container: c}, err
	}
	if file.name == "" {
		return Plan{}, notNative(model, image, prebuilt, want)
	}
	native, err := load(ctx, objects, file)
	return Plan{Native: native, File: file.uri()}, err
}

// loadsFirst says whether a prebuilt image would take the file although there is
// another that it knows: the XGBoost images look for model.bst first.
func loadsFirst(image string, file modelFile, found listing) bool {
	return strings.HasPrefix(path.Base(image), "xgboost-") && file.library == xgBoost && file.name == found.dir+"model.bst"
}

// other plans for a prebuilt image whose file is not evaluated in this process.
func other(model *pb.Model, image, file string, t Target) (Plan, error) {
	s, ok := stockImageOf(image)
	if ok && strings.Contains(s.loads(), file) {
		c, err := stock(model, s, t)
		return Plan{Container: c}, err
	}
	return Plan{}, resource.Unimplemented("the prebuilt prediction image " + image + " with " + file).WithResource(model.GetName()).
		WithHint("give the model a container image that the configuration's images list maps to a program")
}

// notNative explains why a model that nobody else can serve is not served here.
func notNative(model *pb.Model, image string, prebuilt bool, want library) error {
	if s, ok := stockImageOf(image); ok {
		return noPickle(model, s)
	}
	switch {
	case prebuilt:
		return resource.Unimplemented("the prebuilt prediction image " + image).WithResource(model.GetName()).
			WithHint("give the model a LightGBM text file (model.txt), an XGBoost model (model.bst, model.ubj, model.json) or an ONNX model (model.onnx) in artifact_uri, or a container image that the configuration's images list maps to a program")
	case model.GetArtifactUri() == "":
		return resource.Errorf(codes.FailedPrecondition, "the model has neither a container image nor an artifact_uri: there is nothing to serve").
			WithResource(model.GetName()).WithCause(resource.CauseModel)
	}
	found, name := "no LightGBM text model was found in %s, nor an XGBoost or ONNX model", `model.txt") or, of XGBoost, booster.save_model("model.ubj`
	switch want {
	case lightGBM:
		found, name = "no LightGBM text model was found in %s", "model.txt"
	case xgBoost:
		found, name = "no XGBoost model was found in %s", "model.ubj"
	case onnxModel:
		return resource.Errorf(codes.FailedPrecondition, "no ONNX model was found in %s, and the model has no container image of its own", model.GetArtifactUri()).
			WithResource(model.GetName()).WithCause(resource.CauseModel).WithHint("upload it there as model.onnx")
	case anyLibrary:
	}
	return resource.Errorf(codes.FailedPrecondition, found+", and the model has no container image of its own", model.GetArtifactUri()).
		WithResource(model.GetName()).WithCause(resource.CauseModel).
		WithHint(`save the model with booster.save_model("%s") and upload it there`, name)
}

// prebuiltImage reports one of Vertex AI's prediction images, such as
// us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-3:latest.
func prebuiltImage(image string) bool {
	ok, err := regexp.MatchString(`^(us|europe|asia)-docker\.pkg\.dev/vertex-ai(-restricted)?/prediction/.+`, image)
	return ok && err == nil
}

// nativeImage reports the names of images that ask for evaluation inside the
// server, and of which models.
func nativeImage(image string) (want library, ok bool) {
	m := regexp.MustCompile(`^(?:.+/)?tategu/(lightgbm|xgboost|onnx)(?:[:@].*)?$`).FindStringSubmatch(image)
	if m == nil {
		return anyLibrary, false
	}
	return map[string]library{"lightgbm": lightGBM, "xgboost": xgBoost, "onnx": onnxModel}[m[1]], true
}

// container reads a ModelContainerSpec. The variables and the default routes are
// those of Vertex AI's page "Custom container requirements for prediction".
func container(model *pb.Model, t Target) (*Container, error) {
	spec := model.GetContainerSpec()
	if len(spec.GetGrpcPorts()) > 0 && len(spec.GetPorts()) == 0 {
		return nil, resource.Unimplemented("a model container that speaks only gRPC").WithResource(model.GetName())
	}
	base := path.Join("/v1/endpoints", t.Endpoint, "deployedModels", t.DeployedModel)
	c := &Container{
		Image: spec.GetImageUri(), Artifact: model.GetArtifactUri(), HealthRoute: spec.GetHealthRoute(),
		PredictRoute: spec.GetPredictRoute(), InvokePrefix: spec.GetInvokeRoutePrefix(), Start: defaultStart,
	}
	if c.HealthRoute == "" {
		c.HealthRoute = base
	}
	if c.PredictRoute == "" {
		c.PredictRoute = base + ":predict"
	}
	if d := spec.GetDeploymentTimeout(); d != nil {
		c.Start = d.AsDuration()
	}
	c.Env = variables(c, t)
	for _, e := range spec.GetEnv() {
		c.Env[e.GetName()] = expand(e.GetValue(), c.Env)
	}
	if v, ok := c.Env[concurrencyVariable]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return nil, resource.Invalid("container_spec.env", "%s is %q: it says how many requests a replica takes at a time", concurrencyVariable, v).WithResource(model.GetName())
		}
		c.Concurrency = n
	}
	if c.ExplainRoute = c.Env[ExplainVariable]; c.ExplainRoute != "" && !strings.HasPrefix(c.ExplainRoute, "/") {
		return nil, resource.Invalid("container_spec.env", "%s is %q: it is a route, which begins with a slash", ExplainVariable, c.ExplainRoute).WithResource(model.GetName())
	}
	for _, word := range spec.GetCommand() {
		c.Command = append(c.Command, expand(word, c.Env))
	}
	for _, word := range spec.GetArgs() {
		c.Args = append(c.Args, expand(word, c.Env))
	}
	return c, nil
}

// variables of the contract; AIP_HTTP_PORT and PORT come from the runtime.
func variables(c *Container, t Target) map[string]string {
	return map[string]string{
		"AIP_HEALTH_ROUTE": c.HealthRoute, "AIP_PREDICT_ROUTE": c.PredictRoute,
		"AIP_STORAGE_URI": c.Artifact, "AIP_ENDPOINT_ID": t.Endpoint, "AIP_DEPLOYED_MODEL_ID": t.DeployedModel,
		"AIP_MODEL_NAME": t.Endpoint, "AIP_VERSION_NAME": t.DeployedModel,
		"AIP_MODE": "PREDICTION", "AIP_MODE_VERSION": "1.0.0", "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
		"AIP_MACHINE_TYPE": t.Machine.GetMachineType(), "AIP_ACCELERATOR_TYPE": accelerator(t.Machine),
		"AIP_PROJECT_NUMBER": t.Project,
	}
}

func accelerator(m *pb.MachineSpec) string {
	if m.GetAcceleratorType() == pb.AcceleratorType_ACCELERATOR_TYPE_UNSPECIFIED {
		return ""
	}
	return m.GetAcceleratorType().String()
}
