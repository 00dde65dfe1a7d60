package registry

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/resource"
)

// Prove reads the credential of a request, as wire.Route.Prove asks for: a bearer
// token, or Basic with any user name and a token as the password. A request with
// none claims nothing.
func (h *Handler) Prove(r *http.Request) (p identity.Principal, claimed bool, err error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return p, false, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	switch strings.ToLower(scheme) {
	case "bearer":
	case "basic":
		_, password, ok := r.BasicAuth()
		if !ok {
			return p, true, image.Refuse(image.ErrUnauthorized, "the Authorization header is not well formed")
		}
		if token, _, err = h.bearer(r.Context(), password); err != nil {
			return p, true, err
		}
	default:
		return p, true, image.Refuse(image.ErrUnauthorized, "authorization by %.20q is not supported", scheme)
	}
	p, err = h.Auth.Authenticate(r.Context(), token)
	return p, true, err
}

// bearer gives the bearer token that a password stands for: itself, or one made
// from it when it is a refresh token.
func (h *Handler) bearer(ctx context.Context, password string) (token string, expires time.Time, err error) {
	_, err = h.Auth.Authenticate(ctx, password)
	if resource.CodeOf(err) != codes.Unauthenticated {
		return password, time.Time{}, err
	}
	access, refreshErr := h.Auth.Refresh(ctx, password)
	if refreshErr != nil {
		return "", time.Time{}, err
	}
	return access.Token, access.Expires, nil
}

// challenge tells a client where tokens are given (distribution-spec refers to
// RFC 6750 and Docker's token authentication).
func challenge(r *http.Request) string {
	scheme := "https"
	if r.TLS == nil && r.Header.Get("X-Forwarded-Proto") != "https" {
		scheme = "http"
	}
	return `Bearer realm="` + scheme + "://" + quotable(r.Host) + tokenPath + `",service="` + quotable(r.Host) + `"`
}

// quotable keeps what a host is made of.
func quotable(host string) string {
	return strings.Map(func(c rune) rune {
		if c < '!' || c > '~' || c == '"' || c == '\\' {
			return -1
		}
		return c
	}, host)
}

// tokenLife is what a client is told of tokens that live longer.
const tokenLife = time.Hour

// token answers Docker's token requests: GET with Basic, and POST as OAuth 2 with a
// password or a refresh token. The scope is not looked at, since rights are the
// token's own.
func (c *call) token() error {
	if err := c.only(http.MethodGet, http.MethodPost); err != nil {
		return err
	}
	var secret string
	if c.r.Method == http.MethodPost {
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, 64<<10)
		switch grant := c.r.PostFormValue("grant_type"); grant {
		case "password":
			secret = c.r.PostFormValue("password")
		case "refresh_token":
			secret = c.r.PostFormValue("refresh_token")
		default:
			return resource.Invalid("grant_type", "grant type %.40q is not supported", grant).WithHint("use password or refresh_token")
		}
	} else if _, password, ok := c.r.BasicAuth(); ok {
		secret = password
	}
	if secret == "" {
		return image.Refuse(image.ErrUnauthorized, "a token is given for a user name and a password").
			WithHint("any user name, and a token of `tategu token create` as the password")
	}
	token, expires, err := c.bearer(c.ctx(), secret)
	if err != nil {
		return err
	}
	now := time.Now()
	life := tokenLife
	if !expires.IsZero() {
		life = min(life, expires.Sub(now))
	}
	c.w.Header().Set("Cache-Control", "no-store")
	answer := map[string]any{"token": token, "access_token": token, "expires_in": int(life.Seconds()), "issued_at": now.UTC().Format(time.RFC3339)}
	if c.r.Method == http.MethodPost {
		answer["refresh_token"] = secret
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}
