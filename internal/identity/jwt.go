package identity

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tategu/internal/resource"
)

// Bounds of the assertions that key files sign
// (developers.google.com/identity/protocols/oauth2/service-account).
const (
	jwtMax      = 8 << 10
	jwtLifetime = time.Hour
	jwtSkew     = 5 * time.Minute
)

func looksLikeJWT(s string) bool { return strings.Count(s, ".") == 2 && strings.HasPrefix(s, "ey") }

// assertionClaims are what clients write into the JWTs that they sign.
type assertionClaims struct {
	jwt.RegisteredClaims
	TargetAudience string `json:"target_audience"` // asks for an ID token
}

// verifyAssertion checks a JWT signed with a key that this server issued: the key
// is found by its id, the algorithm is RS256 and no other, and the account may
// speak for itself only. The audience is the caller's to check.
func (a *Authority) verifyAssertion(ctx context.Context, text string) (AccountKey, assertionClaims, error) {
	var key AccountKey
	var claims assertionClaims
	if len(text) > jwtMax {
		return key, claims, unauthenticated("the JWT is longer than %d bytes", jwtMax)
	}
	var inner error // ours, not the token's fault
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(a.now), jwt.WithStrictDecoding())
	_, err := parser.ParseWithClaims(text, &claims, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		var err error
		if key, err = a.accountKey(ctx, id); err != nil {
			if !resource.IsNotFound(err) {
				inner = err
			}
			return nil, err
		}
		return key.Public()
	})
	switch {
	case inner != nil:
		return key, claims, inner
	case errors.Is(err, jwt.ErrTokenExpired):
		return key, claims, unauthenticated("the JWT has expired")
	case err != nil:
		return key, claims, unauthenticated("the JWT is not signed with a key that this server issued (RS256, with the key's id in its header), or is malformed")
	}
	return key, claims, a.checkAssertion(key, claims)
}

func (a *Authority) checkAssertion(key AccountKey, c assertionClaims) error {
	now := a.now()
	switch {
	case c.Issuer != key.Email:
		return unauthenticated("the JWT is issued by %.120q with a key of %s", c.Issuer, key.Email)
	case c.Subject != "" && c.Subject != c.Issuer:
		return unauthenticated("the JWT speaks for %.120q: a service account speaks for itself only", c.Subject)
	case c.IssuedAt == nil:
		return unauthenticated("the JWT does not say when it was issued (iat)")
	case c.IssuedAt.After(now.Add(jwtSkew)):
		return unauthenticated("the JWT was issued in the future: the clocks of client and server differ by more than %v", jwtSkew)
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > jwtLifetime:
		return unauthenticated("the JWT is good for longer than %v (exp - iat)", jwtLifetime)
	case len(c.Audience) > 1:
		return unauthenticated("the JWT names %d audiences", len(c.Audience))
	}
	return nil
}

// selfSigned proves a JWT that a client sends as its bearer token.
func (a *Authority) selfSigned(ctx context.Context, text string) (Principal, time.Time, error) {
	key, claims, err := a.verifyAssertion(ctx, text)
	if err != nil {
		return Principal{}, time.Time{}, err
	}
	if claims.TargetAudience != "" {
		return Principal{}, time.Time{}, unauthenticated("the JWT asks for an ID token, and is none of its own")
	}
	// Go's client writes an empty audience beside a scope.
	if len(claims.Audience) == 1 && claims.Audience[0] != "" && !isAPIAudience(claims.Audience[0]) {
		return Principal{}, time.Time{}, unauthenticated("the JWT is meant for %.120q", claims.Audience[0])
	}
	return key.principal(), claims.ExpiresAt.UTC(), nil
}

// isAPIAudience reports the address of an API as clients write it into the JWTs
// that they send to it: one made for somebody else must not be good here.
func isAPIAudience(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.User != nil {
		return false
	}
	host := u.Hostname()
	return strings.HasSuffix(host, ".googleapis.com") && host != "oauth2.googleapis.com" || host == "tategu.internal"
}

// Exchange makes an access token of at most an hour from an assertion (RFC 7523)
// signed with a key that this server issued; audiences are the addresses of the
// token endpoint. The token dies with the key.
func (a *Authority) Exchange(ctx context.Context, assertion string, audiences ...string) (Access, error) {
	key, claims, err := a.verifyAssertion(ctx, assertion)
	if err != nil {
		return Access{}, err
	}
	if claims.TargetAudience != "" {
		return Access{}, unauthenticated("ID tokens (target_audience) are not issued here")
	}
	if len(claims.Audience) != 1 || !slices.Contains(audiences, claims.Audience[0]) {
		return Access{}, unauthenticated("the assertion is meant for %.120q, not for this token endpoint", strings.Join(claims.Audience, " "))
	}
	row, err := a.tokenRow(ctx, key.TokenID)
	if resource.IsNotFound(err) {
		return Access{}, unauthenticated("the key was deleted")
	}
	if err != nil {
		return Access{}, err
	}
	return a.access(row), nil
}

// SignJWT signs the claims of a service account with the server's own key of it.
// They must be JSON; the account's rights are all that they can claim here.
func (a *Authority) SignJWT(ctx context.Context, email string, claims map[string]any) (keyID, token string, err error) {
	private, k, err := a.systemKey(ctx, email)
	if err != nil {
		return "", "", err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims(claims))
	t.Header["kid"] = k.ID
	token, err = t.SignedString(private)
	return k.ID, token, err
}
