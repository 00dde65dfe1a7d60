// Package identity answers who calls, and whether they may. Its child metadata
// hands credentials to tasks.
package identity

import (
	"context"
	"strings"
)

// Role of a principal in a project; each includes the ones before it.
type Role string

// The roles.
const (
	Viewer Role = "viewer"
	User   Role = "user"
	Admin  Role = "admin"
)

// Principal is the caller of a request.
type Principal struct {
	Email    string          // "operator" on loopback, else an e-mail address
	Operator bool            // the person who runs the server: admin everywhere
	Grants   map[string]Role // by project; "*" = every project
	TokenID  string          // which stored token or key proved it; "" for the operator on loopback
	// Vouched says that the address is proved in every project: it is a service
	// account's, or an administrator of all projects made the token.
	Vouched bool
	// Signed says that a signature on the request itself proved the caller.
	Signed bool
}

// Anonymous reports a caller that showed no credential.
func (p Principal) Anonymous() bool { return p.Email == "" }

// DefaultServiceAccount is the account that jobs of a project run as when none
// is named. The domain is ours: google-auth sends tokens of accounts that end in
// gserviceaccount.com to an outside host.
func DefaultServiceAccount(project string) string {
	return "default@" + project + ".iam.tategu.internal"
}

// ServiceAccountProject gives the project of NAME@PROJECT.iam.tategu.internal.
func ServiceAccountProject(email string) (project string, ok bool) {
	_, domain, _ := strings.Cut(email, "@")
	return strings.CutSuffix(domain, ".iam.tategu.internal")
}

type principalKey struct{}

// NewContext carries the caller of a request.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext gives the caller; the zero (anonymous) Principal when unset.
func FromContext(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type reporterKey struct{}

// WithReporter lets a handler that finds the proof of its caller in the request's
// body say who that is, for the audit trail.
func WithReporter(ctx context.Context, report func(Principal)) context.Context {
	return context.WithValue(ctx, reporterKey{}, report)
}

// Report says who proved to be the caller of a request, to whom it may concern.
func Report(ctx context.Context, p Principal) {
	if report, ok := ctx.Value(reporterKey{}).(func(Principal)); ok {
		report(p)
	}
}
