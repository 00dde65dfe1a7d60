package cloud_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	locationpb "google.golang.org/genproto/googleapis/cloud/location"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api"
	"tategu/internal/api/cloud"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store/sqlite"
)

type fixture struct {
	authority *identity.Authority
	service   *cloud.Service
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	a, err := identity.NewAuthority(s, filepath.Join(dir, "keys"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{authority: a, service: cloud.New(a, cloud.Config{
		CA: []byte("PEM"), Location: "us-central1", Public: func() string { return "localhost:1" }, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})}
}

func (f *fixture) token(t *testing.T, email string, grants map[string]identity.Role) string {
	t.Helper()
	secret, _, err := f.authority.CreateToken(t.Context(), identity.TokenSpec{Email: email, Grants: grants})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// do asks the handler; who is a bearer token, "operator", or "" for nobody.
func (f *fixture) do(t *testing.T, who, method, path, body string) (int, map[string]any) {
	t.Helper()
	ctx := t.Context()
	if who == "operator" {
		ctx = identity.NewContext(ctx, identity.OperatorPrincipal())
	}
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if strings.Contains(body, "grant_type=") || strings.HasPrefix(body, "token=") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != "" && who != "operator" {
		r.Header.Set("Authorization", "Bearer "+who)
	}
	w := httptest.NewRecorder()
	f.service.ServeHTTP(w, r)
	var answer map[string]any
	if text := w.Body.String(); text != "" {
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatalf("%s %s: %d %q is no JSON", method, path, w.Code, text)
		}
	}
	return w.Code, answer
}

// errorOf gives status and message of the cloud's envelope.
func errorOf(answer map[string]any) (status, message string) {
	e, _ := answer["error"].(map[string]any)
	status, _ = e["status"].(string)
	message, _ = e["message"].(string)
	return status, message
}

func TestTokenEndpoint(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	access := f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User})
	refresh, _, err := f.authority.Login(t.Context(), access)
	if err != nil {
		t.Fatal(err)
	}
	form := func(kv ...string) string {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v.Encode()
	}
	for _, path := range []string{"/token", "/oauth2/v4/token", "https://oauth2.googleapis.com/token"} {
		code, answer := f.do(t, "", "POST", path, form("grant_type", "refresh_token", "refresh_token", refresh, "client_id", "x"))
		token, _ := answer["access_token"].(string)
		p, err := f.authority.Authenticate(t.Context(), token)
		if code != 200 || err != nil || p.Email != "ann@example.com" || answer["token_type"] != "Bearer" {
			t.Errorf("%s: %d %v, %+v %v", path, code, answer, p, err)
		}
		if life, _ := answer["expires_in"].(float64); life <= 0 || life > 3600 {
			t.Errorf("expires_in %v", answer["expires_in"])
		}
		code, answer = f.do(t, "", "GET", "/tokeninfo?access_token="+token, "")
		if code != 200 || answer["email"] != "ann@example.com" || answer["exp"] == "" {
			t.Errorf("tokeninfo: %d %v", code, answer)
		}
	}
	for _, tt := range []struct{ name, body, wantError, wantText string }{
		{"access token as refresh token", form("grant_type", "refresh_token", "refresh_token", access), "invalid_grant", "access"},
		{"unknown", form("grant_type", "refresh_token", "refresh_token", "1//0abc"), "invalid_grant", "tategu login"},
		{"none", form("grant_type", "refresh_token"), "invalid_grant", ""},
		{"key file", form("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion", "e.y.J"), "invalid_grant", "JWT"},
		{"password", form("grant_type", "password", "username", "a"), "unsupported_grant_type", "password"},
		{"no grant type", "", "unsupported_grant_type", ""},
	} {
		code, answer := f.do(t, "", "POST", "/token", tt.body)
		text, _ := answer["error_description"].(string)
		if code != 400 || answer["error"] != tt.wantError || !strings.Contains(text, tt.wantText) {
			t.Errorf("%s: %d %v, want %s with %q", tt.name, code, answer, tt.wantError, tt.wantText)
		}
	}
	if code, answer := f.do(t, "", "GET", "/tokeninfo?access_token="+refresh, ""); code != 400 || answer["error"] != "invalid_token" {
		t.Errorf("tokeninfo of a refresh token: %d %v", code, answer)
	}
	if code, _ := f.do(t, "", "POST", "/revoke", form("token", refresh)); code != 200 {
		t.Errorf("revoke: %d", code)
	}
	if code, answer := f.do(t, "", "POST", "/token", form("grant_type", "refresh_token", "refresh_token", refresh)); code != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("refresh after sign-out: %d %v", code, answer)
	}
	if code, _ := f.do(t, "", "POST", "/revoke", form("token", "unknown")); code != 200 {
		t.Errorf("revoke of an unknown token: %d, want 200 (RFC 7009)", code)
	}
}

func TestTokenRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	admin := f.token(t, "admin@a.com", map[string]identity.Role{"a": identity.Admin})
	user := f.token(t, "user@a.com", map[string]identity.Role{"a": identity.User})
	for _, tt := range []struct {
		name, who, body string
		want            int
	}{
		{"operator", "operator", `{"email":"x@y.z","grants":{"*":"admin"}}`, 200},
		{"admin of a, for a", admin, `{"email":"x@y.z","grants":{"a":"user"},"ttl":"1h"}`, 200},
		{"admin of a, for b", admin, `{"email":"x@y.z","grants":{"b":"viewer"}}`, 403},
		{"admin of a, for all", admin, `{"email":"x@y.z","grants":{"*":"viewer"}}`, 403},
		{"user", user, `{"email":"x@y.z","grants":{"a":"viewer"}}`, 403},
		{"nobody", "", `{"email":"x@y.z","grants":{"a":"viewer"}}`, 401},
		{"forged", "tgu_x", `{"email":"x@y.z","grants":{"a":"viewer"}}`, 401},
		{"no grants", "operator", `{"email":"x@y.z"}`, 400},
		{"bad role", "operator", `{"email":"x@y.z","grants":{"a":"king"}}`, 400},
		{"bad life", "operator", `{"email":"x@y.z","grants":{"a":"user"},"ttl":"soon"}`, 400},
		{"unknown field", "operator", `{"email":"x@y.z","grants":{"a":"user"},"kind":"task"}`, 400},
		{"no JSON", "operator", `hello`, 400},
		{"form", "operator", `grant_type=x`, 400},
		{"too long", "operator", `{"email":"` + strings.Repeat("x", 1<<20) + `"}`, 400},
	} {
		code, answer := f.do(t, tt.who, "POST", "/tategu/v1/tokens", tt.body)
		secret, _ := answer["secret"].(string)
		if code != tt.want || (code == 200) != (secret != "") {
			t.Errorf("%s: %d %v, want %d", tt.name, code, answer, tt.want)
		}
		if code == 200 {
			if p, err := f.authority.Authenticate(t.Context(), secret); err != nil || p.Email != "x@y.z" {
				t.Errorf("%s: its token is of %+v, %v", tt.name, p, err)
			}
		}
	}
	code, answer := f.do(t, admin, "GET", "/tategu/v1/tokens", "")
	tokens, _ := answer["tokens"].([]any)
	if code != 200 || len(tokens) != 3 {
		t.Fatalf("list: %d %v, want the three tokens of project a", code, answer)
	}
	first, _ := tokens[0].(map[string]any)
	id, _ := first["id"].(string)
	if first["hash"] != nil || first["salt"] != nil || id == "" {
		t.Errorf("a listed token shows %v", first)
	}
	if code, _ := f.do(t, user, "DELETE", "/tategu/v1/tokens/"+id, ""); code != 404 {
		t.Errorf("a user revokes another's token: %d", code)
	}
	if code, answer := f.do(t, admin, "DELETE", "/tategu/v1/tokens/"+id, ""); code != 200 {
		t.Errorf("revoke: %d %v", code, answer)
	}
	if code, _ := f.do(t, "operator", "DELETE", "/tategu/v1/tokens/"+id, ""); code != 404 {
		t.Errorf("revoke twice: %d", code)
	}
	trail, _, err := f.authority.AuditTrail(t.Context(), "a", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var created, refused int
	for _, e := range trail {
		if e.Method == "tategu.v1.Tokens/Create" && e.Code == codes.OK {
			created++
		}
		if e.Code == codes.PermissionDenied && e.Principal == "user@a.com" {
			refused++
		}
		if b, _ := json.Marshal(e); strings.Contains(string(b), "tgu_") {
			t.Errorf("the trail holds a secret: %s", b)
		}
	}
	if created != 1 || refused != 1 {
		t.Errorf("trail of project a: %+v, want one token made and one refused to a user", trail)
	}
	if code, answer := f.do(t, admin, "GET", "/tategu/v1/audit?project=a&limit=1", ""); code != 200 || answer["next"] != 1.0 {
		t.Errorf("audit: %d %v", code, answer)
	}
	if code, _ := f.do(t, user, "GET", "/tategu/v1/audit?project=a", ""); code != 403 {
		t.Errorf("a user reads the trail: %d", code)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	access := f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User})
	code, answer := f.do(t, access, "POST", "/tategu/v1/login", "")
	refresh, _ := answer["refreshToken"].(string)
	if code != 200 || answer["ca"] != "PEM" || answer["email"] != "ann@example.com" {
		t.Fatalf("login: %d %v", code, answer)
	}
	session, err := f.authority.Refresh(t.Context(), refresh)
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := f.do(t, session.Token, "POST", "/tategu/v1/login", ""); code != 401 {
		t.Errorf("a session made a lasting login: %d %v", code, answer)
	}
	if code, _ := f.do(t, "", "POST", "/tategu/v1/login", ""); code != 401 {
		t.Errorf("nobody logs in: %d", code)
	}
	code, answer = f.do(t, "operator", "POST", "/tategu/v1/login", "")
	want, err := f.authority.OperatorRefreshToken(t.Context())
	if code != 200 || err != nil || answer["refreshToken"] != want {
		t.Errorf("the operator's login: %d, %v", code, err)
	}
}

func TestNeighboursByName(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	user := f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.Viewer})
	number, err := f.authority.ProjectNumber(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	code, answer := f.do(t, user, "GET", "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/x@y.z/allowedLocations", "")
	if code != 200 || answer["encodedLocations"] != "0x0" {
		t.Errorf("allowedLocations: %d %v", code, answer)
	}
	for _, id := range []string{"a", number} {
		code, answer = f.do(t, user, "GET", "https://cloudresourcemanager.googleapis.com/v1/projects/"+id, "")
		if code != 200 || answer["projectNumber"] != number || answer["projectId"] != "a" || answer["lifecycleState"] != "ACTIVE" {
			t.Errorf("project %s: %d %v", id, code, answer)
		}
	}
	for _, tt := range []struct {
		who, method, path string
		want              int
		text              string
	}{
		{user, "GET", "/v1/projects/b", 403, "resourcemanager.projects.get"},
		{"", "GET", "/v1/projects/a", 401, "token"},
		{"", "GET", "/v1/projects", 401, "token"},
		{user, "GET", "/v1/projects/a:getIamPolicy", 501, "getIamPolicy"},
		{"", "POST", "https://sts.googleapis.com/v1/token", 501, "SecurityTokenService"},
	} {
		code, answer := f.do(t, tt.who, tt.method, tt.path, "")
		if _, message := errorOf(answer); code != tt.want || !strings.Contains(message, tt.text) {
			t.Errorf("%s %s: %d %v, want %d naming %s", tt.method, tt.path, code, answer, tt.want, tt.text)
		}
	}
	code, answer = f.do(t, user, "GET", "/v1/projects", "")
	if list, _ := answer["projects"].([]any); code != 200 || len(list) != 1 {
		t.Errorf("list: %d %v", code, answer)
	}
	code, answer = f.do(t, user, "GET", "/v1/projects/b", "")
	e, _ := answer["error"].(map[string]any)
	details, _ := e["details"].([]any)
	if status, _ := errorOf(answer); status != "PERMISSION_DENIED" || e["code"] != 403.0 || len(details) == 0 {
		t.Errorf("envelope %v, code %d", answer, code)
	}
}

func TestOwnsNothingOfOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for target, want := range map[string]bool{
		"POST /token": true, "GET /token": true, "GET /tategu/v1/tokens": true, "DELETE /tategu/v1/tokens/x": true, "GET /v1/projects/p": true,
		"GET /tategu/v1/status": false, "GET /v1/projects/p/locations/us-central1/models": false, "GET /": false, "GET /storage/v1/b": false,
		"POST /v1/projects/p/locations/l/pipelineJobs": false, "GET /v1/projects/p/locations": false, "GET /tokens": false,
	} {
		method, path, _ := strings.Cut(target, " ")
		if got := f.service.Owns(httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)); got != want {
			t.Errorf("Owns(%s) = %v", target, got)
		}
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	table, err := api.NewTable(f.service.Methods())
	if err != nil {
		t.Fatal(err)
	}
	user, err := f.authority.Authenticate(t.Context(), f.token(t, "a@b.c", map[string]identity.Role{"a": identity.Viewer}))
	if err != nil {
		t.Fatal(err)
	}
	call := func(name string, req proto.Message) (proto.Message, error) {
		m, ok := table.Lookup(name)
		if !ok {
			t.Fatalf("no method %s", name)
		}
		if _, known := identity.RoleFor(m.Permission); !known {
			t.Errorf("%s needs %s, which is in no rule", name, m.Permission)
		}
		return m.Unary(identity.NewContext(t.Context(), user), req)
	}
	const get = "google.cloud.resourcemanager.v3.Projects/GetProject"
	resp, err := call(get, &resourcemanagerpb.GetProjectRequest{Name: "projects/a"})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := resp.(*resourcemanagerpb.Project)
	if p.GetProjectId() != "a" || len(p.GetName()) != len("projects/")+12 || p.GetState() != resourcemanagerpb.Project_ACTIVE {
		t.Errorf("project %v", p)
	}
	byNumber, err := call(get, &resourcemanagerpb.GetProjectRequest{Name: p.GetName()})
	if err != nil || !proto.Equal(p, byNumber) {
		t.Errorf("by number: %v, %v", byNumber, err)
	}
	for name, want := range map[string]codes.Code{"projects/999": codes.NotFound, "a": codes.InvalidArgument, "projects/": codes.InvalidArgument, "projects/../x": codes.InvalidArgument} {
		if _, err := call(get, &resourcemanagerpb.GetProjectRequest{Name: name}); resource.CodeOf(err) != want {
			t.Errorf("GetProject(%s) = %v, want %v", name, err, want)
		}
	}
	found, err := call("google.cloud.resourcemanager.v3.Projects/SearchProjects", &resourcemanagerpb.SearchProjectsRequest{})
	if s, _ := found.(*resourcemanagerpb.SearchProjectsResponse); err != nil || len(s.GetProjects()) != 1 {
		t.Errorf("SearchProjects: %v, %v", found, err)
	}
	list, err := call("google.cloud.location.Locations/ListLocations", &locationpb.ListLocationsRequest{Name: "projects/a"})
	if l, _ := list.(*locationpb.ListLocationsResponse); err != nil || len(l.GetLocations()) != 1 || l.GetLocations()[0].GetName() != "projects/a/locations/us-central1" {
		t.Errorf("ListLocations: %v, %v", list, err)
	}
	one, err := call("google.cloud.location.Locations/GetLocation", &locationpb.GetLocationRequest{Name: "projects/a/locations/europe-west4"})
	if l, _ := one.(*locationpb.Location); err != nil || l.GetLocationId() != "europe-west4" {
		t.Errorf("GetLocation: %v, %v", one, err)
	}
}

// FuzzPaths: no path and no body makes the handler fail inside or panic, and
// nothing is given to a caller without credentials but what is public.
func FuzzPaths(f *testing.F) {
	for _, s := range []string{"/token", "/v1/projects/a", "/v1/projects/-/serviceAccounts/a@b/allowedLocations", "/tategu/v1/tokens/../x", "/tategu/v1/audit?after=-1", "/v1/projects/%2e%2e", "/tokeninfo?access_token=%00"} {
		f.Add("GET", s, "")
		f.Add("POST", s, "grant_type=refresh_token&refresh_token=tgu_a_b")
	}
	dir := f.TempDir()
	s, err := sqlite.Open(context.Background(), filepath.Join(dir, "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	a, err := identity.NewAuthority(s, filepath.Join(dir, "keys"), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	service := cloud.New(a, cloud.Config{Location: "us-central1", Log: slog.New(slog.DiscardHandler), Now: time.Now})
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.Parse(target)
		if err != nil || !strings.HasPrefix(u.Path, "/") || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || method == "" {
			t.Skip("not a request line")
		}
		r := &http.Request{Method: method, URL: u, Host: "localhost", Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: io.NopCloser(strings.NewReader(body))}
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "access_token\"") || strings.Contains(w.Body.String(), "projectNumber") {
			t.Errorf("%s %q gave %s to nobody", method, target, w.Body)
		}
	})
}
