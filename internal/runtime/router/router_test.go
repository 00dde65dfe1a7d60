package router_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/router"
)

// part keeps ids and starts nothing.
type part struct {
	name   string
	known  map[string]bool
	closed bool
	failed error
}

type instance struct {
	runtime.Instance
	id, part string
}

func (i instance) ID() string { return i.id }

func (p *part) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	p.known[w.ID] = true
	return instance{id: w.ID, part: p.name}, p.failed
}

func (p *part) Find(_ context.Context, id string) (runtime.Instance, error) {
	if !p.known[id] {
		return nil, resource.NotFound(id)
	}
	return instance{id: id, part: p.name}, nil
}

func (p *part) List(context.Context) ([]runtime.Instance, error) {
	var out []runtime.Instance
	for id := range p.known {
		out = append(out, instance{id: id, part: p.name})
	}
	return out, p.failed
}

func (p *part) VolumeNames() ([]string, error) { return []string{p.name}, nil }
func (p *part) DropVolume(name string) error   { return errors.New(p.name + " drops " + name) }

func (p *part) KeepWarm(owner string, keep bool) { p.known[owner] = keep }

func (p *part) Check(runtime.Workload) error { return errors.New("checked by " + p.name) }
func (p *part) Adopted() int                 { return len(p.known) }
func (p *part) Close() error                 { p.closed = true; return p.failed }

func (p *part) Run(ctx context.Context) error {
	if p.failed != nil {
		return p.failed
	}
	<-ctx.Done()
	return p.Close()
}

func TestRouter(t *testing.T) {
	t.Parallel()
	programs, containers := &part{name: "programs", known: map[string]bool{"old": true}}, &part{name: "containers", known: map[string]bool{"kept": true}}
	r := router.New(programs, containers, func(_ context.Context, w runtime.Workload) (bool, error) {
		if w.Image == "none" {
			return false, errors.New("nobody has it")
		}
		return w.Image != "", nil
	})
	for _, tc := range []struct{ id, image, want string }{
		{"a", "", "programs"}, {"b", "image:1", "containers"}, {"a", "image:1", "programs"}, // known already
		{"old", "image:1", "programs"}, {"kept", "", "containers"}, {"kept", "none", "containers"},
	} {
		in, err := r.Start(t.Context(), runtime.Workload{ID: tc.id, Image: tc.image})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := in.(instance); !ok || got.part != tc.want {
			t.Errorf("%v went to %v", tc, got.part)
		}
		if in, err := r.Find(t.Context(), tc.id); err != nil || in.ID() != tc.id {
			t.Errorf("Find(%s) = %v, %v", tc.id, in, err)
		}
	}
	if _, err := r.Start(t.Context(), runtime.Workload{ID: "c", Image: "none"}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an unknown image: %v", err)
	}
	if _, err := r.Find(t.Context(), "c"); !resource.IsNotFound(err) {
		t.Errorf("an unknown id: %v", err)
	}
	if err := r.Check(runtime.Workload{Image: "image:1"}); err == nil || err.Error() != "checked by containers" {
		t.Error(err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 4 || r.Adopted() != 4 {
		t.Errorf("List = %v, %v; %d", list, err, r.Adopted())
	}
	if names, err := r.VolumeNames(); err != nil || len(names) != 1 || names[0] != "programs" || r.DropVolume("v").Error() != "programs drops v" {
		t.Errorf("volumes %v, %v", names, err)
	}
	if r.KeepWarm("owner", true); !programs.known["owner"] || containers.known["owner"] {
		t.Error("programs alone are kept warm")
	}
	if err := r.Close(); err != nil || !programs.closed || !containers.closed {
		t.Errorf("Close = %v", err)
	}
}

// TestRunEnds: the end of one part is everybody's.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	other := &part{}
	r := router.New(other, &part{failed: broken}, nil)
	if err := r.Run(t.Context()); !errors.Is(err, broken) || !other.closed {
		t.Fatalf("Run = %v, the other was closed: %t", err, other.closed)
	}
}
