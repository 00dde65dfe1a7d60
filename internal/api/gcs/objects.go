package gcs

import (
	"encoding/json"
	"net/url"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

func (h *Handler) listObjects(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.list"); err != nil {
		return err
	}
	q, err := c.listQuery()
	if err != nil {
		return err
	}
	page, err := h.blobs.List(c.ctx(), c.names[0], q)
	if err != nil {
		return err
	}
	answer := map[string]any{"kind": "storage#objects"}
	if page.Next != "" {
		answer["nextPageToken"] = versionToken(page.Next, page.NextGeneration)
	}
	if len(page.Objects) > 0 {
		base, items := baseURL(c.r), make([]any, 0, len(page.Objects))
		for _, o := range page.Objects {
			items = append(items, objectJSON(base, o))
		}
		answer["items"] = items
	}
	if len(page.Prefixes) > 0 {
		answer["prefixes"] = page.Prefixes
	}
	return c.reply(answer)
}

// listQuery reads the parameters of a list.
func (c *call) listQuery() (blob.ListQuery, error) {
	q := blob.ListQuery{
		Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter"),
		StartOffset: c.query.Get("startOffset"), EndOffset: c.query.Get("endOffset"),
		IncludeTrailingDelimiter: isTrue(c.query, "includeTrailingDelimiter"),
		MatchGlob:                c.query.Get("matchGlob"),
		Versions:                 isTrue(c.query, "versions"), SoftDeleted: isTrue(c.query, "softDeleted"),
	}
	if q.Versions && q.SoftDeleted {
		return q, resource.Invalid("softDeleted", "versions and softDeleted cannot be asked for at once")
	}
	if q.MatchGlob != "" && q.Delimiter != "" && q.Delimiter != "/" {
		return q, resource.Invalid("matchGlob", "matchGlob goes with the delimiter / only")
	}
	var err error
	if q.After, q.AfterGeneration, err = parseVersionToken(c.query.Get("pageToken")); err != nil {
		return q, err
	}
	q.Limit, err = c.pageSize()
	return q, err
}

// stat gives the object that the path names under the request's preconditions.
func (h *Handler) stat(c *call) (blob.Object, error) {
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.get"); err != nil {
		return blob.Object{}, err
	}
	conds, err := c.conditions()
	if err != nil {
		return blob.Object{}, err
	}
	generation, err := c.generation()
	if err != nil {
		return blob.Object{}, err
	}
	stat := h.blobs.Stat
	if isTrue(c.query, "softDeleted") {
		if generation == 0 {
			return blob.Object{}, resource.Invalid("generation", "softDeleted=true needs the generation")
		}
		stat = h.blobs.StatSoftDeleted
	}
	o, err := stat(c.ctx(), c.names[0], c.names[1], generation, conds)
	if err != nil {
		return o, err
	}
	return o, checkReadHeaders(c.r.Header, o)
}

func (h *Handler) getObject(c *call) error {
	if c.query.Get("alt") == "media" {
		if c.inner {
			return resource.Invalid("batch", "a batch holds no downloads")
		}
		return h.download(c)
	}
	o, err := h.stat(c)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", etag(o.Generation, o.Metageneration))
	return c.reply(objectJSON(baseURL(c.r), o))
}

func (h *Handler) patchObject(c *call) error {
	return h.changeObject(c, func(*blob.Object) {})
}

func (h *Handler) updateObject(c *call) error {
	return h.changeObject(c, func(o *blob.Object) {
		o.Metadata, o.ContentType, o.ContentEncoding, o.ContentDisposition = nil, "", "", ""
		o.ContentLanguage, o.CacheControl = "", ""
		o.TemporaryHold, o.EventBasedHold, o.Retention = false, false, blob.ObjectRetention{}
	})
}

// changeObject sets what the body says, after first.
func (h *Handler) changeObject(c *call, first func(*blob.Object)) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.objects.update")
	if err != nil {
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
	var f fields
	if err := readJSON(c.r.Body, &f); err != nil {
		return err
	}
	delete(f, "storageClass") // changed by a rewrite only
	o, err := h.blobs.Update(c.ctx(), c.names[0], c.names[1], generation, conds, func(o *blob.Object) error {
		old := o.Retention
		first(o)
		if err := applyObject(o, f); err != nil {
			return err
		}
		if o.Retention.Mode != "" && !b.ObjectRetention {
			return resource.Invalid("retention", "bucket %s was not made with object retention enabled", b.Name)
		}
		return blob.CheckRetention(old, o.Retention, h.now(), isTrue(c.query, "overrideUnlockedRetention"))
	})
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}

func (h *Handler) deleteObject(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.delete"); err != nil {
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
	if err := h.blobs.Delete(c.ctx(), c.names[0], c.names[1], generation, conds); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) copyObject(c *call) error {
	o, err := h.copy(c)
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}

// rewriteObject copies in one step: no bytes move, so there is never a token.
func (h *Handler) rewriteObject(c *call) error {
	if c.query.Get("rewriteToken") != "" {
		return resource.Invalid("rewriteToken", "this server gives no rewrite tokens: every rewrite is done at once")
	}
	o, err := h.copy(c)
	if err != nil {
		return err
	}
	answer := objectJSON(baseURL(c.r), o)
	return c.reply(map[string]any{
		"kind": "storage#rewriteResponse", "totalBytesRewritten": answer["size"], "objectSize": answer["size"],
		"done": true, "resource": answer,
	})
}

func (h *Handler) copy(c *call) (blob.Object, error) {
	srcBucket, srcName, dstBucket, dstName := c.names[0], c.names[1], c.names[2], c.names[3]
	if err := h.authorize(c.ctx(), srcBucket, "storage.objects.get"); err != nil {
		return blob.Object{}, err
	}
	if err := h.authorize(c.ctx(), dstBucket, "storage.objects.create"); err != nil {
		return blob.Object{}, err
	}
	srcConds, err := conditions(c.query, "ifSource")
	if err != nil {
		return blob.Object{}, err
	}
	conds, err := c.conditions()
	if err != nil {
		return blob.Object{}, err
	}
	srcGeneration, err := generation(c.query, "sourceGeneration")
	if err != nil {
		return blob.Object{}, err
	}
	var f fields
	if err := readJSON(c.r.Body, &f); err != nil {
		return blob.Object{}, err
	}
	src, err := h.blobs.Stat(c.ctx(), srcBucket, srcName, srcGeneration, srcConds)
	if err != nil {
		return blob.Object{}, err
	}
	dst := src
	dst.StorageClass, dst.TemporaryHold, dst.EventBasedHold, dst.Retention = "", false, false, blob.ObjectRetention{}
	if len(f) > 0 { // a body replaces the metadata of the source
		dst = blob.Object{ContentType: src.ContentType}
		if err := applyObject(&dst, f); err != nil {
			return blob.Object{}, err
		}
	}
	dst.Bucket, dst.Name = dstBucket, dstName
	if err := h.protect(c.ctx(), dstBucket, dstName, &conds); err != nil {
		return blob.Object{}, err
	}
	return h.blobs.Copy(c.ctx(), src, dst, conds)
}

// composeRequest is cloud.google.com/storage/docs/json_api/v1/objects/compose.
type composeRequest struct {
	Destination   fields `json:"destination"`
	SourceObjects []struct {
		Name                string      `json:"name"`
		Generation          json.Number `json:"generation"` // as a number or a text
		ObjectPreconditions struct {
			IfGenerationMatch json.Number `json:"ifGenerationMatch"`
		} `json:"objectPreconditions"`
	} `json:"sourceObjects"`
	DeleteSourceObjects bool `json:"deleteSourceObjects"`
}

func (h *Handler) composeObject(c *call) error {
	bucket := c.names[0]
	if err := h.authorize(c.ctx(), bucket, "storage.objects.get", "storage.objects.create"); err != nil {
		return err
	}
	conds, err := c.conditions()
	if err != nil {
		return err
	}
	var req composeRequest
	if err := readJSON(c.r.Body, &req); err != nil {
		return err
	}
	if req.DeleteSourceObjects {
		if err := h.authorize(c.ctx(), bucket, "storage.objects.delete"); err != nil {
			return err
		}
	}
	dst := blob.Object{Bucket: bucket, Name: c.names[1]}
	if err := applyObject(&dst, req.Destination); err != nil {
		return err
	}
	if err := bodyHashes(req.Destination, &conds); err != nil {
		return err
	}
	sources := make([]blob.Object, 0, len(req.SourceObjects))
	for _, s := range req.SourceObjects {
		q := url.Values{"generation": {s.Generation.String()}, "ifGenerationMatch": {s.ObjectPreconditions.IfGenerationMatch.String()}}
		srcConds, err := conditions(q, "if")
		if err != nil {
			return err
		}
		srcGeneration, err := generation(q, "generation")
		if err != nil {
			return err
		}
		o, err := h.blobs.Stat(c.ctx(), bucket, s.Name, srcGeneration, srcConds)
		if err != nil {
			return err
		}
		sources = append(sources, o)
	}
	if err := h.protect(c.ctx(), dst.Bucket, dst.Name, &conds); err != nil {
		return err
	}
	if req.DeleteSourceObjects {
		if err := h.authorize(c.ctx(), bucket, "storage.objects.delete"); err != nil {
			return err
		}
	}
	o, err := h.blobs.Compose(c.ctx(), dst, sources, conds, req.DeleteSourceObjects)
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}
