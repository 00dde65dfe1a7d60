// Package event tells other systems of what happened: it keeps events in an outbox,
// which is written in the transaction in which they happen, and posts each of them to
// webhooks until it is taken. An event has one id, however often it is sent and
// wherever to.
//
// Events are CloudEvents 1.0 in structured JSON; requests are signed as Standard
// Webhooks has it. It knows nothing of what the events are about.
package event

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Kind of the rows of the outbox. The key is the event's id and the webhook's name,
// the parent what the event is about.
const Kind store.Kind = "event"

// statePending is the state of rows that have to be sent; others do not exist.
const statePending = "PENDING"

// Event is one thing that happened.
type Event struct {
	ID      string // unique; the same thing has the same id
	Type    string // such as tategu.batchPredictionJob.succeeded
	Subject string // full resource name
	Project string
	Time    time.Time
	Data    json.RawMessage
}

// Secret signs requests. It does not show itself.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "(secret)" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "(secret)" }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// secretPrefix marks the secrets of Standard Webhooks; base64 follows.
const secretPrefix = "whsec_"

// Bounds of a key, as the specification has them.
const (
	leastKey = 24
	mostKey  = 64
)

func (s Secret) key() ([]byte, error) {
	text, ok := strings.CutPrefix(string(s), secretPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < leastKey || len(key) > mostKey {
		return nil, resource.Invalid("webhooks.secret", "the secret of a webhook is not %s and %d to %d bytes in base64", secretPrefix, leastKey, mostKey).
			WithHint(`make one: echo "whsec_$(head -c 32 /dev/urandom | base64)"`)
	}
	return key, nil
}

// Webhook is where events go.
type Webhook struct {
	Name     string   `yaml:"name"`     // says in logs and rows which it is; default: host of the URL
	URL      string   `yaml:"url"`      // http or https
	Secret   Secret   `yaml:"secret"`   // whsec_ and base64
	Projects []string `yaml:"projects"` // of what it is told; none = all
	Types    []string `yaml:"types"`    // whose ends it is told of, such as failed; none = all
}

// Validate finds what would fail later.
func (w Webhook) Validate() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return resource.Invalid("webhooks.url", "the URL of webhook %q is not http(s)://HOST/...", w.Name)
	}
	if u.User != nil {
		return resource.Invalid("webhooks.url", "the URL of a webhook holds a password").WithHint("requests are signed: check the signature instead")
	}
	for _, t := range w.Types {
		if !slices.Contains([]string{"succeeded", "failed", "cancelled"}, t) {
			return resource.Invalid("webhooks.types", "%q is not succeeded, failed or cancelled", t)
		}
	}
	_, err = w.Secret.key()
	return err
}

// ID is the name by which rows tell webhooks apart.
func (w Webhook) ID() string {
	if w.Name != "" {
		return w.Name
	}
	u, err := url.Parse(w.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

func (w Webhook) wants(e Event) bool {
	end := e.Type[strings.LastIndexByte(e.Type, '.')+1:]
	return (len(w.Projects) == 0 || slices.Contains(w.Projects, e.Project)) && (len(w.Types) == 0 || slices.Contains(w.Types, end))
}

// entry is a row of the outbox.
type entry struct {
	ID       string          `json:"id"`
	Webhook  string          `json:"webhook"`
	Body     json.RawMessage `json:"body"`
	Attempts int             `json:"attempts,omitempty"`
	Next     time.Time       `json:"next,omitzero"` // not before
}

// cloudEvent is an event as it is sent.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Subject     string          `json:"subject"`
	Time        string          `json:"time"`
	ContentType string          `json:"datacontenttype"`
	Data        json.RawMessage `json:"data"`
}

// Add puts an event into the outbox, once for each webhook that wants it. Adding it
// again changes nothing.
func (o *Outbox) Add(ctx context.Context, tx store.Tx, e Event) error {
	for _, w := range o.cfg.Webhooks {
		if !w.wants(e) {
			continue
		}
		body, err := json.Marshal(cloudEvent{
			SpecVersion: "1.0", ID: e.ID, Source: "//tategu/projects/" + e.Project, Type: e.Type, Subject: e.Subject,
			Time: e.Time.UTC().Format(time.RFC3339Nano), ContentType: "application/json", Data: e.Data,
		})
		if err != nil {
			return fmt.Errorf("write event %s: %w", e.ID, err)
		}
		key := e.ID + "/" + w.ID()
		if _, err := tx.Get(ctx, Kind, key); err == nil {
			continue
		} else if !resource.IsNotFound(err) {
			return err
		}
		if err := put(ctx, tx, key, e.Subject, entry{ID: e.ID, Webhook: w.ID(), Body: body}); err != nil {
			return err
		}
	}
	return nil
}

func put(ctx context.Context, tx store.Tx, key, subject string, e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("keep event %s: %w", e.ID, err)
	}
	return tx.Put(ctx, store.Row{Kind: Kind, Key: key, Parent: subject, State: statePending, Data: data})
}

// sign gives the headers of a request, of which the signature covers id, time and body.
func sign(key []byte, id string, at time.Time, body []byte) map[string]string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	return map[string]string{
		"webhook-id": id, "webhook-timestamp": stamp,
		"webhook-signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	}
}
