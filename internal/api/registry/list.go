package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/resource"
)

// ListResponse answers GET of ListPath.
type ListResponse struct {
	Images []image.Entry `json:"images"`
}

// list gives the images of one repository, or of all that the caller may list.
func (c *call) list() error {
	if err := c.only(http.MethodGet); err != nil {
		return err
	}
	name := c.r.URL.Query().Get("repository")
	answer := ListResponse{Images: []image.Entry{}}
	var failed error
	err := c.visible("", func(r image.Repo) bool {
		if name != "" && r.Name != name && !strings.HasPrefix(r.Name, name+"/") {
			return true
		}
		var entries []image.Entry
		entries, failed = c.Images.Entries(c.ctx(), r)
		answer.Images = append(answer.Images, entries...)
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

const (
	// DefaultAge is how long a blob that no manifest names is kept.
	DefaultAge = 24 * time.Hour
	// leastAge keeps what a push in progress has stored and not yet named.
	leastAge = time.Hour
	// namedDamages bounds the list in an answer; Damaged counts them all.
	namedDamages = 1000
)

// CollectRequest is the body of POST of CollectPath.
type CollectRequest struct {
	DryRun   bool   `json:"dryRun,omitempty"`
	Verify   bool   `json:"verify,omitempty"`   // read every blob against its digest too
	Age      string `json:"age,omitempty"`      // as time.ParseDuration reads it; "" = 24h
	Untagged string `json:"untagged,omitempty"` // manifests without a tag go when older; "" = the server's policy
}

// CollectResponse is its answer.
type CollectResponse struct {
	image.Collected
	Checked      int      `json:"checked"`
	CheckedBytes int64    `json:"checkedBytes"`
	Damaged      int      `json:"damaged"`
	Damages      []Damage `json:"damages,omitempty"` // the first of them
}

// Damage names a blob that is not what was written.
type Damage struct {
	Blob  image.Digest `json:"blob"`
	Error string       `json:"error"`
}

// collect frees what images no longer need, for administrators of every project.
func (c *call) collect() error {
	if err := c.only(http.MethodPost); err != nil {
		return err
	}
	if err := c.Auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), "", identity.PermissionCollect); err != nil {
		return err
	}
	var req CollectRequest
	dec := json.NewDecoder(io.LimitReader(c.r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return resource.Invalid("body", "the request is not the JSON that it should be: %v", err)
	}
	p := image.Policy{Age: DefaultAge, Untagged: c.Untagged, Packed: c.Packed, DryRun: req.DryRun}
	for field, set := range map[string]struct {
		text string
		to   *time.Duration
	}{"age": {req.Age, &p.Age}, "untagged": {req.Untagged, &p.Untagged}} {
		if set.text == "" {
			continue
		}
		d, err := time.ParseDuration(set.text)
		if err != nil || d < leastAge {
			return resource.Invalid(field, "%.40q is not a duration of at least %v", set.text, leastAge).WithHint("write hours, such as 24h")
		}
		*set.to = d
	}
	var answer CollectResponse
	var err error
	if answer.Collected, err = c.Images.Collect(c.ctx(), p); err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	if req.Verify {
		checked, err := c.Images.Check(c.ctx(), func(d image.Digest, err error) {
			if len(answer.Damages) < namedDamages {
				answer.Damages = append(answer.Damages, Damage{Blob: d, Error: err.Error()})
			}
		})
		if err != nil {
			return err
		}
		answer.Checked, answer.CheckedBytes, answer.Damaged = checked.Blobs, checked.Bytes, checked.Damaged
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}
