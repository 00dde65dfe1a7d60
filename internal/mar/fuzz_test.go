package mar_test

import (
	"slices"
	"testing"

	"tategu/internal/mar"
)

func FuzzOpen(f *testing.F) {
	f.Add(zipOf(f, goodEntries()...))
	f.Add(tarOf(f, goodEntries()...))
	f.Add(zipOf(f, entry{name: "../evil", text: "x"}))
	f.Add(tarOf(f, entry{name: "l", kind: '2', link: "/"}, entry{name: "l/x", text: "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPlace(t)
		p.Limits = mar.Limits{Bytes: 1 << 20, Entries: 100}
		p.put(t, "m.mar", data)
		before := p.tree(t)
		a, err := p.Open(t.Context(), "m.mar")
		if err == nil {
			err = a.Remove()
			if err != nil {
				t.Fatal(err)
			}
		}
		if after := p.tree(t); !slices.Equal(before, after) {
			t.Fatalf("left behind: %v", after)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte("batchSize: 4\ndeviceIds: [0, 1]\ntorchrun: {nproc-per-node: 2}\nhandler: {a: 1}\n"))
	f.Add([]byte(spec))
	for _, text := range badManifests() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := mar.ParseManifest(data); err == nil && mar.CheckName(m.Model.Name) != nil {
			t.Errorf("the name %q is taken", m.Model.Name)
		}
		if c, err := mar.ParseConfig(data); err == nil && c.BatchSize != nil && *c.BatchSize < 1 {
			t.Errorf("the batch size %d is taken", *c.BatchSize)
		}
		if s, err := mar.ParseSpec(data); err == nil && len(s.Nodes) == 0 {
			t.Error("a workflow without nodes is taken")
		}
	})
}
