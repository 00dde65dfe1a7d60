package identity_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/store"
)

// TestTrail: the entry is durable with the change or not at all, and only once.
func TestTrail(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, trail := identity.WithTrail(t.Context(), identity.AuditEntry{Principal: "ann@example.com", Method: "storage POST", Resource: "/o"}, f.clock.Now)
	change := func(fails error) error {
		committed := func() {}
		err := f.store.Update(ctx, func(tx store.Tx) (err error) {
			if committed, err = identity.RecordSuccess(ctx, tx); err != nil {
				return err
			}
			return errors.Join(tx.Put(ctx, store.Row{Kind: "k", Key: "x"}), fails)
		})
		if err == nil {
			committed()
		}
		return err
	}
	broken := errors.New("broken")
	if err := change(broken); !errors.Is(err, broken) || trail.Recorded() {
		t.Fatalf("a change that was rolled back: %v, recorded %v", err, trail.Recorded())
	}
	for range 2 { // a batch: one call, several changes
		if err := change(nil); err != nil || !trail.Recorded() {
			t.Fatalf("%v, recorded %v", err, trail.Recorded())
		}
	}
	got, _, err := f.AuditTrail(t.Context(), "", 0, 10)
	want := identity.AuditEntry{Time: f.clock.Now(), Principal: "ann@example.com", Method: "storage POST", Resource: "/o", Code: codes.OK}
	if err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("trail %+v, %v", got, err)
	}
	// A context without a trail: nothing to record.
	if err := f.store.Update(t.Context(), func(tx store.Tx) error {
		committed, err := identity.RecordSuccess(t.Context(), tx)
		committed()
		return err
	}); err != nil {
		t.Error(err)
	}
	if (*identity.Trail)(nil).Recorded() {
		t.Error("no trail, and recorded")
	}
}

// TestTrailOfProvedCaller: a handler that finds the caller in the body names them.
func TestTrailOfProvedCaller(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, trail := identity.WithTrail(t.Context(), identity.AuditEntry{Principal: "anonymous", Method: "storage POST"}, f.clock.Now)
	ctx = identity.WithReporter(ctx, trail.Proved)
	identity.Report(t.Context(), identity.Principal{Email: "nobody asked"})
	identity.Report(ctx, identity.Principal{Email: "sam@a.iam.tategu.internal", TokenID: "key"})
	committed := func() {}
	err := f.store.Update(ctx, func(tx store.Tx) (err error) {
		committed, err = identity.RecordSuccess(ctx, tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	committed()
	got, _, err := f.AuditTrail(t.Context(), "", 0, 10)
	if err != nil || len(got) != 1 || got[0].Principal != "sam@a.iam.tategu.internal" || got[0].TokenID != "key" {
		t.Errorf("%+v, %v", got, err)
	}
}
