package gcs

import (
	"tategu/internal/resource"
)

// restoreObject makes a soft-deleted generation live again
// (cloud.google.com/storage/docs/json_api/v1/objects/restore).
func (h *Handler) restoreObject(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.restore", "storage.objects.create"); err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	generation, err := c.generation()
	if err != nil {
		return err
	}
	if generation == 0 {
		return resource.Invalid("generation", "which generation? parameter generation is missing")
	}
	if err := h.protect(c.ctx(), c.names[0], c.names[1], &conds); err != nil {
		return err
	}
	o, err := h.blobs.Restore(c.ctx(), c.names[0], c.names[1], generation, conds)
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}

// moveObject renames an object within its bucket
// (cloud.google.com/storage/docs/json_api/v1/objects/move).
func (h *Handler) moveObject(c *call) error {
	bucket := c.names[0]
	if err := h.authorize(c.ctx(), bucket, "storage.objects.get", "storage.objects.delete", "storage.objects.create"); err != nil {
		return err
	}
	srcConds, err := conditions(c.query, "ifSource")
	if err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	src, err := h.blobs.Stat(c.ctx(), bucket, c.names[1], 0, srcConds)
	if err != nil {
		return err
	}
	dst := src
	dst.Name = c.names[2]
	o, err := h.blobs.Move(c.ctx(), src, dst, srcConds, conds)
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}

// lockRetention makes a bucket's retention policy permanent
// (cloud.google.com/storage/docs/json_api/v1/buckets/lockRetentionPolicy).
func (h *Handler) lockRetention(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.buckets.update"); err != nil {
		return err
	}
	metageneration, err := number(c.query, "ifMetagenerationMatch")
	if err != nil {
		return err
	}
	if metageneration == nil {
		return resource.Invalid("ifMetagenerationMatch", "a lock cannot be taken back: parameter ifMetagenerationMatch is required")
	}
	b, err := h.blobs.LockRetention(c.ctx(), c.names[0], *metageneration)
	if err != nil {
		return err
	}
	return h.replyBucket(c, b)
}

// storageLayout tells clients that folders are simulated
// (cloud.google.com/storage/docs/json_api/v1/buckets/getStorageLayout).
func (h *Handler) storageLayout(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.objects.list")
	if err != nil {
		return err
	}
	all := bucketJSON(baseURL(c.r), b)
	return c.reply(map[string]any{
		"kind": "storage#storageLayout", "bucket": b.Name, "location": all["location"], "locationType": all["locationType"],
		"hierarchicalNamespace": map[string]any{"enabled": false},
	})
}
