package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// markerKey holds whose objects these are. Two servers on one prefix would delete
// each other's objects, since each knows its own names only.
const markerKey = "tategu.json"

type marker struct {
	Installation string    `json:"installation"`
	Created      time.Time `json:"created"`
}

// Claim makes the prefix installation's own, or makes sure that it is, and then
// finishes what a killed process left there. A prefix without a marker may be taken
// when it is empty and isNew, which says that the installation has no objects yet.
func (c *Content) Claim(ctx context.Context, installation string, isNew bool) error {
	found, err := c.readMarker(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		if found, err = c.mark(ctx, installation, isNew); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if found.Installation != installation {
		return resource.Errorf(codes.FailedPrecondition, "%s holds the objects of another data directory (installation %s, since %s)",
			c.address, found.Installation, found.Created.Format(time.RFC3339)).
			WithHint("give each data directory a ?prefix= of its own")
	}
	if c.dirs != nil {
		if err := c.dirs.clean(); err != nil {
			return c.failed("clean", err)
		}
	}
	c.discardParts(ctx, contentFolder)
	return c.buryAll(ctx)
}

// Abandon undoes a Claim that came to nothing: all contents go, and at last the marker.
func (c *Content) Abandon(ctx context.Context) error {
	if err := c.Walk(ctx, func(id string, _ time.Time) error { return c.Remove(ctx, id) }); err != nil {
		return err
	}
	return c.remove(ctx, markerKey)
}

func (c *Content) readMarker(ctx context.Context) (marker, error) {
	data, err := c.bucket.ReadAll(ctx, markerKey)
	if err != nil {
		return marker{}, c.missing("read", err)
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil || m.Installation == "" {
		return marker{}, resource.Errorf(codes.FailedPrecondition, "%s in %s was not written by tategu", markerKey, c.address).
			WithHint("choose another ?prefix=")
	}
	return m, nil
}

// mark writes the marker, and gives the one that is there afterwards.
func (c *Content) mark(ctx context.Context, installation string, isNew bool) (marker, error) {
	if !isNew {
		return marker{}, resource.Errorf(codes.FailedPrecondition, "%s has lost its %s: it was emptied, or it is not where the objects of this data directory are", c.address, markerKey).
			WithHint("correct storage.objects, or bring the bucket's objects back, %s among them", markerKey)
	}
	for _, prefix := range []string{contentFolder, removedFolder} {
		objects, _, err := c.bucket.ListPage(ctx, gcblob.FirstPageToken, 1, &gcblob.ListOptions{Prefix: prefix})
		if err != nil {
			return marker{}, c.failed("list", err)
		}
		if len(objects) > 0 {
			return marker{}, resource.Errorf(codes.FailedPrecondition, "%s holds %s without a %s that says whose it is", c.address, objects[0].Key, markerKey).
				WithHint("choose another ?prefix=")
		}
	}
	data, err := json.Marshal(marker{Installation: installation, Created: c.now().UTC().Truncate(time.Second)})
	if err != nil {
		return marker{}, fmt.Errorf("encode the marker: %w", err)
	}
	err = c.writeMarker(ctx, data, true)
	if httpStatus(err) == 501 { // a store without conditional writes
		err = c.writeMarker(ctx, data, false)
	}
	if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition { // which says that another server was faster
		return marker{}, c.failed("write to", err)
	}
	m, err := c.readMarker(ctx)
	return m, c.unreadable(err)
}

func (c *Content) writeMarker(ctx context.Context, data []byte, onlyNew bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, finish, err := c.writer(ctx, markerKey, true, onlyNew)
	if err != nil {
		return err
	}
	if _, err := bytes.NewReader(data).WriteTo(w); err != nil {
		cancel()
		return errors.Join(err, w.Close())
	}
	return finish(w)
}
