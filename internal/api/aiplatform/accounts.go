package aiplatform

import (
	"context"

	"tategu/internal/identity"
)

// Accounts says which service accounts exist and who may use them.
type Accounts interface {
	// ServiceAccount gives the project and the canonical address of an account.
	ServiceAccount(ctx context.Context, email string) (project, canonical string, err error)
	// ActAs answers whether p may run something as an account.
	ActAs(ctx context.Context, p identity.Principal, email string) error
}

// RunAs gives the service account that a workload of project runs as: the one
// asked for, once the caller is known to be allowed to use it, or the project's
// default.
func RunAs(ctx context.Context, accounts Accounts, project, asked string) (string, error) {
	if asked == "" {
		return identity.DefaultServiceAccount(project), nil
	}
	if err := accounts.ActAs(ctx, identity.FromContext(ctx), asked); err != nil {
		return "", err
	}
	_, canonical, err := accounts.ServiceAccount(ctx, asked)
	return canonical, err
}
