package docker

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// validReference is the form of references (github.com/distribution/reference), a
// little wider: engines say what they do not like, but a name is also part of a path.
const validReference = `^([A-Za-z0-9][\w.-]*(:\d+)?/)?[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*(:[\w][\w.-]*)?(@[A-Za-z0-9]+:[0-9a-fA-F]+)?$`

// images are those that can run here: kept by the server, or by the engine, or
// to be pulled by the engine.
type images struct {
	kept   runtime.Images // may be nil
	engine *client
	pull   bool // what nobody has may be pulled: an Image without a digest stands for it
}

// Image implements runtime.Images.
func (i images) Image(ctx context.Context, reference string) (runtime.Image, error) {
	if !regexp.MustCompile(validReference).MatchString(reference) {
		return runtime.Image{}, resource.Invalid("image", "%q is not the name of an image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", reference).WithResource(reference)
	}
	missing := error(resource.NotFound(reference).WithHint("run `tategu image pull %s`", reference))
	if i.kept != nil {
		image, err := i.kept.Image(ctx, reference)
		if err == nil || !resource.IsNotFound(err) {
			return image, err
		}
		missing = err
	}
	have, err := i.engine.image(ctx, reference)
	switch {
	case err == nil:
		return runtime.Image{Reference: reference, Digest: have.ID, Config: have.config()}, nil
	case status(err) == http.StatusNotFound && i.pull:
		return runtime.Image{Reference: reference}, nil
	case status(err) == http.StatusNotFound:
		return runtime.Image{}, missing
	case status(err) == http.StatusBadRequest:
		return runtime.Image{}, resource.Invalid("image", "image %q: %v", reference, err).WithResource(reference)
	case status(err) != 0:
		return runtime.Image{}, resource.Errorf(codes.Unavailable, "the container engine about image %s: %w", reference, err).WithCause(resource.CausePlatform)
	}
	return runtime.Image{}, err
}

func (e engineImage) config() runtime.ImageConfig {
	return runtime.ImageConfig{Env: e.Config.Env, User: e.Config.User, WorkingDir: e.Config.WorkingDir, Entrypoint: e.Config.Entrypoint, Cmd: e.Config.Cmd}
}

// runnable are the images that workloads may name.
func (r *Runtime) runnable() images {
	return images{kept: r.cfg.ImageStore, engine: r.engine, pull: r.cfg.Pull}
}

// bring makes the engine have the workload's image and gives the name by which it does.
func (in *instance) bring(ctx context.Context) (name string, config runtime.ImageConfig, err error) {
	reference := in.rec.Workload.Image
	image, err := in.r.runnable().Image(ctx, reference)
	if err != nil {
		return "", config, err
	}
	if len(image.Layers) > 0 {
		name, err := in.r.loader.load(ctx, image, func() { in.set(runtime.Preparing, "loading image %s into the container engine", reference) })
		return name, image.Config, err
	}
	if image.Digest != "" {
		return image.Digest, image.Config, nil
	}
	in.set(runtime.Preparing, "pulling image %s", reference)
	err = in.r.engine.pull(ctx, reference, func(line string) { in.set(runtime.Preparing, "pulling image %s: %s", reference, line) })
	if err != nil {
		return "", config, err
	}
	have, err := in.r.engine.image(ctx, reference)
	if err != nil {
		return "", config, err
	}
	in.r.cfg.Log.InfoContext(ctx, "pulled an image", slog.String("image", reference), slog.String("id", have.ID))
	return have.ID, have.config(), nil
}
