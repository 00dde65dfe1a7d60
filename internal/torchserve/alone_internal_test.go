package torchserve

import (
	"slices"
	"testing"

	"tategu/internal/torchserve/worker"
)

// TestAlone: what a handler would take the first request of a batch for, for all of it,
// is in no batch with others: neither before them, nor behind, nor in one that runs.
func TestAlone(t *testing.T) {
	t.Parallel()
	q := newQueue(10)
	for _, j := range []struct{ id, explain string }{{"1", "False"}, {"2", "True"}, {"3", ""}} {
		r := Request{ID: j.id}
		if j.explain != "" {
			r.Headers = []Pair{{Name: "explain", Value: j.explain}}
		}
		if ok, err := q.put(newJob(r), false); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	take := func() []string { return ids(q.take(t.Context(), nil, nil, 4, 0)) }
	if got := take(); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the first batch is %v", got)
	}
	if got := ids(q.now(3)); got != nil {
		t.Errorf("%v joins a batch that runs", got)
	}
	if got := take(); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the second batch is %v", got)
	}
	if got := ids(q.now(3)); !slices.Equal(got, []string{"3"}) {
		t.Errorf("%v joins a batch that runs", got)
	}
}

func TestDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		headers []worker.Pair
		want    bool
	}{
		{nil, false},
		{[]worker.Pair{{Name: "explain", Value: "False"}}, false},
		{[]worker.Pair{{Name: "Explain", Value: "True"}}, false},
		{[]worker.Pair{{Name: "explain", Value: "true"}}, false},
		{[]worker.Pair{{Name: "explain", Value: "True"}}, true},
		{[]worker.Pair{{Name: "describe", Value: "True"}}, true},
		{[]worker.Pair{{Name: "describe", Value: "True"}, {Name: "explain", Value: "False"}}, true},
		{[]worker.Pair{{Name: "explain", Value: "True"}, {Name: "explain", Value: "False"}}, false}, // a client's, and the route's
	} {
		if got := decides(c.headers); got != c.want {
			t.Errorf("%v: %v", c.headers, got)
		}
	}
}
