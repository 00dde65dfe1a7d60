package admin

import (
	"net/http"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// ShadowPath is where the comparison of an endpoint with its shadow is asked for.
const ShadowPath = "/tategu/v1/shadow"

// ShadowHandler is an http.Handler for ShadowPath: GET with the parameter endpoint, a
// full name. The answer is a shadow.Report.
type ShadowHandler struct {
	auth   Authority
	report func(endpoint string) ([]byte, error)
}

// NewShadow builds the handler.
func NewShadow(auth Authority, report func(endpoint string) ([]byte, error)) *ShadowHandler {
	return &ShadowHandler{auth: auth, report: report}
}

// ServeHTTP implements http.Handler. Who may see an endpoint may see how its shadow does.
func (h *ShadowHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != ShadowPath || r.Method != http.MethodGet {
		writeError(w, resource.Unimplemented(r.Method+" of "+r.URL.Path))
		return
	}
	name, err := resource.ParseName(r.URL.Query().Get("endpoint"))
	if err != nil || name.Collection() != "endpoints" {
		writeError(w, resource.Invalid("endpoint", "%q is not the name of an endpoint", r.URL.Query().Get("endpoint")))
		return
	}
	if err := h.auth.Authorize(r.Context(), identity.FromContext(r.Context()), name.Project(), "aiplatform.endpoints.get"); err != nil {
		writeError(w, err)
		return
	}
	data, err := h.report(name.String())
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(data) // the client is gone
}
