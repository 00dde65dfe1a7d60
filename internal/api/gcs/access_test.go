package gcs_test

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/store/sqlite"
)

// guarded is a handler behind the real authority: "bucket" of project p.
type guarded struct {
	t         testing.TB
	authority *identity.Authority
	blobs     *blob.Store
	h         *gcs.Handler
	clock     *clock
}

// clock can be put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	return newGuardedFor(t)
}

func newGuardedFor(tb testing.TB) *guarded {
	tb.Helper()
	dir := tb.TempDir()
	rows, err := sqlite.Open(tb.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		tb.Fatal(err)
	}
	c := &clock{}
	g := &guarded{t: tb, clock: c, blobs: blob.New(rows, content, c.now)}
	if g.authority, err = identity.NewAuthority(rows, filepath.Join(dir, "keys"), c.now); err != nil {
		tb.Fatal(err)
	}
	g.h = gcs.New(g.blobs, g.authority, slog.New(slog.DiscardHandler), c.now)
	if err := g.blobs.EnsureBucket(tb.Context(), "p", "bucket"); err != nil {
		tb.Fatal(err)
	}
	return g
}

// ServeHTTP does what the wire does before it calls the handler; without a token
// the caller is nobody.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, claimed, err := g.h.Prove(r)
	if err != nil {
		g.h.Refuse(w, r, err)
		return
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && !claimed {
		if p, err = g.authority.Authenticate(r.Context(), token); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
	}
	g.h.ServeHTTP(w, r.WithContext(identity.NewContext(r.Context(), p)))
}

func (g *guarded) token(email string, grants map[string]identity.Role) string {
	g.t.Helper()
	secret, _, err := g.authority.CreateToken(g.t.Context(), identity.TokenSpec{Email: email, Grants: grants, Vouched: true})
	if err != nil {
		g.t.Fatal(err)
	}
	return secret
}

// do sends a request with a token, "" = none; headers are pairs.
func (g *guarded) do(token, method, url, body string, headers ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := httptest.NewRequestWithContext(g.t.Context(), method, url, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func (g *guarded) bind(role string, members ...string) {
	g.t.Helper()
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	body, err := json.Marshal(map[string]any{"bindings": []any{map[string]any{"role": role, "members": members}}})
	if err != nil {
		g.t.Fatal(err)
	}
	if w := g.do(admin, "PUT", "/storage/v1/b/bucket/iam", string(body), "Content-Type", "application/json"); w.Code != http.StatusOK {
		g.t.Fatalf("set policy: %d %s", w.Code, w.Body)
	}
}

// TestWhoMayCall takes every route of the storage API as every kind of caller.
// What a caller may not do answers 401 or 403, whatever else is wrong with the
// request; what they may do, anything else.
func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	// Routes that are open to a kind of caller, by the end of their names; the
	// others are closed to them.
	viewerReads := []string{
		"json GET b", "json GET b/*", "json GET b/*/o", "json GET b/*/o/*", "json GET projects/*/serviceAccount",
		"download GET b/*/o/*", "xml GET *", "json GET b/*/notificationConfigs", "json GET b/*/notificationConfigs/*", "json GET b/*/storageLayout",
	}
	objectReads := []string{"json GET b/*/storageLayout", "json GET b/*/o", "json GET b/*/o/*", "download GET b/*/o/*", "xml GET *"}
	everybody := []string{"json GET b/*/iam/testPermissions", "batch POST "} // which answer with what one may not
	callers := map[string]struct {
		email  string
		grants map[string]identity.Role
		open   []string
	}{
		"anonymous":                {},
		"viewer":                   {"viewer@example.com", map[string]identity.Role{"p": identity.Viewer}, viewerReads},
		"admin of another project": {"other@example.com", map[string]identity.Role{"q": identity.Admin}, nil},
		"object viewer by policy":  {"bound@example.com", map[string]identity.Role{"q": identity.Viewer}, objectReads},
		"dead token":               {"dead@example.com", map[string]identity.Role{"p": identity.Admin}, nil},
		"deleted key":              {"up@p.iam.tategu.internal", nil, nil},
	}
	routes := gcs.Routes(newGuarded(t).h)
	slices.Sort(routes)
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller := callers[name]
			g := newGuarded(t)
			if _, err := g.blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "object"}, strings.NewReader("x"), blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
			g.bind("roles/storage.objectViewer", "user:bound@example.com")
			token, closed := "", http.StatusUnauthorized
			if len(caller.grants) > 0 {
				token, closed = g.token(caller.email, caller.grants), http.StatusForbidden
			}
			if name == "deleted key" {
				token = g.deletedKey(caller.email)
			}
			if name == "dead token" {
				closed = http.StatusUnauthorized
				if err := g.authority.RevokeSecret(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			for _, route := range routes {
				w := g.do(token, method(route), urlOf(route), bodyOf(route), "Content-Type", "application/json")
				open := slices.Contains(caller.open, route) || slices.Contains(everybody, route) && !strings.HasPrefix(name, "de")
				refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden
				switch {
				case open && (refused || w.Code >= 500 && w.Code != 501):
					t.Errorf("%s is closed: %d %s", route, w.Code, w.Body)
				case !open && w.Code != closed:
					t.Errorf("%s = %d, want %d: %s", route, w.Code, closed, w.Body)
				}
			}
			if ok, err := g.blobs.Exists(t.Context(), "gs://bucket/object"); err != nil || !ok {
				t.Errorf("the object is gone: %v", err)
			}
		})
	}
}

// deletedKey gives what a client signs with a key that was deleted meanwhile.
func (g *guarded) deletedKey(email string) string {
	g.t.Helper()
	k, private, err := g.authority.CreateAccountKey(g.t.Context(), email)
	if err != nil {
		g.t.Fatal(err)
	}
	now := g.clock.now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"iss": k.Email, "sub": k.Email, "iat": now.Unix(), "exp": now.Unix() + 600})
	token.Header["kid"] = k.ID
	text, err := token.SignedString(private)
	if err != nil {
		g.t.Fatal(err)
	}
	if w := g.do(text, "GET", "/storage/v1/b/bucket", ""); w.Code != http.StatusOK {
		g.t.Fatalf("the key does not work: %d %s", w.Code, w.Body)
	}
	if err := g.authority.DeleteAccountKey(g.t.Context(), k.Email, k.ID); err != nil {
		g.t.Fatal(err)
	}
	return text
}

func method(route string) string { return strings.Fields(route)[1] }

// urlOf makes an address of a route with everything that routes ask for.
func urlOf(route string) string {
	service, rest, _ := strings.Cut(route, " ")
	_, pattern, _ := strings.Cut(rest, " ")
	const all = "project=p&uploadType=media&name=new&upload_id=none&destination=copy&permissions=storage.buckets.delete&serviceAccountEmail=x@p.iam.tategu.internal"
	if service == "xml" {
		return "/bucket/object"
	}
	for strings.Contains(pattern, "*") {
		before, _, _ := strings.Cut(pattern, "*")
		one := "object"
		switch {
		case strings.HasSuffix(before, "b/"):
			one = "bucket"
		case strings.HasSuffix(before, "projects/"):
			one = "p"
		}
		pattern = strings.Replace(pattern, "*", one, 1)
	}
	prefix := map[string]string{"json": "/storage/v1/", "upload": "/upload/storage/v1/", "download": "/download/storage/v1/", "batch": "/batch/storage/v1"}[service]
	if service == "batch" {
		return prefix
	}
	return prefix + pattern + "?" + all
}

func bodyOf(route string) string {
	switch {
	case strings.HasPrefix(route, "batch"):
		return ""
	case strings.HasSuffix(route, "compose"):
		return `{"sourceObjects":[{"name":"object"}]}`
	case route == "json POST b":
		return `{"name":"another-bucket"}`
	}
	return "{}"
}

func TestOpenToEverybody(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	if _, err := g.blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "a/b"}, strings.NewReader("data"), blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	reads := []string{"/bucket/a/b", "/storage/v1/b/bucket/o/a%2Fb?alt=media", "/download/storage/v1/b/bucket/o/a%2Fb?alt=media", "/storage/v1/b/bucket/o"}
	for _, url := range reads {
		check(t, g.do("", "GET", url, ""), 401)
	}
	g.bind("roles/storage.objectViewer", "allUsers")
	for _, url := range reads {
		check(t, g.do("", "GET", url, ""), 200)
	}
	check(t, g.do("", "GET", "/storage/v1/b/bucket", ""), 401)
	check(t, g.do("", "DELETE", "/storage/v1/b/bucket/o/a%2Fb", ""), 401)
	check(t, g.do("", "GET", "/storage/v1/b/bucket/iam/testPermissions?permissions=storage.objects.get&permissions=storage.objects.delete", ""),
		200, `"permissions":["storage.objects.get"]`)
	// Prevention closes what a policy opened.
	if _, err := g.blobs.UpdateBucket(t.Context(), "bucket", blob.Conditions{}, func(b *blob.Bucket) error {
		b.PublicAccessPrevention = "enforced"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, url := range reads {
		check(t, g.do("", "GET", url, ""), 401)
	}
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	check(t, g.do(admin, "PUT", "/storage/v1/b/bucket/iam", `{"bindings":[{"role":"roles/storage.objectViewer","members":["allUsers"]}]}`),
		412, "conditionNotMet", "public access prevention")
}

func TestPolicyIsKeptAndChecked(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	const iam = "/storage/v1/b/bucket/iam"
	read := func() (etag string) {
		var p struct {
			ETag     string `json:"etag"`
			Bindings []struct{ Role string }
		}
		w := g.do(admin, "GET", iam+"?optionsRequestedPolicyVersion=3", "")
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 || p.ETag == "" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return p.ETag
	}
	first := read()
	const binding = `"bindings":[{"role":"roles/storage.objectAdmin","members":["user:ann@example.com"]}]`
	check(t, g.do(admin, "PUT", iam, `{"version":3,`+binding+`,"etag":"`+first+`"}`), 200, `"version":3`, "roles/storage.objectAdmin", "user:ann@example.com")
	check(t, g.do(admin, "PUT", iam, `{"etag":"`+first+`"}`), 412, "conditionNotMet", "changed since it was read")
	check(t, g.do(admin, "PUT", iam, `{`+binding+`}`), 200) // without an etag the last one wins
	if second := read(); second == first {
		t.Error("another policy has the same etag")
	}
	for body, part := range map[string]string{
		`{"bindings":[{"role":"roles/owner","members":["user:ann@example.com"]}]}`: "roles/owner",
		`{"bindings":[{"role":"roles/storage.admin","members":["ann"]}]}`:          "ann",
		`{"version":7,` + binding + `}`:                                            "7 is not a version",
	} {
		check(t, g.do(admin, "PUT", iam, body), 400, part)
	}
	check(t, g.do(admin, "PUT", iam, `{"bindings":[{"role":"roles/storage.admin","members":["group:g@example.com"]}]}`), 501, "group:g@example.com")
	check(t, g.do(admin, "PUT", iam, `{"bindings":[{"role":"roles/storage.admin","members":["allUsers"],"condition":{"expression":"true"}}]}`), 501, "condition")
	check(t, g.do(admin, "GET", iam+"?optionsRequestedPolicyVersion=0", ""), 400)
	ann := g.token("ann@example.com", map[string]identity.Role{"elsewhere": identity.Viewer})
	check(t, g.do(ann, "POST", "/upload/storage/v1/b/bucket/o?uploadType=media&name=x", "1"), 200)
	check(t, g.do(ann, "GET", iam, ""), 403)
	check(t, g.do(admin, "PUT", iam, `{}`), 200)
	check(t, g.do(ann, "GET", "/storage/v1/b/bucket/o/x", ""), 403)
}

// TestCreatorsReplaceNothing writes over an object in every way as one who may
// create objects and not delete them.
func TestCreatorsReplaceNothing(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.put("bucket", "old", "old")
	g.put("bucket", "source", "new")
	g.bind("roles/storage.objectCreator", "user:drop@example.com")
	reader := `{"bindings":[{"role":"roles/storage.objectCreator","members":["user:drop@example.com"]},{"role":"roles/storage.legacyObjectReader","members":["user:drop@example.com"]}]}`
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	check(t, g.do(admin, "PUT", "/storage/v1/b/bucket/iam", reader), 200)
	drop := g.token("drop@example.com", map[string]identity.Role{"q": identity.Viewer})
	for _, tt := range []struct {
		method, url, body string
		headers           []string
	}{
		{"POST", "/upload/storage/v1/b/bucket/o?uploadType=media&name=NAME", "new", nil},
		{"POST", "/upload/storage/v1/b/bucket/o?uploadType=resumable&name=NAME", "{}", nil},
		{"POST", "/storage/v1/b/bucket/o/source/copyTo/b/bucket/o/NAME", "{}", nil},
		{"POST", "/storage/v1/b/bucket/o/source/rewriteTo/b/bucket/o/NAME", "{}", nil},
		{"POST", "/storage/v1/b/bucket/o/NAME/compose", `{"sourceObjects":[{"name":"source"}]}`, nil},
		{"PUT", "/bucket/NAME", "new", nil},
		{"PUT", "/bucket/NAME", "", []string{"X-Goog-Copy-Source", "/bucket/source"}},
		{"PUT", "/bucket/NAME?compose", "<ComposeRequest><Component><Name>source</Name></Component></ComposeRequest>", nil},
		{"POST", "/bucket/NAME", "", []string{"X-Goog-Resumable", "start"}},
		{"POST", "/bucket/NAME?uploads", "", nil},
	} {
		w := g.do(drop, tt.method, strings.Replace(tt.url, "NAME", "old", 1), tt.body, tt.headers...)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "storage.objects.delete") {
			t.Errorf("%s %s over an object: %d %s", tt.method, tt.url, w.Code, w.Body)
		}
		name := "new-" + strings.ToLower(rand.Text())
		if w := g.do(drop, tt.method, strings.Replace(tt.url, "NAME", name, 1), tt.body, tt.headers...); w.Code >= 300 {
			t.Errorf("%s %s of a new object: %d %s", tt.method, tt.url, w.Code, w.Body)
		}
	}
	got, err := g.blobs.ReadAll(t.Context(), "gs://bucket/old", 0)
	if err != nil || string(got) != "old" {
		t.Errorf("the object is %q, %v", got, err)
	}
	// A session that began before the object was there loses to it.
	session := g.do(drop, "POST", "/upload/storage/v1/b/bucket/o?uploadType=resumable&name=race", "{}").Header().Get("Location")
	g.put("bucket", "race", "first")
	check(t, g.do(drop, "PUT", session, "second"), 412)
	check(t, g.do(drop, "POST", "/storage/v1/b/bucket/o/joined/compose", `{"sourceObjects":[{"name":"source"}],"deleteSourceObjects":true}`), 403)
}

func TestMissingBucketIsSeenByWhoCouldOpenIt(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	viewer := g.token("ann@example.com", map[string]identity.Role{"elsewhere": identity.Viewer})
	for _, tt := range []struct {
		token, method, url string
		status             int
	}{
		{viewer, "GET", "/storage/v1/b/no-such-bucket", 404},
		{viewer, "GET", "/storage/v1/b/no-such-bucket/o/x", 404},
		{viewer, "GET", "/storage/v1/b/no-such-bucket/iam/testPermissions?permissions=storage.objects.get", 404},
		{viewer, "DELETE", "/storage/v1/b/no-such-bucket", 403},
		{"", "GET", "/storage/v1/b/no-such-bucket", 401},
		{"", "GET", "/no-such-bucket/x", 401},
	} {
		check(t, g.do(tt.token, tt.method, tt.url, ""), tt.status)
	}
}
