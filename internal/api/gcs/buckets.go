package gcs

import (
	"net/http"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

func (h *Handler) listBuckets(c *call) error {
	project := c.query.Get("project")
	if project == "" {
		return resource.Invalid("project", "which project's buckets? parameter project is missing")
	}
	if err := h.auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), project, "storage.buckets.list"); err != nil {
		return err
	}
	after, err := parsePageToken(c.query.Get("pageToken"))
	if err != nil {
		return err
	}
	size, err := c.pageSize()
	if err != nil {
		return err
	}
	if size == 0 {
		size = 1000
	}
	buckets, err := h.blobs.ListBuckets(c.ctx(), project, c.query.Get("prefix"), after, size+1)
	if err != nil {
		return err
	}
	answer := map[string]any{"kind": "storage#buckets"}
	if len(buckets) > size {
		buckets = buckets[:size]
		answer["nextPageToken"] = pageToken(buckets[size-1].Name)
	}
	items := make([]any, 0, len(buckets))
	for _, b := range buckets {
		item, err := h.bucketResource(c, b)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	if len(items) > 0 {
		answer["items"] = items
	}
	return c.reply(answer)
}

func (h *Handler) insertBucket(c *call) error {
	b := blob.Bucket{Project: c.query.Get("project"), ObjectRetention: isTrue(c.query, "enableObjectRetention")}
	if b.Project == "" {
		return resource.Invalid("project", "a bucket belongs to a project: parameter project is missing")
	}
	if err := h.auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), b.Project, "storage.buckets.create"); err != nil {
		return err
	}
	var f fields
	if err := readJSON(c.r.Body, &f); err != nil {
		return err
	}
	for name, to := range map[string]*string{"name": &b.Name, "location": &b.Location} {
		if raw, ok := f[name]; ok {
			v, err := text(name, raw)
			if err != nil {
				return err
			}
			*to = v
		}
	}
	if err := applyBucket(&b, f); err != nil {
		return err
	}
	b, err := h.blobs.CreateBucket(c.ctx(), b)
	if err != nil {
		return err
	}
	return h.replyBucket(c, b)
}

func (h *Handler) replyBucket(c *call, b blob.Bucket) error {
	answer, err := h.bucketResource(c, b)
	if err != nil {
		return err
	}
	return c.reply(answer)
}

// bucketResource gives a bucket with its project's number: the aiplatform client
// compares it with the resource manager's before it runs a pipeline
// (google/cloud/aiplatform/utils/gcs_utils.py, _verify_bucket_ownership).
func (h *Handler) bucketResource(c *call, b blob.Bucket) (map[string]any, error) {
	answer := bucketJSON(baseURL(c.r), b)
	if b.Project == "" {
		return answer, nil
	}
	number, err := h.auth.ProjectNumber(c.ctx(), b.Project)
	if err != nil {
		return nil, err
	}
	answer["projectNumber"] = number
	return answer, nil
}

func (h *Handler) getBucket(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.buckets.get")
	if err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	if err := conds.CheckBucket(b); err != nil {
		return err
	}
	return h.replyBucket(c, b)
}

func (h *Handler) patchBucket(c *call) error { return h.changeBucket(c, func(*blob.Bucket) {}) }

func (h *Handler) updateBucket(c *call) error {
	return h.changeBucket(c, resetBucket)
}

func (h *Handler) changeBucket(c *call, first func(*blob.Bucket)) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.buckets.update"); err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	var f fields
	if err := readJSON(c.r.Body, &f); err != nil {
		return err
	}
	b, err := h.blobs.UpdateBucket(c.ctx(), c.names[0], conds, func(b *blob.Bucket) error {
		first(b)
		return applyBucket(b, f)
	})
	if err != nil {
		return err
	}
	return h.replyBucket(c, b)
}

func (h *Handler) deleteBucket(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.buckets.delete"); err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	if err := h.blobs.DeleteBucket(c.ctx(), c.names[0], conds); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) serviceAccount(c *call) error {
	project := c.names[0]
	if err := h.auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), project, "resourcemanager.projects.get"); err != nil {
		return err
	}
	return c.reply(map[string]any{"kind": "storage#serviceAccount", "email_address": identity.DefaultServiceAccount(project)})
}

var _ http.Handler = (*Handler)(nil)
