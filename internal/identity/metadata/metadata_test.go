package metadata_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/identity/metadata"
	"tategu/internal/resource"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	dir       string
	store     *sqlite.Store
	authority *identity.Authority
	server    *metadata.Server
	client    *http.Client
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	f.start(t)
	return f
}

func (f *fixture) start(t *testing.T) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(f.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := identity.NewAuthority(s, filepath.Join(f.dir, "keys"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	f.store, f.authority, f.client = s, a, &http.Client{Transport: transport}
	f.server = metadata.New(a, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		f.stop(t)
	})
}

// stop ends this server process; the tasks go on.
func (f *fixture) stop(t *testing.T) {
	t.Helper()
	if err := f.server.Close(); err != nil {
		t.Error(err)
	}
	if err := f.store.Close(); err != nil {
		t.Error(err)
	}
}

func (f *fixture) open(t *testing.T, id, project, account string) (map[string]string, func()) {
	t.Helper()
	env, end, err := f.server.Open(t.Context(), id, project, account)
	if err != nil {
		t.Fatal(err)
	}
	return env, end
}

// ask gives status and body; the flavor header is set unless edit removes it.
func (f *fixture) ask(t *testing.T, url string, edit func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata-Flavor", "Google")
	if edit != nil {
		edit(req)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func (f *fixture) token(t *testing.T, host string) string {
	t.Helper()
	status, body, _ := f.ask(t, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token", nil)
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("token: %d %s", status, body)
	}
	if answer.TokenType != "Bearer" || answer.ExpiresIn <= 0 || answer.ExpiresIn > 3600 {
		t.Errorf("token answer %+v", answer)
	}
	return answer.AccessToken
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	env, end := f.open(t, "task-1", "demo", "")
	defer end()
	number, err := f.authority.ProjectNumber(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	host := env["GCE_METADATA_HOST"]
	if env["GCE_METADATA_IP"] != host || env["METADATA_SERVER_DETECTION"] != "assume-present" || env["GOOGLE_CLOUD_PROJECT"] != "demo" {
		t.Errorf("env %v", env)
	}
	const email = "default@demo.iam.tategu.internal"
	for path, want := range map[string]string{
		"":                                       "computeMetadata/",
		"/":                                      "computeMetadata/",
		"/computeMetadata/v1":                    "instance/\nproject/\nuniverse/",
		"/computeMetadata/v1/instance":           "service-accounts/",
		"/computeMetadata/v1/instance/":          "service-accounts/",
		"/computeMetadata/v1/project/project-id": "demo",
		"/computeMetadata/v1/project/numeric-project-id":                        number,
		"/computeMetadata/v1/universe/universe-domain":                          "googleapis.com",
		"/computeMetadata/v1/instance/service-accounts/":                        "default/\n" + email + "/",
		"/computeMetadata/v1/instance/service-accounts/default/email":           email,
		"/computeMetadata/v1/instance/service-accounts/" + email + "/email":     email,
		"/computeMetadata/v1/instance/service-accounts/default/?recursive=true": `{"aliases":["default"],"email":"` + email + `","scopes":["https://www.googleapis.com/auth/cloud-platform"]}`,
		"/computeMetadata/v1/instance/service-accounts/default?recursive=true":  `{"aliases":["default"],"email":"` + email + `","scopes":["https://www.googleapis.com/auth/cloud-platform"]}`,
	} {
		status, body, header := f.ask(t, "http://"+host+path, nil)
		if status != http.StatusOK || strings.TrimSpace(body) != want || header.Get("Metadata-Flavor") != "Google" || header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %q %v, want %q", path, status, body, header, want)
		}
	}
	for path, want := range map[string]int{
		"/computeMetadata/v1/instance/service-accounts/other@demo.iam.tategu.internal/token": http.StatusNotFound,
		"/computeMetadata/v1/instance/service-accounts/default/identity?audience=x":          http.StatusNotImplemented,
		"/computeMetadata/v1/instance/attributes/ssh-keys":                                   http.StatusNotFound,
	} {
		if status, body, _ := f.ask(t, "http://"+host+path, nil); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, body, want)
		}
	}
	p, err := f.authority.Authenticate(t.Context(), f.token(t, host))
	if err != nil || p.Email != email {
		t.Errorf("token is of %+v, %v", p, err)
	}
}

func TestRefusesStrangers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mine, endMine := f.open(t, "mine", "demo", "")
	defer endMine()
	other, endOther := f.open(t, "other", "demo", "rich@demo.iam.tategu.internal")
	defer endOther()
	const path = "/computeMetadata/v1/instance/service-accounts/default/token"
	address, mySecret, _ := strings.Cut(mine["GCE_METADATA_HOST"], "/t/")
	otherAddress, otherSecret, _ := strings.Cut(other["GCE_METADATA_HOST"], "/t/")
	if address == otherAddress || mySecret == otherSecret || len(mySecret) < 32 {
		t.Fatalf("two tasks share a door: %v %v", mine, other)
	}
	header := func(k, v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(k, v) }
	}
	for _, tt := range []struct {
		name, url string
		edit      func(*http.Request)
		want      int
	}{
		{"own secret at another task's port", otherAddress + "/t/" + mySecret + path, nil, http.StatusNotFound},
		{"no secret after /t/", otherAddress + "/t/" + path, nil, http.StatusNotFound},
		{"part of the secret", otherAddress + "/t/" + otherSecret[:31] + path, nil, http.StatusNotFound},
		{"no path, from a stranger", otherAddress + path, nil, http.StatusForbidden},
		{"no path, ping", otherAddress, nil, http.StatusForbidden},
		{"secret then dots", otherAddress + "/t/x/../" + mySecret + path, nil, http.StatusNotFound},
		{"no flavor", address + "/t/" + mySecret + path, func(r *http.Request) { r.Header.Del("Metadata-Flavor") }, http.StatusForbidden},
		{"wrong flavor", address + "/t/" + mySecret + path, header("Metadata-Flavor", "Azure"), http.StatusForbidden},
		{"forwarded", address + "/t/" + mySecret + path, header("X-Forwarded-For", "10.0.0.1"), http.StatusForbidden},
		{"rebound name", address + "/t/" + mySecret + path, func(r *http.Request) { r.Host = "evil.example.com" }, http.StatusForbidden},
		{"post", address + "/t/" + mySecret + path, func(r *http.Request) { r.Method = http.MethodPost }, http.StatusMethodNotAllowed},
	} {
		if status, body, _ := f.ask(t, "http://"+tt.url, tt.edit); status != tt.want || strings.Contains(body, "tgu_") {
			t.Errorf("%s: %d %s, want %d", tt.name, status, body, tt.want)
		}
	}
}

// TestAskWithoutPath is no test but the program that the next one starts.
func TestAskWithoutPath(t *testing.T) {
	url := os.Getenv("TATEGU_TEST_ASK")
	if url == "" {
		t.Skip("started by TestCallerWithTheSecretInItsEnvironment only")
	}
	f := &fixture{client: http.DefaultClient}
	status, body, _ := f.ask(t, url, nil)
	http.DefaultClient.CloseIdleConnections()
	t.Logf("answer %d %s", status, body)
}

// TestCallerWithTheSecretInItsEnvironment covers Node, which drops the path.
func TestCallerWithTheSecretInItsEnvironment(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("callers cannot be looked at on", runtime.GOOS)
	}
	f := newFixture(t)
	mine, endMine := f.open(t, "mine", "demo", "")
	defer endMine()
	other, endOther := f.open(t, "other", "demo", "")
	defer endOther()
	address, _, _ := strings.Cut(mine["GCE_METADATA_HOST"], "/")
	for name, tt := range map[string]struct {
		env  map[string]string
		want string
	}{
		"the task":     {mine, "answer 200 "},
		"another task": {other, "answer 403 "},
		"a stranger":   {nil, "answer 403 "},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAskWithoutPath$", "-test.v")
		cmd.Env = []string{"TATEGU_TEST_ASK=http://" + address + "/computeMetadata/v1/instance/service-accounts/default/token"}
		for k, v := range tt.env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v\n%s\nwant %s", name, err, out, tt.want)
		}
	}
}

// TestNode asks with the real client library: TATEGU_TEST_NODE is a folder whose
// node_modules has google-auth-library.
func TestNode(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("TATEGU_TEST_NODE")
	if dir == "" {
		t.Skip("TATEGU_TEST_NODE names no folder with google-auth-library")
	}
	f := newFixture(t)
	env, end := f.open(t, "task-1", "demo", "")
	defer end()
	cmd := exec.CommandContext(t.Context(), "node", "-e", `
const {GoogleAuth} = require("google-auth-library");
const auth = new GoogleAuth({scopes: "https://www.googleapis.com/auth/cloud-platform"});
(async () => {
  const client = await auth.getClient();
  const {token} = await client.getAccessToken();
  console.log(client.constructor.name, await auth.getProjectId(), token);
})().catch(e => { console.error(e); process.exit(1); });
`)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	token, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "Compute demo ")
	if err != nil || !ok {
		t.Fatalf("%v\n%s", err, out)
	}
	if p, err := f.authority.Authenticate(t.Context(), token); err != nil || p.Email != "default@demo.iam.tategu.internal" {
		t.Errorf("its token is of %+v, %v", p, err)
	}
}

func TestEndedTaskIsShutOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	env, end := f.open(t, "task-1", "demo", "")
	token := f.token(t, env["GCE_METADATA_HOST"])
	end()
	end() // a second call is harmless
	if status, body, _ := f.ask(t, "http://"+env["GCE_METADATA_HOST"]+"/", nil); status != 0 {
		t.Errorf("the port of an ended task answers %d %s", status, body)
	}
	_, err := f.authority.Authenticate(t.Context(), token)
	if resource.CodeOf(err) != codes.Unauthenticated {
		t.Errorf("the token of an ended task: %v", err)
	}
}

func TestSameDoorAfterARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before, _ := f.open(t, "task-1", "demo", "")
	gone, _ := f.open(t, "task-2", "demo", "")
	ctx, down := context.WithCancel(t.Context())
	_, end, err := f.server.Open(ctx, "task-1", "demo", "")
	if err != nil {
		t.Fatal(err)
	}
	down()
	end() // the server is going down, the task is not
	token := f.token(t, before["GCE_METADATA_HOST"])
	orphan := f.token(t, gone["GCE_METADATA_HOST"])
	f.stop(t)
	f.start(t)
	after, endTask, err := f.server.Open(t.Context(), "task-1", "demo", "")
	if resource.CodeOf(err) == codes.FailedPrecondition {
		t.Skip("the port went to somebody else: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer endTask()
	if before["GCE_METADATA_HOST"] != after["GCE_METADATA_HOST"] {
		t.Errorf("another door: %v, was %v", after, before)
	}
	if _, err := f.authority.Authenticate(t.Context(), token); err != nil {
		t.Errorf("token from before the restart: %v", err)
	}
	if err := f.server.Retain(t.Context(), []string{"task-1"}); err != nil {
		t.Fatal(err)
	}
	f.token(t, after["GCE_METADATA_HOST"])
	if _, err := f.authority.Authenticate(t.Context(), orphan); resource.CodeOf(err) != codes.Unauthenticated {
		t.Errorf("token of a task that nobody knows any more: %v", err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before, _ := f.open(t, "task-1", "demo", "")
	address, _, _ := strings.Cut(before["GCE_METADATA_HOST"], "/")
	f.stop(t)
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Skip("the port went to somebody else: ", err)
	}
	defer func() { _ = ln.Close() }()
	f.start(t)
	_, _, err = f.server.Open(t.Context(), "task-1", "demo", "")
	_, port, _ := strings.Cut(address, ":")
	if resource.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), port) {
		t.Errorf("Open = %v, want FailedPrecondition naming port %s", err, port)
	}
}

func TestManyTasksAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	hosts := make([]string, 40)
	var g errgroup.Group
	for i := range hosts {
		g.Go(func() error {
			env, _, err := f.server.Open(t.Context(), "task-"+strconv.Itoa(i%20), "demo", "")
			hosts[i] = env["GCE_METADATA_HOST"]
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if hosts[i] != hosts[i+20] {
			t.Errorf("one task, two doors: %s and %s", hosts[i], hosts[i+20])
		}
	}
	slices.Sort(hosts)
	if doors := slices.Compact(hosts); len(doors) != 20 {
		t.Errorf("20 tasks have %d doors", len(doors))
	}
}

func TestOpenAfterClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if err := f.server.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := f.server.Open(t.Context(), "late", "demo", "")
	if resource.CodeOf(err) != codes.Unavailable {
		t.Errorf("Open after Close = %v", err)
	}
}

// TestGoogleAuth asks with the real client library, cold, as a task would.
func TestGoogleAuth(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON names no Python with google-auth")
	}
	f := newFixture(t)
	env, end := f.open(t, "task-1", "demo", "train@demo.iam.gserviceaccount.com")
	defer end()
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import google.auth, google.auth.transport.requests as r
creds, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
creds.refresh(r.Request())
print(type(creds).__module__, project, creds.service_account_email, creds.universe_domain, creds.valid, creds.token)
assert not creds._is_regional_access_boundary_lookup_required(), "would ask an outside host"
`)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for k, v := range env {
		if k != "GOOGLE_CLOUD_PROJECT" { // then it comes from the server
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const want = "google.auth.compute_engine.credentials demo train@demo.iam.tategu.internal googleapis.com True "
	token, ok := strings.CutPrefix(strings.TrimSpace(string(out)), want)
	if !ok {
		t.Fatalf("google-auth printed %q, want %q and a token", out, want)
	}
	p, err := f.authority.Authenticate(t.Context(), token)
	if err != nil || p.Email != "train@demo.iam.tategu.internal" {
		t.Errorf("its token is of %+v, %v", p, err)
	}
}
