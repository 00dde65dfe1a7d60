package gcs

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
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
			"updated", "timeStorageClassUpdated", "timeFinalized", "timeDeleted", "componentCount", "md5Hash", "crc32c", "owner",
			"retentionExpirationTime", "softDeleteTime", "hardDeleteTime":
			// given back by clients that send a whole object; the server's to say
		case "temporaryHold":
			o.TemporaryHold, err = boolean(name, raw)
		case "eventBasedHold":
			o.EventBasedHold, err = boolean(name, raw)
		case "retention":
			o.Retention, err = parseRetention(raw)
		case "acl", "kmsKeyName", "contexts":
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

func boolean(name string, raw json.RawMessage) (bool, error) {
	var v *bool
	if err := json.Unmarshal(raw, &v); err != nil {
		return false, resource.Invalid(name, "%s is neither true nor false", name)
	}
	return v != nil && *v, nil
}

// parseRetention reads the retention of one object; null ends it.
func parseRetention(raw json.RawMessage) (blob.ObjectRetention, error) {
	var given *struct {
		Mode            string          `json:"mode"`
		RetainUntilTime json.RawMessage `json:"retainUntilTime"`
	}
	if err := json.Unmarshal(raw, &given); err != nil {
		return blob.ObjectRetention{}, resource.Invalid("retention", "retention is not {mode, retainUntilTime}: %w", err)
	}
	if given == nil || given.Mode == "" && len(given.RetainUntilTime) == 0 {
		return blob.ObjectRetention{}, nil
	}
	if given.Mode != blob.RetentionUnlocked && given.Mode != blob.RetentionLocked {
		return blob.ObjectRetention{}, resource.Invalid("retention.mode", "mode %q is not known: want Unlocked or Locked", given.Mode)
	}
	if len(given.RetainUntilTime) == 0 {
		return blob.ObjectRetention{}, resource.Invalid("retention.retainUntilTime", "until when? retainUntilTime is missing")
	}
	until, err := parseTime("retention.retainUntilTime", given.RetainUntilTime)
	return blob.ObjectRetention{Mode: given.Mode, Until: until}, err
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
		"timeStorageClassUpdated": formatTime(classUpdated(o)), "timeFinalized": formatTime(o.Created),
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
	addKept(m, o)
	return m
}

func classUpdated(o blob.Object) time.Time {
	if o.ClassUpdated.IsZero() {
		return o.Created
	}
	return o.ClassUpdated
}

// addKept tells what keeps an object, and what it is no longer.
func addKept(m map[string]any, o blob.Object) {
	for name, t := range map[string]time.Time{
		"timeDeleted": o.Deleted, "softDeleteTime": o.SoftDeleted, "hardDeleteTime": o.HardDelete, "retentionExpirationTime": o.RetentionExpires,
	} {
		if !t.IsZero() {
			m[name] = formatTime(t)
		}
	}
	if o.TemporaryHold {
		m["temporaryHold"] = true
	}
	if o.EventBasedHold {
		m["eventBasedHold"] = true
	}
	if o.Retention.Mode != "" {
		m["retention"] = map[string]any{"mode": o.Retention.Mode, "retainUntilTime": formatTime(o.Retention.Until)}
	}
}
