package aiplatform

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// torchManager notes what it is asked.
type torchManager struct {
	endpoint string
	asked    serving.Request
}

func (m *torchManager) Manage(_ context.Context, endpoint string, r serving.Request) (*modelformat.TorchAnswer, error) {
	m.endpoint, m.asked = endpoint, r
	return &modelformat.TorchAnswer{Status: http.StatusAccepted, ContentType: "application/json", Body: []byte("{}")}, nil
}

// only has one permission, in project p.
type only string

func (o only) Authorize(_ context.Context, _ identity.Principal, project, permission string) error {
	if project != "p" || permission != string(o) {
		return resource.Errorf(codes.PermissionDenied, "no %s in %s", permission, project)
	}
	return nil
}

func (only) ProjectID(ctx context.Context, number string) (string, error) {
	return rights{}.ProjectID(ctx, number)
}

func TestTorchManagement(t *testing.T) {
	t.Parallel()
	const base = "/v1/projects/42/locations/l/endpoints/7/deployedModels/9/torchserve"
	for _, c := range []struct {
		method, path string
		may          only
		code         codes.Code
		route        string
	}{
		{http.MethodGet, "/models?limit=3", "aiplatform.endpoints.get", codes.OK, "/models?limit=3"},
		{http.MethodGet, "/models/m/1.0", "aiplatform.endpoints.get", codes.OK, "/models/m/1.0"},
		{http.MethodGet, "/models", "aiplatform.endpoints.predict", codes.PermissionDenied, ""},
		{http.MethodPost, "/models?url=gs://b/m.mar", "aiplatform.models.upload", codes.OK, "/models?url=gs://b/m.mar"},
		{http.MethodPost, "/models?url=x", "aiplatform.endpoints.get", codes.PermissionDenied, ""},
		{http.MethodPut, "/models/a%2Fb/1.0/set-default", "aiplatform.models.upload", codes.OK, "/models/a%2Fb/1.0/set-default"},
		{http.MethodDelete, "/models/m", "aiplatform.endpoints.get", codes.PermissionDenied, ""},
		{http.MethodGet, "/workflows", "aiplatform.endpoints.get", codes.OK, "/workflows"},
		{http.MethodPost, "/workflows?url=gs://b/w.war", "aiplatform.models.upload", codes.OK, "/workflows?url=gs://b/w.war"},
		{http.MethodPost, "/workflows?url=gs://b/w.war", "aiplatform.endpoints.get", codes.PermissionDenied, ""},
		{http.MethodDelete, "/workflows/w", "aiplatform.models.upload", codes.OK, "/workflows/w"},
		{http.MethodGet, "/metrics?name[]=a", "aiplatform.endpoints.get", codes.OK, "/metrics?name[]=a"},
		{http.MethodPost, "/metrics", "aiplatform.models.upload", codes.Unimplemented, ""},
		{http.MethodGet, "/metrics/a", "aiplatform.endpoints.get", codes.Unimplemented, ""},
		{http.MethodGet, "/workflowsx", "aiplatform.endpoints.get", codes.Unimplemented, ""},
		{http.MethodGet, "/token?type=inference", "aiplatform.endpoints.get", codes.Unimplemented, ""},
		{http.MethodGet, "/token?type=inference", "aiplatform.endpoints.predict", codes.PermissionDenied, ""},
		{http.MethodPut, "/", "aiplatform.models.upload", codes.Unimplemented, ""},
		{http.MethodGet, "/modelsx", "aiplatform.endpoints.get", codes.Unimplemented, ""},
	} {
		m, w := &torchManager{}, httptest.NewRecorder()
		h := NewTorchManagement(m, c.may)
		r := httptest.NewRequest(c.method, base+c.path, strings.NewReader("in"))
		if !h.Owns(r) {
			t.Errorf("%s is nobody's", c.path)
			continue
		}
		err := h.Serve(w, r)
		if resource.CodeOf(err) != c.code || m.asked.Route != c.route {
			t.Errorf("%s %s as %s: %v, asked %q", c.method, c.path, c.may, err, m.asked.Route)
			continue
		}
		if err == nil && (m.endpoint != "projects/p/locations/l/endpoints/7" || m.asked.DeployedModel != "9" || m.asked.Method != c.method || w.Code != http.StatusAccepted || w.Body.String() != "{}") {
			t.Errorf("%s %s: asked %s %+v, answered %d %s", c.method, c.path, m.endpoint, m.asked, w.Code, w.Body)
		}
	}
	for _, path := range []string{base, "/v1/projects/p/locations/l/endpoints/7/torchserve/models", strings.Replace(base, "v1", "v2", 1) + "/models", strings.Replace(base, "/9/", "//", 1) + "/models"} {
		if NewTorchManagement(&torchManager{}, only("")).Owns(httptest.NewRequest(http.MethodGet, path, http.NoBody)) {
			t.Errorf("%s is taken for TorchServe's management", path)
		}
	}
}

func FuzzTorchManagement(f *testing.F) {
	f.Add("/v1/projects/p/locations/l/endpoints/7/deployedModels/9/torchserve/models/m/1.0")
	f.Add("/v1beta1/projects//locations//endpoints//deployedModels//torchserve/")
	f.Fuzz(func(t *testing.T, path string) {
		v, ok := parseTorchManagement(path)
		if !ok {
			return
		}
		if v.model == "" || strings.ContainsAny(v.project+v.location+v.endpoint+v.model, "/") || !strings.HasSuffix(path, "/torchserve"+v.route) {
			t.Errorf("%q is %+v", path, v)
		}
	})
}
