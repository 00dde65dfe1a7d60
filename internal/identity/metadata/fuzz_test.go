package metadata

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/identity"
	"tategu/internal/store/sqlite"
)

// FuzzMetadataPaths: no path makes the metadata server fail, and without the
// secret path of the task nothing is given away.
func FuzzMetadataPaths(f *testing.F) {
	dir := f.TempDir()
	st, err := sqlite.Open(context.Background(), filepath.Join(dir, "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = st.Close() })
	a, err := identity.NewAuthority(st, filepath.Join(dir, "keys"), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	s := New(a, slog.New(slog.DiscardHandler), time.Now)
	secret := "s3cret"
	const prefix = "/computeMetadata/v1/instance/service-accounts/default/"
	for _, p := range []string{"/", prefix + "token", prefix + "token?scopes=a,b", prefix + "?recursive=true", prefix + "identity?audience=x", "/computeMetadata/v1/project/project-id", prefix + "../../..", "/t/x/computeMetadata/v1", "//", "/computeMetadata/v1/instance/service-accounts/%2e%2e/token", "/%00"} {
		f.Add(p, "GET", "Google", true)
		f.Add(p, "HEAD", "", false)
	}
	t := &task{Task: identity.Task{ID: "w", Project: "p", Email: "default@p.iam.tategu.internal", Path: secret}, address: "127.0.0.1:1"}
	h := s.handler(t)
	f.Fuzz(func(t *testing.T, path, method, flavor string, withSecret bool) {
		if withSecret {
			path = "/t/" + secret + path
		}
		u, err := url.Parse(path)
		if err != nil || !strings.HasPrefix(u.Path, "/") || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || method == "" {
			t.Skip("not a request line")
		}
		r := &http.Request{Method: method, URL: u, Host: "127.0.0.1:1", RemoteAddr: "127.0.0.1:2", Header: http.Header{"Metadata-Flavor": {flavor}}, Body: io.NopCloser(strings.NewReader(""))}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code >= http.StatusInternalServerError && !strings.Contains(w.Body.String(), "workload") && !withSecret {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		knows := u.Path == "/t/"+secret || strings.HasPrefix(u.Path, "/t/"+secret+"/")
		if w.Code == http.StatusOK && (!knows || flavor != "Google") {
			t.Errorf("%s %q with flavor %q gave %s", method, path, flavor, w.Body)
		}
	})
}
