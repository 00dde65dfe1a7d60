package gcs

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// notificationJSON is the API's notification resource
// (cloud.google.com/storage/docs/json_api/v1/notifications).
func notificationJSON(base, bucket string, n blob.Notification) map[string]any {
	m := map[string]any{
		"kind": "storage#notification", "id": n.ID, "topic": n.Topic, "payload_format": n.PayloadFormat, "etag": n.ID,
		"selfLink": base + "/storage/v1/b/" + bucket + "/notificationConfigs/" + n.ID,
	}
	if len(n.EventTypes) > 0 {
		m["event_types"] = n.EventTypes
	}
	if n.ObjectNamePrefix != "" {
		m["object_name_prefix"] = n.ObjectNamePrefix
	}
	if len(n.CustomAttributes) > 0 {
		m["custom_attributes"] = n.CustomAttributes
	}
	return m
}

func (h *Handler) listNotifications(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.buckets.get")
	if err != nil {
		return err
	}
	answer := map[string]any{"kind": "storage#notifications"}
	items := make([]any, 0, len(b.Notifications))
	for _, n := range b.Notifications {
		items = append(items, notificationJSON(baseURL(c.r), b.Name, n))
	}
	if len(items) > 0 {
		answer["items"] = items
	}
	return c.reply(answer)
}

func (h *Handler) getNotification(c *call) error {
	b, err := h.bucketFor(c.ctx(), c.names[0], "storage.buckets.get")
	if err != nil {
		return err
	}
	for _, n := range b.Notifications {
		if n.ID == c.names[1] {
			return c.reply(notificationJSON(baseURL(c.r), b.Name, n))
		}
	}
	return blob.MissingNotification(b.Name, c.names[1])
}

func (h *Handler) insertNotification(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.buckets.update"); err != nil {
		return err
	}
	n, err := readNotification(c.r)
	if err != nil {
		return err
	}
	if n, err = h.blobs.AddNotification(c.ctx(), c.names[0], n); err != nil {
		return err
	}
	return c.reply(notificationJSON(baseURL(c.r), c.names[0], n))
}

func (h *Handler) deleteNotification(c *call) error {
	if err := h.authorize(c.ctx(), c.names[0], "storage.buckets.update"); err != nil {
		return err
	}
	if err := h.blobs.DeleteNotification(c.ctx(), c.names[0], c.names[1]); err != nil {
		return err
	}
	return c.noContent()
}

func readNotification(r *http.Request) (blob.Notification, error) {
	var given struct {
		Topic            string            `json:"topic"`
		EventTypes       []string          `json:"event_types"`
		ObjectNamePrefix string            `json:"object_name_prefix"`
		CustomAttributes map[string]string `json:"custom_attributes"`
		PayloadFormat    string            `json:"payload_format"`
	}
	if err := readJSON(r.Body, &given); err != nil {
		return blob.Notification{}, err
	}
	n := blob.Notification{
		Topic: given.Topic, EventTypes: given.EventTypes, ObjectNamePrefix: given.ObjectNamePrefix,
		CustomAttributes: given.CustomAttributes, PayloadFormat: cmp.Or(given.PayloadFormat, payloadJSON),
	}
	return n, checkNotification(&n)
}

// Formats of what a notification carries.
const (
	payloadJSON = "JSON_API_V1"
	payloadNone = "NONE"
)

// topicPrefix starts the topics that clients send and read back.
const topicPrefix = "//pubsub.googleapis.com/"

// checkNotification says what nothing could deliver, and gives the topic its full form.
func checkNotification(n *blob.Notification) error {
	topic := strings.TrimPrefix(n.Topic, topicPrefix)
	if parts := strings.Split(topic, "/"); len(parts) != 4 || parts[0] != "projects" || parts[1] == "" || parts[2] != "topics" || parts[3] == "" {
		return resource.Invalid("topic", "topic %q cannot be read: want %sprojects/PROJECT/topics/TOPIC", n.Topic, topicPrefix)
	}
	n.Topic = topicPrefix + topic
	for _, e := range n.EventTypes {
		if !slices.Contains(blob.EventTypes(), e) {
			return resource.Invalid("event_types", "event_types: %q is not known: want %s", e, strings.Join(blob.EventTypes(), ", "))
		}
	}
	if n.PayloadFormat != payloadJSON && n.PayloadFormat != payloadNone {
		return resource.Invalid("payload_format", "payload_format %q is not known: want %s or %s", n.PayloadFormat, payloadJSON, payloadNone)
	}
	if len(n.ObjectNamePrefix) > blob.MaxName {
		return resource.Invalid("object_name_prefix", "the prefix has %d bytes, the most is %d", len(n.ObjectNamePrefix), blob.MaxName)
	}
	return nil
}
