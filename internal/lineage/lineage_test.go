package lineage

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
)

const base = "projects/p/locations/l/metadataStores/default/"

func open(t *testing.T) store.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func change(t *testing.T, st store.Store, f func(tx store.Tx) error) {
	t.Helper()
	if err := st.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func artifact(t *testing.T, tx store.Tx, id string) string {
	t.Helper()
	a := &pb.Artifact{Name: base + "artifacts/" + id}
	if err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindArtifacts, Key: a.Name}, a); err != nil {
		t.Fatal(err)
	}
	return a.Name
}

func execution(t *testing.T, tx store.Tx, id string) string {
	t.Helper()
	e := &pb.Execution{Name: base + "executions/" + id}
	if err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindExecutions, Key: e.Name}, e); err != nil {
		t.Fatal(err)
	}
	return e.Name
}

func contextNode(t *testing.T, tx store.Tx, id string) string {
	t.Helper()
	c := &pb.Context{Name: base + "contexts/" + id}
	if err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindContexts, Key: c.Name}, c); err != nil {
		t.Fatal(err)
	}
	return c.Name
}

func TestForgetLeavesNoEdge(t *testing.T) {
	t.Parallel()
	st, ctx := open(t), t.Context()
	var a, e, c string
	change(t, st, func(tx store.Tx) error {
		a, e, c = artifact(t, tx, "a"), execution(t, tx, "e"), contextNode(t, tx, "c")
		if err := AddToContext(ctx, tx, c, a, e); err != nil {
			return err
		}
		return AddEvents(ctx, tx, e, time.Unix(1, 0), &pb.Event{Artifact: a, Type: pb.Event_OUTPUT})
	})
	if got, err := Contexts(ctx, st, a); err != nil || !slices.Equal(got, []string{c}) {
		t.Errorf("contexts of the artifact = %v, %v", got, err)
	}
	change(t, st, func(tx store.Tx) error { return Forget(ctx, tx, a) })
	if got, err := Members(ctx, st, c); err != nil || !slices.Equal(got, []string{e}) {
		t.Errorf("members = %v, %v", got, err)
	}
	change(t, st, func(tx store.Tx) error { return Forget(ctx, tx, c) })
	for _, kind := range []store.Kind{kindMembers, kindMemberships, kindEvents, kindArtifactEvents} {
		if rows, err := st.List(ctx, store.Query{Kind: kind}); err != nil || len(rows) > 0 {
			t.Errorf("%s has %v, %v", kind, rows, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	st, ctx := open(t), t.Context()
	change(t, st, func(tx store.Tx) error {
		a, e, c := artifact(t, tx, "a"), execution(t, tx, "e"), contextNode(t, tx, "c")
		for what, tt := range map[string]struct {
			err  error
			code codes.Code
		}{
			"no context":   {AddToContext(ctx, tx, c+"x", a), codes.NotFound},
			"no member":    {AddToContext(ctx, tx, c, a+"x"), codes.NotFound},
			"not a node":   {AddToContext(ctx, tx, c, "projects/p/locations/l/models/m"), codes.InvalidArgument},
			"not a name":   {AddToContext(ctx, tx, c, "a"), codes.InvalidArgument},
			"no execution": {AddEvents(ctx, tx, e+"x", time.Unix(1, 0)), codes.NotFound},
			"no type":      {AddEvents(ctx, tx, e, time.Unix(1, 0), &pb.Event{Artifact: a}), codes.InvalidArgument},
			"own child":    {AddChildren(ctx, tx, c, c), codes.InvalidArgument},
			"no parent":    {RemoveChildren(ctx, tx, c+"x", c), codes.NotFound},
		} {
			if resource.CodeOf(tt.err) != tt.code {
				t.Errorf("%s: %v, want %v", what, tt.err, tt.code)
			}
		}
		return nil
	})
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	st, ctx := open(t), t.Context()
	var c string
	change(t, st, func(tx store.Tx) error {
		c = contextNode(t, tx, "c")
		for i := range maxNodes + 1 {
			if err := AddToContext(ctx, tx, c, artifact(t, tx, fmt.Sprintf("a%d", i))); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := OfContext(ctx, st, c); resource.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("too many nodes: %v", err)
	}
}
