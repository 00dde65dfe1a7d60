package identity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// ServiceAccount reads an account's e-mail address as clients write it and gives
// its project id and its address in our own domain. Besides our own form it
// takes the cloud's two, so that unchanged job definitions work:
// NAME@PROJECT.iam.gserviceaccount.com and
// PROJECT_NUMBER-compute@developer.gserviceaccount.com (the project's default).
func (a *Authority) ServiceAccount(ctx context.Context, email string) (project, canonical string, err error) {
	name, domain, ok := strings.Cut(email, "@")
	if !ok || !isAccountName(name) {
		return "", "", notAServiceAccount(email)
	}
	if domain == "developer.gserviceaccount.com" {
		number, isDefault := strings.CutSuffix(name, "-compute")
		if !isDefault || !isNumber(number) {
			return "", "", notAServiceAccount(email)
		}
		if project, err = a.ProjectID(ctx, number); err != nil {
			return "", "", err
		}
		return project, DefaultServiceAccount(project), nil
	}
	project, ok = ServiceAccountProject(email)
	if !ok {
		project, ok = strings.CutSuffix(domain, ".iam.gserviceaccount.com")
	}
	if !ok || isNumber(project) || checkProjectID(project) != nil {
		return "", "", notAServiceAccount(email)
	}
	return project, name + strings.TrimPrefix(DefaultServiceAccount(project), "default"), nil
}

func notAServiceAccount(email string) error {
	return resource.Invalid("service_account", "%.120q is not a service account", email).
		WithHint("use NAME@PROJECT.iam.tategu.internal, or leave it out for the project's default account")
}

func isAccountName(s string) bool {
	for _, c := range []byte(s) {
		if !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// ActAs answers whether p may run something as a service account. Without this
// check a job would lend its creator the rights of any account.
func (a *Authority) ActAs(ctx context.Context, p Principal, email string) error {
	if err := a.OnAccount(ctx, p, email, PermissionActAs); err != nil {
		return fmt.Errorf("act as %s: %w", email, err)
	}
	return nil
}

// OnAccount answers whether p has a permission on a service account, which is
// decided in the account's own project.
func (a *Authority) OnAccount(ctx context.Context, p Principal, email, permission string) error {
	project, _, err := a.ServiceAccount(ctx, email)
	if resource.IsNotFound(err) && p.roleIn("*") == "" {
		return denied(p, "", permission)
	}
	if err != nil {
		return err
	}
	return a.Authorize(ctx, p, project, permission)
}

// Account is whom a workload runs as. It must be known for whatever is done on the
// workload's behalf; the zero value is nobody.
type Account struct {
	Project string // the workload's, by id or number
	Email   string // its service account; "" = the project's default
}

// AccountPrincipal is the caller that a workload is, with the role that its service
// account has: user, in the account's own project. Its tokens prove the same one.
func (a *Authority) AccountPrincipal(ctx context.Context, account Account) (Principal, error) {
	_, home, email, err := a.resolve(ctx, account)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Email: email, Grants: accountGrants(home), Vouched: true}, nil
}

func accountGrants(home string) map[string]Role { return map[string]Role{home: User} }

// resolve gives the project of a workload, and its account with its own project.
func (a *Authority) resolve(ctx context.Context, account Account) (project, home, email string, err error) {
	if project, err = a.ProjectID(ctx, account.Project); err != nil {
		return "", "", "", err
	}
	if account.Email == "" {
		return project, project, DefaultServiceAccount(project), nil
	}
	home, email, err = a.ServiceAccount(ctx, account.Email)
	return project, home, email, err
}

// Task is the credential of one running workload.
type Task struct {
	ID      string // the workload's
	Project string
	Email   string // its service account, in our own domain
	Path    string // secret part of its metadata server's path
	Port    int    // of its metadata server
	tokenID string
}

// TaskSpec asks for the identity of a workload.
type TaskSpec struct {
	ID             string
	Project        string
	ServiceAccount string // "" = the project's default account
	Port           int    // where its metadata server will listen
}

// OpenTask gives a workload an identity until CloseTask. The same id gives the
// same Task, also after a restart, with the port it had first; another account
// under the same id is an error.
func (a *Authority) OpenTask(ctx context.Context, spec TaskSpec) (Task, error) {
	project, home, account, err := a.resolve(ctx, Account{Project: spec.Project, Email: spec.ServiceAccount})
	if err != nil {
		return Task{}, err
	}
	row := tokenRow{
		Token: Token{
			ID: a.taskTokenID(spec.ID), Kind: TokenTask, Email: account, Grants: accountGrants(home),
			Created: a.now().UTC().Truncate(time.Second),
		},
		Salt: newTokenID(), Task: spec.ID, Project: project, Port: spec.Port,
	}
	err = a.store.UpdateSoon(ctx, func(tx store.Tx) error {
		old, err := readToken(ctx, tx, row.ID)
		if resource.IsNotFound(err) {
			return putToken(ctx, tx, row)
		}
		row = old
		return err
	})
	if err != nil {
		return Task{}, fmt.Errorf("credentials of %s: %w", spec.ID, err)
	}
	if row.Email != account || row.Project != project {
		return Task{}, resource.Errorf(codes.AlreadyExists, "workload %s runs as %s in project %s already, not as %s in %s",
			spec.ID, row.Email, row.Project, account, project)
	}
	return a.task(row), nil
}

func (a *Authority) task(row tokenRow) Task {
	return Task{
		ID: row.Task, Project: row.Project, Email: row.Email, Port: row.Port, tokenID: row.ID,
		Path: a.derive("metadata path", row.ID, row.Salt)[:32],
	}
}

// taskTokenID is the same for the same workload, and tells strangers nothing.
func (a *Authority) taskTokenID(id string) string { return a.derive("task", id)[:idLength] }

// TaskToken makes an access token of the task's service account.
func (a *Authority) TaskToken(ctx context.Context, t Task) (Access, error) {
	row, err := a.tokenRow(ctx, t.tokenID)
	if err != nil {
		return Access{}, fmt.Errorf("credentials of %s: %w", t.ID, err)
	}
	return a.access(row), nil
}

// CloseTask ends the identity of a workload: all its tokens are dead at once.
func (a *Authority) CloseTask(ctx context.Context, id string) error {
	// After a power loss there are no tasks, and Retain drops what comes back.
	return a.revokeBy(ctx, a.store.UpdateSoon, a.taskTokenID(id))
}

// Tasks lists the workloads that have an identity.
func (a *Authority) Tasks(ctx context.Context) ([]Task, error) {
	rows, err := a.store.List(ctx, store.Query{Kind: kindTokens, States: []string{string(TokenTask)}})
	if err != nil {
		return nil, fmt.Errorf("list tasks with credentials: %w", err)
	}
	tasks := make([]Task, 0, len(rows))
	for _, r := range rows {
		t, err := decodeToken(r)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, a.task(t))
	}
	return tasks, nil
}
