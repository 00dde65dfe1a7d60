package wire

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Route sends plain HTTP requests to a handler, which finds the caller in
// identity.FromContext and asks for permissions itself. The first match wins;
// routes come before the REST paths of the table.
type Route struct {
	Name     string   // in the log and as a metric label
	Hosts    []string // any of these; "*.x" is every name below x; none = every host
	Prefixes []string // any of these path prefixes; none = every path
	Exact    []string // or one of these paths
	// Match, when set, must hold too; such a route comes after the table's own.
	Match   func(r *http.Request) bool
	Handler http.Handler
	// Serve is what a route has in place of a Handler when the wire writes its errors
	// and bounds its bodies.
	Serve func(w http.ResponseWriter, r *http.Request) error
	Open  bool // asks for no credential: the token endpoints
	probe bool
	// Frequent are requests such as predictions: one that is well is logged when
	// debugging only.
	Frequent bool
	Audit    bool // whatever is not a read is audited before it is answered
	// Anonymous hands requests that show no credential to the handler, which knows
	// what is open to everybody. On loopback they are the operator's as ever.
	Anonymous bool
	// Bound, when set, makes a route of host names that are not the server's own: it
	// takes the requests that Bound reports and no other. On loopback too they are
	// nobody's without a credential, since any page can name such a host.
	Bound func(r *http.Request) bool
	// Prove, when set, is asked ahead of tokens and of loopback: claimed says that
	// the request carries a proof of its own, by which alone it is judged. Refuse
	// answers where the proof fails.
	Prove  func(r *http.Request) (p identity.Principal, claimed bool, err error)
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	// Pages, when set, tells whether a page of another origin may make a request.
	// On such a route one without a credential is nobody's, on loopback too.
	Pages func(r *http.Request) bool
}

// StorageHandler serves the storage API.
type StorageHandler interface {
	http.Handler
	// Owns reports a request in the XML style for a bucket that there is.
	Owns(r *http.Request) bool
	// Bound reports a request whose host name is a bucket's.
	Bound(r *http.Request) bool
	// Prove reads the signature of a signed URL; see Route.Prove.
	Prove(r *http.Request) (p identity.Principal, claimed bool, err error)
	// AllowsOrigin applies a bucket's CORS rules; see Route.Pages.
	AllowsOrigin(r *http.Request) bool
	// Refuse answers with an error in the form of the API that was called.
	Refuse(w http.ResponseWriter, r *http.Request, err error)
}

// GCSRoutes sends everything of the storage API to h.
func GCSRoutes(h StorageHandler) []Route {
	rt := Route{Name: "storage", Audit: true, Handler: h, Anonymous: true, Prove: h.Prove, Refuse: h.Refuse, Pages: h.AllowsOrigin}
	byHost, byPath, byBucket, byName := rt, rt, rt, rt
	byHost.Hosts = []string{"storage.googleapis.com", "*.storage.googleapis.com"}
	byPath.Prefixes = []string{"/storage/", "/upload/storage/", "/download/storage/", "/batch/storage", "/resumable/upload/storage/", "/b/"}
	byPath.Exact = []string{"/b"}
	byBucket.Match = h.Owns
	byName.Bound = h.Bound
	return []Route{byHost, byPath, byBucket, byName}
}

// CloudHandler serves the small neighbours of the API on paths of its own.
type CloudHandler interface {
	http.Handler
	// Owns reports a request that is for this handler, whatever its host.
	Owns(r *http.Request) bool
}

// CloudRoutes sends the small neighbours of the API to h: token endpoints, which
// are open, and the REST side of projects and service accounts. It audits itself.
func CloudRoutes(h CloudHandler) []Route {
	return []Route{
		{Name: "token", Open: true, Handler: h, Hosts: []string{"oauth2.googleapis.com", "sts.googleapis.com"}},
		{Name: "token", Open: true, Handler: h, Exact: []string{"/token", "/tokeninfo", "/revoke", "/v1/token", "/v1/introspect"}},
		{Name: "token", Open: true, Handler: h, Prefixes: []string{"/oauth2/"}},
		{Name: "cloud", Handler: h, Match: h.Owns},
	}
}

// RegistryHandler serves a registry of container images.
type RegistryHandler interface {
	http.Handler
	// Prove reads a bearer token or a token as Basic's password; see Route.Prove.
	Prove(r *http.Request) (p identity.Principal, claimed bool, err error)
	// Refuse answers with an error in the registry's form.
	Refuse(w http.ResponseWriter, r *http.Request, err error)
}

// RegistryRoutes sends the registry API, which has one root by its specification,
// and the given paths to h. Requests without a credential reach h as nobody's, so
// that it answers with the challenge that its clients read; on loopback they are
// the operator's.
func RegistryRoutes(h RegistryHandler, paths ...string) []Route {
	rt := Route{Name: "registry", Audit: true, Handler: h, Anonymous: true, Prove: h.Prove, Refuse: h.Refuse}
	rt.Prefixes, rt.Exact = []string{"/v2/"}, append([]string{"/v2"}, paths...)
	return []Route{rt}
}

// InvokeHandler passes requests to any route of a model's server.
type InvokeHandler interface {
	// Owns reports a request that is for this handler.
	Owns(r *http.Request) bool
	Serve(w http.ResponseWriter, r *http.Request) error
}

// InvokeRoutes sends invocations of endpoints to h, which asks for the permission.
func InvokeRoutes(h InvokeHandler) []Route {
	return []Route{{Name: "invoke", Frequent: true, Match: h.Owns, Serve: h.Serve}}
}

// ManageRoutes sends requests that change what a model's server has to h; they are audited.
func ManageRoutes(h InvokeHandler) []Route {
	return []Route{{Name: "manage", Audit: true, Match: h.Owns, Serve: h.Serve}}
}

// ProtocolRoutes sends requests of other prediction protocols to h, as InvokeRoutes does.
func ProtocolRoutes(h InvokeHandler) []Route {
	return []Route{{Name: "protocols", Frequent: true, Match: h.Owns, Serve: h.Serve}}
}

// ConsoleRoutes sends the pages to h: the paths given, the start page, and the
// links to the cloud's console that SDKs print.
func ConsoleRoutes(h http.Handler, prefixes ...string) []Route {
	return []Route{
		{Name: "console", Handler: h, Hosts: []string{"console.cloud.google.com"}},
		{Name: "console", Handler: h, Prefixes: prefixes, Exact: []string{"/"}},
	}
}

func (rt *Route) matches(host string, r *http.Request) bool {
	path := r.URL.Path
	if rt.Bound != nil || rt.Match != nil && !rt.Match(r) {
		return false
	}
	if len(rt.Hosts) > 0 && !slices.ContainsFunc(rt.Hosts, func(h string) bool {
		below, wild := strings.CutPrefix(h, "*")
		return h == host || wild && strings.HasSuffix(host, below)
	}) {
		return false
	}
	return len(rt.Prefixes)+len(rt.Exact) == 0 || slices.Contains(rt.Exact, path) ||
		slices.ContainsFunc(rt.Prefixes, func(p string) bool { return strings.HasPrefix(path, p) })
}

// newHandler is the way in of every HTTP request.
func (s *Server) newHandler() http.Handler {
	origin := http.NewCrossOriginProtection()
	exposition := promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	own := map[string]*Route{
		"/metrics": {Name: "metrics", probe: true, Handler: exposition},
		"/healthz": {Name: "health", Open: true, probe: true, Handler: http.HandlerFunc(healthy)},
		"/readyz":  {Name: "health", Open: true, probe: true, Handler: http.HandlerFunc(s.readiness)},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := canonicalHost(r.Host)
		cloud, ours := implemented(host), s.hosts.isOwn(host)
		if rt := s.boundRoute(r, cloud || ours); rt != nil {
			s.servePlain(w, r, rt)
			return
		}
		if err := s.hosts.check(r, host, cloud || ours, origin, s.welcomes); err != nil {
			s.cfg.Log.WarnContext(r.Context(), "refused", slog.String("host", r.Host), slog.String("path", r.URL.Path), slog.Any("error", err))
			writeError(w, err)
			return
		}
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			s.grpc.ServeHTTP(w, r)
			return
		}
		if rt := own[r.URL.Path]; rt != nil && !cloud {
			s.servePlain(w, r, rt)
			return
		}
		if rt := s.plainRoute(host, r, false); rt != nil {
			s.servePlain(w, r, rt)
			return
		}
		if rt, segments := s.routes.find(r.Method, r.URL.EscapedPath()); rt != nil {
			s.serveREST(w, r, rt, segments)
			return
		}
		if rt := s.plainRoute(host, r, true); rt != nil {
			s.servePlain(w, r, rt)
			return
		}
		s.notFound(w, r)
	})
}

// boundRoute finds the route of a host name that is neither the server's own nor
// the cloud's, which known tells.
func (s *Server) boundRoute(r *http.Request, known bool) *Route {
	if known {
		return nil
	}
	for i := range s.cfg.Routes {
		if rt := &s.cfg.Routes[i]; rt.Bound != nil && rt.Bound(r) {
			return rt
		}
	}
	return nil
}

// plainRoute finds a route by host and path, or, last, one that has to look at
// the request itself: that is too slow to be asked ahead of predictions.
func (s *Server) plainRoute(host string, r *http.Request, byRequest bool) *Route {
	for i := range s.cfg.Routes {
		if rt := &s.cfg.Routes[i]; (rt.Match != nil) == byRequest && rt.matches(host, r) {
			return rt
		}
	}
	return nil
}

// welcomes reports a request from another origin's page that its route takes.
func (s *Server) welcomes(r *http.Request) bool {
	host := canonicalHost(r.Host)
	rt := s.plainRoute(host, r, false)
	if rt == nil {
		if own, _ := s.routes.find(r.Method, r.URL.EscapedPath()); own == nil {
			rt = s.plainRoute(host, r, true)
		}
	}
	return rt != nil && rt.Pages != nil && rt.Pages(r)
}

// servePlain takes a plain handler along the road of every call.
func (s *Server) servePlain(w http.ResponseWriter, r *http.Request, rt *Route) {
	c := s.calls.newCall(r.Context(), rt.Name+" "+boundedMethod(r.Method), "http", r.Header.Get)
	c.open, c.probe, c.frequent, c.anonymous = rt.Open, rt.probe, rt.Frequent, rt.Anonymous
	c.page = rt.Bound != nil || rt.Pages != nil && fromPage(r)
	c.resource = r.URL.Path
	var refused error
	if rt.Prove != nil {
		c.prove = func(ctx context.Context) (identity.Principal, bool, error) {
			p, claimed, err := rt.Prove(r.WithContext(ctx))
			refused = err
			return p, claimed, err
		}
	}
	w.Header().Set("X-Request-Id", c.id)
	out := &tracked{ResponseWriter: w}
	audited := rt.Audit && !isRead(r.Method)
	var trail *identity.Trail
	if audited {
		out.before = func(status int) error {
			if trail.Recorded() && codeOfHTTP(status) == codes.OK {
				return nil // by the commit of the change itself
			}
			return s.calls.auditPlain(r.Context(), c, status)
		}
	}
	err := s.calls.run(r.Context(), c, func(ctx context.Context) error {
		if err := s.calls.roomForPlain(rt, r); err != nil {
			return err
		}
		if audited {
			ctx, trail = identity.WithTrail(ctx, s.calls.entry(c, codes.OK), s.cfg.Now)
		}
		ctx = identity.WithReporter(ctx, func(p identity.Principal) {
			c.principal = p
			trail.Proved(p)
		})
		if err := s.handle(rt, out, r.WithContext(ctx)); err != nil {
			return err
		}
		if err := out.finish(); err != nil {
			return err
		}
		c.code = codeOfHTTP(out.status)
		return nil
	})
	if refused != nil {
		out.before = nil
		rt.Refuse(out, r, refused)
		return
	}
	if err != nil {
		out.fail(err)
	}
}

func (s *Server) handle(rt *Route, w http.ResponseWriter, r *http.Request) error {
	if rt.Serve == nil {
		rt.Handler.ServeHTTP(w, r)
		return nil
	}
	if err := s.limitBody(w, r); err != nil {
		return err
	}
	return rt.Serve(w, r)
}

func isRead(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

func boundedMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "OTHER"
}

func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	_, _ = w.Write([]byte("ok\n")) // the caller may be gone
}

func (s *Server) readiness(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			writeError(w, resource.Errorf(codes.Unavailable, "not ready: %w", err))
			return
		}
	}
	healthy(w, r)
}

// tracked knows what has been answered so far. before runs once, ahead of the
// answer; when it fails, its error is the answer and the rest is dropped.
type tracked struct {
	http.ResponseWriter
	status int
	before func(status int) error
	failed error
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	if t.status != 0 || t.failed != nil {
		return
	}
	if status >= 200 { // 1xx are no answers yet
		if t.before != nil {
			if t.failed = t.before(status); t.failed != nil {
				return
			}
		}
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tracked) Write(b []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	if t.failed != nil {
		return 0, t.failed
	}
	return t.ResponseWriter.Write(b)
}

// ReadFrom keeps sendfile for object downloads.
func (t *tracked) ReadFrom(r io.Reader) (int64, error) {
	t.WriteHeader(http.StatusOK)
	if t.failed != nil {
		return 0, t.failed
	}
	return io.Copy(t.ResponseWriter, r)
}

// FlushError implements what http.ResponseController asks for.
func (t *tracked) FlushError() error {
	t.WriteHeader(http.StatusOK)
	if t.failed != nil {
		return t.failed
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (t *tracked) Flush() { _ = t.FlushError() } // the next write meets the error again

// Unwrap lets http.ResponseController find the rest.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// finish makes sure that there is an answer, and tells whether before failed.
func (t *tracked) finish() error {
	t.WriteHeader(http.StatusOK)
	return t.failed
}

// fail writes err, or cuts the answer off where one has begun: a client must
// not take half an answer for a whole one.
func (t *tracked) fail(err error) {
	if t.status != 0 {
		panic(http.ErrAbortHandler)
	}
	t.before, t.failed = nil, nil
	// What the handler said of its own answer, its length above all, is not of this one.
	for name := range t.Header() {
		if name != "X-Request-Id" {
			t.Header().Del(name)
		}
	}
	writeError(t, err)
}
