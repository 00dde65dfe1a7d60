package gcs

import (
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// outcome of the preconditions that HTTP itself has.
type outcome int

const (
	holds       outcome = iota
	unmodified          // If-None-Match or If-Modified-Since: there is nothing new
	failedMatch         // If-Match or If-Unmodified-Since: it is another one
)

// httpConditions works out a request's conditional headers on an object, nil where
// there is none (RFC 9110, section 13.2.2). header gives their values.
func httpConditions(header func(name string) string, o *blob.Object) outcome {
	since := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(header(name))
		return t, err == nil && o != nil // a date that cannot be read is ignored, says the RFC
	}
	if tags := header("If-Match"); tags != "" {
		if !matchesTag(tags, o) {
			return failedMatch
		}
	} else if t, ok := since("If-Unmodified-Since"); ok && o.Updated.Truncate(time.Second).After(t) {
		return failedMatch
	}
	if tags := header("If-None-Match"); tags != "" {
		if matchesTag(tags, o) {
			return unmodified
		}
	} else if t, ok := since("If-Modified-Since"); ok && !o.Updated.Truncate(time.Second).After(t) {
		return unmodified
	}
	return holds
}

// matchesTag reports that a list of etags names the object as it is, by the etag
// of the JSON API or by that of the XML API.
func matchesTag(tags string, o *blob.Object) bool {
	if o == nil {
		return false
	}
	for tag := range strings.SplitSeq(tags, ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag == "*" || tag != "" && (tag == etag(o.Generation, o.Metageneration) || tag == xmlETag(*o)) {
			return true
		}
	}
	return false
}

// checkReadHeaders applies the conditional headers of a read.
func checkReadHeaders(h http.Header, o blob.Object) error {
	switch httpConditions(h.Get, &o) {
	case unmodified:
		return blob.ErrNotModified
	case failedMatch:
		return failedHeader(o.Bucket, o.Name)
	default:
		return nil
	}
}

func failedHeader(bucket, name string) error {
	return resource.Errorf(codes.FailedPrecondition, "a conditional header does not hold for %s/%s as it is", bucket, name).
		WithResource("gs://" + bucket + "/" + name)
}

// xmlConditions reads the preconditions of a write in the XML API. Conditional
// headers are worked out on the object as it is, and the write then holds for
// that generation alone.
func (h *Handler) xmlConditions(c *call) (blob.Conditions, error) {
	conds, err := conditions(c.query, "if")
	if err != nil {
		return conds, err
	}
	if c.r.Header.Get("If-Match")+c.r.Header.Get("If-None-Match")+c.r.Header.Get("If-Unmodified-Since") == "" {
		return conds, nil
	}
	var now *blob.Object
	o, err := h.blobs.Stat(c.ctx(), c.names[0], c.names[1], 0, blob.Conditions{})
	switch {
	case err == nil:
		now = &o
	case !resource.IsNotFound(err):
		return conds, err
	}
	header := func(name string) string {
		if name == "If-Modified-Since" { // of reads only
			return ""
		}
		return c.r.Header.Get(name)
	}
	if httpConditions(header, now) != holds || conds.GenerationMatch != nil && *conds.GenerationMatch != o.Generation {
		return conds, failedHeader(c.names[0], c.names[1])
	}
	conds.GenerationMatch = &o.Generation
	return conds, nil
}
