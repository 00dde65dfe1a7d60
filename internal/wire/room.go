package wire

import (
	"context"
	"net/http"
	"strings"

	"tategu/internal/volume"
)

// What adds to the state is refused while the disk is nearly full, so that what
// gives room back still can be written.

// frees reports a method that removes something or ends work.
func frees(method string) bool {
	short := method[strings.LastIndexByte(method, '/')+1:]
	for _, verb := range []string{"Delete", "BatchDelete", "Cancel", "BatchCancel", "Undeploy", "Purge", "Remove"} {
		if strings.HasPrefix(short, verb) {
			return true
		}
	}
	return false
}

// roomFor is nil when the method may be taken.
func (d *dispatcher) roomFor(m *method) error {
	if d.room == nil || !m.api.Mutates() || frees(m.api.Name) {
		return nil
	}
	return d.room()
}

// roomForPlain is the same for a plain request. A piece of a resumable upload looks
// for room itself as it comes, or asks how far the upload is; a batch may be one of deletions, and a POST
// of ?delete is one; a collection of garbage and a backup must be possible.
func (d *dispatcher) roomForPlain(rt *Route, r *http.Request) error {
	query := r.URL.Query()
	adds := r.Method == http.MethodPost && !query.Has("delete") || r.Method == http.MethodPut && !query.Has("upload_id") || r.Method == http.MethodPatch
	if d.room == nil || !rt.Audit || !adds || strings.HasPrefix(r.URL.Path, "/batch/") || strings.HasPrefix(r.URL.Path, "/tategu/") {
		return nil
	}
	return d.room()
}

// auditPlain writes the entry of a plain answer. What the disk kept from happening
// gets none: the entry would fill it further, and is in the log.
func (d *dispatcher) auditPlain(ctx context.Context, c *call, status int) error {
	if status == http.StatusInsufficientStorage || status == http.StatusServiceUnavailable {
		return nil
	}
	return d.audit(ctx, c, codeOfHTTP(status))
}

// auditError is what the caller sees when the entry could not be written.
func (d *dispatcher) auditError(ctx context.Context, c *call, err error) error {
	if volume.Blocked(err) {
		return d.visible(ctx, c, err)
	}
	return internalError(c.id)
}
