package local

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
	"tategu/internal/vector/vectortest"
)

// generationOf has points whose ids tell the generation, all about equally near.
func generationOf(n int) vector.Points {
	var p vector.Points
	for i := range 200 {
		p.Put = append(p.Put, vectortest.Point(fmt.Sprintf("g%d-%d", n, i), float32(i)))
	}
	return p
}

// TestSwapsUnderLoad replaces an index a hundred times while it is asked without a
// break: no query fails, none is answered from two generations, and streamed
// datapoints never miss.
func TestSwapsUnderLoad(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, func(c *Config) { c.MergeAt = 20 })
	index := p.index(t, "swaps", vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95})
	swap := func(n int) {
		err := b.Replace(t.Context(), index, true, generationOf(n), func(context.Context, store.Tx, vector.Stats) error { return nil })
		if err != nil {
			t.Error(err)
		}
	}
	swap(0)
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var asked, streamed atomic.Int64
	work.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		work.Go(func() {
			for ctx.Err() == nil {
				askOnce(t, b, index)
				asked.Add(1)
				pause(ctx, 2*time.Millisecond) // some 500 queries a second, so that the machine has room for the rest
			}
		})
	}
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			id := fmt.Sprintf("streamed-%d", n%5)
			if err := b.Upsert(ctx, index, []*pb.IndexDatapoint{vectortest.Point(id, -1000)}, vector.Mask{}); err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			streamed.Add(1)
			got, err := b.Get(ctx, index, []string{id})
			if err == nil && got[0] == nil {
				t.Errorf("%s is not there after its upsert", id)
			}
			pause(ctx, 5*time.Millisecond)
		}
	})
	for n := range 100 {
		before := asked.Load()
		swap(n + 1)
		for asked.Load() == before && !t.Failed() { // each generation is asked
			runtime.Gosched()
		}
	}
	stop()
	work.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d queries and %d upserts during 100 swaps", asked.Load(), streamed.Load())
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func askOnce(t *testing.T, b *Backend, index vector.Index) {
	t.Helper()
	q := vector.Query{Point: vectortest.Point("", 100), Neighbors: 50}
	out, err := b.Find(context.Background(), index, []vector.Query{q, q}, false)
	if err != nil {
		t.Error(err)
		return
	}
	seen := map[string]bool{}
	for _, answer := range out {
		if len(answer) != 50 {
			t.Errorf("%d neighbours instead of 50", len(answer))
		}
		for _, n := range answer {
			generation, _, _ := strings.Cut(n.Datapoint.GetDatapointId(), "-")
			seen[generation] = true
		}
	}
	if len(seen) != 1 {
		t.Errorf("an answer is of several generations: %v", seen)
	}
}

// TestIdleIndexLeavesMemory: it goes with what was streamed merged, and comes back.
func TestIdleIndexLeavesMemory(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	now := time.Unix(1, 0)
	b := p.open(t, func(c *Config) { c.Now = func() time.Time { return now } })
	cfg := vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95}
	index := p.index(t, "idle", cfg)
	if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{vectortest.Point("a", 1)}, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	if err := b.tend(t.Context()); err != nil || b.table(index).current.Load() == nil {
		t.Fatalf("an index in use left memory (%v)", err)
	}
	now = now.Add(time.Hour)
	if err := b.tend(t.Context()); err != nil || b.table(index).current.Load() != nil {
		t.Fatalf("an idle index is in memory (%v)", err)
	}
	rows, err := p.rows.List(t.Context(), store.Query{Kind: kindLog})
	if err != nil || len(rows) != 0 {
		t.Errorf("its log has %d changes left (%v)", len(rows), err)
	}
	if st, err := b.Stats(t.Context(), index); err != nil || st.Count != 1 || st.Bytes != 0 {
		t.Errorf("stats at rest: %+v, %v", st, err)
	}
	got, err := b.Get(t.Context(), index, []string{"a"})
	if err != nil || got[0] == nil {
		t.Errorf("after it came back: %v, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestMemoryBound: of several indexes the one used longest ago leaves.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	now := time.Unix(1, 0)
	b := p.open(t, func(c *Config) { c.Now, c.Memory = func() time.Time { return now }, 60_000 })
	cfg := vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95}
	indexes := []vector.Index{p.index(t, "one", cfg), p.index(t, "two", cfg), p.index(t, "three", cfg)}
	for _, index := range indexes {
		now = now.Add(time.Second)
		if err := b.Replace(t.Context(), index, true, generationOf(1), func(context.Context, store.Tx, vector.Stats) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []int
	total := int64(0)
	for i, index := range indexes {
		if v := b.table(index).acquire(); v != nil {
			left = append(left, i)
			total += v.stats().Bytes
			v.leave()
		}
	}
	if total > 60_000 || len(left) == 0 || left[len(left)-1] != 2 {
		t.Errorf("indexes %v are left with %d bytes", left, total)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzDead(f *testing.F) {
	f.Add([]byte{0, 1, 5}, 10)
	f.Fuzz(func(t *testing.T, data []byte, rows int) {
		if rows < 0 || rows > 1<<16 {
			return
		}
		b, err := dead(data).unpack(rows)
		if err != nil || b == nil {
			return
		}
		again, err := packDead(b).unpack(rows)
		if err != nil || again.Count() != b.Count() {
			t.Errorf("%v: %v after packing", data, err)
		}
	})
}

func FuzzChange(f *testing.F) {
	row, err := change{points: []*pb.IndexDatapoint{vectortest.Point("a", 1)}}.row("i", 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row.Data, true)
	f.Fuzz(func(t *testing.T, data []byte, upsert bool) {
		state := stateRemove
		if upsert {
			state = stateUpsert
		}
		c, err := readChange(store.Row{State: state, Data: data})
		if err != nil {
			return
		}
		mem := newMemory(ann.Measure{}, 8)
		if err := c.into(mem, 1); err != nil {
			return
		}
		if len(mem.entries) != len(mem.byID) {
			t.Errorf("%d entries of %d ids", len(mem.entries), len(mem.byID))
		}
	})
}
