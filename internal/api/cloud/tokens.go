package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

const bodyLimit = 64 << 10

// auditedProjects bounds the trails that one refused request can write to.
const auditedProjects = 100

// Names of the platform's own methods in the audit trail.
const (
	methodLogin  = "tategu.v1.Tokens/Login"
	methodCreate = "tategu.v1.Tokens/Create"
	methodRevoke = "tategu.v1.Tokens/Revoke"
)

// CreateTokenRequest is the body of POST /tategu/v1/tokens.
type CreateTokenRequest struct {
	Email  string                   `json:"email"`
	Grants map[string]identity.Role `json:"grants"`        // by project; "*" = every project
	TTL    string                   `json:"ttl,omitempty"` // as time.ParseDuration reads it; "" = 30 days
}

// CreateTokenResponse is its answer, the only one that shows the secret.
type CreateTokenResponse struct {
	identity.Token
	Secret string `json:"secret"`
}

// ListTokensResponse answers GET /tategu/v1/tokens.
type ListTokensResponse struct {
	Tokens []identity.Token `json:"tokens"`
}

// LoginResponse answers POST /tategu/v1/login: what a login file is made of.
type LoginResponse struct {
	RefreshToken string                   `json:"refreshToken"`
	Email        string                   `json:"email"`
	Expires      time.Time                `json:"expires,omitzero"`
	Grants       map[string]identity.Role `json:"grants"`
	CA           string                   `json:"ca,omitempty"` // PEM; empty when the server's certificate is not by its own authority
}

// AuditResponse answers GET /tategu/v1/audit?project=P&after=N&limit=N.
type AuditResponse struct {
	Entries []identity.AuditEntry `json:"entries"`
	Next    int64                 `json:"next"` // the "after" of the next page
}

// readBody insists on JSON: a form post is what a browser can be tricked into.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return resource.Invalid("body", "the request needs Content-Type: application/json")
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return resource.Invalid("body", "the body is not the JSON this method takes: %v", err)
	}
	return nil
}

// entry is the start of what the trail says of a request; the wire has put the
// request's id on the answer.
func entry(w http.ResponseWriter, p identity.Principal, method, about string) identity.AuditEntry {
	return identity.AuditEntry{
		Principal: p.Email, TokenID: p.TokenID, Method: method, Resource: about, RequestID: w.Header().Get("X-Request-Id"),
	}
}

// audited runs f and writes its outcome down before the answer leaves, for each
// project it was about.
func (s *Service) audited(ctx context.Context, e identity.AuditEntry, projects []string, f func() error) error {
	result := f()
	e.Code = resource.CodeOf(result)
	if len(projects) == 0 {
		projects = []string{""}
	}
	for _, p := range projects {
		e.Project = p
		if err := s.authority.Audit(ctx, e); err != nil {
			return err
		}
	}
	return result
}

func (s *Service) createToken(w http.ResponseWriter, r *http.Request) error {
	p, err := s.authorize(r.Context(), r, "", identity.Public)
	if err != nil {
		return err
	}
	var req CreateTokenRequest
	if err := readBody(w, r, &req); err != nil {
		return err
	}
	var ttl time.Duration
	if req.TTL != "" {
		if ttl, err = time.ParseDuration(req.TTL); err != nil || ttl == 0 {
			return resource.Invalid("ttl", "%.40q is not a duration", req.TTL).WithHint("write hours, such as 720h")
		}
	}
	var resp CreateTokenResponse
	about := fmt.Sprintf("tokens for %.254q", req.Email)
	err = s.audited(r.Context(), entry(w, p, methodCreate, about), s.auditProjects(r.Context(), req.Grants), func() error {
		if err := s.authority.MayGrant(r.Context(), p, req.Grants); err != nil {
			return err
		}
		resp.Secret, resp.Token, err = s.authority.CreateToken(r.Context(), identity.TokenSpec{
			Email: req.Email, Grants: req.Grants, TTL: ttl, Vouched: s.authority.MayVouch(p),
		})
		return err
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, resp)
}

// auditProjects are the ids among the projects named; what is none of ours goes
// to the trail of no project.
func (s *Service) auditProjects(ctx context.Context, grants map[string]identity.Role) []string {
	ids := map[string]bool{}
	for project := range grants {
		if len(ids) == auditedProjects {
			break
		}
		id, err := s.authority.ProjectID(ctx, project)
		if err != nil {
			id = ""
		}
		ids[id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

func (s *Service) listTokens(w http.ResponseWriter, r *http.Request) error {
	p, err := s.authorize(r.Context(), r, "", identity.Public)
	if err != nil {
		return err
	}
	tokens, err := s.authority.ListTokens(r.Context(), p)
	if err != nil {
		return err
	}
	return writeJSON(w, ListTokensResponse{Tokens: tokens})
}

func (s *Service) revokeToken(w http.ResponseWriter, r *http.Request) error {
	p, err := s.authorize(r.Context(), r, "", identity.Public)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	err = s.audited(r.Context(), entry(w, p, methodRevoke, "tokens/"+id), nil, func() error {
		return s.authority.RevokeToken(r.Context(), p, id)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, struct{}{})
}

// login exchanges the bearer token for a refresh token. The operator on loopback
// needs none and gets the one that is kept for the credential files.
func (s *Service) login(w http.ResponseWriter, r *http.Request) error {
	p, err := s.authorize(r.Context(), r, "", identity.Public)
	if err != nil {
		return err
	}
	resp := LoginResponse{Email: p.Email, Grants: p.Grants, CA: string(s.cfg.CA)}
	err = s.audited(r.Context(), entry(w, p, methodLogin, ""), nil, func() error {
		if token, ok := bearer(r); ok || !p.Operator {
			var t identity.Token
			resp.RefreshToken, t, err = s.authority.Login(r.Context(), token)
			resp.Expires = t.Expires
			return err
		}
		resp.Grants = map[string]identity.Role{"*": identity.Admin}
		resp.RefreshToken, err = s.authority.OperatorRefreshToken(r.Context())
		return err
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, resp)
}

func (s *Service) auditTrail(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	project := q.Get("project")
	if _, err := s.authorize(r.Context(), r, project, identity.PermissionListAudit); err != nil {
		return err
	}
	if project != "" {
		var err error
		if project, err = s.authority.ProjectID(r.Context(), project); err != nil {
			return err
		}
	}
	after, err := number(q.Get("after"), 0)
	if err != nil {
		return err
	}
	limit, err := number(q.Get("limit"), 100)
	if err != nil {
		return err
	}
	var resp AuditResponse
	resp.Entries, resp.Next, err = s.authority.AuditTrail(r.Context(), project, after, int(min(max(limit, 1), 1000)))
	if err != nil {
		return err
	}
	return writeJSON(w, resp)
}

func number(s string, fallback int64) (int64, error) {
	if s == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, resource.Invalid("query", "%.40q is not a number", s)
	}
	return n, nil
}
