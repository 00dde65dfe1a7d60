package gcs

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// fields is a JSON object whose values are not read yet: null and absent differ.
type fields map[string]json.RawMessage

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

func text(name string, raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", resource.Invalid(name, "%s is not a text", name)
	}
	if s == nil {
		return "", nil
	}
	return *s, nil
}

// applyObject sets what fields say on o. A field that is null is cleared; one
// that nothing here would honour is refused by name.
func applyObject(o *blob.Object, f fields) error {
	texts := map[string]*string{
		"contentType": &o.ContentType, "contentEncoding": &o.ContentEncoding, "contentDisposition": &o.ContentDisposition,
		"contentLanguage": &o.ContentLanguage, "cacheControl": &o.CacheControl, "storageClass": &o.StorageClass,
	}
	for name, raw := range f {
		if to, ok := texts[name]; ok {
			v, err := text(name, raw)
			if err != nil {
				return err
			}
			*to = v
			continue
		}
		var err error
		switch name {
		case "metadata":
			o.Metadata, err = mergeLabels(o.Metadata, name, raw)
		case "customTime":
			o.CustomTime, err = parseTime(name, raw)
		case "kind", "id", "selfLink", "mediaLink", "name", "bucket", "generation", "metageneration", "size", "etag", "timeCreated",
			"updated", "timeStorageClassUpdated", "timeFinalized", "timeDeleted", "componentCount", "md5Hash", "crc32c", "owner":
			// given back by clients that send a whole object; the server's to say
		case "temporaryHold", "eventBasedHold", "acl", "retention", "kmsKeyName", "contexts":
			err = refuseSet("object field ", name, raw)
		default:
			err = resource.Unimplemented("object field " + name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseSet accepts the values that ask for nothing.
func refuseSet(what, name string, raw json.RawMessage) error {
	switch string(raw) {
	case "null", "false", "[]", "{}", `""`:
		return nil
	}
	return resource.Unimplemented(what + name)
}

// mergeLabels is the patch of a map of texts: null clears it, a null value
// removes its key.
func mergeLabels(old map[string]string, name string, raw json.RawMessage) (map[string]string, error) {
	if isNull(raw) {
		return nil, nil
	}
	var change map[string]*string
	if err := json.Unmarshal(raw, &change); err != nil {
		return nil, resource.Invalid(name, "%s is not a map of texts", name)
	}
	merged := make(map[string]string, len(old)+len(change))
	maps.Copy(merged, old)
	for k, v := range change {
		if v == nil {
			delete(merged, k)
			continue
		}
		merged[k] = *v
	}
	return merged, nil
}

func parseTime(name string, raw json.RawMessage) (time.Time, error) {
	s, err := text(name, raw)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, resource.Invalid(name, "%s %q is no RFC 3339 time", name, s)
	}
	return t.UTC(), nil
}

// bodyHashes takes the hashes that an object's metadata promises.
func bodyHashes(f fields, conds *blob.Conditions) error {
	for name, set := range map[string]func(*blob.Conditions, string) error{"md5Hash": setMD5, "crc32c": setCRC} {
		raw, ok := f[name]
		if !ok {
			continue
		}
		v, err := text(name, raw)
		if err != nil {
			return err
		}
		if v == "" {
			continue
		}
		if err := set(conds, v); err != nil {
			return err
		}
	}
	return nil
}

// timeFormat is RFC 3339 with milliseconds, as the API writes times.
const timeFormat = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// baseURL is how the caller reached us.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func objectPath(o blob.Object) string {
	return "/storage/v1/b/" + o.Bucket + "/o/" + url.PathEscape(o.Name)
}

func crcText(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// objectJSON is the API's object resource
// (cloud.google.com/storage/docs/json_api/v1/objects).
func objectJSON(base string, o blob.Object) map[string]any {
	generation := strconv.FormatInt(o.Generation, 10)
	m := map[string]any{
		"kind": "storage#object", "id": o.Bucket + "/" + o.Name + "/" + generation,
		"selfLink":  base + objectPath(o),
		"mediaLink": base + "/download" + objectPath(o) + "?generation=" + generation + "&alt=media",
		"name":      o.Name, "bucket": o.Bucket, "generation": generation,
		"metageneration": strconv.FormatInt(o.Metageneration, 10),
		"size":           strconv.FormatInt(o.Size, 10), "storageClass": o.StorageClass,
		"crc32c": crcText(o.CRC32C), "etag": etag(o.Generation, o.Metageneration),
		"timeCreated": formatTime(o.Created), "updated": formatTime(o.Updated),
		"timeStorageClassUpdated": formatTime(o.Created), "timeFinalized": formatTime(o.Created),
	}
	for name, v := range map[string]string{
		"contentType": o.ContentType, "contentEncoding": o.ContentEncoding, "contentDisposition": o.ContentDisposition,
		"contentLanguage": o.ContentLanguage, "cacheControl": o.CacheControl,
	} {
		if v != "" {
			m[name] = v
		}
	}
	if len(o.MD5) > 0 {
		m["md5Hash"] = base64.StdEncoding.EncodeToString(o.MD5)
	}
	if len(o.Metadata) > 0 {
		m["metadata"] = o.Metadata
	}
	if !o.CustomTime.IsZero() {
		m["customTime"] = o.CustomTime.Format(time.RFC3339Nano)
	}
	if o.Components > 0 {
		m["componentCount"] = o.Components
	}
	return m
}

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
			"publicAccessPrevention":   "inherited",
		},
	}
	if len(b.Labels) > 0 {
		m["labels"] = b.Labels
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
			b.StorageClass, err = text(name, raw)
		case "name", "location", "kind", "id", "selfLink", "projectNumber", "metageneration", "etag", "timeCreated", "updated",
			"locationType", "owner", "generation", "iamConfiguration", "rpo", "satisfiesPZS", "softDeletePolicy", "hierarchicalNamespace":
			err = checkBucketField(name, raw)
		case "acl", "defaultObjectAcl", "lifecycle", "cors", "versioning", "retentionPolicy", "defaultEventBasedHold", "encryption",
			"billing", "logging", "website", "autoclass", "objectRetention", "customPlacementConfig", "ipFilter":
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

// checkBucketField refuses the settings among the accepted fields that would ask
// for something: kept deleted objects, and folders.
func checkBucketField(name string, raw json.RawMessage) error {
	switch name {
	case "softDeletePolicy":
		var p struct {
			RetentionDurationSeconds json.Number `json:"retentionDurationSeconds"`
		}
		if json.Unmarshal(raw, &p) == nil && p.RetentionDurationSeconds != "" && p.RetentionDurationSeconds != "0" {
			return resource.Unimplemented("bucket field softDeletePolicy")
		}
	case "hierarchicalNamespace":
		return refuseEnabled(name, raw)
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
