package blob_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
)

// TestHoldKeepsContents: while somebody reads by an older view of the rows, no
// content of it goes; afterwards nothing of it is left over.
func TestHoldKeepsContents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	big := strings.Repeat("large ", 10_000)
	put := func(name, data string) blob.Object {
		t.Helper()
		o, err := f.Put(ctx, blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(data), blob.Conditions{})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	gone, replaced := put("gone", "gone"+big), put("replaced", "old"+big)
	first, second := f.Hold(ctx), f.Hold(ctx)
	if err := f.Delete(ctx, "bucket", "gone", 0, blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	put("replaced", "new"+big)
	first()
	first() // twice is once
	f.clock.add(48 * time.Hour)
	if _, err := f.Sweep(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
	for o, want := range map[string]string{gone.Content: "gone" + big, replaced.Content: "old" + big} {
		r, err := f.ReadContent(ctx, o, -1)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(r); err != nil || got.String() != want {
			t.Errorf("a held content reads %d bytes, %v", got.Len(), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	second()
	if n := f.contents(t); n != 1 {
		t.Errorf("%d contents for one object after the hold", n)
	}
}
