package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	"tategu/internal/store"
)

// AuditEntry says who did what, with which outcome. It holds no request bodies
// and no secrets.
type AuditEntry struct {
	Time      time.Time  `json:"time"` // filled by Audit when zero
	Principal string     `json:"principal"`
	TokenID   string     `json:"tokenId,omitempty"`
	Method    string     `json:"method"`
	Project   string     `json:"project,omitempty"`
	Resource  string     `json:"resource,omitempty"`
	Code      codes.Code `json:"code"`
	RequestID string     `json:"requestId,omitempty"`
}

// MarshalJSON writes the outcome by name, as people read it; codes.Code reads
// names back.
func (e AuditEntry) MarshalJSON() ([]byte, error) {
	type fields AuditEntry
	return json.Marshal(struct {
		fields
		Code string `json:"code"`
	}{fields(e), code.Code(e.Code).String()})
}

// auditText bounds what a caller can write into the trail through long names.
const auditText = 1024

// Audit writes one entry; it is durable when Audit returns. The trail is a list
// of events, which can be appended to and never changed.
func (a *Authority) Audit(ctx context.Context, e AuditEntry) error {
	if e.Time.IsZero() {
		e.Time = a.now().UTC()
	}
	if err := a.store.Update(ctx, func(tx store.Tx) error { return e.append(ctx, tx) }); err != nil {
		return fmt.Errorf("audit %s: %w", e.Method, err)
	}
	return nil
}

func (e AuditEntry) append(ctx context.Context, tx store.Tx) error {
	for _, s := range []*string{&e.Principal, &e.Method, &e.Project, &e.Resource, &e.RequestID} {
		*s = (*s)[:min(len(*s), auditText)]
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit %s: %w", e.Method, err)
	}
	return tx.Append(ctx, auditSubject(e.Project), e.Method, data)
}

// AuditTrail gives up to limit entries of a project ("" = of none) after a
// sequence number, oldest first, and the number to go on from.
func (a *Authority) AuditTrail(ctx context.Context, project string, after int64, limit int) ([]AuditEntry, int64, error) {
	events, err := a.store.Events(ctx, auditSubject(project), after, limit)
	if err != nil {
		return nil, after, fmt.Errorf("audit trail: %w", err)
	}
	entries := make([]AuditEntry, 0, len(events))
	for _, ev := range events {
		var e AuditEntry
		if err := json.Unmarshal(ev.Data, &e); err != nil {
			return nil, after, fmt.Errorf("audit trail: entry %d: %w", ev.Seq, err)
		}
		entries, after = append(entries, e), ev.Seq
	}
	return entries, after, nil
}

func auditSubject(project string) string { return "audit/" + cmp.Or(project, "-") }
