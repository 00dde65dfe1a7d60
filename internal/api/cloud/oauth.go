package cloud

import (
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

const (
	formLimit     = 64 << 10
	cloudPlatform = "https://www.googleapis.com/auth/cloud-platform"
)

const (
	grantRefresh   = "refresh_token"
	grantAssertion = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// token is the OAuth token endpoint: refresh tokens (RFC 6749, section 6) or
// assertions signed with a service account's key (RFC 7523) in, access tokens of
// at most an hour out. Client id and secret are not looked at: the client is
// public, the refresh token or the signature is the proof.
func (s *Service) token(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, formLimit)
	if err := r.ParseForm(); err != nil {
		return writeOAuthError(w, "invalid_request", "the body is not a form")
	}
	var access identity.Access
	var err error
	switch grant := r.PostForm.Get("grant_type"); grant {
	case grantRefresh:
		access, err = s.authority.Refresh(r.Context(), r.PostForm.Get("refresh_token"))
	case grantAssertion:
		access, err = s.authority.Exchange(r.Context(), r.PostForm.Get("assertion"), s.tokenAudiences(r)...)
	default:
		return writeOAuthError(w, "unsupported_grant_type", "grant type "+strconv.Quote(grant[:min(len(grant), 80)])+" is not supported; use refresh_token or jwt-bearer")
	}
	if resource.CodeOf(err) == codes.Unauthenticated {
		return writeOAuthError(w, "invalid_grant", err.Error())
	}
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{
		"access_token": access.Token, "token_type": "Bearer", "scope": cloudPlatform,
		"expires_in": int(access.Expires.Sub(s.cfg.Now()).Seconds()),
	})
}

// tokenURL is what key files name as their token endpoint.
func (s *Service) tokenURL() string { return "https://" + s.cfg.Public() + "/token" }

// tokenAudiences are the addresses that an assertion for this endpoint can name:
// Python's client writes the cloud's own whatever the key file says
// (google/oauth2/service_account.py), others the one of the file.
func (s *Service) tokenAudiences(r *http.Request) []string {
	return []string{
		"https://oauth2.googleapis.com/token", "https://www.googleapis.com/oauth2/v4/token", "https://accounts.google.com/o/oauth2/token",
		s.tokenURL(), "https://" + r.Host + "/token", "http://" + r.Host + "/token",
	}
}

// tokenInfo tells what an access token is; the token itself is the permission.
func (s *Service) tokenInfo(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, formLimit)
	if err := r.ParseForm(); err != nil {
		return writeOAuthError(w, "invalid_request", "the body is not a form")
	}
	token := r.Form.Get("access_token")
	if token == "" {
		token = r.Form.Get("token")
	}
	if token == "" {
		token, _ = bearer(r)
	}
	p, expires, err := s.authority.Describe(r.Context(), token)
	if resource.CodeOf(err) == codes.Unauthenticated {
		return writeOAuthError(w, "invalid_token", err.Error())
	}
	if err != nil {
		return err
	}
	answer := map[string]any{
		"azp": identity.ClientID, "aud": identity.ClientID, "scope": cloudPlatform, "email": p.Email, "email_verified": "true", "access_type": "offline",
	}
	if !expires.IsZero() {
		answer["exp"] = strconv.FormatInt(expires.Unix(), 10)
		answer["expires_in"] = strconv.Itoa(int(expires.Sub(s.cfg.Now()).Seconds()))
	}
	return writeJSON(w, answer)
}

// revoke is RFC 7009: whoever has the token may end it.
func (s *Service) revoke(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, formLimit)
	if err := r.ParseForm(); err != nil {
		return writeOAuthError(w, "invalid_request", "the body is not a form")
	}
	if err := s.authority.RevokeSecret(r.Context(), r.Form.Get("token")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// allowedLocations answers what google-auth asks in the background after a
// refresh (google/auth/_regional_access_boundary_utils.py): no boundary.
func allowedLocations(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, map[string]any{"locations": []string{}, "encodedLocations": "0x0"})
}

func unsupported(method string) func(http.ResponseWriter, *http.Request) error {
	return func(http.ResponseWriter, *http.Request) error {
		return resource.Unimplemented(method).WithHint("use a login file: run `tategu login`")
	}
}
