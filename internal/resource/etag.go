package resource

import (
	"crypto/sha256"
	"encoding/base64"
)

// ETag names one content of a resource; equal content has an equal etag.
func ETag(content []byte) string {
	sum := sha256.Sum256(content)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
