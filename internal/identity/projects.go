package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Rows: key project id, data its number; and key number, data the project id.
const (
	kindProjects       store.Kind = "projects"
	kindProjectNumbers store.Kind = "projectNumbers"
)

// ProjectID gives the id that a project is stored under. Ids are their own
// answer, known or not: a project exists on first use. A number must be one that
// ProjectNumber gave.
func (a *Authority) ProjectID(ctx context.Context, idOrNumber string) (string, error) {
	if !isNumber(idOrNumber) {
		return idOrNumber, checkProjectID(idOrNumber)
	}
	row, err := a.store.Get(ctx, kindProjectNumbers, idOrNumber)
	if resource.IsNotFound(err) {
		return "", resource.NotFound("projects/" + idOrNumber).WithHint("no project has this number: use the project's id")
	}
	if err != nil {
		return "", fmt.Errorf("project number %s: %w", idOrNumber, err)
	}
	return string(row.Data), nil
}

// HasProject reports a project that was used before.
func (a *Authority) HasProject(ctx context.Context, id string) (bool, error) {
	_, err := a.store.Get(ctx, kindProjects, id)
	if resource.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Project is an id and its number.
type Project struct {
	ID      string    `json:"id"`
	Number  string    `json:"number"`
	Created time.Time `json:"created"`
}

// ProjectNumber gives a project's number, made once and then the same for good.
func (a *Authority) ProjectNumber(ctx context.Context, id string) (string, error) {
	p, err := a.Project(ctx, id)
	return p.Number, err
}

// Project gives a project by id, which makes its number on first use, or by number.
func (a *Authority) Project(ctx context.Context, idOrNumber string) (Project, error) {
	id, err := a.ProjectID(ctx, idOrNumber)
	if err != nil {
		return Project{}, err
	}
	row, err := a.store.Get(ctx, kindProjects, id)
	if resource.IsNotFound(err) {
		err = a.store.Update(ctx, func(tx store.Tx) error { return newProjectNumber(ctx, tx, id) })
		if err == nil {
			row, err = a.store.Get(ctx, kindProjects, id)
		}
	}
	if err != nil {
		return Project{}, fmt.Errorf("project %s: %w", id, err)
	}
	return projectOf(row), nil
}

func projectOf(row store.Row) Project {
	return Project{ID: row.Key, Number: string(row.Data), Created: row.Created}
}

// newProjectNumber runs inside a transaction: two first uses agree on one number.
func newProjectNumber(ctx context.Context, tx store.Tx, id string) error {
	_, err := tx.Get(ctx, kindProjects, id)
	if !resource.IsNotFound(err) {
		return err // nil: somebody else was first
	}
	for {
		number := randomProjectNumber()
		_, err := tx.Get(ctx, kindProjectNumbers, number)
		if err == nil {
			continue // taken
		}
		if !resource.IsNotFound(err) {
			return err
		}
		if err := tx.Put(ctx, store.Row{Kind: kindProjectNumbers, Key: number, Data: []byte(id)}); err != nil {
			return err
		}
		return tx.Put(ctx, store.Row{Kind: kindProjects, Key: id, Data: []byte(number)})
	}
}

// randomProjectNumber has twelve digits, as the cloud's have.
func randomProjectNumber() string {
	n, _ := rand.Int(rand.Reader, big.NewInt(900_000_000_000)) // its reader never fails since Go 1.24
	return n.Add(n, big.NewInt(100_000_000_000)).String()
}

// Projects lists the projects that p may see, by id: for callers with a role in
// every project those used so far, else those granted by name.
func (a *Authority) Projects(ctx context.Context, p Principal) ([]Project, error) {
	var ids []string
	for id := range p.Grants {
		if id != "*" {
			ids = append(ids, id)
		}
	}
	if p.roleIn("*") != "" {
		rows, err := a.store.List(ctx, store.Query{Kind: kindProjects})
		if err != nil {
			return nil, fmt.Errorf("list projects: %w", err)
		}
		for _, r := range rows {
			ids = append(ids, r.Key)
		}
	}
	slices.Sort(ids)
	projects := make([]Project, 0, len(ids))
	for _, id := range slices.Compact(ids) {
		p, err := a.Project(ctx, id)
		if err != nil {
			return nil, err
		}
		projects = append(projects, p)
	}
	return projects, nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// checkProjectID is wider than the cloud's rule (6 to 30 characters, lower
// case), since test suites use short names; it keeps out what means something
// else to us: "*", "_", slashes, and anything that needs escaping.
func checkProjectID(id string) error {
	valid := len(id) >= 1 && len(id) <= 63 && isLetter(id[0])
	for _, c := range []byte(id) {
		valid = valid && (isLetter(c) || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':')
	}
	if !valid {
		return resource.Invalid("project", "%.80q is not a project id", id).
			WithHint("use a letter, then up to 62 letters, digits and hyphens")
	}
	return nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
