package modelformat

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strconv"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Torch is the program that serves TorchServe's archives. The zero value has none.
type Torch struct {
	// Program gives the words that start it, to which the archive and options are added;
	// an error says what to do. Nil = there is none.
	Program func() ([]string, error)
}

// TorchModel is the name that a replica's archive is registered by, whatever its
// manifest says.
const TorchModel = "model"

// TorchInstances is the route of a replica whose archive is a workflow, where that takes
// {"instances": [...]}: TorchServe's own route has none.
const TorchInstances = "/.tategu/instances"

// What a replica of TorchServe and its server say to each other of management: TorchServe's
// own API below TorchManagement, to who shows the key that the replica was started with
// (TorchKeyVariable) in TorchKeyHeader, each answer a TorchAnswer; PUT of a state makes the
// replica what another one is, without a body what it was at its start.
const (
	TorchManagement  = "/.tategu/management"
	TorchKeyHeader   = "X-Tategu-Management-Key"
	TorchKeyVariable = "TATEGU_MANAGEMENT_KEY"
	MaxTorchState    = 16 << 20
)

// TorchAnswer is an answer of TorchServe's management API, and which models are
// registered after it.
type TorchAnswer struct {
	Status      int             `json:"status"`
	ContentType string          `json:"contentType"`
	Body        []byte          `json:"body"`
	State       json.RawMessage `json:"state"`
}

func isArchive(name string) bool { return path.Ext(name) == ".mar" || IsWorkflow(name) }

// IsWorkflow reports the name of a workflow's archive.
func IsWorkflow(name string) bool { return path.Ext(name) == ".war" }

// torchImage reports the name that asks for TorchServe without an image, and Vertex
// AI's prebuilt images for PyTorch, which are TorchServe.
func torchImage(image string) bool {
	own := regexp.MustCompile(`^(?:.+/)?tategu/torchserve(?:[:@].*)?$`)
	prebuilt := regexp.MustCompile(`/pytorch-(?:cpu|gpu)\.[0-9-]+(?:[:@].*)?$`)
	return own.MatchString(image) || prebuiltImage(image) && prebuilt.MatchString(image)
}

// torchserve plans a replica of TorchServe for the archive that was found.
func (p *Planner) torchserve(model *pb.Model, t Target, found listing) (*Container, error) {
	file, err := found.chooseArchive(model.GetArtifactUri())
	if err != nil {
		return nil, err
	}
	if p.Torch.Program == nil {
		return nil, resource.Unimplemented("an archive of TorchServe's").WithResource(model.GetName()).WithCause(resource.CauseDependency)
	}
	program, err := p.Torch.Program()
	if err != nil {
		return nil, err
	}
	c, err := container(model, t)
	if err != nil {
		return nil, err
	}
	if len(c.Command)+len(c.Args) > 0 {
		return nil, resource.Unimplemented("a command or args for TorchServe").WithResource(model.GetName()).
			WithHint("leave them away: tategu's own server stands in for the image")
	}
	c.Image = ""
	c.Command = append(slices.Clone(program), "--workers", strconv.Itoa(max(1, t.Threads)), runtime.GCSRoot+"/"+file.bucket+"/"+file.name)
	c.Note = "TorchServe's workers, with " + path.Base(file.name)
	c.HealthRoute, c.PredictRoute = "/ping", "/predictions/"+TorchModel
	if c.ExplainRoute = "/explanations/" + TorchModel; IsWorkflow(file.name) {
		c.PredictRoute, c.ExplainRoute = TorchInstances, "" // TorchServe explains models
	}
	c.Env["AIP_HEALTH_ROUTE"], c.Env["AIP_PREDICT_ROUTE"] = c.HealthRoute, c.PredictRoute
	c.Managed = true
	c.InvokePrefix = "/*" // explanations, KServe's routes
	return c, nil
}

// chooseArchive takes model.mar, else model.war, else the only workflow, whose models lie
// beside it, else the only model.
func (l listing) chooseArchive(uri string) (object, error) {
	for _, name := range []string{"model.mar", "model.war"} {
		if i := slices.IndexFunc(l.archives, func(o object) bool { return o.name == l.dir+name }); i >= 0 {
			return l.archives[i], nil
		}
	}
	found := slices.DeleteFunc(slices.Clone(l.archives), func(o object) bool { return !IsWorkflow(o.name) })
	if len(found) == 0 {
		found = l.archives
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return object{}, resource.Errorf(codes.FailedPrecondition, "no archive of TorchServe's (.mar, or .war of a workflow) was found in %s", uri).
			WithCause(resource.CauseModel).WithHint("make one with torch-model-archiver and upload it there as model.mar")
	}
	kind := path.Ext(found[0].name)
	return object{}, resource.Errorf(codes.FailedPrecondition, "%s holds several archives of TorchServe's: %s and %s", uri, path.Base(found[0].name), path.Base(found[1].name)).
		WithCause(resource.CauseModel).WithHint("name the one to serve model%s, or make artifact_uri its URI", kind)
}
