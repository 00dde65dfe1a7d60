// Package cloud serves the small neighbours that clients call besides the
// aiplatform and storage APIs: projects, locations, the token endpoint of login
// files, the background question of google-auth about regions, and the platform's
// own routes for tokens. It owns no state; package identity does.
package cloud

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"tategu/internal/api"
	"tategu/internal/identity"
)

// Config is what a Service needs besides the authority.
type Config struct {
	CA       []byte // certificate of our local authority, PEM, for `tategu login`; nil when a given one is served
	Location string // the default one, told to clients that list locations
	// Public is HOST:PORT under which clients reach the server; it is asked when a
	// key file is written.
	Public func() string
	Log    *slog.Logger
	Now    func() time.Time
}

// Service is a group of methods for the dispatch table and an http.Handler for
// what is plain HTTP.
type Service struct {
	authority *identity.Authority
	cfg       Config
	mux       *http.ServeMux
}

// New builds the service.
func New(authority *identity.Authority, cfg Config) *Service {
	s := &Service{authority: authority, cfg: cfg, mux: http.NewServeMux()}
	for _, r := range s.routes() {
		s.mux.HandleFunc(r.pattern, s.handle(r.serve))
	}
	return s
}

// route is one plain HTTP path. What it needs proved, it checks itself: the token
// endpoint is for callers who have no token yet.
type route struct {
	pattern string
	serve   func(w http.ResponseWriter, r *http.Request) error
}

func (s *Service) routes() []route {
	return []route{
		// oauth2.googleapis.com, and our own host for login files.
		{"POST /token", s.token},
		{"POST /oauth2/v4/token", s.token},
		{"GET /tokeninfo", s.tokenInfo},
		{"POST /tokeninfo", s.tokenInfo},
		{"GET /oauth2/v1/tokeninfo", s.tokenInfo},
		{"GET /oauth2/v3/tokeninfo", s.tokenInfo},
		{"POST /revoke", s.revoke},
		// sts.googleapis.com
		{"/v1/token", unsupported("google.identity.sts.v1.SecurityTokenService/ExchangeToken")},
		{"/v1/introspect", unsupported("google.identity.sts.v1.SecurityTokenService/IntrospectToken")},
		// iamcredentials.googleapis.com
		{"GET /v1/projects/-/serviceAccounts/{account}/allowedLocations", allowedLocations},
		{"GET /v1/locations/global/workforcePools/{pool}/allowedLocations", allowedLocations},
		{"GET /v1/projects/{project}/locations/global/workloadIdentityPools/{pool}/allowedLocations", allowedLocations},
		// cloudresourcemanager.googleapis.com v1; v3 is in Methods.
		{"GET /v1/projects", s.listProjectsV1},
		{"GET /v1/projects/{project}", s.getProjectV1},
		// Ours, for the command line.
		{"POST /tategu/v1/login", s.login},
		{"GET /tategu/v1/tokens", s.listTokens},
		{"POST /tategu/v1/tokens", s.createToken},
		{"DELETE /tategu/v1/tokens/{id}", s.revokeToken},
		{"GET /tategu/v1/audit", s.auditTrail},
	}
}

// Patterns are the routes in the form of http.ServeMux.
func (s *Service) Patterns() []string {
	routes := s.routes()
	patterns := make([]string, 0, len(routes))
	for _, r := range routes {
		patterns = append(patterns, r.pattern)
	}
	return patterns
}

// Owns reports whether a request is for this handler. Its paths overlap with no
// other API, so the host does not matter.
func (s *Service) Owns(r *http.Request) bool {
	_, pattern := s.mux.Handler(r)
	return pattern != "" || s.otherMethod(r)
}

// otherMethod finds paths that are ours with another method than asked, so that
// the caller learns that instead of "not found".
func (s *Service) otherMethod(r *http.Request) bool {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		c := r.Clone(r.Context())
		c.Method = m
		if _, pattern := s.mux.Handler(c); pattern != "" {
			return true
		}
	}
	return false
}

// ServeHTTP answers the plain HTTP routes.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Methods are the rows for the dispatch table.
func (s *Service) Methods() []api.Method {
	const projects, locations = "google.cloud.resourcemanager.v3.Projects/", "google.cloud.location.Locations/"
	return append([]api.Method{
		api.Unary(projects+"GetProject", "resourcemanager.projects.get", s.getProject),
		api.Unary(projects+"SearchProjects", api.Public, s.searchProjects),
		api.Unary(locations+"GetLocation", "aiplatform.locations.get", s.getLocation),
		api.Unary(locations+"ListLocations", "aiplatform.locations.list", s.listLocations),
	}, s.keyMethods()...)
}

// caller is who the wire says it is, or who the bearer token says when nobody
// asked yet.
func (s *Service) caller(r *http.Request) (identity.Principal, error) {
	if p := identity.FromContext(r.Context()); !p.Anonymous() {
		return p, nil
	}
	token, ok := bearer(r)
	if !ok {
		return identity.Principal{}, nil
	}
	return s.authority.Authenticate(r.Context(), token)
}

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// authorize is caller and a permission in a project.
func (s *Service) authorize(ctx context.Context, r *http.Request, project, permission string) (identity.Principal, error) {
	p, err := s.caller(r)
	if err != nil {
		return p, err
	}
	return p, s.authority.Authorize(ctx, p, project, permission)
}
