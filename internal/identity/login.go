package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Access is a short-lived bearer token.
type Access struct {
	Token   string
	Expires time.Time
}

// Refresh makes an access token of at most an hour from a refresh token. It
// writes nothing: the access token dies with the refresh token.
func (a *Authority) Refresh(ctx context.Context, refreshToken string) (Access, error) {
	row, err := a.provenRow(ctx, refreshToken)
	if err != nil {
		return Access{}, err
	}
	if row.Kind != TokenRefresh {
		return Access{}, unauthenticated("the token endpoint takes refresh tokens, not %s tokens", row.Kind)
	}
	return a.access(row), nil
}

func (a *Authority) access(row tokenRow) Access {
	expires := a.now().UTC().Truncate(time.Second).Add(shortLifetime)
	if !row.Expires.IsZero() && row.Expires.Before(expires) {
		expires = row.Expires
	}
	return Access{Token: a.shortLived(row, expires), Expires: expires}
}

// Describe gives what a bearer token stands for and when it ends (zero: when it
// is revoked); it proves the token first.
func (a *Authority) Describe(ctx context.Context, bearer string) (Principal, time.Time, error) {
	bearer = strings.TrimSpace(bearer)
	if looksLikeJWT(bearer) {
		return a.selfSigned(ctx, bearer)
	}
	p, err := a.Authenticate(ctx, bearer)
	if err != nil {
		return Principal{}, time.Time{}, err
	}
	row, err := a.tokenRow(ctx, p.TokenID)
	if err != nil {
		return Principal{}, time.Time{}, err
	}
	expires := row.Expires
	if t, _ := parseToken(bearer); t.shortLived() && (expires.IsZero() || t.expiry.Before(expires)) {
		expires = t.expiry
	}
	return p, expires, nil
}

// Login exchanges an access token made by `tategu token create` for a refresh
// token with the same rights and the same end; revoking the first ends both. A
// short-lived token is refused: it must not be turned into a lasting one.
func (a *Authority) Login(ctx context.Context, accessToken string) (refreshToken string, t Token, err error) {
	row, err := a.provenRow(ctx, accessToken)
	if err != nil {
		return "", Token{}, err
	}
	if row.Kind != TokenAccess {
		return "", Token{}, unauthenticated("a login takes a token made by `tategu token create`, not a %s token", row.Kind)
	}
	return a.saveToken(ctx, tokenRow{Token: Token{
		Kind: TokenRefresh, Email: row.Email, Grants: row.Grants, Created: a.now().UTC().Truncate(time.Second), Expires: row.Expires, Parent: row.ID, Vouched: row.Vouched,
	}})
}

// OperatorRefreshToken gives the refresh token of the person who runs the
// server, an administrator of every project. It is kept in the key directory, so
// that restarts leave the credential files made from it good.
func (a *Authority) OperatorRefreshToken(ctx context.Context) (string, error) {
	path := filepath.Join(a.dir, "operator.token")
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		token := strings.TrimSpace(string(b))
		_, err := a.Refresh(ctx, token)
		if err == nil || !isUnauthenticated(err) {
			return token, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("operator token: %w", err)
	}
	now := a.now().UTC().Truncate(time.Second)
	token, _, err := a.saveToken(ctx, tokenRow{Token: Token{
		Kind: TokenRefresh, Email: OperatorEmail, Grants: map[string]Role{"*": Admin}, Created: now, Vouched: true,
	}})
	if err != nil {
		return "", err
	}
	return token, writePrivate(path, token+"\n")
}

// writePrivate replaces a file in one step, readable by its owner only.
func writePrivate(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(filepath.Dir(path))
}

func isUnauthenticated(err error) bool { return resource.CodeOf(err) == codes.Unauthenticated }
