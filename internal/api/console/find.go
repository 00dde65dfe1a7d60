package console

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// source is what logs are asked of: a resource, or a part of one.
type source struct {
	resource string // full name
	part     string // "/tasks/ID", "/deployedModels/ID"; "" = all of it
}

func (p source) name() string { return p.resource + p.part }

// newest bounds how far back display names and names of tasks are looked for;
// ids are looked for in all that there is.
const newest = 1000

// find resolves a name as people type it: one in full; else the id or the display
// name of a job or endpoint, which /TASK may follow; else the name of a task, of
// the run that had it last. Of several the newest is meant, and an id before a
// display name.
func (c *Console) find(r *http.Request, name string) (source, error) {
	name = strings.Trim(name, "/")
	if name == "" { // which would be whatever has no display name
		return source{}, resource.Invalid("resource", "no job, task or endpoint is named").WithHint("`tategu status` lists what there is; a task is JOB/TASK")
	}
	if strings.HasPrefix(name, "projects/") {
		return c.inFull(r, name)
	}
	head, rest, _ := strings.Cut(name, "/")
	if kind := store.Kind(head); rest != "" && c.types[kind] != nil { // customJobs/123
		head, rest, _ = strings.Cut(rest, "/")
	}
	found, err := c.findResource(r, head)
	if err != nil {
		return source{}, err
	}
	switch {
	case found != "" && rest == "":
		return source{resource: found}, nil
	case found != "":
		return c.findTask(r, found, rest)
	}
	task, err := pipeline.LatestTask(r.Context(), c.rows, name, newest, func(location string) bool {
		full, err := resource.ParseName(location)
		return err == nil && c.allow(r, full.Project(), "aiplatform.pipelineJobs.list") == nil
	})
	if err == nil {
		return c.inFull(r, task)
	}
	if !resource.IsNotFound(err) {
		return source{}, err
	}
	return source{}, resource.Errorf(codes.NotFound, "no job, task or endpoint is called %q", name).
		WithHint("`tategu status` lists what there is; a task is JOB/TASK")
}

// inFull splits a full name and checks that the caller may read the resource.
func (c *Console) inFull(r *http.Request, name string) (source, error) {
	at := source{resource: name}
	for _, part := range []string{"/tasks/", "/deployedModels/"} {
		if i := strings.LastIndex(name, part); i >= 0 {
			at = source{resource: name[:i], part: name[i:]}
		}
	}
	_, err := c.load(r, at.resource)
	return at, err
}

// findResource looks for an id, or else a display name, among what the caller may
// list; "" when nothing is called so.
func (c *Console) findResource(r *http.Request, name string) (string, error) {
	for _, look := range []func(*http.Request, store.Kind, []string, string) (store.Row, error){c.byID, c.byTitle} {
		for _, kind := range shown() {
			parents, err := c.parents(r, kind)
			if err != nil {
				return "", err
			}
			switch row, err := look(r, kind, parents, name); {
			case err != nil:
				return "", err
			case row.Key != "":
				return row.Key, nil
			}
		}
	}
	return "", nil
}

// parents gives those of a kind that the caller may list: another project's resources
// are not this caller's business.
func (c *Console) parents(r *http.Request, kind store.Kind) ([]string, error) {
	all, err := store.Parents(r.Context(), c.rows, kind)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(parent string) bool {
		n, err := resource.ParseName(parent)
		return err != nil || c.allow(r, n.Project(), "aiplatform."+string(kind)+".list") != nil
	}), nil
}

// byID gives the newest of a kind with an id; no key = there is none.
func (c *Console) byID(r *http.Request, kind store.Kind, parents []string, id string) (found store.Row, err error) {
	for _, parent := range parents {
		switch row, err := c.rows.Get(r.Context(), kind, parent+"/"+string(kind)+"/"+id); {
		case resource.IsNotFound(err):
		case err != nil:
			return store.Row{}, err
		case found.Key == "" || row.Created.After(found.Created):
			found = row
		}
	}
	return found, nil
}

// byTitle does the same for a display name, among the newest of each parent.
func (c *Console) byTitle(r *http.Request, kind store.Kind, parents []string, title string) (found store.Row, err error) {
	for _, parent := range parents {
		rows, err := c.rows.List(r.Context(), store.Query{Kind: kind, Parent: parent, Order: store.ByNewest, Limit: newest})
		if err != nil {
			return store.Row{}, err
		}
		for _, row := range rows {
			if found.Key != "" && !row.Created.After(found.Created) {
				break
			}
			switch v, err := c.view(row); {
			case err != nil:
				return store.Row{}, err
			case v.Title == title:
				found = row
			}
		}
	}
	return found, nil
}

// findTask gives a task of a run by its path or its name.
func (c *Console) findTask(r *http.Request, job, name string) (source, error) {
	if !strings.Contains(job, "/"+resource.KindPipelineJobs+"/") {
		return source{}, resource.Errorf(codes.NotFound, "%s has no tasks", job).WithHint("leave /%s out", name)
	}
	id, err := pipeline.TaskOf(r.Context(), c.rows, job, name)
	if err != nil {
		return source{}, err
	}
	return c.inFull(r, id)
}

// ended reports that nothing more will be said.
func (c *Console) ended(r *http.Request, at source) (bool, error) {
	v, err := c.load(r, at.resource)
	if err != nil {
		return false, err
	}
	if !v.Ended.IsZero() || !ends(v.message) {
		return true, nil
	}
	if strings.HasPrefix(at.part, "/tasks/") {
		return pipeline.TaskEnded(r.Context(), c.rows, at.name())
	}
	return false, nil
}
