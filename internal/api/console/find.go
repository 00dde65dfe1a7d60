package console

import (
	"net/http"
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
	task, err := pipeline.LatestTask(r.Context(), c.rows, name, newest, func(task string) bool {
		full, err := resource.ParseName(task)
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
	titled := ""
	for _, kind := range shown() {
		q := store.Query{Kind: kind, Order: store.ByNewest, Limit: 500}
		for seen := 0; ; seen += q.Limit {
			rows, err := c.rows.List(r.Context(), q)
			if err != nil {
				return "", err
			}
			for _, row := range rows {
				is, called, err := c.called(r, row, name, titled == "" && seen < newest)
				if err != nil {
					return "", err
				}
				if is {
					return row.Key, nil
				}
				if called {
					titled = row.Key
				}
			}
			if len(rows) < q.Limit {
				break
			}
			q.Beyond = &rows[len(rows)-1]
		}
	}
	return titled, nil
}

// called reports a row whose id is name, or with titles whose display name is.
func (c *Console) called(r *http.Request, row store.Row, name string, titles bool) (is, called bool, err error) {
	full, err := resource.ParseName(row.Key)
	if err != nil || full.ID() != name && !titles {
		return false, false, nil //nolint:nilerr // a row with a name that is none is not meant
	}
	is = full.ID() == name
	if !is {
		v, err := c.view(row)
		if err != nil || v.Title != name {
			return false, false, err
		}
	}
	// Another project's resources are not this caller's business.
	if may := c.allow(r, full.Project(), "aiplatform."+string(row.Kind)+".list") == nil; may {
		return is, !is, nil
	}
	return false, false, nil
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
