package blob_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
)

func (f *fixture) keepVersions(t *testing.T) {
	t.Helper()
	f.change(t, func(b *blob.Bucket) { b.Versioning = true })
}

func (f *fixture) change(t *testing.T, fn func(*blob.Bucket)) {
	t.Helper()
	_, err := f.UpdateBucket(t.Context(), "bucket", blob.Conditions{}, func(b *blob.Bucket) error { fn(b); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// state lists name, class and whether live, of all generations.
func (f *fixture) state(t *testing.T) (out []string) {
	t.Helper()
	page, err := f.List(t.Context(), "bucket", blob.ListQuery{Versions: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range page.Objects {
		text := o.Name + " " + o.StorageClass
		if !o.Live() {
			text += " old"
		}
		out = append(out, text)
	}
	return out
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name, rules string
		versions    bool
		want        []string
	}{
		{"age", `[{"action":{"type":"Delete"},"condition":{"age":2}}]`, false, []string{"log/c STANDARD"}},
		{"age keeps versions", `[{"action":{"type":"Delete"},"condition":{"age":2,"isLive":true}}]`, true, []string{"log/a STANDARD old", "log/a STANDARD old", "log/a STANDARD old", "log/b STANDARD old", "log/c STANDARD"}},
		{"prefix and suffix", `[{"action":{"type":"Delete"},"condition":{"matchesPrefix":["log/","x"],"matchesSuffix":["a"]}}]`, false, []string{"log/b STANDARD", "log/c STANDARD"}},
		{"class", `[{"action":{"type":"SetStorageClass","storageClass":"NEARLINE"},"condition":{"age":1}},{"action":{"type":"SetStorageClass","storageClass":"COLDLINE"},"condition":{"age":2}}]`, false, []string{"log/a COLDLINE", "log/b COLDLINE", "log/c STANDARD"}},
		{"delete goes before class", `[{"action":{"type":"SetStorageClass","storageClass":"NEARLINE"},"condition":{"age":1}},{"action":{"type":"Delete"},"condition":{"age":3}}]`, false, []string{"log/b NEARLINE", "log/c STANDARD"}},
		{"newer versions", `[{"action":{"type":"Delete"},"condition":{"numNewerVersions":1}}]`, true, []string{"log/a STANDARD", "log/b STANDARD", "log/c STANDARD"}},
		{"since noncurrent", `[{"action":{"type":"Delete"},"condition":{"daysSinceNoncurrentTime":3}}]`, true, []string{"log/a STANDARD", "log/b STANDARD", "log/c STANDARD"}},
		{"not yet noncurrent for long", `[{"action":{"type":"Delete"},"condition":{"daysSinceNoncurrentTime":4}}]`, true, []string{"log/a STANDARD old", "log/a STANDARD", "log/b STANDARD", "log/c STANDARD"}},
		{"class that matches", `[{"action":{"type":"Delete"},"condition":{"matchesStorageClass":["ARCHIVE"]}}]`, false, []string{"log/a STANDARD", "log/b STANDARD", "log/c STANDARD"}},
		{"created before", `[{"action":{"type":"Delete"},"condition":{"createdBefore":"2026-03-03"}}]`, false, []string{"log/b STANDARD", "log/c STANDARD"}},
		{"custom time", `[{"action":{"type":"Delete"},"condition":{"daysSinceCustomTime":0}}]`, false, []string{"log/a STANDARD", "log/b STANDARD", "log/c STANDARD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.clock.at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			f.change(t, func(b *blob.Bucket) {
				b.Versioning = tt.versions
				if err := json.Unmarshal([]byte(tt.rules), &b.Lifecycle); err != nil {
					t.Fatal(err)
				}
			})
			f.put(t, "log/a", "1") // the 1st
			f.put(t, "log/a", "2")
			f.clock.add(day)
			f.put(t, "log/a", "3") // the 2nd
			f.clock.add(day)
			f.put(t, "log/b", "4") // the 3rd
			f.clock.add(2 * day)
			f.put(t, "log/c", "5") // the 5th
			for range 2 {          // a second run changes nothing
				if _, err := f.RunLifecycle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := f.state(t); !slices.Equal(got, tt.want) {
				t.Errorf("left %q, want %q", got, tt.want)
			}
		})
	}
}

// TestLifecycleLeavesWhatIsHeld: the rules go on with the others.
func TestLifecycleLeavesWhatIsHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	age := 0
	f.change(t, func(b *blob.Bucket) {
		b.Lifecycle = make([]blob.LifecycleRule, 2)
		b.Lifecycle[0].Action.Type, b.Lifecycle[0].Condition.Age = blob.LifecycleDelete, &age
		b.Lifecycle[1].Action.Type, b.Lifecycle[1].Condition.Age = blob.LifecycleAbortMultipart, &age
	})
	for _, name := range []string{"a", "b", "c"} {
		f.put(t, name, "x")
	}
	_, err := f.Update(t.Context(), "bucket", "b", 0, blob.Conditions{}, func(o *blob.Object) error { o.TemporaryHold = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	f.startMultipart(t, "m")
	f.clock.add(time.Second)
	done, err := f.RunLifecycle(t.Context())
	if err != nil || done.Deleted != 2 || done.Aborted != 1 {
		t.Errorf("done = %+v, %v", done, err)
	}
	if got := f.state(t); !slices.Equal(got, []string{"b STANDARD"}) {
		t.Errorf("left %q", got)
	}
}

func TestSoftDeletedGoWhenTheirTimeHasCome(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.change(t, func(b *blob.Bucket) { b.SoftDelete.Period = 48 * time.Hour })
	f.put(t, "a", "1")
	f.put(t, "a", "2")
	if err := f.Delete(t.Context(), "bucket", "a", 0, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	sweep := func(want int) {
		t.Helper()
		swept, err := f.Sweep(t.Context(), time.Hour)
		if err != nil || swept.Objects != want {
			t.Errorf("swept = %+v, %v, want %d objects", swept, err, want)
		}
	}
	f.clock.add(47 * time.Hour)
	sweep(0)
	if n := f.contents(t); n != 2 {
		t.Errorf("%d contents before their time", n)
	}
	f.clock.add(2 * time.Hour)
	sweep(2)
	if n := f.contents(t); n != 0 {
		t.Errorf("%d contents left", n)
	}
	f.put(t, "b", "3")
	if err := f.Delete(t.Context(), "bucket", "b", 0, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	// A bucket takes what was soft-deleted in it along.
	if err := f.DeleteBucket(t.Context(), "bucket", blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	if n := f.contents(t); n != 0 {
		t.Errorf("%d contents left of a deleted bucket", n)
	}
}

func TestEventsEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.AddNotification(t.Context(), "bucket", blob.Notification{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	f.put(t, "a", "1")
	if swept, err := f.Sweep(t.Context(), time.Hour); err != nil || swept.Events != 0 {
		t.Errorf("swept = %+v, %v", swept, err)
	}
	f.clock.add(blob.EventLife + time.Hour)
	if swept, err := f.Sweep(t.Context(), time.Hour); err != nil || swept.Events != 1 {
		t.Errorf("swept = %+v, %v", swept, err)
	}
	if events, err := f.Events(t.Context(), "bucket", 0); err != nil || len(events) > 0 {
		t.Errorf("events = %v, %v", events, err)
	}
}

// TestClockGoesBack: generations of a name grow whatever the clock says, over
// deletes and with versions.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.keepVersions(t)
	last := int64(0)
	for i := range 20 {
		o := f.put(t, "a", strings.Repeat("x", i))
		if o.Generation <= last {
			t.Fatalf("generation %d after %d", o.Generation, last)
		}
		last = o.Generation
		f.clock.add(-time.Hour)
		if i%3 == 0 {
			if err := f.Delete(t.Context(), "bucket", "a", 0, blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(f.state(t)); n != 20 {
		t.Errorf("%d generations, want 20", n)
	}
}
