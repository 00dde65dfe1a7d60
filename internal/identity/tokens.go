package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/mail"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// TokenKind says what a stored token is good for.
type TokenKind string

// The kinds.
const (
	TokenAccess  TokenKind = "access"  // a bearer token, made by `tategu token create`
	TokenRefresh TokenKind = "refresh" // in a login file; only the token endpoint takes it
	TokenTask    TokenKind = "task"    // behind a task's metadata server; never leaves this process
	TokenKey     TokenKind = "key"     // behind a service account's key; never leaves this process
)

// ofAccount reports tokens of service accounts, which are not managed as tokens.
func (k TokenKind) ofAccount() bool { return k == TokenTask || k == TokenKey }

const (
	defaultTTL    = 30 * 24 * time.Hour
	maxTTL        = 366 * 24 * time.Hour
	shortLifetime = time.Hour // of tokens made from refresh tokens and tasks

	maxGrants = 100
)

// TokenSpec asks for a token.
type TokenSpec struct {
	Email  string          // who it stands for, in the audit trail and in denials
	Grants map[string]Role // by project id or number; "*" = every project
	TTL    time.Duration   // 0 = 30 days, at most 366 days
	Kind   TokenKind       // TokenAccess (also "") or TokenRefresh
	// Vouched: who asks administers every project, so that the address counts in
	// all of them (see MayVouch).
	Vouched bool
}

// Token describes a stored token without its secret.
type Token struct {
	ID      string          `json:"id"`
	Kind    TokenKind       `json:"kind"`
	Email   string          `json:"email"`
	Grants  map[string]Role `json:"grants"`
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires,omitzero"`  // zero: until revoked
	Parent  string          `json:"parent,omitempty"`  // the token it was made from; they die together
	Vouched bool            `json:"vouched,omitempty"` // see Principal.Vouched
}

// kindTokens holds tokenRows as JSON; key id, parent the parent token, state the kind.
const kindTokens store.Kind = "tokens"

// tokenRow is what the store keeps of a token.
type tokenRow struct {
	Token
	Hash string `json:"hash,omitempty"` // SHA-256 of the secret; none for tasks
	Salt string `json:"salt,omitempty"` // see Authority.shortLived

	// Of tasks only: the workload, its project and the port of its metadata server.
	Task    string `json:"task,omitempty"`
	Project string `json:"project,omitempty"`
	Port    int    `json:"port,omitempty"`
}

func (r tokenRow) principal() Principal {
	return Principal{Email: r.Email, Grants: maps.Clone(r.Grants), TokenID: r.ID, Vouched: r.Vouched || r.Kind.ofAccount()}
}

func (r tokenRow) expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

func (a *Authority) tokenRow(ctx context.Context, id string) (tokenRow, error) {
	return a.tokens.get(ctx, id, func(ctx context.Context, id string) (tokenRow, error) { return readToken(ctx, a.store, id) })
}

func readToken(ctx context.Context, r store.Reader, id string) (tokenRow, error) {
	row, err := r.Get(ctx, kindTokens, id)
	if err != nil {
		return tokenRow{}, err
	}
	return decodeToken(row)
}

func decodeToken(row store.Row) (tokenRow, error) {
	var t tokenRow
	if err := json.Unmarshal(row.Data, &t); err != nil {
		return tokenRow{}, fmt.Errorf("read token %s: %w", row.Key, err)
	}
	return t, nil
}

func putToken(ctx context.Context, tx store.Tx, t tokenRow) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write token %s: %w", t.ID, err)
	}
	return tx.Put(ctx, store.Row{Kind: kindTokens, Key: t.ID, Parent: t.Parent, State: string(t.Kind), Data: data})
}

// CreateToken makes a token and gives its secret, which is shown this one time.
// Whether the caller may is asked with MayGrant.
func (a *Authority) CreateToken(ctx context.Context, spec TokenSpec) (secret string, t Token, err error) {
	row, err := a.newToken(ctx, spec)
	if err != nil {
		return "", Token{}, err
	}
	return a.saveToken(ctx, row)
}

func (a *Authority) newToken(ctx context.Context, spec TokenSpec) (tokenRow, error) {
	if spec.Kind == "" {
		spec.Kind = TokenAccess
	}
	if spec.Kind != TokenAccess && spec.Kind != TokenRefresh {
		return tokenRow{}, resource.Invalid("kind", "%q is not a kind of token", spec.Kind).WithHint("use access or refresh")
	}
	if err := checkEmail(spec.Email); err != nil {
		return tokenRow{}, err
	}
	if spec.TTL == 0 {
		spec.TTL = defaultTTL
	}
	if spec.TTL < 0 || spec.TTL > maxTTL {
		return tokenRow{}, resource.Invalid("ttl", "a token lives more than 0 and at most %d hours", int(maxTTL.Hours()))
	}
	grants, err := a.cleanGrants(ctx, spec.Grants)
	if err != nil {
		return tokenRow{}, err
	}
	now := a.now().UTC().Truncate(time.Second)
	return tokenRow{Token: Token{Kind: spec.Kind, Email: spec.Email, Grants: grants, Created: now, Expires: now.Add(spec.TTL), Vouched: spec.Vouched}}, nil
}

// saveToken gives the row its id and secret. It also clears out expired tokens,
// which nothing else would ever touch again.
func (a *Authority) saveToken(ctx context.Context, row tokenRow) (string, Token, error) {
	row.ID, row.Salt = newTokenID(), newTokenID()
	var secret string
	secret, row.Hash = newSecret(row.ID)
	err := a.store.Update(ctx, func(tx store.Tx) error {
		if err := a.sweep(ctx, tx); err != nil {
			return err
		}
		if row.Parent != "" { // revoked meanwhile?
			if _, err := readToken(ctx, tx, row.Parent); err != nil {
				return err
			}
		}
		return putToken(ctx, tx, row)
	})
	if err != nil {
		return "", Token{}, fmt.Errorf("create token: %w", err)
	}
	return secret, row.Token, nil
}

func (a *Authority) sweep(ctx context.Context, tx store.Tx) error {
	rows, err := tx.List(ctx, store.Query{Kind: kindTokens, States: []string{string(TokenAccess), string(TokenRefresh)}})
	if err != nil {
		return err
	}
	for _, r := range rows {
		t, err := decodeToken(r)
		if err != nil {
			return err
		}
		if t.expired(a.now()) {
			if err := tx.Delete(ctx, kindTokens, t.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkEmail(email string) error {
	addr, err := mail.ParseAddress(email)
	if err != nil || addr.Address != email || len(email) > 254 {
		return resource.Invalid("email", "%.80q is not an e-mail address", email)
	}
	if _, ours := ServiceAccountProject(email); ours {
		return resource.Invalid("email", "%q is a service account: its tokens come from the metadata server of its tasks, or from a key (`tategu key create`)", email)
	}
	return nil
}

func (a *Authority) cleanGrants(ctx context.Context, grants map[string]Role) (map[string]Role, error) {
	if len(grants) == 0 {
		return nil, resource.Invalid("grants", "a token needs a role in at least one project").WithHint("pass --project PROJECT --role viewer|user|admin")
	}
	clean := make(map[string]Role, len(grants))
	for project, role := range grants {
		if role.rank() == 0 {
			return nil, resource.Invalid("grants", "%.40q is not a role", role).WithHint("use viewer, user or admin")
		}
		id := project
		if project != "*" {
			var err error
			if id, err = a.ProjectID(ctx, project); err != nil {
				return nil, err
			}
		}
		if role.rank() > clean[id].rank() { // an id and its number may both be named
			clean[id] = role
		}
	}
	return clean, nil
}

// MayGrant answers whether p may hand out grants: it takes the permission in
// every project named, so nobody hands out more than they administer.
func (a *Authority) MayGrant(ctx context.Context, p Principal, grants map[string]Role) error {
	return a.mayAll(ctx, p, grants, PermissionCreateLogins)
}

// MayVouch reports whether p can prove an e-mail address to every project.
func (a *Authority) MayVouch(p Principal) bool { return p.roleIn("*") == Admin }

func (a *Authority) mayAll(ctx context.Context, p Principal, grants map[string]Role, permission string) error {
	if p.Anonymous() {
		return unauthenticated("%s needs a token: the request has none", permission)
	}
	if len(grants) > maxGrants {
		return resource.Invalid("grants", "a token names at most %d projects", maxGrants).WithHint(`use "*" for every project`)
	}
	for project := range grants {
		if project == "*" {
			project = "" // asks for a role in every project
		}
		if err := a.Authorize(ctx, p, project, permission); err != nil {
			return err
		}
	}
	return nil
}

// ListTokens gives the stored tokens that p may see, newest first: those that
// are good in a project p administers, and p's own. Expired ones are left out.
func (a *Authority) ListTokens(ctx context.Context, p Principal) ([]Token, error) {
	if p.Anonymous() {
		return nil, unauthenticated("listing tokens needs a token")
	}
	rows, err := a.store.List(ctx, store.Query{
		Kind: kindTokens, States: []string{string(TokenAccess), string(TokenRefresh)}, Order: store.ByNewest,
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := []Token{}
	for _, r := range rows {
		t, err := decodeToken(r)
		if err != nil {
			return nil, err
		}
		if visible, ok := a.visible(p, t.Token); ok && !t.expired(a.now()) {
			tokens = append(tokens, visible)
		}
	}
	return tokens, nil
}

// owns reports the token that p came with, and those made from it.
func owns(p Principal, t Token) bool {
	return p.TokenID != "" && (t.ID == p.TokenID || t.Parent == p.TokenID)
}

// visible leaves out the grants in projects that p does not administer.
func (a *Authority) visible(p Principal, t Token) (Token, bool) {
	if owns(p, t) {
		return t, true
	}
	grants := map[string]Role{}
	for project, role := range t.Grants {
		if a.policy.allows(p.roleIn(project), PermissionListLogins) {
			grants[project] = role
		}
	}
	t.Grants = grants
	return t, len(grants) > 0
}

// RevokeToken ends a token and all made from it, at once. p needs the
// administrator's role in every project it is good in, unless it is p's own.
func (a *Authority) RevokeToken(ctx context.Context, p Principal, id string) error {
	row, err := a.tokenRow(ctx, id)
	if resource.IsNotFound(err) || err == nil && row.Kind.ofAccount() {
		return noToken(id)
	}
	if err != nil {
		return err
	}
	if !owns(p, row.Token) {
		if err := a.mayAll(ctx, p, row.Grants, PermissionDeleteLogins); err != nil {
			if _, ok := a.visible(p, row.Token); !ok && !p.Anonymous() {
				return noToken(id) // a stranger learns no ids
			}
			return err
		}
	}
	return a.revoke(ctx, id)
}

func noToken(id string) error {
	return resource.NotFound("tokens/" + id).WithHint("`tategu token list` shows the ids")
}

// RevokeSecret ends the stored token whose whole text is given, as a sign-out
// does; an unknown one is no error (RFC 7009, section 2.2).
func (a *Authority) RevokeSecret(ctx context.Context, token string) error {
	row, err := a.provenRow(ctx, token)
	if err != nil {
		if isUnauthenticated(err) {
			return nil
		}
		return err
	}
	return a.revoke(ctx, row.ID)
}

func (a *Authority) revoke(ctx context.Context, id string) error {
	return a.revokeBy(ctx, a.store.Update, id)
}

func (a *Authority) revokeBy(ctx context.Context, update func(context.Context, func(store.Tx) error) error, id string) error {
	err := update(ctx, func(tx store.Tx) error {
		children, err := tx.List(ctx, store.Query{Kind: kindTokens, Parent: id})
		if err != nil {
			return err
		}
		errs := []error{tx.Delete(ctx, kindTokens, id)}
		for _, c := range children {
			errs = append(errs, tx.Delete(ctx, kindTokens, c.Key))
		}
		return errors.Join(errs...)
	})
	a.tokens.clear() // also after an error: it may be durable in spite of it
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	return nil
}

// provenRow gives the row of a stored token whose secret is right and that has
// not expired, whatever its kind.
func (a *Authority) provenRow(ctx context.Context, token string) (tokenRow, error) {
	t, ok := parseToken(strings.TrimSpace(token))
	if !ok || t.shortLived() {
		return tokenRow{}, unauthenticated("this is not a stored token of this server")
	}
	row, err := a.tokenRow(ctx, t.id)
	if err != nil && !resource.IsNotFound(err) {
		return tokenRow{}, err
	}
	if err != nil || row.Hash == "" || !equal(hashSecret(t.secret), row.Hash) {
		return tokenRow{}, unauthenticated("the token is not known here, or was revoked")
	}
	if row.expired(a.now()) {
		return tokenRow{}, unauthenticated("the token expired at %s", row.Expires.Format(time.RFC3339))
	}
	return row, nil
}
