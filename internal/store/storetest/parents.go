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

// testStatesBelow lists rows of a state below a prefix.
func testStatesBelow(t *testing.T, open Open) {
	t.Helper()
	s := open(t)
	for _, key := range []string{"a/1", "a/2", "a/3", "a/4", "b/1", "b/2"} {
		state := "odd"
		if key[2]%2 == 0 {
			state = "even"
		}
		put(t, s, store.Row{Kind: kind, Key: key, State: state})
	}
	put(t, s, store.Row{Kind: "other", Key: "a/1", State: "odd"}, store.Row{Kind: kind, Key: "a/5"})
	checkKeys(t, s, store.Query{Prefix: "a/", States: []string{"odd"}}, []string{"a/1", "a/3"})
	checkKeys(t, s, store.Query{Prefix: "a/", States: []string{"odd", "even"}, Limit: 3}, []string{"a/1", "a/2", "a/3"})
	checkKeys(t, s, store.Query{Prefix: "a/", States: []string{"even"}, From: "a/3"}, []string{"a/4"})
	checkKeys(t, s, store.Query{Prefix: "b/", States: []string{"none"}}, nil)
	checkKeys(t, s, store.Query{Prefix: "a/", States: []string{"", "even"}}, []string{"a/2", "a/4", "a/5"})
}
