package resource_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func TestChosenID(t *testing.T) {
	t.Parallel()
	if _, chosen := resource.IDFor(t.Context()); chosen {
		t.Error("nobody chose an id")
	}
	ctx, err := resource.WithID(t.Context(), "42")
	if id, chosen := resource.IDFor(ctx); err != nil || id != "42" || !chosen {
		t.Errorf("id %q, %v, %v", id, chosen, err)
	}
	for _, bad := range []string{"0", "042", "x", "1/2", "-1", "12345678901234567890"} {
		if _, err := resource.WithID(t.Context(), bad); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if a, b := resource.IDOf("a"), resource.IDOf("a"); a != b || a == resource.IDOf("b") {
		t.Errorf("ids of texts: %s, %s", a, b)
	}
	if _, err := resource.WithID(t.Context(), resource.IDOf("a")); err != nil {
		t.Errorf("the id of a text may be chosen: %v", err)
	}
}
