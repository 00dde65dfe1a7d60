package modelcache

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Route answers programs beside it over HTTP:
//
//	GET /models/NAME            the version that NAME is, its directory, an ETag
//	GET /models/NAME?wait=30s   with If-None-Match: once it is another, or 304
//	GET /models                 the names that were asked for
//
// A name that was asked for once is followed until Run ends, and what it stands for
// stays on disk. While the server is away the last good answer is given, and says so.
type Route struct {
	loader *Loader
	log    *slog.Logger
	hosts  []string

	start chan *follower // for Run
	ended chan struct{}  // closed when Run ends

	mu    sync.Mutex
	names map[string]*follower
}

// NewRoute makes the handler, which answers for localhost, loopback addresses and
// further hosts. Run has to run beside it.
func NewRoute(loader *Loader, hosts []string, log *slog.Logger) *Route {
	return &Route{loader: loader, log: log, hosts: hosts, start: make(chan *follower), ended: make(chan struct{}), names: map[string]*follower{}}
}

const (
	maxFollowed = 256
	maxWait     = 10 * time.Minute
)

// follower keeps the newest answer about one name.
type follower struct {
	name string

	mu      sync.Mutex
	answer  *answer
	changed chan struct{} // closed at the next answer
}

// answer is what is told of a name; it is never written to again.
type answer struct {
	*Local
	Stale string `json:"stale,omitempty"` // why it may be old

	failed error // then there is no Local
}

func (a *answer) etag() string { return `"` + a.ID + "-" + a.Digest[len("sha256:"):] + `"` }

func (f *follower) now() (*answer, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answer, f.changed
}

func (f *follower) tell(a *answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
	close(f.changed)
	f.changed = make(chan struct{})
}

// Run follows what is asked for until ctx ends. Requests that wait are ended then.
func (r *Route) Run(ctx context.Context) error {
	var followers sync.WaitGroup
	defer followers.Wait()
	defer close(r.ended)
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-r.start:
			followers.Go(func() { r.follow(ctx, f) })
		}
	}
}

func (r *Route) follow(ctx context.Context, f *follower) {
	log := r.log.With(slog.String("model", f.name))
	away := false
	err := r.loader.Follow(ctx, f.name, func(local *Local, wrong error) error {
		if local == nil {
			return wrong
		}
		before, _ := f.now()
		a := &answer{Local: local}
		if wrong != nil {
			a.Stale = wrong.Error()
		}
		if before == nil || !before.Same(local) {
			log.InfoContext(ctx, "model", slog.String("version", local.ID), slog.String("path", local.Path))
		}
		if wrong != nil && !away {
			log.WarnContext(ctx, "the model stays as it is, since what it is now cannot be asked", slog.Any("error", wrong))
		}
		if wrong == nil && away {
			log.InfoContext(ctx, "the model can be asked for again")
		}
		away = wrong != nil
		if before == nil || before.Stale != a.Stale || before.Etag != a.Etag || !before.Same(local) {
			f.tell(a)
		}
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	// The next request tries again.
	r.mu.Lock()
	delete(r.names, f.name)
	r.mu.Unlock()
	f.tell(&answer{failed: err})
}

// find gives the follower of a name, and starts one for a new name.
func (r *Route) find(ctx context.Context, name string) (*follower, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	f := r.names[name]
	if f == nil && len(r.names) >= maxFollowed {
		r.mu.Unlock()
		return nil, resource.Errorf(codes.ResourceExhausted, "%d names are followed already", maxFollowed).WithHint("start another `tategu model serve`, or this one again")
	}
	if f != nil {
		r.mu.Unlock()
		return f, nil
	}
	f = &follower{name: name, changed: make(chan struct{})}
	r.names[name] = f
	r.mu.Unlock()
	select {
	case r.start <- f:
		return f, nil
	case <-r.ended:
		return nil, errEnding()
	case <-ctx.Done():
		r.mu.Lock()
		delete(r.names, name)
		r.mu.Unlock()
		f.tell(&answer{failed: resource.Errorf(codes.Unavailable, "asked for by someone who left").WithHint("ask again")})
		return nil, ctx.Err()
	}
}

func errEnding() error {
	return resource.Errorf(codes.Unavailable, "this loader is ending").WithHint("ask again when it is back")
}

// ServeHTTP answers one request.
func (r *Route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := r.check(req); err != nil {
		writeError(w, err)
		return
	}
	name, ok := strings.CutPrefix(req.URL.Path, "/models/")
	switch {
	case req.URL.Path == "/models":
		writeJSON(w, http.StatusOK, r.list())
	case !ok:
		writeError(w, resource.NotFound(req.URL.Path).WithHint("ask for /models/NAME@ALIAS"))
	default:
		r.model(w, req, name)
	}
}

// check refuses what is no program beside us: other methods, a name rebound to
// loopback (the Host header gives it away), and pages of browsers.
func (r *Route) check(req *http.Request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return resource.Unimplemented(req.Method + " " + req.URL.Path).WithHint("GET /models/NAME@ALIAS")
	}
	host := req.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) && !slices.Contains(r.hosts, host) {
		return resource.Errorf(codes.PermissionDenied, "this loader does not answer for host %q", host).WithHint("use localhost, or name the host with --host")
	}
	site := req.Header.Get("Sec-Fetch-Site")
	if req.Header.Get("Origin") != "" || site != "" && site != "none" && site != "same-origin" {
		return resource.Errorf(codes.PermissionDenied, "a page of another site may not read here")
	}
	return nil
}

func (r *Route) list() any {
	r.mu.Lock()
	followers := maps.Clone(r.names)
	r.mu.Unlock()
	models := map[string]*answer{}
	for name, f := range followers {
		if a, _ := f.now(); a != nil && a.Local != nil {
			models[name] = a
		}
	}
	return map[string]any{"models": models}
}

func (r *Route) model(w http.ResponseWriter, req *http.Request, name string) {
	wait, err := readWait(req.URL.Query().Get("wait"))
	if err != nil {
		writeError(w, err)
		return
	}
	f, err := r.find(req.Context(), name)
	if err != nil {
		writeError(w, err)
		return
	}
	a, err := r.wait(req.Context(), f, wait, req.Header.Get("If-None-Match"))
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("ETag", a.etag())
	w.Header().Set("Cache-Control", "no-cache")
	if matches(req.Header.Get("If-None-Match"), a.etag()) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, http.StatusOK, a)
}

// wait gives the answer about a name: the first one whenever it comes, one that the
// caller does not have within the time that the caller gives it.
func (r *Route) wait(ctx context.Context, f *follower, patience time.Duration, has string) (*answer, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for expired := patience == 0; ; {
		a, changed := f.now()
		switch {
		case a == nil:
		case a.failed != nil:
			return nil, a.failed
		case expired || !matches(has, a.etag()):
			return a, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			expired = true
		case <-r.ended:
			return nil, errEnding()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readWait reads a duration: 30s, or a number of seconds.
func readWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, serr := strconv.ParseUint(text, 10, 16); serr == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 || d > maxWait {
		return 0, resource.Invalid("wait", "wait=%.40q is no duration from 0 to %v", text, maxWait).WithHint("write wait=30s")
	}
	return d, nil
}

// matches reads If-None-Match (RFC 9110, section 13.1.2).
func matches(header, etag string) bool {
	for given := range strings.SplitSeq(header, ",") {
		given = strings.TrimPrefix(strings.TrimSpace(given), "W/")
		if given == etag || given == "*" {
			return true
		}
	}
	return false
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a caller that left reads nothing
}

// writeError answers with what was wrong and the next step.
func writeError(w http.ResponseWriter, err error) {
	code := resource.CodeOf(err)
	status, ok := map[codes.Code]int{
		codes.InvalidArgument: http.StatusBadRequest, codes.NotFound: http.StatusNotFound, codes.PermissionDenied: http.StatusForbidden,
		codes.Unauthenticated: http.StatusUnauthorized, codes.FailedPrecondition: http.StatusConflict, codes.ResourceExhausted: http.StatusTooManyRequests,
		codes.Unavailable: http.StatusServiceUnavailable, codes.Unimplemented: http.StatusNotImplemented, codes.DataLoss: http.StatusBadGateway,
	}[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	if code == codes.Unavailable {
		w.Header().Set("Retry-After", "1")
	}
	message, hint := err.Error(), ""
	if e, ok := errors.AsType[*resource.Error](err); ok {
		hint = e.Hint
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"code": status, "status": code.String(), "message": message, "next_step": hint}})
}
