package gcs

import (
	"net/http"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Prove reads the signature of a signed URL. A request that carries one is judged
// by it alone.
func (h *Handler) Prove(r *http.Request) (p identity.Principal, claimed bool, err error) {
	q := r.URL.Query()
	if q.Has("X-Goog-Signature") || q.Has("Signature") {
		return p, true, resource.Errorf(codes.PermissionDenied, "the URL is signed with a key that this server never issued").
			WithHint("signed URLs are not supported yet: send a token")
	}
	return p, false, nil
}

// Refuse answers with an error in the form of the API that was called.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	t, perr := parseTarget(r.Host, r.URL.EscapedPath())
	h.writeError(w, r, perr == nil && t.service == serviceXML, err)
}
