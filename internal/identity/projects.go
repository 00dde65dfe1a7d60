package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"strings"

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

// ProjectNumber gives a project's number, made once and then the same for good.
func (a *Authority) ProjectNumber(ctx context.Context, id string) (string, error) {
	if isNumber(id) {
		_, err := a.ProjectID(ctx, id)
		return id, err
	}
	if err := checkProjectID(id); err != nil {
		return "", err
	}
	row, err := a.store.Get(ctx, kindProjects, id)
	if err == nil {
		return string(row.Data), nil
	}
	if !resource.IsNotFound(err) {
		return "", fmt.Errorf("project %s: %w", id, err)
	}
	var number string
	err = a.store.Update(ctx, func(tx store.Tx) error {
		var err error
		number, err = newProjectNumber(ctx, tx, id)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("project %s: %w", id, err)
	}
	return number, nil
}

// newProjectNumber runs inside a transaction: two first uses agree on one number.
func newProjectNumber(ctx context.Context, tx store.Tx, id string) (string, error) {
	row, err := tx.Get(ctx, kindProjects, id)
	if err == nil {
		return string(row.Data), nil
	}
	if !resource.IsNotFound(err) {
		return "", err
	}
	for {
		number := randomProjectNumber()
		_, err := tx.Get(ctx, kindProjectNumbers, number)
		if err == nil {
			continue // taken
		}
		if !resource.IsNotFound(err) {
			return "", err
		}
		if err := tx.Put(ctx, store.Row{Kind: kindProjectNumbers, Key: number, Data: []byte(id)}); err != nil {
			return "", err
		}
		return number, tx.Put(ctx, store.Row{Kind: kindProjects, Key: id, Data: []byte(number)})
	}
}

// randomProjectNumber has twelve digits, as the cloud's have.
func randomProjectNumber() string {
	n, _ := rand.Int(rand.Reader, big.NewInt(900_000_000_000)) // its reader never fails since Go 1.24
	return n.Add(n, big.NewInt(100_000_000_000)).String()
}

// Project is an id and its number.
type Project struct {
	ID     string `json:"id"`
	Number string `json:"number"`
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
		number, err := a.ProjectNumber(ctx, id)
		if err != nil {
			return nil, err
		}
		projects = append(projects, Project{ID: id, Number: number})
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
