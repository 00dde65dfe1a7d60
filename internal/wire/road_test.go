package wire_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/wire"
)

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	const get, mine, other = "GET", "/v1/" + model, "/v1/projects/q/locations/l/models/1"
	for _, tt := range []struct {
		name, method, path, body string
		tokens                   bool // loopback needs tokens
		headers                  []string
		code                     int
	}{
		{"operator", get, mine, "", false, nil, 200},
		{"operator in every project", get, other, "", false, nil, 200},
		{"token", get, mine, "", false, []string{"Authorization", "Bearer good"}, 200},
		{"scheme in lower case", get, mine, "", false, []string{"Authorization", "bearer good"}, 200},
		{"bad token on loopback", get, mine, "", false, []string{"Authorization", "Bearer evil"}, 401},
		{"another scheme", get, mine, "", false, []string{"Authorization", "Basic Z29vZA=="}, 401},
		{"empty bearer is none", get, mine, "", false, []string{"Authorization", "Bearer "}, 200},
		{"another project", get, other, "", false, []string{"Authorization", "Bearer good"}, 403},
		{"unknown number looks like another project", get, "/v1/projects/999/locations/l/models/1", "", false, []string{"Authorization", "Bearer good"}, 403},
		{"any project", get, "/v1/projects/-/locations/l/models", "", false, []string{"Authorization", "Bearer good"}, 403},
		{"permission not held", "POST", mine + ":setIamPolicy", `{"policy":{}}`, false, []string{"Authorization", "Bearer good"}, 403},
		{"public", get, "/v3/projects/q", "", false, []string{"Authorization", "Bearer good"}, 200},
		{"fast path", "POST", "/v1/projects/q/locations/l/endpoints/1:predict", "1", false, []string{"Authorization", "Bearer good"}, 403},
		{"a model of another project", "POST", "/v1/projects/p/locations/l/endpoints/1:deployModel", `{"deployedModel":{"model":"projects/q/locations/l/models/1"}}`, false, []string{"Authorization", "Bearer good"}, 403},
		{"a model of its own project", "POST", "/v1/projects/p/locations/l/endpoints/1:deployModel", `{"deployedModel":{"model":"projects/p/locations/l/models/1"}}`, false, []string{"Authorization", "Bearer good"}, 200},
		{"tokens wanted", get, mine, "", true, nil, 401},
		{"tokens wanted and shown", get, mine, "", true, []string{"Authorization", "Bearer good"}, 200},
		{"behind a reverse proxy", get, mine, "", false, []string{"X-Forwarded-For", "10.0.0.1"}, 401},
		{"unknown path needs a caller too", get, "/v1/nothing", "", true, nil, 401},
		{"bad body of a stranger", "POST", "/v1/projects/p/locations/l/models:upload", "{", true, nil, 401},
		{"metrics", get, "/metrics", "", true, nil, 401},
		{"health is open", get, "/healthz", "", true, nil, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *wire.Config) { c.LoopbackTokens = tt.tokens })
			resp, body := f.do(t, tt.method, tt.path, tt.body, tt.headers...)
			if resp.StatusCode != tt.code {
				t.Errorf("%s %s = %d %s, want %d", tt.method, tt.path, resp.StatusCode, body, tt.code)
			}
			if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			if strings.Contains(f.log.String(), "good") || strings.Contains(f.log.String(), "evil") {
				t.Error("a token is in the log")
			}
		})
	}
}

// TestBeyondLoopback needs an address of this machine that is not loopback.
func TestBeyondLoopback(t *testing.T) {
	t.Parallel()
	ip := outsideIP(t)
	cfg, _, _ := newConfig(t)
	ca, err := wire.OpenCA(t.TempDir(), cfg.Now, ip)
	if err != nil {
		t.Fatal(err)
	}
	cfg.CA, cfg.Hosts = ca, []string{ip}
	s, err := wire.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("cannot listen on %s: %v", ip, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	f := &fixture{Server: s, ca: ca, addr: ln.Addr().String()}
	for _, tt := range []struct {
		name, target string
		headers      []string
		code         int
	}{
		{"plain", "http://" + f.addr + "/v1/" + model, []string{"Authorization", "Bearer good"}, 403},
		{"no token", "https://" + f.addr + "/v1/" + model, nil, 401},
		{"token and TLS", "https://" + f.addr + "/v1/" + model, []string{"Authorization", "Bearer good"}, 200},
		{"probe", "http://" + f.addr + "/readyz", nil, 200},
	} {
		if resp, body := f.do(t, "GET", tt.target, "", tt.headers...); resp.StatusCode != tt.code {
			t.Errorf("%s: %d %s, want %d", tt.name, resp.StatusCode, body, tt.code)
		}
	}
}

func outsideIP(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address besides loopback")
	return ""
}

func TestBrowserTricks(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) { c.Routes = wire.GCSRoutes(storage{"gcs"}) })
	const upload = "/v1/projects/p/locations/l/models:upload"
	for _, tt := range []struct {
		name, method, path string
		headers            []string
		code               int
	}{
		{"rebound name", "GET", "/v1/" + model, []string{"Host", "evil.example"}, 403},
		{"rebound name with our port", "GET", "/v1/" + model, []string{"Host", "evil.example:" + f.port}, 403},
		{"localhost", "GET", "/v1/" + model, []string{"Host", "LOCALHOST:" + f.port}, 200},
		{"loopback v6", "GET", "/v1/" + model, []string{"Host", "[::1]:" + f.port}, 200},
		{"intercepted host", "GET", "/v1/" + model, []string{"Host", "us-central1-aiplatform.googleapis.com"}, 200},
		{"host we do not implement", "GET", "/v1/" + model, []string{"Host", "compute.googleapis.com"}, 403},
		{"lookalike", "GET", "/v1/" + model, []string{"Host", "a.b-aiplatform.googleapis.com"}, 403},
		{"write from another site", "POST", upload, []string{"Origin", "https://evil.example"}, 403},
		{"write from an unknown origin", "POST", upload, []string{"Origin", "null"}, 403},
		{"write that the browser marks", "POST", upload, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"write from a friend of another route", "POST", upload, []string{"Origin", "https://friend.example"}, 403},
		{"write to storage from another site", "POST", "/storage/v1/b", []string{"Origin", "https://evil.example"}, 403},
		{"write to storage from a friend", "POST", "/storage/v1/b", []string{"Origin", "https://friend.example"}, 201},
		{"write from our page", "POST", upload, []string{"Origin", "http://" + f.addr}, 200},
		{"probe under a foreign name", "GET", "/healthz", []string{"Host", "evil.example"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := f.do(t, tt.method, tt.path, `{"model":{"displayName":"d"}}`, tt.headers...)
			if resp.StatusCode != tt.code {
				t.Errorf("%d %s, want %d", resp.StatusCode, body, tt.code)
			}
		})
	}
}

func TestAuditComesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	good := []string{"Authorization", "Bearer good"}
	const upload = "/v1/projects/p/locations/l/models:upload"
	f.do(t, "GET", "/v1/"+model, "", good...)
	f.do(t, "POST", upload, `{"model":{"displayName":"d"}}`, good...)
	f.do(t, "POST", upload, `{}`, good...)
	f.do(t, "POST", strings.Replace(upload, "/p/", "/q/", 1), `{"model":{"displayName":"d"}}`, good...)
	f.do(t, "POST", upload, `{}`, "Authorization", "Bearer evil")
	want := []string{
		"ann@example.com google.cloud.aiplatform.v1.ModelService/UploadModel p projects/p/locations/l OK",
		"ann@example.com google.cloud.aiplatform.v1.ModelService/UploadModel p projects/p/locations/l InvalidArgument",
		"ann@example.com google.cloud.aiplatform.v1.ModelService/UploadModel q projects/q/locations/l PermissionDenied",
	}
	if got := f.gate.trail(); !slices.Equal(got, want) {
		t.Errorf("trail:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	f.gate.mu.Lock()
	f.gate.broken = true
	f.gate.mu.Unlock()
	if resp, body := f.do(t, "POST", upload, `{"model":{"displayName":"d"}}`); resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "operations") {
		t.Errorf("answered without an audit row: %d %s", resp.StatusCode, body)
	}
	if resp, body := f.do(t, "GET", "/v1/"+model, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a read needs no audit row: %d %s", resp.StatusCode, body)
	}
}

// named answers with its name, the caller and the status it was told.
type named string

func (n named) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("panic") != "" {
		panic("a secret")
	}
	if by := r.URL.Query().Get("inside"); by != "" { // the proof is in the body
		identity.Report(r.Context(), identity.Principal{Email: by})
	}
	w.Header().Set("X-Route", string(n))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(identity.FromContext(r.Context()).Email))
}

func (n named) Owns(r *http.Request) bool { return r.URL.Path == "/tategu/v1/tokens" }

// storage proves who signs, and refuses those who sign wrongly.
type storage struct{ named }

func (storage) Owns(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/bucket/") }

func (storage) Bound(r *http.Request) bool { return strings.HasPrefix(r.Host, "bucket.example.com") }

func (storage) Prove(r *http.Request) (p identity.Principal, claimed bool, err error) {
	switch by := r.URL.Query().Get("by"); by {
	case "":
		return p, false, nil
	case "nobody":
		return p, true, errors.New("a bad signature")
	default:
		return identity.Principal{Email: by, Signed: true}, true, nil
	}
}

func (storage) AllowsOrigin(r *http.Request) bool {
	return r.Header.Get("Origin") == "https://friend.example"
}

func (storage) Refuse(w http.ResponseWriter, _ *http.Request, err error) {
	w.Header().Set("X-Route", "refused")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(err.Error()))
}

func TestProofInTheRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, path string
		tokens             bool
		headers            []string
		code               int
		body, trail        string
	}{
		{"no proof on loopback", "PUT", "/bucket/o", false, nil, 201, "operator", "operator storage PUT  /bucket/o OK"},
		{"no proof beyond", "GET", "/bucket/o", true, nil, 201, "", ""},
		{"nobody writes what is open", "PUT", "/storage/v1/b", true, nil, 201, "", "anonymous storage PUT  /storage/v1/b OK"},
		{"behind a reverse proxy", "GET", "/bucket/o", false, []string{"X-Forwarded-For", "10.0.0.1"}, 201, "", ""},
		{"a proof is not the operator", "PUT", "/bucket/o?by=sam", false, nil, 201, "sam", "sam storage PUT  /bucket/o OK"},
		{"a proof beats a token", "GET", "/bucket/o?by=sam", true, []string{"Authorization", "Bearer good"}, 201, "sam", ""},
		{"a bad proof on loopback", "PUT", "/bucket/o?by=nobody", false, nil, 403, "a bad signature", ""},
		{"a bad proof with a good token", "PUT", "/bucket/o?by=nobody", true, []string{"Authorization", "Bearer good"}, 403, "a bad signature", ""},
		{"a bad token", "GET", "/bucket/o", true, []string{"Authorization", "Bearer evil"}, 401, "", ""},
		{"a page that is welcome", "PUT", "/bucket/o", false, []string{"Origin", "https://friend.example"}, 201, "", "anonymous storage PUT  /bucket/o OK"},
		{"a page that reads", "GET", "/storage/v1/b", false, []string{"Origin", "https://evil.example"}, 201, "", ""},
		{"a page with a proof", "PUT", "/bucket/o?by=sam", false, []string{"Origin", "https://friend.example"}, 201, "sam", "sam storage PUT  /bucket/o OK"},
		{"our own page", "PUT", "/bucket/o", false, []string{"Host", "localhost:1", "Origin", "http://localhost:1"}, 201, "operator", "operator storage PUT  /bucket/o OK"},
		{"a proof in the body", "POST", "/bucket/o?inside=sam", true, nil, 201, "", "sam storage POST  /bucket/o OK"},
		{"by a bucket's host name", "GET", "/v1/" + model, false, []string{"Host", "bucket.example.com"}, 201, "", ""},
		{"by a bucket's host name with a token", "GET", "/o", false, []string{"Host", "bucket.example.com", "Authorization", "Bearer good"}, 201, "ann@example.com", ""},
		{"by a bucket's host name with a proof", "PUT", "/o?by=sam", false, []string{"Host", "bucket.example.com"}, 201, "sam", "sam storage PUT  /o OK"},
		{"elsewhere nobody stays out", "GET", "/console/x", true, nil, 401, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *wire.Config) {
				c.LoopbackTokens = tt.tokens
				c.Routes = slices.Concat(wire.GCSRoutes(storage{"gcs"}), wire.ConsoleRoutes(named("console"), "/console/"))
			})
			resp, body := f.do(t, tt.method, tt.path, "", tt.headers...)
			if resp.StatusCode != tt.code || tt.code != http.StatusUnauthorized && body != tt.body {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, tt.code, tt.body)
			}
			if got := strings.Join(f.gate.trail(), "\n"); got != tt.trail {
				t.Errorf("trail = %q, want %q", got, tt.trail)
			}
		})
	}
}

func TestPlainRoutes(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) {
		c.Routes = slices.Concat(wire.GCSRoutes(storage{"gcs"}), wire.CloudRoutes(named("cloud")), wire.ConsoleRoutes(named("console"), "/console/"))
	})
	for _, tt := range []struct{ host, path, route, caller string }{
		{"", "/storage/v1/b", "gcs", "operator"},
		{"", "/upload/storage/v1/b/x/o", "gcs", "operator"},
		{"storage.googleapis.com", "/healthz", "gcs", "operator"},
		{"b.storage.googleapis.com", "/o", "gcs", "operator"},
		{"www.googleapis.com", "/storage/v1/b", "gcs", "operator"},
		{"oauth2.googleapis.com", "/token", "cloud", ""},
		{"", "/token", "cloud", ""},
		{"", "/tategu/v1/tokens", "cloud", "operator"},
		{"console.cloud.google.com", "/vertex-ai/x", "console", "operator"},
		{"", "/console/x", "console", "operator"},
		{"", "/", "console", "operator"},
	} {
		resp, body := f.do(t, "GET", tt.path, "", "Host", hostOr(tt.host, f.addr))
		if got := resp.Header.Get("X-Route"); got != tt.route || body != tt.caller {
			t.Errorf("%s%s went to %q as %q, want %q as %q", tt.host, tt.path, got, body, tt.route, tt.caller)
		}
	}
	f.do(t, "POST", "/storage/v1/b", "", "Authorization", "Bearer good")
	if got, want := f.gate.trail(), []string{"ann@example.com storage POST  /storage/v1/b OK"}; !slices.Equal(got, want) {
		t.Errorf("trail = %q, want %q", got, want)
	}
	f.gate.mu.Lock()
	f.gate.broken = true
	f.gate.mu.Unlock()
	if resp, body := f.do(t, "POST", "/storage/v1/b", ""); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("answered without an audit row: %d %s", resp.StatusCode, body)
	}
	if resp, body := f.do(t, "GET", "/storage/v1/b?panic=1", ""); resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "secret") {
		t.Errorf("panic: %d %s", resp.StatusCode, body)
	}
	if resp, _ := f.do(t, "GET", "/storage/v1/b", "", "Authorization", "Bearer evil"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("bad token on a plain route: %d", resp.StatusCode)
	}
}

func hostOr(host, other string) string {
	if host == "" {
		return other
	}
	return host
}

func TestHealthReadyMetrics(t *testing.T) {
	t.Parallel()
	ready := errors.New("store is opening")
	f := start(t, func(c *wire.Config) { c.Ready = func() error { return ready } })
	if resp, _ := f.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("healthz = %d", resp.StatusCode)
	}
	if resp, body := f.do(t, "GET", "/readyz", ""); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "opening") {
		t.Errorf("readyz = %d %s", resp.StatusCode, body)
	}
	f.do(t, "GET", "/v1/"+model, "")
	f.do(t, "GET", "/v1/nothing/"+strings.Repeat("x", 100), "")
	_, body := f.do(t, "GET", "/metrics", "", "Accept", "application/openmetrics-text")
	for _, want := range []string{
		`tategu_requests_total{code="OK",method="google.cloud.aiplatform.v1.ModelService/GetModel",transport="rest"} 1`,
		`tategu_requests_total{code="NOT_FOUND",method="unknown",transport="rest"} 1`,
		`tategu_request_duration_seconds_count{method="google.cloud.aiplatform.v1.ModelService/GetModel"} 1`,
		"tategu_requests_in_flight 1", "tategu_connections ", "tategu_build_info{", "# EOF",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s in\n%s", want, body)
		}
	}
}

// TestChosenIDMustBeOne; the handler never sees another.
func TestChosenIDMustBeOne(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	const path = "/v1/projects/p/locations/l/endpoints/1:deployModel"
	for id, want := range map[string]int{"42": http.StatusOK, "x": http.StatusBadRequest, "0": http.StatusBadRequest} {
		resp, body := f.do(t, http.MethodPost, path, `{"deployedModel":{"model":"projects/p/locations/l/models/1"}}`, resource.IDHeader, id)
		if resp.StatusCode != want {
			t.Errorf("%s = %d %s, want %d", id, resp.StatusCode, body, want)
		}
	}
}
