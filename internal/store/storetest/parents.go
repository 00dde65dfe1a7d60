package storetest

import (
	"slices"
	"testing"

	"tategu/internal/store"
)

func testParents(t *testing.T, open Open) {
	t.Helper()
	s := open(t)
	for _, key := range []string{"a/b/x", "a/b/y", "a/b-c/x", "a/c/x/deeper", "z"} {
		parent := key[:max(0, len(key)-2)]
		if key == "a/c/x/deeper" {
			parent = "a/c"
		}
		put(t, s, store.Row{Kind: kind, Key: key, Parent: parent})
	}
	put(t, s, store.Row{Kind: kind, Key: "astray", Parent: "a/c"}, store.Row{Kind: "other", Key: "b/x", Parent: "b"})
	got, err := store.Parents(t.Context(), s, kind)
	if want := []string{"a/b-c", "a/b", "a/c"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("parents %v, %v, want %v", got, err, want)
	}
}
