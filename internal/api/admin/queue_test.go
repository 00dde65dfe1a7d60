package admin_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/admin"
	"tategu/internal/identity"
	"tategu/internal/store/sqlite"
)

// TestQueueIsForAdministrators: the answer names every project's work, so that an
// administrator of one project may not read it.
func TestQueueIsForAdministrators(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	authority, err := identity.NewAuthority(rows, filepath.Join(dir, "identity"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	h := admin.NewQueue(authority, func() admin.Queue {
		return admin.Queue{Waiting: []admin.QueueEntry{{Position: 1, Owner: "projects/secret/locations/l/customJobs/1"}}}
	})
	of := func(project string, role identity.Role) identity.Principal {
		return identity.Principal{Email: "somebody@example.com", Grants: map[string]identity.Role{project: role}}
	}
	for name, c := range map[string]struct {
		who    identity.Principal
		method string
		path   string
		code   int
	}{
		"nobody":                        {identity.Principal{}, http.MethodGet, admin.QueuePath, http.StatusUnauthorized},
		"a viewer of all":               {of("*", identity.Viewer), http.MethodGet, admin.QueuePath, http.StatusForbidden},
		"a user of all":                 {of("*", identity.User), http.MethodGet, admin.QueuePath, http.StatusForbidden},
		"an administrator of a project": {of("mine", identity.Admin), http.MethodGet, admin.QueuePath, http.StatusForbidden},
		"an administrator of all":       {of("*", identity.Admin), http.MethodGet, admin.QueuePath, http.StatusOK},
		"the operator":                  {identity.OperatorPrincipal(), http.MethodGet, admin.QueuePath, http.StatusOK},
		"a change":                      {identity.OperatorPrincipal(), http.MethodDelete, admin.QueuePath, http.StatusNotImplemented},
		"a path below":                  {identity.OperatorPrincipal(), http.MethodGet, admin.QueuePath + "/1", http.StatusNotImplemented},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(identity.NewContext(t.Context(), c.who), c.method, c.path, nil))
		if told := strings.Contains(w.Body.String(), "projects/secret"); w.Code != c.code || told != (c.code == http.StatusOK) {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.code)
		}
	}
}
