package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"tategu/internal/api/registry"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/store/sqlite"
)

type world struct {
	t         *testing.T
	server    *httptest.Server
	authority *identity.Authority
	images    *image.Store
	host      string
}

// newWorld serves a registry with the road that the wire gives it. With loopback,
// callers without a credential are the operator.
func newWorld(t *testing.T, loopback bool) *world {
	t.Helper()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	if w.authority, err = identity.NewAuthority(rows, filepath.Join(dir, "identity"), time.Now); err != nil {
		t.Fatal(err)
	}
	w.images = image.New(rows, blob.New(rows, content, time.Now), time.Now)
	h := registry.New(registry.Config{Images: w.images, Auth: w.authority, Project: "home", Log: slog.New(slog.DiscardHandler)})
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p, claimed, err := h.Prove(r)
		if err != nil {
			h.Refuse(rw, r, err)
			return
		}
		if !claimed && loopback {
			p = identity.OperatorPrincipal()
		}
		h.ServeHTTP(rw, r.WithContext(identity.NewContext(r.Context(), p)))
	}))
	w.host = strings.TrimPrefix(w.server.URL, "http://")
	t.Cleanup(func() {
		w.server.Close()
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) token(grants map[string]identity.Role, kind identity.TokenKind) remote.Option {
	w.t.Helper()
	secret, _, err := w.authority.CreateToken(w.t.Context(), identity.TokenSpec{Email: "a@example.com", Grants: grants, Kind: kind})
	if err != nil {
		w.t.Fatal(err)
	}
	return remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "anything", Password: secret}))
}

func (w *world) ref(s string) name.Reference {
	w.t.Helper()
	r, err := name.ParseReference(w.host+"/"+s, name.Insecure)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.StatusCode
	}
	return 0
}

func TestProjectsAndRolesDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	user := w.token(map[string]identity.Role{"team": identity.User}, identity.TokenAccess)
	refresh := w.token(map[string]identity.Role{"team": identity.User}, identity.TokenRefresh)
	viewer := w.token(map[string]identity.Role{"team": identity.Viewer}, identity.TokenAccess)
	stranger := w.token(map[string]identity.Role{"elsewhere": identity.Admin}, identity.TokenAccess)
	img, err := random.Image(50_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref := w.ref("team/app:v1")
	for name, tt := range map[string]struct {
		option remote.Option
		status int
	}{
		"viewer":   {viewer, http.StatusForbidden},
		"stranger": {stranger, http.StatusForbidden},
		"nobody":   {remote.WithAuth(authn.Anonymous), http.StatusUnauthorized},
		"wrong":    {remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "x", Password: "guess"})), http.StatusUnauthorized},
	} {
		if err := remote.Write(ref, img, tt.option); statusOf(err) != tt.status {
			t.Errorf("push by %s: %v, want %d", name, err, tt.status)
		}
	}
	for _, option := range []remote.Option{user, refresh} {
		if err := remote.Write(ref, img, option); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Write(w.ref("app:v1"), img, user); statusOf(err) != http.StatusForbidden {
		t.Errorf("push into the default project: %v", err)
	}
	got, err := remote.Image(ref, viewer)
	if err != nil {
		t.Fatal(err)
	}
	want, err1 := img.Digest()
	if d, err := got.Digest(); err != nil || err1 != nil || d != want {
		t.Errorf("pulled %s, %v, pushed %s, %v", d, err, want, err1)
	}
	if _, err := remote.Image(ref, stranger); statusOf(err) != http.StatusForbidden {
		t.Errorf("pull by a stranger: %v", err)
	}
	// A blob of another's project cannot be had by mounting it: the stranger, who has
	// the bytes, has to send them.
	if err := remote.Write(w.ref("elsewhere/app:v1"), img, stranger); err != nil {
		t.Error(err)
	}
	for option, want := range map[*remote.Option]string{&viewer: "team/app", &stranger: "elsewhere/app"} {
		reg, err := name.NewRegistry(w.host, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if repos, err := remote.Catalog(t.Context(), reg, *option); err != nil || fmt.Sprint(repos) != "["+want+"]" {
			t.Errorf("catalog %v, %v, want %s", repos, err, want)
		}
	}
	if err := remote.Delete(ref, viewer); statusOf(err) != http.StatusForbidden {
		t.Errorf("delete by a viewer: %v", err)
	}
	if err := remote.Delete(ref, user); err != nil {
		t.Error(err)
	}
}

// answer of one plain request.
type answer struct {
	*http.Response
	text string
	code string // of the error
}

func (w *world) do(method, path string, body io.Reader, headers ...string) answer {
	w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.server.URL + path
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
	a := answer{Response: resp, text: string(data)}
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if resp.StatusCode >= 400 && method != http.MethodHead {
		if err := json.Unmarshal(data, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
			w.t.Errorf("%s %s: the error is %q", method, path, data)
		} else {
			a.code = e.Errors[0].Code
		}
	}
	return a
}

func (w *world) expect(what string, a answer, status int, code image.Code) {
	w.t.Helper()
	if a.StatusCode != status || a.code != string(code) {
		w.t.Errorf("%s: %d %s %s, want %d %s", what, a.StatusCode, a.code, a.text, status, code)
	}
}

func TestChunkedUploads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	data := bytes.Repeat([]byte("0123456789"), 5000)
	d := string(image.DigestOf(data))
	start := w.do(http.MethodPost, "/v2/app/blobs/uploads/", nil)
	w.expect("start", start, http.StatusAccepted, "")
	at := start.Header.Get("Location")
	piece := func(method string, from, to int, headers ...string) answer {
		return w.do(method, at, bytes.NewReader(data[from:to]), append([]string{"Content-Range", strconv.Itoa(from) + "-" + strconv.Itoa(to-1)}, headers...)...)
	}
	w.expect("first piece", piece(http.MethodPatch, 0, 20_000), http.StatusAccepted, "")
	for what, from := range map[string]int{"twice": 0, "a gap": 30_000} {
		a := piece(http.MethodPatch, from, 40_000)
		w.expect(what, a, http.StatusRequestedRangeNotSatisfiable, image.ErrBlobUploadInvalid)
		if got := a.Header.Get("Range"); got != "0-19999" {
			t.Errorf("%s: Range %q", what, got)
		}
	}
	for _, bad := range []string{"x", "5-1", "0-", "-5", "20000-9223372036854775807", "20000-99999999999999999999", "bytes 0-1/2", "20000-20005"} {
		a := w.do(http.MethodPatch, at, strings.NewReader("abc"), "Content-Range", bad)
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("Content-Range %q: %d %s", bad, a.StatusCode, a.text)
		}
	}
	status := w.do(http.MethodGet, at, nil)
	if status.StatusCode != http.StatusNoContent || status.Header.Get("Range") != "0-19999" {
		t.Errorf("status: %d, Range %q", status.StatusCode, status.Header.Get("Range"))
	}
	w.expect("too early", w.do(http.MethodPut, at+"?digest="+d, nil), http.StatusBadRequest, image.ErrDigestInvalid)
	w.expect("no digest", w.do(http.MethodPut, at, nil), http.StatusBadRequest, image.ErrDigestInvalid)
	w.expect("other repository", w.do(http.MethodGet, strings.Replace(at, "/app/", "/other/", 1), nil), http.StatusNotFound, image.ErrBlobUploadUnknown)
	w.expect("a stream", w.do(http.MethodPatch, at, io.MultiReader(bytes.NewReader(data[20_000:30_000]))), http.StatusAccepted, "")
	at += "?digest=" + d
	w.expect("end", piece(http.MethodPut, 30_000, len(data)), http.StatusCreated, "")
	w.expect("after the end", piece(http.MethodPut, 30_000, len(data)), http.StatusNotFound, image.ErrBlobUploadUnknown)

	blobPath := "/v2/app/blobs/" + d
	for rng, want := range map[string]string{
		"bytes=0-9": "0123456789", "bytes=49990-": "0123456789", "bytes=-10": "0123456789", "bytes=49999-60000": "9", "bytes=5-5": "5",
	} {
		if a := w.do(http.MethodGet, blobPath, nil, "Range", rng); a.StatusCode != http.StatusPartialContent || a.text != want {
			t.Errorf("%s: %d, %d bytes", rng, a.StatusCode, len(a.text))
		}
	}
	w.expect("outside", w.do(http.MethodGet, blobPath, nil, "Range", "bytes=50000-"), http.StatusRequestedRangeNotSatisfiable, image.ErrSizeInvalid)
	for _, whole := range []string{"bytes=1-2,4-5", "lines=1-2", "bytes=9-1", "bytes=a-b"} {
		if a := w.do(http.MethodGet, blobPath, nil, "Range", whole); a.StatusCode != http.StatusOK || len(a.text) != len(data) {
			t.Errorf("%s: %d, %d bytes", whole, a.StatusCode, len(a.text))
		}
	}
	if a := w.do(http.MethodHead, blobPath, nil); a.ContentLength != int64(len(data)) || a.Header.Get("Docker-Content-Digest") != d {
		t.Errorf("HEAD: %v", a.Header)
	}
	if a := w.do(http.MethodGet, blobPath, nil, "If-None-Match", `"`+d+`"`); a.StatusCode != http.StatusNotModified {
		t.Errorf("If-None-Match: %d", a.StatusCode)
	}
}

func TestPagesAndErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"c", "a", "B", "d", "e"} {
		if err := remote.Write(w.ref("deep/er/app:"+tag), img); err != nil {
			t.Fatal(err)
		}
	}
	var pages []string
	for next := "/v2/deep/er/app/tags/list?n=2"; next != ""; {
		a := w.do(http.MethodGet, next, nil)
		var list struct{ Tags []string }
		if err := json.Unmarshal([]byte(a.text), &list); err != nil {
			t.Fatal(err)
		}
		pages = append(pages, strings.Join(list.Tags, ""))
		next, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	if got := strings.Join(pages, " "); got != "Ba cd e" {
		t.Errorf("pages %q", got)
	}
	for _, tt := range []struct {
		method, path string
		body         string
		status       int
		code         image.Code
	}{
		{"GET", "/v2/nothing/tags/list", "", 404, image.ErrNameUnknown},
		{"GET", "/v2/app/tags/list?n=x", "", 400, image.ErrUnsupported},
		{"GET", "/v2/UPPER/tags/list", "", 400, image.ErrNameInvalid},
		{"GET", "/v2/a..b/manifests/v1", "", 400, image.ErrNameInvalid},
		{"GET", "/v2/" + strings.Repeat("a/", 200) + "a/manifests/v1", "", 400, image.ErrNameInvalid},
		{"GET", "/v2/app/manifests/v1", "", 404, image.ErrManifestUnknown},
		{"GET", "/v2/app/manifests/sha256:12", "", 400, image.ErrDigestInvalid},
		{"GET", "/v2/app/blobs/sha256:12", "", 400, image.ErrDigestInvalid},
		{"GET", "/v2/app/blobs/" + string(image.DigestOf(nil)), "", 404, image.ErrBlobUnknown},
		{"GET", "/v2/app/blobs/uploads/0", "", 404, image.ErrBlobUploadUnknown},
		{"GET", "/v2/nothing", "", 404, image.ErrNameUnknown},
		{"GET", "/v2/app/referrers/x", "", 400, image.ErrDigestInvalid},
		{"POST", "/v2/app/manifests/v1", "", 405, image.ErrUnsupported},
		{"POST", "/v2/", "", 405, image.ErrUnsupported},
		{"PUT", "/v2/app/manifests/v1", "{", 400, image.ErrManifestInvalid},
		{"PUT", "/v2/app/manifests/v1", strings.Repeat(" ", image.MaxManifest+1), 413, image.ErrSizeInvalid},
		{"DELETE", "/v2/app/manifests/v1", "", 404, image.ErrManifestUnknown},
		{"DELETE", "/v2/app/blobs/" + string(image.DigestOf(nil)), "", 404, image.ErrBlobUnknown},
		{"POST", "/v2/app/blobs/uploads/?digest=x", "", 400, image.ErrDigestInvalid},
		{"POST", "/v2/app/blobs/uploads/?digest=" + string(image.DigestOf(nil)), "x", 400, image.ErrDigestInvalid},
		{"POST", "/v2/token", "", 400, image.ErrUnsupported},
		{"POST", registry.CollectPath, `{"age":"1s"}`, 400, image.ErrUnsupported},
	} {
		w.expect(tt.method+" "+tt.path, w.do(tt.method, tt.path, strings.NewReader(tt.body)), tt.status, tt.code)
	}
}

func TestMountsAndWhoMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	data := []byte("a blob")
	d := string(image.DigestOf(data))
	w.expect("push", w.do(http.MethodPost, "/v2/one/blobs/uploads/?digest="+d, bytes.NewReader(data)), http.StatusCreated, "")
	w.expect("mount", w.do(http.MethodPost, "/v2/two/blobs/uploads/?mount="+d+"&from=one", nil), http.StatusCreated, "")
	w.expect("from anywhere", w.do(http.MethodPost, "/v2/three/blobs/uploads/?mount="+d, nil), http.StatusCreated, "")
	w.expect("from nowhere", w.do(http.MethodPost, "/v2/four/blobs/uploads/?mount="+d+"&from=none", nil), http.StatusAccepted, "")
	for _, repo := range []string{"two", "three"} {
		if a := w.do(http.MethodGet, "/v2/"+repo+"/blobs/"+d, nil); a.text != string(data) {
			t.Errorf("%s: %d %s", repo, a.StatusCode, a.text)
		}
	}
	w.expect("not mounted", w.do(http.MethodGet, "/v2/four/blobs/"+d, nil), http.StatusNotFound, image.ErrBlobUnknown)
}

func TestAcceptIsNegotiated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	idx, err := random.Index(100, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(w.ref("app:all"), idx); err != nil {
		t.Fatal(err)
	}
	for accept, status := range map[string]int{
		"": 200, "*/*": 200, image.TypeDockerList + ", " + image.TypeOCIIndex: 200, image.TypeDockerManifest: 404, "application/json": 200, image.TypeOCIIndex + ";q=0": 404,
	} {
		headers := []string{"Accept", accept}
		if accept == "" {
			headers = nil
		}
		if a := w.do(http.MethodGet, "/v2/app/manifests/all", nil, headers...); a.StatusCode != status {
			t.Errorf("Accept %q: %d %s", accept, a.StatusCode, a.text)
		}
	}
}

func TestTokensForDocker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	secret, _, err := w.authority.CreateToken(t.Context(), identity.TokenSpec{Email: "a@example.com", Grants: map[string]identity.Role{"*": identity.Admin}})
	if err != nil {
		t.Fatal(err)
	}
	base := w.do(http.MethodGet, "/v2/", nil)
	w.expect("base", base, http.StatusUnauthorized, image.ErrUnauthorized)
	if got, want := base.Header.Get("WWW-Authenticate"), `Bearer realm="`+w.server.URL+`/v2/token",service="`+w.host+`"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	w.expect("token of nobody", w.do(http.MethodGet, "/v2/token", nil), http.StatusUnauthorized, image.ErrUnauthorized)
	form := url.Values{"grant_type": {"password"}, "username": {"x"}, "password": {secret}}
	a := w.do(http.MethodPost, "/v2/token", strings.NewReader(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		Token     string `json:"access_token"`
		ExpiresIn int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(a.text), &answer); err != nil || answer.ExpiresIn < 60 {
		t.Fatalf("token: %s, %v", a.text, err)
	}
	w.expect("with it", w.do(http.MethodGet, "/v2/", nil, "Authorization", "Bearer "+answer.Token), http.StatusOK, "")
	w.expect("digest", w.do(http.MethodGet, "/v2/", nil, "Authorization", "Digest x"), http.StatusUnauthorized, image.ErrUnauthorized)
}
