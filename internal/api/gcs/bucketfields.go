package gcs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

func bucketETag(b blob.Bucket) string { return etag(b.Created.UnixMicro(), b.Metageneration) }

// bucketJSON is the API's bucket resource
// (cloud.google.com/storage/docs/json_api/v1/buckets).
func bucketJSON(base string, b blob.Bucket) map[string]any {
	location := strings.ToUpper(b.Location)
	kind := "region"
	if location == "US" || location == "EU" || location == "ASIA" {
		kind = "multi-region"
	}
	m := map[string]any{
		"kind": "storage#bucket", "id": b.Name, "name": b.Name, "selfLink": base + "/storage/v1/b/" + b.Name,
		"location": location, "locationType": kind,
		"storageClass": b.StorageClass, "metageneration": strconv.FormatInt(b.Metageneration, 10), "etag": bucketETag(b),
		"timeCreated": formatTime(b.Created), "updated": formatTime(b.Updated),
		"iamConfiguration": map[string]any{
			"bucketPolicyOnly":         map[string]any{"enabled": true},
			"uniformBucketLevelAccess": map[string]any{"enabled": true},
			"publicAccessPrevention":   cmp.Or(b.PublicAccessPrevention, "inherited"),
		},
		"softDeletePolicy": softDeleteJSON(b.SoftDelete),
	}
	addRules(m, b)
	if len(b.Labels) > 0 {
		m["labels"] = b.Labels
	}
	return m
}

// addRules tells the rules that are executed on a bucket.
func addRules(m map[string]any, b blob.Bucket) {
	if b.Versioning {
		m["versioning"] = map[string]any{"enabled": true}
	}
	if len(b.Lifecycle) > 0 {
		m["lifecycle"] = map[string]any{"rule": b.Lifecycle}
	}
	if len(b.CORS) > 0 {
		m["cors"] = b.CORS
	}
	if b.Retention.Period > 0 {
		policy := map[string]any{"retentionPeriod": seconds(b.Retention.Period), "effectiveTime": formatTime(b.Retention.Effective)}
		if b.Retention.Locked {
			policy["isLocked"] = true
		}
		m["retentionPolicy"] = policy
	}
	if b.DefaultEventBasedHold {
		m["defaultEventBasedHold"] = true
	}
	if b.ObjectRetention {
		m["objectRetention"] = map[string]any{"mode": "Enabled"}
	}
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

func softDeleteJSON(p blob.SoftDeletePolicy) map[string]any {
	m := map[string]any{"retentionDurationSeconds": seconds(p.Period)}
	if !p.Effective.IsZero() {
		m["effectiveTime"] = formatTime(p.Effective)
	}
	return m
}

// applyBucket sets what fields say on b; settings that nothing would execute are
// refused by name.
func applyBucket(b *blob.Bucket, f fields) error {
	for name, raw := range f {
		var err error
		switch name {
		case "labels":
			b.Labels, err = mergeLabels(b.Labels, name, raw)
		case "storageClass":
			b.StorageClass, err = storageClass(name, raw)
		case "versioning":
			b.Versioning, err = enabled(name, raw)
		case "lifecycle":
			b.Lifecycle, err = parseLifecycle(raw)
		case "cors":
			b.CORS = nil // a decoder would keep what a new rule leaves out
			err = strictJSON(name, raw, &b.CORS)
		case "retentionPolicy":
			b.Retention.Period, err = period(name, "retentionPeriod", raw)
		case "softDeletePolicy":
			b.SoftDelete.Period, err = period(name, "retentionDurationSeconds", raw)
		case "defaultEventBasedHold":
			b.DefaultEventBasedHold, err = boolean(name, raw)
		case "iamConfiguration":
			err = applyIAMConfiguration(b, raw)
		case "name", "location", "kind", "id", "selfLink", "projectNumber", "metageneration", "etag", "timeCreated", "updated",
			"locationType", "owner", "generation", "rpo", "satisfiesPZS", "satisfiesPZI", "objectRetention":
			// given back by clients that send a whole bucket; the server's to say
		case "acl", "defaultObjectAcl", "encryption", "billing", "logging", "website", "autoclass", "customPlacementConfig", "ipFilter",
			"hierarchicalNamespace":
			err = refuseEnabled(name, raw)
		default:
			err = resource.Unimplemented("bucket field " + name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resetBucket clears what a PUT does not name.
func resetBucket(b *blob.Bucket) {
	b.Labels, b.Versioning, b.Lifecycle, b.CORS, b.DefaultEventBasedHold = nil, false, nil, nil, false
	b.Retention.Period, b.SoftDelete.Period = 0, 0
}

func storageClass(name string, raw json.RawMessage) (string, error) {
	class, err := text(name, raw)
	if err == nil && class != "" && !slices.Contains(blob.StorageClasses(), class) {
		err = resource.Invalid(name, "%s %q is no storage class: want one of %s", name, class, strings.Join(blob.StorageClasses(), ", "))
	}
	return class, err
}

// strictJSON reads a value of known fields only: what is not known would be
// forgotten without a word.
func strictJSON(name string, raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return resource.Invalid(name, "%s cannot be read: %w", name, err)
	}
	return nil
}

func enabled(name string, raw json.RawMessage) (bool, error) {
	var v struct {
		Enabled bool `json:"enabled"`
	}
	err := strictJSON(name, raw, &v)
	return v.Enabled, err
}

func parseLifecycle(raw json.RawMessage) ([]blob.LifecycleRule, error) {
	var v struct {
		Rule []blob.LifecycleRule `json:"rule"`
	}
	err := strictJSON("lifecycle", raw, &v)
	return v.Rule, err
}

// period reads {FIELD: seconds}, where the number may be a text; null is none.
func period(name, field string, raw json.RawMessage) (time.Duration, error) {
	var v map[string]json.RawMessage
	if err := json.Unmarshal(raw, &v); err != nil {
		return 0, resource.Invalid(name, "%s is not an object", name)
	}
	var n json.Number
	if given, ok := v[field]; ok {
		if err := json.Unmarshal(given, &n); err != nil {
			return 0, resource.Invalid(name+"."+field, "%s.%s: %s is no number of seconds", name, field, given)
		}
	}
	if n == "" {
		return 0, nil
	}
	secs, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil || secs < 0 || secs > int64(blob.MaxRetention/time.Second) {
		return 0, resource.Invalid(name+"."+field, "%s.%s: %s is no number of seconds up to 100 years", name, field, n)
	}
	return time.Duration(secs) * time.Second, nil
}

// applyIAMConfiguration reads how a bucket is opened: access is uniform always.
func applyIAMConfiguration(b *blob.Bucket, raw json.RawMessage) error {
	var v *struct {
		Uniform *struct {
			Enabled *bool `json:"enabled"`
		} `json:"uniformBucketLevelAccess"`
		Prevention *string `json:"publicAccessPrevention"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return resource.Invalid("iamConfiguration", "iamConfiguration cannot be read: %w", err)
	}
	if v == nil {
		return nil
	}
	if v.Uniform != nil && v.Uniform.Enabled != nil && !*v.Uniform.Enabled {
		return resource.Unimplemented("bucket field iamConfiguration.uniformBucketLevelAccess.enabled=false (access control lists)")
	}
	if v.Prevention != nil {
		switch *v.Prevention {
		case "enforced":
			b.PublicAccessPrevention = "enforced"
		case "inherited", "unspecified", "":
			b.PublicAccessPrevention = ""
		default:
			return resource.Invalid("iamConfiguration.publicAccessPrevention", "publicAccessPrevention %q is not known: want enforced or inherited", *v.Prevention)
		}
	}
	return nil
}

// refuseEnabled accepts a setting that is off: empty, or {"enabled": false}.
func refuseEnabled(name string, raw json.RawMessage) error {
	var setting map[string]any
	if json.Unmarshal(raw, &setting) == nil {
		on := false
		for _, v := range setting {
			switch v := v.(type) {
			case nil:
			case bool:
				on = on || v
			case []any:
				on = on || len(v) > 0
			default:
				on = true
			}
		}
		if !on {
			return nil
		}
	}
	return refuseSet("bucket field ", name, raw)
}
