package gcs

import (
	"context"
	"net"
	"net/http"
	"strings"

	"tategu/internal/blob"
)

// target reads what a request is about, by its path and its host.
func (h *Handler) target(r *http.Request) (target, error) {
	if bucket, ok := h.boundBucket(r.Context(), r.Host); ok {
		return parseXML(bucket + "/" + strings.TrimPrefix(r.URL.EscapedPath(), "/"))
	}
	return parseTarget(r.Host, r.URL.EscapedPath())
}

// Bound reports a request whose host name is a bucket's: the bucket is named like
// the host, or the host is BUCKET.localhost. Its path is an object's alone.
func (h *Handler) Bound(r *http.Request) bool {
	_, ok := h.boundBucket(r.Context(), r.Host)
	return ok
}

func (h *Handler) boundBucket(ctx context.Context, host string) (string, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(host)
	if !strings.Contains(host, ".") || strings.HasSuffix(host, ".googleapis.com") || net.ParseIP(host) != nil {
		return "", false
	}
	bucket := strings.TrimSuffix(host, ".localhost")
	if blob.CheckBucketName(bucket) != nil {
		return "", false
	}
	_, err := h.blobs.GetBucket(ctx, bucket)
	return bucket, err == nil
}
