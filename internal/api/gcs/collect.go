package gcs

import (
	"net/http"
	"strconv"
	"time"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// CollectPath is where an administrator asks for a collection.
const CollectPath = "/tategu/v1/storage/collect"

const (
	defaultAge = 24 * time.Hour
	// leastAge keeps content that a request in progress has written and not yet named.
	leastAge = time.Hour
	// namedDamages bounds the list in an answer; Damaged counts them all.
	namedDamages = 1000
)

// CollectRequest is the body of POST /tategu/v1/storage/collect.
type CollectRequest struct {
	DryRun bool   `json:"dryRun,omitempty"` // only tell; lifecycle rules are left out then
	Verify bool   `json:"verify,omitempty"` // read every content against its CRC32C too
	Age    string `json:"age,omitempty"`    // as time.ParseDuration reads it; "" = 24h
}

// CollectResponse is its answer.
type CollectResponse struct {
	Contents     int   `json:"contents"` // that no object named
	Uploads      int   `json:"uploads"`  // expired
	Objects      int   `json:"objects"`  // soft-deleted, whose time has come
	Events       int   `json:"events"`   // that nobody took
	Bytes        int64 `json:"bytes"`    // of all these
	Deleted      int   `json:"lifecycleDeleted"`
	Changed      int   `json:"lifecycleChanged"`
	Aborted      int   `json:"lifecycleAborted"`
	Checked      int   `json:"checked"`
	CheckedBytes int64 `json:"checkedBytes"`
	Damaged      int   `json:"damaged"`
	// Damages are the first of the damaged objects.
	Damages []Damage `json:"damages,omitempty"`
}

// Damage names an object whose content is not what was written.
type Damage struct {
	Object string `json:"object"` // gs://BUCKET/NAME#GENERATION
	Error  string `json:"error"`
}

// Collector answers CollectPath: garbage collection and lifecycle rules at once,
// and a check of all contents. It is for administrators of every project.
func (h *Handler) Collector() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := h.collect(r)
		if err != nil {
			h.writeError(w, r, false, err)
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

func (h *Handler) collect(r *http.Request) (answer CollectResponse, err error) {
	ctx := r.Context()
	if r.URL.Path != CollectPath || r.Method != http.MethodPost {
		return answer, resource.Unimplemented(r.Method + " of " + r.URL.Path)
	}
	if err := h.auth.Authorize(ctx, identity.FromContext(ctx), "", identity.PermissionCollect); err != nil {
		return answer, err
	}
	var req CollectRequest
	if err := readJSON(r.Body, &req); err != nil {
		return answer, err
	}
	age := defaultAge
	if req.Age != "" {
		if age, err = time.ParseDuration(req.Age); err != nil || age < leastAge {
			return answer, resource.Invalid("age", "%.40q is not a duration of at least %v", req.Age, leastAge).WithHint("write hours, such as 24h")
		}
	}
	if !req.DryRun {
		done, err := h.blobs.RunLifecycle(ctx)
		if err != nil {
			return answer, err
		}
		answer.Deleted, answer.Changed, answer.Aborted = done.Deleted, done.Changed, done.Aborted
	}
	sweep := h.blobs.Sweep
	if req.DryRun {
		sweep = h.blobs.SweepDry
	}
	swept, err := sweep(ctx, age)
	if err != nil {
		return answer, err
	}
	answer.Contents, answer.Uploads, answer.Objects, answer.Events, answer.Bytes = swept.Contents, swept.Uploads, swept.Objects, swept.Events, swept.Bytes
	if !req.Verify {
		return answer, nil
	}
	checked, err := h.blobs.CheckContents(ctx, func(o blob.Object, err error) {
		if len(answer.Damages) < namedDamages {
			answer.Damages = append(answer.Damages, Damage{Object: "gs://" + o.Bucket + "/" + o.Name + "#" + strconv.FormatInt(o.Generation, 10), Error: err.Error()})
		}
	})
	answer.Checked, answer.CheckedBytes, answer.Damaged = checked.Objects, checked.Bytes, checked.Damaged
	return answer, err
}
