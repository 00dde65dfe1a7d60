package identity

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Authority knows tokens, roles, projects and service accounts, and keeps the
// audit trail. All of it lives in the store, but for the installation's key.
type Authority struct {
	store  store.Store
	dir    string
	key    []byte
	policy policy
	now    func() time.Time
	tokens tokenCache
}

// NewAuthority reads or makes the installation's key in keyDir, which is private
// to the operator.
func NewAuthority(store store.Store, keyDir string, now func() time.Time) (*Authority, error) {
	key, err := loadKey(keyDir)
	if err != nil {
		return nil, err
	}
	return &Authority{store: store, dir: keyDir, key: key, policy: newPolicy(rules()), now: now}, nil
}

// OperatorEmail names the person who runs the server.
const OperatorEmail = "operator"

// OperatorPrincipal is the caller on loopback who shows no credential. Only the
// wire may decide that a request is one.
func OperatorPrincipal() Principal { return Principal{Email: OperatorEmail, Operator: true} }

// Authenticate proves who holds a bearer token. A revoked token is dead at once.
func (a *Authority) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	bearer = strings.TrimSpace(bearer)
	if looksLikeJWT(bearer) {
		p, _, err := a.selfSigned(ctx, bearer)
		return p, err
	}
	t, ok := parseToken(bearer)
	if !ok {
		return Principal{}, unauthenticated("the bearer token is not one of this server's")
	}
	row, err := a.tokenRow(ctx, t.id)
	if resource.IsNotFound(err) {
		return Principal{}, unauthenticated("the token is not known here, or was revoked")
	}
	if err != nil {
		return Principal{}, err
	}
	expiry := row.Expires
	if t.shortLived() {
		if row.Kind == TokenAccess || !equal(t.mac, a.shortMAC(row, strconv.FormatInt(t.expiry.Unix(), 36))) {
			return Principal{}, unauthenticated("the token is not known here, or was revoked")
		}
		if expiry.IsZero() || t.expiry.Before(expiry) {
			expiry = t.expiry
		}
	} else {
		if row.Hash == "" || !equal(hashSecret(t.secret), row.Hash) {
			return Principal{}, unauthenticated("the token is not known here, or was revoked")
		}
		if row.Kind != TokenAccess {
			return Principal{}, unauthenticated("this is a refresh token, which is good for nothing but the token endpoint")
		}
	}
	if !expiry.IsZero() && !a.now().Before(expiry) {
		return Principal{}, unauthenticated("the token expired at %s", expiry.Format(time.RFC3339))
	}
	return row.principal(), nil
}

func unauthenticated(format string, args ...any) error {
	return resource.Errorf(codes.Unauthenticated, format, args...).
		WithHint("run `tategu login`, or ask an administrator for `tategu token create`")
}

// Authorize answers whether p has a permission in a project (by id or number);
// nil is yes, everything that no rule allows is PermissionDenied.
func (a *Authority) Authorize(ctx context.Context, p Principal, project, permission string) error {
	switch {
	case p.Anonymous():
		return unauthenticated("%s needs a token: the request has none", permission)
	case permission == "":
		return resource.Errorf(codes.PermissionDenied, "the method names no permission, so nobody may call it")
	case permission == Public:
		return nil
	}
	id := project
	if project != "" {
		var err error
		id, err = a.ProjectID(ctx, project)
		switch {
		case resource.IsNotFound(err) && p.roleIn("*") == "":
			return denied(p, project, permission) // a stranger learns no numbers
		case err != nil:
			return err
		}
	}
	if !a.policy.allows(p.roleIn(id), permission) {
		return denied(p, project, permission)
	}
	return nil
}

func denied(p Principal, project, permission string) error {
	role, _ := RoleFor(permission)
	where, grant := "every project", "*"
	if project != "" {
		where, grant = "project "+strconv.Quote(project), project
	}
	err := resource.Errorf(codes.PermissionDenied, "permission %q denied to %q on %s", permission, p.Email, where).
		WithResource("projects/" + project)
	if home, ok := ServiceAccountProject(p.Email); ok {
		if strings.HasPrefix(permission, "storage.") {
			return err.WithHint("a service account has the role %s in its own project %q only; use a bucket of that project, or bind a role to the account in the bucket's policy (bucket.set_iam_policy)", User, home)
		}
		return err.WithHint("a service account has the role %s, in its own project %q only; name another account in the job", User, home)
	}
	return err.WithHint("an administrator can grant it with `tategu token create --role %s --project '%s' --email %s`", role, grant, p.Email)
}
