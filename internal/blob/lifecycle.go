package blob

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// MaxLifecycleRules is how many rules a bucket may have.
const MaxLifecycleRules = 100

// StorageClasses lists the classes an object may be in. All of them are kept the
// same way here; the class is a label that rules and clients go by.
func StorageClasses() []string {
	return []string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"}
}

// CheckLifecycle says by rule and field what could not be executed.
func CheckLifecycle(rules []LifecycleRule) error {
	if len(rules) > MaxLifecycleRules {
		return resource.Invalid("lifecycle.rule", "there are %d rules, the most is %d", len(rules), MaxLifecycleRules)
	}
	for i, r := range rules {
		if err := r.check(); err != nil {
			return resource.Invalid("lifecycle.rule", "lifecycle rule %d: %w", i+1, err)
		}
	}
	return nil
}

func (r LifecycleRule) check() error {
	switch r.Action.Type {
	case LifecycleDelete:
	case LifecycleSetStorageClass:
		if !slices.Contains(StorageClasses(), r.Action.StorageClass) {
			return errors.New("action.storageClass " + quote(r.Action.StorageClass) + " is no storage class")
		}
	case LifecycleAbortMultipart:
		if !r.Condition.onlyForUploads() {
			return errors.New("AbortIncompleteMultipartUpload goes with age, matchesPrefix and matchesSuffix only")
		}
	default:
		return errors.New("action.type " + quote(r.Action.Type) + " is not known: want Delete, SetStorageClass or AbortIncompleteMultipartUpload")
	}
	return r.Condition.check()
}

func quote(s string) string { return `"` + s + `"` }

func (c LifecycleCondition) onlyForUploads() bool {
	return c.CreatedBefore == "" && c.IsLive == nil && c.NumNewerVersions == nil && len(c.MatchesStorageClass) == 0 &&
		c.DaysSinceCustomTime == nil && c.CustomTimeBefore == "" && c.DaysSinceNoncurrentTime == nil && c.NoncurrentTimeBefore == ""
}

func (c LifecycleCondition) check() error {
	set := false
	for name, days := range map[string]*int{
		"age": c.Age, "numNewerVersions": c.NumNewerVersions, "daysSinceCustomTime": c.DaysSinceCustomTime, "daysSinceNoncurrentTime": c.DaysSinceNoncurrentTime,
	} {
		if days != nil && *days < 0 {
			return errors.New("condition." + name + " is negative")
		}
		set = set || days != nil
	}
	for name, date := range map[string]string{
		"createdBefore": c.CreatedBefore, "customTimeBefore": c.CustomTimeBefore, "noncurrentTimeBefore": c.NoncurrentTimeBefore,
	} {
		if _, err := parseDate(date); err != nil {
			return errors.New("condition." + name + " " + quote(date) + " is no date: want YYYY-MM-DD")
		}
		set = set || date != ""
	}
	if !set && c.IsLive == nil && len(c.MatchesStorageClass)+len(c.MatchesPrefix)+len(c.MatchesSuffix) == 0 {
		return errors.New("condition is empty: a rule for every object is not accepted")
	}
	return nil
}

func parseDate(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.DateOnly, s)
}

// holds reports that a rule is for a generation that has newer ones beside it.
func (c LifecycleCondition) holds(o Object, newer int, now time.Time) bool {
	aged := func(days *int, since time.Time) bool {
		return days == nil || !since.IsZero() && !since.AddDate(0, 0, *days).After(now)
	}
	before := func(date string, t time.Time) bool {
		day, err := parseDate(date)
		return date == "" || err == nil && !t.IsZero() && t.Before(day)
	}
	return aged(c.Age, o.Created) && before(c.CreatedBefore, o.Created) &&
		(c.IsLive == nil || *c.IsLive == o.Live()) &&
		(c.NumNewerVersions == nil || newer >= *c.NumNewerVersions) &&
		(len(c.MatchesStorageClass) == 0 || slices.Contains(c.MatchesStorageClass, o.StorageClass)) &&
		c.matchesName(o.Name) &&
		aged(c.DaysSinceCustomTime, o.CustomTime) && before(c.CustomTimeBefore, o.CustomTime) &&
		aged(c.DaysSinceNoncurrentTime, o.Deleted) && before(c.NoncurrentTimeBefore, o.Deleted)
}

func (c LifecycleCondition) matchesName(name string) bool {
	with := func(parts []string, has func(s, part string) bool) bool {
		return len(parts) == 0 || slices.ContainsFunc(parts, func(part string) bool { return has(name, part) })
	}
	return with(c.MatchesPrefix, strings.HasPrefix) && with(c.MatchesSuffix, strings.HasSuffix)
}

// action is what the rules want of a generation: Delete goes before a change of
// class, and of those the coldest. Rules never make an object warmer.
func (b Bucket) action(o Object, newer int, now time.Time) (kind, class string) {
	coldest := coldness(o.StorageClass)
	for _, r := range b.Lifecycle {
		if r.Action.Type == LifecycleAbortMultipart || !r.Condition.holds(o, newer, now) {
			continue
		}
		if r.Action.Type == LifecycleDelete {
			return LifecycleDelete, ""
		}
		if c := coldness(r.Action.StorageClass); c > coldest {
			kind, class, coldest = LifecycleSetStorageClass, r.Action.StorageClass, c
		}
	}
	return kind, class
}

// coldness orders the storage classes; the older names are as warm as STANDARD.
func coldness(class string) int {
	return max(slices.Index([]string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"}, class), 0)
}

// LifecycleDone says what RunLifecycle did.
type LifecycleDone struct {
	Deleted int // generations deleted or made noncurrent
	Changed int // storage classes set
	Aborted int // multipart uploads ended
}

// RunLifecycle executes the rules of all buckets once. What a hold or a retention
// keeps stays, and what changes meanwhile is left to the next run.
func (s *Store) RunLifecycle(ctx context.Context) (LifecycleDone, error) {
	var done LifecycleDone
	for after := ""; ; {
		buckets, err := s.ListBuckets(ctx, "", "", after, defaultPage)
		if err != nil || len(buckets) == 0 {
			return done, err
		}
		for _, b := range buckets {
			after = b.Name
			if len(b.Lifecycle) == 0 {
				continue
			}
			if err := s.runBucketLifecycle(ctx, b, &done); err != nil && !resource.IsNotFound(err) {
				return done, err
			}
		}
	}
}

func (s *Store) runBucketLifecycle(ctx context.Context, b Bucket, done *LifecycleDone) error {
	for _, r := range b.Lifecycle {
		if r.Action.Type != LifecycleAbortMultipart || r.Condition.Age == nil {
			continue
		}
		n, err := s.AbortOldMultipart(ctx, b.Name, s.now().AddDate(0, 0, -*r.Condition.Age), r.Condition.matchesName)
		done.Aborted += n
		if err != nil {
			return err
		}
	}
	var same []Object // the generations of one name, oldest first
	flush := func() error {
		for i, o := range same {
			if err := s.applyLifecycle(ctx, b, o, len(same)-1-i, done); err != nil {
				return err
			}
		}
		same = same[:0]
		return nil
	}
	for q := (ListQuery{Versions: true}); ; {
		page, err := s.List(ctx, b.Name, q)
		if err != nil {
			return err
		}
		for _, o := range page.Objects {
			if len(same) > 0 && same[0].Name != o.Name {
				if err := flush(); err != nil {
					return err
				}
			}
			same = append(same, o)
		}
		if page.Next == "" {
			return flush()
		}
		q.After, q.AfterGeneration = page.Next, page.NextGeneration
	}
}

func (s *Store) applyLifecycle(ctx context.Context, b Bucket, o Object, newer int, done *LifecycleDone) error {
	kind, class := b.action(o, newer, s.now())
	asSeen := Conditions{GenerationMatch: &o.Generation, MetagenerationMatch: &o.Metageneration}
	generation := o.Generation
	if o.Live() {
		generation = 0
	}
	var err error
	switch kind {
	case "":
		return nil
	case LifecycleDelete:
		if err = s.Delete(ctx, b.Name, o.Name, generation, asSeen); err == nil {
			done.Deleted++
		}
	default:
		_, err = s.Update(ctx, b.Name, o.Name, generation, asSeen, func(o *Object) error { o.StorageClass = class; return nil })
		if err == nil {
			done.Changed++
		}
	}
	if code := resource.CodeOf(err); code == codes.NotFound || code == codes.FailedPrecondition || errors.Is(err, ErrHeld) {
		return nil
	}
	return err
}
