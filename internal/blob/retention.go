package blob

import (
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// MaxRetention bounds the period of a bucket's policy, as the cloud does: 100 years.
const MaxRetention = 3_155_760_000 * time.Second

// see gives an object as it is told to clients: with what the bucket's rules mean for it.
func (b Bucket) see(o Object) Object {
	o.RetentionExpires = b.retainedUntil(o)
	return o
}

// retainedUntil is when the bucket's policy lets go of o; zero = it does not hold
// it, or has not begun to count because of an event-based hold.
func (b Bucket) retainedUntil(o Object) time.Time {
	if b.Retention.Period <= 0 || o.EventBasedHold {
		return time.Time{}
	}
	from := o.Created
	if o.HoldReleased.After(from) {
		from = o.HoldReleased
	}
	return from.Add(b.Retention.Period)
}

// protects refuses the destruction of a generation that a hold or a retention keeps
// (cloud.google.com/storage/docs/bucket-lock, object-holds, object-lock).
func (b Bucket) protects(o Object, now time.Time) error {
	refuse := func(why string) error {
		return resource.Errorf(codes.PermissionDenied, "Object '%s/%s' %s: %w", o.Bucket, o.Name, why, ErrHeld).
			WithResource("gs://" + o.Bucket + "/" + o.Name)
	}
	until := b.retainedUntil(o)
	if o.Retention.Until.After(until) {
		until = o.Retention.Until
	}
	switch {
	case o.TemporaryHold || o.EventBasedHold:
		return refuse("is under active hold and cannot be deleted or overwritten until the hold is removed")
	case until.After(now):
		return refuse("is subject to a retention policy or object retention and cannot be deleted or overwritten until " + until.Format(time.RFC3339))
	}
	return nil
}

// CheckRetention refuses a change of an object's own retention that its mode
// forbids; override is the caller's word that an unlocked one may be shortened.
func CheckRetention(old, changed ObjectRetention, now time.Time, override bool) error {
	refuse := func(why string) error {
		return resource.Errorf(codes.PermissionDenied, "the object's retention (%s until %s) %s: %w", old.Mode, old.Until.Format(time.RFC3339), why, ErrHeld)
	}
	weaker := changed.Until.Before(old.Until) || old.Mode == RetentionLocked && changed.Mode != RetentionLocked
	switch {
	case changed == old:
		return nil
	case changed.Mode != "" && !changed.Until.After(now):
		return resource.Invalid("retention.retainUntilTime", "%s is not in the future", changed.Until.Format(time.RFC3339))
	case old.Mode == RetentionLocked && weaker:
		return refuse("is locked and can only be prolonged")
	case old.Mode == RetentionUnlocked && weaker && !override:
		return refuse("can be shortened or removed only with overrideUnlockedRetention=true")
	}
	return nil
}

// CheckRetentionPolicy refuses a change of a bucket's policy that its lock forbids.
func CheckRetentionPolicy(old, changed RetentionPolicy) error {
	switch {
	case changed.Period < 0 || changed.Period > MaxRetention:
		return resource.Invalid("retentionPolicy.retentionPeriod", "the retention period is 1 second to 100 years, not %s", changed.Period)
	case old.Locked && changed.Period < old.Period:
		return resource.Errorf(codes.PermissionDenied, "the bucket's retention policy is locked: its period of %s can only grow: %w", old.Period, ErrHeld)
	}
	return nil
}
