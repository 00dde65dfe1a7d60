package gcs

import (
	"encoding/json"
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/access"
	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// policy is the IAM policy of a bucket as it is stored and as clients see it.
// What it grants is decided in package identity.
type policy struct {
	identity.BucketPolicy
	ETag string `json:"etag,omitempty"`
	// N makes each policy's etag its own, also when it says the same again.
	N int64 `json:"n,omitempty"`
}

func readPolicy(b blob.Bucket) (policy, error) {
	p := policy{BucketPolicy: identity.BucketPolicy{Version: 1}}
	if len(b.Policy) == 0 {
		p.ETag = resource.ETag([]byte(b.Name))
		return p, nil
	}
	if err := json.Unmarshal(b.Policy, &p); err != nil {
		return policy{}, err
	}
	p.ETag = resource.ETag(b.Policy)
	return p, nil
}

func (p policy) answer(bucket string) map[string]any {
	m := map[string]any{"kind": "storage#policy", "resourceId": "projects/_/buckets/" + bucket, "version": p.Version, "etag": p.ETag}
	if len(p.Bindings) > 0 {
		m["bindings"] = p.Bindings
	}
	return m
}

// getPolicy gives the policy in the version it was set in: without conditions
// every version that a client may ask for can hold it.
func (h *Handler) getPolicy(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.buckets.getIamPolicy")
	if err != nil {
		return err
	}
	if v := c.query.Get("optionsRequestedPolicyVersion"); v != "" {
		if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 3 {
			return resource.Invalid("optionsRequestedPolicyVersion", "%.40q is not a version of a policy: want 1 to 3", v)
		}
	}
	p, err := readPolicy(b)
	if err != nil {
		return err
	}
	return c.reply(p.answer(b.Name))
}

// setPolicy replaces the policy; with the etag that was read, only if nobody else
// changed it since.
func (h *Handler) setPolicy(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.buckets.setIamPolicy")
	if err != nil {
		return err
	}
	var given policy
	if err := readJSON(c.r.Body, &given); err != nil {
		return err
	}
	if given.Version == 0 {
		given.Version = 1
	}
	of, err := access.Of(b)
	if err != nil {
		return err
	}
	of.Policy = given.BucketPolicy
	if err := h.auth.CheckBucketPolicy(c.ctx(), of); err != nil {
		return err
	}
	b, err = h.blobs.UpdateBucket(c.ctx(), c.names[0], blob.Conditions{}, func(b *blob.Bucket) error {
		now, err := readPolicy(*b)
		if err != nil {
			return err
		}
		if given.ETag != "" && given.ETag != now.ETag {
			return resource.Errorf(codes.FailedPrecondition, "the policy of bucket %s changed since it was read (etag %s)", b.Name, now.ETag).
				WithHint("read the policy again, make the change, and set it with the new etag")
		}
		b.Policy, err = json.Marshal(policy{BucketPolicy: given.BucketPolicy, N: b.Metageneration})
		return err
	})
	if err != nil {
		return err
	}
	p, err := readPolicy(b)
	if err != nil {
		return err
	}
	return c.reply(p.answer(b.Name))
}

// testPermissions tells which of the asked permissions the caller has.
func (h *Handler) testPermissions(c *call) error {
	p := identity.FromContext(c.ctx())
	b, err := h.blobs.GetBucket(c.ctx(), c.names[0])
	if resource.IsNotFound(err) {
		if denied := h.auth.AuthorizeMissing(p, c.names[0], "storage.buckets.get"); denied != nil {
			return denied
		}
	}
	if err != nil {
		return err
	}
	of, err := access.Of(b)
	if err != nil {
		return err
	}
	has := []string{}
	for _, permission := range c.query["permissions"] {
		switch err := h.auth.AuthorizeBucket(c.ctx(), p, of, permission); resource.CodeOf(err) {
		case codes.OK:
			has = append(has, permission)
		case codes.PermissionDenied, codes.Unauthenticated:
		default:
			return err
		}
	}
	answer := map[string]any{"kind": "storage#testIamPermissionsResponse"}
	if len(has) > 0 {
		answer["permissions"] = has
	}
	return c.reply(answer)
}
