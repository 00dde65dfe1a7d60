package modelformat

import (
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

//go:embed stock/pickled.py
var pickledServer string

// stockImage is one of Vertex AI's prebuilt prediction images for a library whose
// models are pickles.
type stockImage struct {
	tag     string // "sklearn-cpu.1-6"
	library string // "sklearn" or "xgboost"
	version string // "1.6"
}

// stockImageOf reads its name, such as us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest.
func stockImageOf(image string) (s stockImage, ok bool) {
	m := regexp.MustCompile(`/((sklearn|xgboost)-(?:cpu|gpu)\.(\d+)-(\d+))(?:[:@].*)?$`).FindStringSubmatch(image)
	if m == nil || !prebuiltImage(image) {
		return s, false
	}
	return stockImage{tag: m[1], library: m[2], version: m[3] + "." + m[4]}, true
}

// loads are the files that the image looks for, in its order.
func (s stockImage) loads() string {
	if s.library == "xgboost" {
		return "model.bst, model.joblib or model.pkl"
	}
	return "model.joblib or model.pkl"
}

// release is what an image has of its library: "1.6" is the newest 1.6.x that there
// is, so that a pickle meets the version that its image would have met, or a later
// correction of it.
type release struct {
	python   string // that has wheels of all packages
	packages []string
}

// Requirements of old releases: what they were built against, since their own
// metadata has no upper bounds.
const (
	numpy1     = "numpy<2"
	numpyAlias = "numpy<1.24" // which still has np.bool and np.float
	pandas1    = "pandas<2"
	pandas2    = "pandas<3"
	scipyOld   = "scipy<1.12"
)

// releases of the prebuilt images, by library and version. docs/guide/models.md has
// the same table, with what is exact.
func releases() map[string]release {
	sklearn := func(version, python string, more ...string) release {
		return release{python, append([]string{"scikit-learn==" + version + ".*", "joblib"}, more...)}
	}
	xgboost := func(name, version string, more ...string) release {
		return release{"3.11", append([]string{name + "==" + version + ".*", "joblib"}, more...)}
	}
	old := []string{numpyAlias, pandas1, scipyOld, "scikit-learn<1.3", "setuptools<81"}
	return map[string]release{
		"sklearn 1.6":  sklearn("1.6", "3.11", "pandas"),
		"sklearn 1.5":  sklearn("1.5", "3.11", "pandas"),
		"sklearn 1.4":  sklearn("1.4", "3.11", numpy1, pandas2),
		"sklearn 1.3":  sklearn("1.3", "3.11", numpy1, pandas2),
		"sklearn 1.2":  sklearn("1.2", "3.11", numpyAlias, pandas1, scipyOld),
		"sklearn 1.0":  sklearn("1.0", "3.10", numpyAlias, pandas1, scipyOld),
		"sklearn 0.24": sklearn("0.24", "3.9", numpyAlias, pandas1, scipyOld),
		"sklearn 0.23": sklearn("0.23", "3.8", numpyAlias, pandas1, scipyOld),
		"sklearn 0.22": sklearn("0.22", "3.8", numpyAlias, pandas1, scipyOld),
		"sklearn 0.20": sklearn("0.20", "3.7", numpyAlias, pandas1, scipyOld),
		"xgboost 2.1":  xgboost("xgboost-cpu", "2.1", "pandas", "scikit-learn<1.7"),
		"xgboost 2.0":  xgboost("xgboost", "2.0", numpy1, pandas2, "scikit-learn<1.6"),
		"xgboost 1.7":  xgboost("xgboost", "1.7", numpy1, pandas2, "scikit-learn<1.6"),
		"xgboost 1.6":  xgboost("xgboost", "1.6", old...),
		"xgboost 1.5":  xgboost("xgboost", "1.5", old...),
		"xgboost 1.4":  xgboost("xgboost", "1.4", old...),
		"xgboost 1.3":  xgboost("xgboost", "1.3", old...),
		"xgboost 1.2":  xgboost("xgboost", "1.2", old...),
		"xgboost 1.1":  xgboost("xgboost", "1.1", old...),
		"xgboost 0.90": xgboost("xgboost", "0.90", old...),
		"xgboost 0.82": xgboost("xgboost", "0.82", old...),
	}
}

// preload is what a warm parent of such servers imports, besides what they begin
// with: where the classes of most models are.
func (s stockImage) preload() []string {
	modules := []string{"pandas"}
	if s.library == "xgboost" {
		modules = append(modules, "xgboost")
	}
	for _, name := range []string{
		"calibration", "cluster", "compose", "decomposition", "ensemble", "feature_extraction.text", "feature_selection", "impute", "isotonic", "linear_model",
		"multiclass", "multioutput", "naive_bayes", "neighbors", "neural_network", "pipeline", "preprocessing", "svm", "tree",
	} {
		modules = append(modules, "sklearn."+name)
	}
	return modules
}

// stock plans a server of ours for a pickle, in a Python environment with what the
// prebuilt image has. The pickle is loaded there alone: it is a program.
func stock(model *pb.Model, s stockImage, t Target) (*Container, error) {
	r, ok := releases()[s.library+" "+s.version]
	if !ok {
		return nil, resource.Unimplemented("the prebuilt prediction image " + s.tag).WithResource(model.GetName()).
			WithHint("docs/guide/models.md lists the versions that are served")
	}
	c, err := container(model, t)
	if err != nil {
		return nil, err
	}
	if len(c.Command)+len(c.Args) > 0 {
		return nil, resource.Unimplemented("a command or args for the prebuilt prediction image " + s.tag).WithResource(model.GetName()).
			WithHint("leave them away: the image's own server is stood in for")
	}
	if c.Artifact == "" {
		return nil, noPickle(model, s)
	}
	at, err := splitURI(c.Artifact)
	if err != nil {
		return nil, err
	}
	slots := max(1, t.Threads)
	for name, value := range map[string]string{
		// One thread for each of the predictions that go on at a time.
		"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1",
	} {
		if _, ok := c.Env[name]; !ok {
			c.Env[name] = value
		}
	}
	quietImports(c.Env)
	together, err := maxBatch(model, c.Env)
	if err != nil {
		return nil, err
	}
	c.Image, c.Frames = "", true
	c.Python = &runtime.Python{Version: r.python, Packages: r.packages, Script: pickledServer, Preload: s.preload()}
	c.Args = []string{
		"--library", s.library, "--image", s.tag, "--uri", strings.TrimSuffix(c.Artifact, "/"),
		"--directory", path.Join(runtime.GCSRoot, at.bucket, at.name), "--port", "$(PORT)",
		"--health", c.HealthRoute, "--predict", c.PredictRoute, "--slots", strconv.Itoa(slots), "--together", strconv.Itoa(together),
	}
	c.Note = fmt.Sprintf("the image's server is stood in for: %s in Python %s, %d predictions at a time", strings.Join(r.packages, ", "), r.python, slots)
	return c, nil
}

// batchVariable of a model's container bounds the rows that one call of predict gets of
// several requests; 1 = each request has a call of its own.
const batchVariable = "TATEGU_MAX_BATCH"

func maxBatch(model *pb.Model, env map[string]string) (int, error) {
	text, ok := env[batchVariable]
	if !ok {
		return 1024, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, resource.Invalid("container_spec.env", "%s: %q is no number of rows (1 or more)", batchVariable, text).WithResource(model.GetName())
	}
	return n, nil
}

// quietImports sets what scikit-learn sets when it is imported: a parent that did that
// could not be shared.
func quietImports(env map[string]string) {
	for name, value := range map[string]string{"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"} {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
}

// noPickle says that the artifact has nothing that the image loads.
func noPickle(model *pb.Model, s stockImage) error {
	where := model.GetArtifactUri()
	if where == "" {
		where = "the model, which has no artifact_uri"
	}
	return resource.Errorf(codes.FailedPrecondition, "there is no %s in %s", s.loads(), where).
		WithResource(model.GetName()).WithCause(resource.CauseModel).
		WithHint("the image %s loads one of these directly from the directory of artifact_uri: upload it there", s.tag)
}
