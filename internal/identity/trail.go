package identity

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/store"
)

// Trail is the audit entry of a call on its way. A method that ends with one commit
// writes it there, so that the change and its entry are durable by one fsync; the
// entry of any other call is written by itself, before the answer.
type Trail struct {
	entry    AuditEntry
	now      func() time.Time
	recorded atomic.Bool
}

type trailKey struct{}

// WithTrail lets methods below record e, which lacks the time and the outcome.
func WithTrail(ctx context.Context, e AuditEntry, now func() time.Time) (context.Context, *Trail) {
	t := &Trail{entry: e, now: now}
	return context.WithValue(ctx, trailKey{}, t), t
}

// Recorded reports that the entry of success is durable.
func (t *Trail) Recorded() bool { return t != nil && t.recorded.Load() }

// Proved names the caller when the proof was in the request's body. Call it before
// anything is changed.
func (t *Trail) Proved(p Principal) {
	if t != nil {
		t.entry.Principal, t.entry.TokenID = p.Email, p.TokenID
	}
}

// RecordSuccess adds the entry of the call in ctx to a transaction, unless there is
// none or it is recorded. committed must be called once the transaction is durable,
// and not otherwise.
func RecordSuccess(ctx context.Context, tx store.Tx) (committed func(), err error) {
	t, _ := ctx.Value(trailKey{}).(*Trail)
	if t == nil || t.recorded.Load() {
		return func() {}, nil
	}
	e := t.entry
	e.Time, e.Code = t.now().UTC(), codes.OK
	return func() { t.recorded.Store(true) }, e.append(ctx, tx)
}
