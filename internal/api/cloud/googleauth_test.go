package cloud_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tategu/internal/identity"
)

// recorder is a proxy that refuses everything and tells what would have left.
func recorder(t *testing.T) (address string, tries func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.Host)
		http.Error(w, "refused", http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// TestCredentialFiles refreshes each kind of file with the real google-auth.
func TestCredentialFiles(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON names no Python with google-auth")
	}
	f := newFixture(t)
	server := httptest.NewServer(f.service)
	t.Cleanup(server.Close)
	refresh, _, err := f.authority.Login(t.Context(), f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User}))
	if err != nil {
		t.Fatal(err)
	}
	login, err := identity.LoginFile(server.URL, refresh)
	if err != nil {
		t.Fatal(err)
	}
	intercept, err := identity.InterceptFile(refresh)
	if err != nil {
		t.Fatal(err)
	}
	const load = `
import google.auth, google.auth.transport.requests as r, threading
creds, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
`
	// Python's file of this type always goes to oauth2.googleapis.com, which the
	// proxy of the wire ends; here only the form of the exchange is at stake.
	redirect := `creds = creds.with_token_uri("` + server.URL + `/token")` + "\n"
	const use = `
creds.before_request(r.Request(), "GET", "https://us-central1-aiplatform.googleapis.com/v1/x", {})
for t in threading.enumerate():
    if t is not threading.current_thread():
        t.join(20)
print(type(creds).__module__, project, creds.valid, creds.token)
`
	for _, tt := range []struct {
		name, module string
		file         []byte
		script       string
	}{
		{"login", "google.auth.external_account_authorized_user", login, load + use},
		{"intercept", "google.oauth2.credentials", intercept, load + redirect + use},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			proxy, tries := recorder(t)
			path := filepath.Join(t.TempDir(), "credentials.json")
			if err := os.WriteFile(path, tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), python, "-c", tt.script)
			cmd.Env = []string{
				"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GOOGLE_APPLICATION_CREDENTIALS=" + path,
				"GOOGLE_CLOUD_PROJECT=a", "HTTPS_PROXY=http://" + proxy, "https_proxy=http://" + proxy,
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			token, ok := strings.CutPrefix(strings.TrimSpace(string(out)), tt.module+" a True ")
			if !ok || strings.Contains(token, "\n") {
				t.Fatalf("google-auth printed %q", out)
			}
			p, err := f.authority.Authenticate(t.Context(), token)
			if err != nil || p.Email != "ann@example.com" {
				t.Errorf("its token is of %+v, %v", p, err)
			}
			if left := tries(); len(left) > 0 {
				t.Errorf("requests that would have left the machine: %v", left)
			}
		})
	}
}

// TestNodeLogin refreshes a login file with Node's client; TATEGU_TEST_NODE is a
// folder whose node_modules has google-auth-library.
func TestNodeLogin(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("TATEGU_TEST_NODE")
	if dir == "" {
		t.Skip("TATEGU_TEST_NODE names no folder with google-auth-library")
	}
	f := newFixture(t)
	server := httptest.NewServer(f.service)
	t.Cleanup(server.Close)
	refresh, _, err := f.authority.Login(t.Context(), f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User}))
	if err != nil {
		t.Fatal(err)
	}
	file, err := identity.LoginFile(server.URL, refresh)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	proxy, tries := recorder(t)
	cmd := exec.CommandContext(t.Context(), "node", "-e", `
const {GoogleAuth} = require("google-auth-library");
(async () => {
  const client = await new GoogleAuth({scopes: "https://www.googleapis.com/auth/cloud-platform"}).getClient();
  console.log((await client.getAccessToken()).token);
})().catch(e => { console.error(e); process.exit(1); });
`)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GOOGLE_APPLICATION_CREDENTIALS=" + path,
		"GOOGLE_CLOUD_PROJECT=a", "HTTPS_PROXY=http://" + proxy, "https_proxy=http://" + proxy, "NO_PROXY=127.0.0.1",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if p, err := f.authority.Authenticate(t.Context(), strings.TrimSpace(string(out))); err != nil || p.Email != "ann@example.com" {
		t.Errorf("node printed %q: %+v, %v", out, p, err)
	}
	if left := tries(); len(left) > 0 {
		t.Errorf("requests that would have left the machine: %v", left)
	}
}
