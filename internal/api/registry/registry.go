// Package registry serves the images of package image as a registry: the OCI
// distribution specification v1.1 at /v2/, and below /tategu/v1/images what lists
// and collects them. It translates and checks; what an image is, is decided in
// package image.
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"tategu/internal/identity"
	"tategu/internal/image"
)

// Permissions, named like the cloud's own. PermissionRead is also what running an
// image needs.
const (
	PermissionRead   = "artifactregistry.repositories.downloadArtifacts"
	permissionWrite  = "artifactregistry.repositories.uploadArtifacts"
	permissionDelete = "artifactregistry.repositories.deleteArtifacts"
	permissionList   = "artifactregistry.repositories.list"
)

// Paths of the handler beside /v2/.
const (
	ListPath    = "/tategu/v1/images"
	CollectPath = "/tategu/v1/images/collect"
	tokenPath   = "/v2/token"
)

// Authorizer says who calls and whether they may; identity.Authority is one.
type Authorizer interface {
	// Authenticate proves who holds a bearer token.
	Authenticate(ctx context.Context, bearer string) (identity.Principal, error)
	// Refresh makes a bearer token from a refresh token.
	Refresh(ctx context.Context, refreshToken string) (identity.Access, error)
	// Authorize is nil when p has the permission in the project.
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	// HasProject reports a project that was used before.
	HasProject(ctx context.Context, id string) (bool, error)
}

// Config is what a Handler is made of.
type Config struct {
	Images   *image.Store
	Auth     Authorizer
	Project  string        // of repositories whose first component names none
	Untagged time.Duration // policy of collections; 0 = untagged manifests stay
	Packed   time.Duration // likewise, of what was packed for a run
	Log      *slog.Logger
}

// Handler answers registry requests. It finds the caller in identity.FromContext.
type Handler struct{ Config }

// New makes a Handler.
func New(c Config) *Handler { return &Handler{c} }

// call is one request on its way.
type call struct {
	*Handler
	w    http.ResponseWriter
	r    *http.Request
	repo image.Repo
	last string // what follows the kind of thing in the path
}

func (c *call) ctx() context.Context { return c.r.Context() }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	c := &call{Handler: h, w: w, r: r}
	if err := c.route(); err != nil {
		h.writeError(w, r, err)
	}
}

func (c *call) route() error {
	switch path := c.r.URL.Path; path {
	case "/v2/", "/v2":
		return c.base()
	case tokenPath:
		return c.token()
	case "/v2/_catalog":
		return c.catalog()
	case ListPath:
		return c.list()
	case CollectPath:
		return c.collect()
	default:
		return c.repository(strings.TrimPrefix(path, "/v2/"))
	}
}

// base answers whether the API is here and the caller known.
func (c *call) base() error {
	if err := c.only(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if identity.FromContext(c.ctx()).Anonymous() {
		return image.Refuse(image.ErrUnauthorized, "this registry needs a token").
			WithHint("run `docker login` with any user name and a token of `tategu token create` as the password")
	}
	writeJSON(c.w, http.StatusOK, struct{}{})
	return nil
}

func (c *call) only(methods ...string) error {
	if slices.Contains(methods, c.r.Method) {
		return nil
	}
	c.w.Header().Set("Allow", strings.Join(methods, ", "))
	return image.Refuse(image.ErrUnsupported, "%.20s of this path is not supported", c.r.Method)
}

// repository finds what a path is about, from its end: the names of repositories
// have slashes too.
func (c *call) repository(path string) error {
	parts := strings.Split(path, "/")
	n := len(parts)
	at := func(i int) string {
		if n-i < 0 {
			return ""
		}
		return parts[n-i]
	}
	var serve func() error
	name := 0
	switch {
	case n > 3 && at(3) == "blobs" && at(2) == "uploads":
		name, serve = n-3, c.upload
	case n > 2 && at(2) == "blobs" && at(1) != "uploads":
		name, serve = n-2, c.blob
	case n > 2 && at(2) == "blobs": // without the slash at the end
		name, serve = n-2, c.upload
		parts[n-1] = ""
	case n > 2 && at(2) == "manifests":
		name, serve = n-2, c.manifest
	case n > 2 && at(2) == "tags" && at(1) == "list":
		name, serve = n-2, c.tags
	case n > 2 && at(2) == "referrers":
		name, serve = n-2, c.referrers
	default:
		return image.Refuse(image.ErrNameUnknown, "%.200q is no path of the registry API", "/v2/"+path)
	}
	c.repo.Name, c.last = strings.Join(parts[:name], "/"), parts[n-1]
	if err := image.CheckName(c.repo.Name); err != nil {
		return err
	}
	var err error
	if c.repo.Project, err = c.projectOf(c.repo.Name); err != nil {
		return err
	}
	return serve()
}

// projectOf gives the project of a repository: fixed when it was made, before that
// the one that its first component names.
func (c *call) projectOf(repo string) (string, error) {
	project, err := c.Images.Project(c.ctx(), repo)
	if err != nil || project != "" {
		return project, err
	}
	first, _, _ := strings.Cut(repo, "/")
	if _, granted := identity.FromContext(c.ctx()).Grants[first]; granted {
		return first, nil
	}
	if known, err := c.Auth.HasProject(c.ctx(), first); err != nil || known {
		return first, err
	}
	return c.Project, nil
}

func (c *call) may(permission string) error {
	return c.Auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), c.repo.Project, permission)
}

// permission that a method needs.
func (c *call) permission() string {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return PermissionRead
	case http.MethodDelete:
		return permissionDelete
	default:
		return permissionWrite
	}
}

// tags lists the tags of a repository.
func (c *call) tags() error {
	if err := c.only(http.MethodGet); err != nil {
		return err
	}
	if err := c.may(PermissionRead); err != nil {
		return err
	}
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	tags := []string{}
	if limit != 0 { // n=0 asks for nothing
		if tags, err = c.Images.Tags(c.ctx(), c.repo.Name, after, limit+1); err != nil {
			return err
		}
	} else if err := c.Images.HasRepository(c.ctx(), c.repo.Name); err != nil {
		return err
	}
	if limit > 0 && len(tags) > limit {
		tags = tags[:limit]
		c.next(tags[limit-1])
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"name": c.repo.Name, "tags": tags})
	return nil
}

// catalog lists the repositories that the caller may list.
func (c *call) catalog() error {
	if err := c.only(http.MethodGet); err != nil {
		return err
	}
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	names := []string{}
	more := false
	err = c.visible(after, func(r image.Repo) bool {
		if more = len(names) == limit; more {
			return false
		}
		names = append(names, r.Name)
		return true
	})
	if err != nil {
		return err
	}
	if more && limit > 0 {
		c.next(names[limit-1])
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"repositories": names})
	return nil
}

// visible calls fn for the repositories after a name that the caller may list,
// until it gives false.
func (c *call) visible(after string, fn func(image.Repo) bool) error {
	p := identity.FromContext(c.ctx())
	if p.Anonymous() {
		return image.Refuse(image.ErrUnauthorized, "listing repositories needs a token")
	}
	const read = 500
	allowed := map[string]bool{}
	for {
		repos, err := c.Images.Repositories(c.ctx(), after, read)
		if err != nil {
			return err
		}
		for _, r := range repos {
			may, asked := allowed[r.Project]
			if !asked {
				may = c.Auth.Authorize(c.ctx(), p, r.Project, permissionList) == nil
				allowed[r.Project] = may
			}
			if may && !fn(r) {
				return nil
			}
		}
		if len(repos) < read {
			return nil
		}
		after = repos[len(repos)-1].Name
	}
}
