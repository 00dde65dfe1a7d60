package modelcache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// told is one call of Follow.
type told struct {
	version string // "" = none
	wrong   codes.Code
}

// following runs Follow and keeps what it tells.
type following struct {
	last  told
	calls int
	end   context.CancelFunc
	done  chan error
}

func follow(t *testing.T, l *Loader) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &following{end: cancel, done: make(chan error, 1)}
	go func() {
		f.done <- l.Follow(ctx, "m@champion", func(local *Local, wrong error) error {
			f.last, f.calls = told{wrong: resource.CodeOf(wrong)}, f.calls+1
			if local != nil {
				f.last.version = local.ID
			}
			return nil
		})
	}()
	synctest.Wait()
	return f
}

func (f *following) want(t *testing.T, version string, wrong codes.Code) {
	t.Helper()
	synctest.Wait()
	if want := (told{version, wrong}); f.last != want {
		t.Errorf("told %+v, want %+v", f.last, want)
	}
}

func (f *following) stop(t *testing.T) {
	t.Helper()
	f.end()
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFollow(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, dir)
		w.put(1, map[string]string{"a": "one"})
		f := follow(t, l)
		f.want(t, "1", codes.OK)
		w.put(2, map[string]string{"a": "two"})
		later(l.Interval)
		f.want(t, "2", codes.OK)
		// The version before it is still in use by someone who was told of it.
		if done, err := l.Cache.Prune(everything()); err != nil || len(done.Models) != 0 || len(done.Busy) != 2 {
			t.Errorf("pruned %+v, %v", done, err)
		}
		w.put(3, map[string]string{"a": "three"})
		later(l.Interval)
		f.want(t, "3", codes.OK)
		if done, err := l.Cache.Prune(everything()); err != nil || ids(done.Models) != "1" {
			t.Errorf("pruned %+v, %v", done, err)
		}
		// Other words on the same version: nothing is brought, what was before stays.
		w.downloaded()
		w.set(func() {
			v := w.versions["m@champion"]
			v.Etag, v.Aliases = "other", []string{"champion", "best"}
			w.versions["m@champion"] = v
		})
		later(l.Interval)
		if got := w.downloaded(); len(got) != 0 {
			t.Errorf("downloaded %q", got)
		}
		if done, err := l.Cache.Prune(everything()); err != nil || ids(done.Busy) != "32" && ids(done.Busy) != "23" {
			t.Errorf("in use are %+v, %v", done.Busy, err)
		}
		f.stop(t)
		if done, err := l.Cache.Prune(everything()); err != nil || len(done.Models) != 2 {
			t.Errorf("pruned %+v, %v", done, err)
		}
	})
}

func TestFollowWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, dir)
		w.put(1, map[string]string{"a": "one"})
		f := follow(t, l)
		w.set(func() { w.away, w.asked = true, 0 })
		w.put(2, map[string]string{"a": "two"})
		later(10 * time.Minute)
		f.want(t, "1", codes.Unavailable)
		w.set(func() {
			if w.asked > 25 { // 2+4+8+16+30+30+...
				t.Errorf("asked %d times in 10 minutes", w.asked)
			}
			w.away = false
		})
		later(longestPause)
		f.want(t, "2", codes.OK)
		f.stop(t)

		// From the beginning: what it was last.
		w.set(func() { w.away = true })
		f = follow(t, l)
		f.want(t, "2", codes.Unavailable)
		w.put(3, map[string]string{"a": "three"})
		w.set(func() { w.away = false })
		later(longestPause)
		f.want(t, "3", codes.OK)
		f.stop(t)

		local, err := l.LastKnown(t.Context(), "m@champion")
		if err != nil || local.ID != "3" {
			t.Fatalf("last known is %+v, %v", local, err)
		}
		closed(t, local)
		elsewhere := *l
		elsewhere.Origin = "another server"
		if _, err := elsewhere.LastKnown(t.Context(), "m@champion"); !resource.IsNotFound(err) {
			t.Errorf("of another server: %v", err)
		}
	})
}

// TestFollowABrokenVersion: a version whose files cannot be had does not replace
// the one that is here.
func TestFollowABrokenVersion(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, dir)
		w.put(1, map[string]string{"a": "one"})
		f := follow(t, l)
		w.put(2, nil)
		later(l.Interval)
		f.want(t, "1", codes.FailedPrecondition)
		w.put(2, map[string]string{"a": "two"})
		later(longestPause)
		f.want(t, "2", codes.OK)
		f.stop(t)
	})
}

func TestFollowEndsWithWhatItTells(t *testing.T) {
	t.Parallel()
	w := newWorld()
	l := w.loader(t, tempDir(t))
	enough := errors.New("enough")
	err := l.Follow(t.Context(), "m@champion", func(local *Local, wrong error) error {
		if local != nil || !resource.IsNotFound(wrong) {
			t.Errorf("told %+v, %v", local, wrong)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
}

// everything is a rule by real time, which files have; synctest has another.
func everything() Rule { return Rule{Before: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} }
