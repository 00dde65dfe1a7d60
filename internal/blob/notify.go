package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Types of events (cloud.google.com/storage/docs/pubsub-notifications).
const (
	EventFinalize = "OBJECT_FINALIZE"
	EventMetadata = "OBJECT_METADATA_UPDATE"
	EventDelete   = "OBJECT_DELETE"
	EventArchive  = "OBJECT_ARCHIVE"
)

// EventTypes lists them all.
func EventTypes() []string {
	return []string{EventFinalize, EventMetadata, EventDelete, EventArchive}
}

// EventLife is how long an event waits for its delivery.
const EventLife = 7 * 24 * time.Hour

// MaxNotifications is how many configurations a bucket may have.
const MaxNotifications = 100

// Event is one change of an object that a notification asked for. It is written
// in the transaction of the change itself, so that none is lost and none is told
// of what did not happen.
type Event struct {
	Type          string
	Object        Object
	Notification  string // id of the configuration
	Time          time.Time
	Overwrote     int64 `json:",omitempty"` // generation that a finalized object took the place of
	OverwrittenBy int64 `json:",omitempty"` // generation that took the place of a deleted or archived one
}

// PendingEvent is the state of an event's row until it is delivered.
const PendingEvent = "PENDING"

// eventKey sorts the events of a bucket by time; the generation and type make it
// unique within one.
func eventKey(e Event) string {
	return fmt.Sprintf("%s/%s/%016x/%016x-%s-%d", e.Object.Bucket, e.Notification, e.Time.UnixMicro(), e.Object.Generation, e.Type, e.Object.Metageneration)
}

func (n Notification) wants(e Event) bool {
	return (len(n.EventTypes) == 0 || slices.Contains(n.EventTypes, e.Type)) && strings.HasPrefix(e.Object.Name, n.ObjectNamePrefix)
}

// notify writes a row for each configuration that asks for the event.
func (s *Store) notify(ctx context.Context, tx store.Tx, b Bucket, e Event) error {
	e.Time = s.now().UTC()
	for _, n := range b.Notifications {
		if !n.wants(e) {
			continue
		}
		e.Notification = n.ID
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode event of %s/%s: %w", e.Object.Bucket, e.Object.Name, err)
		}
		row := store.Row{Kind: kindEvent, Key: eventKey(e), Parent: b.Name, State: PendingEvent, Data: data}
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// Events gives up to limit events of a bucket that wait for delivery, oldest first.
func (s *Store) Events(ctx context.Context, bucket string, limit int) ([]Event, error) {
	rows, err := s.rows.List(ctx, store.Query{Kind: kindEvent, Prefix: bucket + "/", Limit: limit})
	if err != nil {
		return nil, err
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Data, &events[i]); err != nil {
			return nil, fmt.Errorf("decode event %s: %w", row.Key, err)
		}
	}
	return events, nil
}

// AddNotification gives a bucket a further configuration, and it an id.
func (s *Store) AddNotification(ctx context.Context, bucket string, n Notification) (Notification, error) {
	err := s.changeNotifications(ctx, bucket, func(b *Bucket) error {
		if len(b.Notifications) >= MaxNotifications {
			return resource.Errorf(codes.InvalidArgument, "bucket %s has %d notification configurations, the most there may be", bucket, MaxNotifications)
		}
		b.LastNotification++
		n.ID = strconv.Itoa(b.LastNotification)
		b.Notifications = append(b.Notifications, n)
		return nil
	})
	return n, err
}

// DeleteNotification ends a configuration; what waits for delivery is dropped by Sweep.
func (s *Store) DeleteNotification(ctx context.Context, bucket, id string) error {
	return s.changeNotifications(ctx, bucket, func(b *Bucket) error {
		i := slices.IndexFunc(b.Notifications, func(n Notification) bool { return n.ID == id })
		if i < 0 {
			return MissingNotification(bucket, id)
		}
		b.Notifications = slices.Delete(b.Notifications, i, i+1)
		return nil
	})
}

// MissingNotification is the answer for a configuration that there is not.
func MissingNotification(bucket, id string) error {
	return resource.Errorf(codes.NotFound, "bucket %s has no notification configuration %q", bucket, id)
}

// changeNotifications leaves the metageneration as it is: configurations are
// resources of their own to clients.
func (s *Store) changeNotifications(ctx context.Context, bucket string, fn func(*Bucket) error) error {
	return s.rows.Update(ctx, func(tx store.Tx) error {
		b, err := getBucket(ctx, tx, bucket)
		if err != nil {
			return err
		}
		if err := fn(&b); err != nil {
			return err
		}
		return putBucket(ctx, tx, b)
	})
}
