package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/access"
	"tategu/internal/api/registry"
	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/router"
)

// admission says what may be started: what can run here at all, and whether the
// caller may read the image. Runtimes and engines know no callers, so it is asked
// when a job or a deployment is made.
type admission struct {
	capability
	rules     []runtime.ImageRule
	images    *image.Images
	blobs     *blob.Store
	authority *identity.Authority
}

// Check implements aiplatform.WorkloadChecker.
func (a *admission) Check(ctx context.Context, together ...runtime.Workload) error {
	for _, w := range together {
		if err := a.MayRun(ctx, w.Image); err != nil {
			return err
		}
	}
	return a.capability.Check(ctx, together...)
}

func (m *Main) admission() *admission {
	return &admission{capability: m.capability(), rules: m.cfg.Images, images: m.images, blobs: m.blobs, authority: m.authority}
}

// ActAs implements serving.Rights.
func (a *admission) ActAs(ctx context.Context, p identity.Principal, email string) error {
	return a.authority.ActAs(ctx, p, email)
}

// capability says what can run here, whoever asks: scheduled runs have no caller,
// and what they start was asked for when their schedule was made.
type capability struct {
	runtime router.Part
	fits    func(...runtime.Workload) error
	secrets secretDir
}

func (m *Main) capability() capability {
	return capability{m.runtime, m.fits, secretDir(m.cfg.Secrets)}
}

// Check implements aiplatform.WorkloadChecker.
func (p capability) Check(_ context.Context, together ...runtime.Workload) error {
	for _, w := range together {
		if err := p.runtime.Check(w); err != nil {
			return err
		}
		if err := p.secrets.check(w.Secrets); err != nil {
			return err
		}
	}
	return p.fits(together...)
}

// MayRun implements aiplatform.ImageChecker: running an image shows what is in it,
// so it needs what pulling it does. An image that a rule makes something else of,
// or that is not kept, is nobody's; whether it can run is Check's business.
func (a *admission) MayRun(ctx context.Context, reference string) error {
	if reference == "" {
		return nil
	}
	if plan, err := runtime.Resolve(a.rules, reference); err == nil && !plan.Kept {
		return nil
	}
	holders, err := a.images.Holders(ctx, reference)
	switch resource.CodeOf(err) {
	case codes.OK:
	case codes.NotFound:
		return a.mayAwait(ctx, reference)
	case codes.InvalidArgument:
		return nil // nothing can be kept under a name that is not one
	default:
		return fmt.Errorf("image %s: %w", reference, err)
	}
	for _, repo := range holders {
		err = a.authority.Authorize(ctx, identity.FromContext(ctx), repo.Project, registry.PermissionRead)
		if err == nil {
			return nil
		}
	}
	return ofImage(reference, err)
}

// MayRead implements aiplatform.ModelChecker: the server reads a model's files with
// rights of its own, so the caller must have those of a reader of the bucket.
func (a *admission) MayRead(ctx context.Context, uri string) error {
	return a.mayUse(ctx, uri, access.Get)
}

// MayWrite implements aiplatform.BatchChecker.
func (a *admission) MayWrite(ctx context.Context, uri string) error {
	return a.mayUse(ctx, uri, access.Create)
}

// mayUse asks for a permission on a URI's bucket. One that does not exist is not
// found; who may not know that is told the same as of others'.
func (a *admission) mayUse(ctx context.Context, uri, permission string) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(uri, "gs://"), "/")
	_, err := access.Bucket(ctx, a.blobs, a.authority, identity.FromContext(ctx), name, permission)
	if e, ok := errors.AsType[*resource.Error](err); ok && resource.IsNotFound(err) {
		err = e.WithCause(resource.CauseInput).WithHint("make it first, with a storage client (`storage.Client().create_bucket(\"%s\")`) or `tategu serve --bucket %s`", name, name)
	}
	if err != nil {
		return fmt.Errorf("use %s: %w", uri, err)
	}
	return nil
}

// mayAwait answers for an image that is not here yet. It may be pushed before the
// work starts, when nobody is asked any more, so that the projects that it would
// belong to are asked now. They are not told apart from those that have it.
func (a *admission) mayAwait(ctx context.Context, reference string) error {
	repos, err := a.images.Awaited(ctx, reference)
	if resource.CodeOf(err) == codes.InvalidArgument {
		return nil // a digest that nothing has
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", reference, err)
	}
	for _, repo := range repos {
		if repo.Project == "" { // there is none yet: one in a project's name will be the project's
			first, _, _ := strings.Cut(repo.Name, "/")
			known, err := a.authority.HasProject(ctx, first)
			if err != nil {
				return fmt.Errorf("image %s: %w", reference, err)
			}
			if !known {
				continue
			}
			repo.Project = first
		}
		if err := a.authority.Authorize(ctx, identity.FromContext(ctx), repo.Project, registry.PermissionRead); err != nil {
			return ofImage(reference, err)
		}
	}
	return nil
}

func ofImage(reference string, err error) error {
	if e, ok := errors.AsType[*resource.Error](err); ok {
		e = e.WithResource(reference)
		e.Message = "image " + reference + ": " + e.Message
		return e
	}
	return err
}
