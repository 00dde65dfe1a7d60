package modelformat

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

//go:embed stock/routine.py
var routineServer string

const (
	// routineSDK is what an image made by LocalModel.build_cpr_model begins with
	// (google/cloud/aiplatform/prediction/local_model.py, _DEFAULT_SDK_REQUIREMENTS).
	routineSDK  = "google-cloud-aiplatform[prediction]>=1.27.0"
	routineSpec = "requirements.txt"
	// mostSource bounds what is read of one file of sources to plan.
	mostSource = 1 << 20
)

// routineImage reports the name that asks for a custom prediction routine without an
// image, and the version of Python that its tag names; "" = the server's own.
func routineImage(image string) (python string, ok bool) {
	m := regexp.MustCompile(`^(?:.+/)?tategu/cpr(?::([^@:/]*))?$`).FindStringSubmatch(image)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// routine plans the SDK's model server over the sources in the model's artifact.
func (p *planning) routine(ctx context.Context, model *pb.Model, python string, t Target) (*Container, error) {
	if python == "latest" {
		python = ""
	}
	if python != "" && !regexp.MustCompile(`^3\.\d{1,2}$`).MatchString(python) {
		return nil, resource.Invalid("container_spec.image_uri", "the tag of tategu/cpr is %q: it names a version of Python, such as 3.12", python).WithResource(model.GetName())
	}
	c, err := container(model, t)
	if err != nil {
		return nil, err
	}
	if len(c.Command)+len(c.Args) > 0 {
		return nil, resource.Unimplemented("a command or args for tategu/cpr").WithResource(model.GetName()).
			WithHint("leave them away: PREDICTOR_MODULE and PREDICTOR_CLASS in the container's env name the predictor")
	}
	at, err := p.sources(ctx, model)
	if err != nil {
		return nil, err
	}
	packages, err := p.requirements(ctx, at)
	if err != nil {
		return nil, err
	}
	preload, err := p.predictorImports(ctx, at, c.Env)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(packages, func(s string) bool { return strings.HasPrefix(s, "scikit-learn") }) {
		preload = append(preload, stockImage{library: "sklearn"}.preload()...)
		quietImports(c.Env)
	}
	c.Image = ""
	c.Python = &runtime.Python{Version: python, Packages: append([]string{routineSDK}, packages...), Script: routineServer, Preload: append(routinePreload(), preload...)}
	c.Args = []string{
		"--source", path.Join(runtime.GCSRoot, at.bucket, at.name), "--uri", strings.TrimSuffix(at.uri(), "/"),
		"--port", "$(PORT)", "--workers", strconv.Itoa(max(1, t.Threads)),
	}
	c.Note = "the SDK's server of custom prediction routines, with " + strings.Join(c.Python.Packages, ", ")
	return c, nil
}

// routinePreload are modules that every such server needs, besides what it begins with.
func routinePreload() []string {
	return []string{
		"google.cloud.aiplatform.utils.prediction_utils", "uvicorn.lifespan.off", "uvicorn.loops.uvloop", "uvicorn.protocols.websockets.auto",
		"google.auth.transport.requests",
	}
}

// sources is the directory of a predictor's sources.
type sources struct {
	object
	modules map[string]bool // that it has, by their names
}

// sources finds them: in src of the artifact where it has some Python in it, else in
// the artifact's own directory.
func (p *planning) sources(ctx context.Context, model *pb.Model) (sources, error) {
	uri := model.GetArtifactUri()
	missing := resource.Errorf(codes.FailedPrecondition, "there are no sources of a predictor in %s", uri).WithResource(model.GetName()).WithCause(resource.CauseModel).
		WithHint("upload predictor.py and requirements.txt to the directory of artifact_uri, or to its directory src")
	if uri == "" {
		return sources{}, resource.Errorf(codes.FailedPrecondition, "a custom prediction routine has no artifact_uri").WithResource(model.GetName()).WithCause(resource.CauseModel).
			WithHint("its sources, predictor.py and requirements.txt, lie there")
	}
	at, err := splitURI(uri)
	if err != nil {
		return sources{}, err
	}
	at.name = strings.TrimSuffix(at.name, "/")
	for _, dir := range []string{path.Join(at.name, "src"), at.name} {
		found, err := p.modules(ctx, object{at.bucket, dir})
		if err != nil {
			return sources{}, fmt.Errorf("look for a predictor in %s: %w", uri, err)
		}
		if len(found) > 0 {
			return sources{object{at.bucket, dir}, found}, nil
		}
	}
	return sources{}, missing
}

// modules lists those of a directory; packages count beside files, not alone.
func (p *planning) modules(ctx context.Context, dir object) (map[string]bool, error) {
	prefix := dir.name + "/"
	if dir.name == "" {
		prefix = ""
	}
	found, files := map[string]bool{}, false
	for q := (blob.ListQuery{Prefix: prefix, Delimiter: "/"}); ; {
		page, err := p.Objects.List(ctx, dir.bucket, q)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Objects {
			if name, ok := strings.CutSuffix(path.Base(o.Name), ".py"); ok {
				found[name], files = true, true
			}
		}
		for _, name := range page.Prefixes {
			found[path.Base(name)] = true
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	if !files {
		return nil, nil
	}
	return found, nil
}

// requirements reads requirements.txt of the sources; there may be none.
func (p *planning) requirements(ctx context.Context, at sources) ([]string, error) {
	if _, err := p.text(ctx, object{at.bucket, path.Join(at.name, routineSpec)}); resource.IsNotFound(err) {
		return nil, nil
	}
	list, err := runtime.ReadRequirements(routineSpec, func(name string) (string, error) {
		if !pathLocal(name) {
			return "", resource.Invalid("requirements", "%q is outside of the sources", name)
		}
		return p.text(ctx, object{at.bucket, path.Join(at.name, name)})
	})
	if err != nil {
		return nil, resource.Errorf(codes.FailedPrecondition, "the requirements in %s: %w", at.uri(), err).WithCause(resource.CauseModel)
	}
	return list, nil
}

func pathLocal(name string) bool {
	return name != ".." && !strings.HasPrefix(name, "../") && !strings.HasPrefix(name, "/")
}

// text reads a small object.
func (p *planning) text(ctx context.Context, o object) (text string, err error) {
	r, err := p.Objects.ReadObject(ctx, o.bucket, o.name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := io.ReadAll(io.LimitReader(r, mostSource+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", o.uri(), err)
	}
	if len(all) > mostSource {
		return "", resource.Errorf(codes.FailedPrecondition, "%s has more than %d bytes", o.uri(), mostSource).WithCause(resource.CauseModel)
	}
	return string(all), nil
}

// predictorImports are the modules that the predictor's own file imports first of all,
// for a warm parent. A file that changes what an import finds has none.
func (p *planning) predictorImports(ctx context.Context, at sources, env map[string]string) ([]string, error) {
	module := env["PREDICTOR_MODULE"]
	if module == "" {
		module = "predictor"
	}
	text, err := p.text(ctx, object{at.bucket, path.Join(at.name, strings.ReplaceAll(module, ".", "/")+".py")})
	if resource.IsNotFound(err) {
		return nil, nil // a package, or a handler without a predictor
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(topImports(text), func(name string) bool {
		first, _, _ := strings.Cut(name, ".")
		return at.modules[first]
	}), nil
}

// mostTopImports bounds what one predictor has loaded beforehand.
const mostTopImports = 16

// topImports lists modules in import statements at the beginning of lines of Python.
func topImports(text string) []string {
	if regexp.MustCompile(`\b(environ|putenv|unsetenv|warnings|importlib|subprocess|setlocale)\b|\bsys\.(path|modules|meta_path)`).MatchString(text) {
		return nil
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^(?:import|from)[ \t]+([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(out, m[1]) && m[1] != "__future__" && len(out) < mostTopImports && len(m[1]) < 200 {
			out = append(out, m[1])
		}
	}
	return out
}
