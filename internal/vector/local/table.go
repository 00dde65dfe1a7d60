package local

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// table is one index. Locks are taken in the order of the fields.
type table struct {
	backend *Backend
	index   vector.Index

	// maintain is held by merges, batch updates and roll-backs: one at a time.
	maintain sync.Mutex
	// loading is held while the index comes into memory or leaves it.
	loading sync.Mutex
	// gate is shared by changes from their writing to their being seen, so that whoever
	// holds it alone sees no change half way.
	gate sync.RWMutex
	// publish guards the replacement of current.
	publish sync.Mutex
	current atomic.Pointer[view] // nil = not in memory
	seq     int64                // of the last change; the store's writer alone changes it while the gate is shared

	recall atomic.Uint64 // bits of what builds are tuned for, which a label of the index may change
	used   atomic.Int64  // time of the last use, in nanoseconds
	queued atomic.Bool   // waits for a merge
	// rested is what was in it when it left memory; nil = it has not.
	rested atomic.Pointer[vector.Stats]
}

func newTable(b *Backend, index vector.Index) *table {
	t := &table{backend: b, index: index}
	t.want(index.Config.Recall)
	t.touch()
	return t
}

// want has the next build tuned for a recall.
func (t *table) want(recall float64) {
	if bits := math.Float64bits(recall); t.recall.Load() != bits {
		t.recall.Store(bits)
	}
}

func (t *table) wanted() float64 { return math.Float64frombits(t.recall.Load()) }

func (t *table) touch() { t.used.Store(t.backend.cfg.Now().UnixNano()) }

func (t *table) idle(now time.Time) time.Duration { return now.Sub(time.Unix(0, t.used.Load())) }

// acquire enters the view in memory; nil = there is none.
func (t *table) acquire() *view {
	for {
		v := t.current.Load()
		if v == nil || v.enter() {
			return v
		}
	}
}

// use enters the view, for which the index comes into memory where it is not.
func (t *table) use(ctx context.Context) (*view, error) {
	t.touch()
	for {
		if v := t.acquire(); v != nil {
			return v, nil
		}
		if err := t.load(ctx); err != nil {
			return nil, fmt.Errorf("load %s: %w", t.index.Name, err)
		}
	}
}

// load brings segments and log into memory.
func (t *table) load(ctx context.Context) (err error) {
	t.loading.Lock()
	defer t.loading.Unlock()
	if t.current.Load() != nil {
		return nil
	}
	m, err := readManifest(ctx, t.backend.cfg.Store, t.index.Name)
	if err != nil {
		return err
	}
	segments, dead, err := t.backend.openParts(ctx, m.Current.Parts)
	if err != nil {
		return err
	}
	mem := newMemory(t.index.Config.Measure, t.index.Config.Dimensions)
	if t.seq, err = t.replay(ctx, m.Current.Watermark, mem); err != nil {
		closeAll(segments)
		return err
	}
	// What a merge left that was interrupted goes; it does no harm where it cannot.
	if err := t.backend.trimLog(ctx, t.index.Name, m.Current.Watermark); err != nil {
		t.backend.cfg.Log.WarnContext(ctx, "cannot tidy the log of an index", slog.String("index", t.index.Name), slog.Any("error", err))
	}
	v := newView(m.Current, m.Previous, segments, dead, mem, nil)
	v.bury(mem)
	t.current.Store(v)
	return nil
}

func closeAll(segments []*segment) {
	for _, s := range segments {
		s.retain()
		s.release()
	}
}

func (b *Backend) openParts(ctx context.Context, parts []part) (segments []*segment, deads []*ann.Bitmap, err error) {
	for _, p := range parts {
		s, err := b.openSegment(ctx, p)
		if err != nil {
			closeAll(segments)
			return nil, nil, err
		}
		segments = append(segments, s)
		dead, err := p.Dead.unpack(s.Len())
		if err != nil {
			closeAll(segments)
			return nil, nil, err
		}
		deads = append(deads, dead)
	}
	return segments, deads, nil
}

// replay reads the changes after a watermark into memory and gives the last one's number.
func (t *table) replay(ctx context.Context, watermark int64, mem *memory) (int64, error) {
	last := watermark
	q := store.Query{Kind: kindLog, Prefix: t.index.Name + "/log/", Limit: 256}
	for {
		rows, err := t.backend.cfg.Store.List(ctx, q)
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			var seq int64
			if _, err := fmt.Sscanf(row.Key[len(q.Prefix):], "%d", &seq); err != nil {
				return 0, fmt.Errorf("the change %s has no number", row.Key)
			}
			last = max(last, seq)
			if seq <= watermark {
				continue
			}
			c, err := readChange(row)
			if err != nil {
				return 0, err
			}
			if err := c.into(mem, seq); err != nil {
				return 0, err
			}
		}
		if len(rows) < q.Limit {
			return last, nil
		}
		q.After = rows[len(rows)-1].Key
	}
}

// change is what one call streams.
type change struct {
	points []*pb.IndexDatapoint
	remove []string
}

// readChange reads a row of the log.
func readChange(row store.Row) (change, error) {
	switch row.State {
	case stateUpsert:
		req := &pb.UpsertDatapointsRequest{}
		if err := proto.Unmarshal(row.Data, req); err != nil {
			return change{}, fmt.Errorf("the change %s is damaged: %w", row.Key, err)
		}
		return change{points: req.GetDatapoints()}, nil
	case stateRemove:
		req := &pb.RemoveDatapointsRequest{}
		if err := proto.Unmarshal(row.Data, req); err != nil {
			return change{}, fmt.Errorf("the change %s is damaged: %w", row.Key, err)
		}
		return change{remove: req.GetDatapointIds()}, nil
	default:
		return change{}, fmt.Errorf("the change %s is of an unknown kind %q", row.Key, row.State)
	}
}

// row is the change as a row of the log.
func (c change) row(index string, seq int64) (store.Row, error) {
	var m proto.Message = &pb.RemoveDatapointsRequest{DatapointIds: c.remove}
	state := stateRemove
	if c.remove == nil {
		m, state = &pb.UpsertDatapointsRequest{Datapoints: c.points}, stateUpsert
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return store.Row{}, resource.Invalid("datapoints", "a datapoint cannot be kept: %v", err)
	}
	return store.Row{Kind: kindLog, Key: logKey(index, seq), Parent: index, State: state, Data: data}, nil
}

// into puts the change into memory.
func (c change) into(mem *memory, seq int64) error {
	mem.mu.Lock()
	defer mem.mu.Unlock()
	for _, p := range c.points {
		if len(p.GetFeatureVector()) > 0 && len(p.GetFeatureVector()) != mem.dims {
			return fmt.Errorf("datapoint %q of the log has %d dimensions, the index %d", p.GetDatapointId(), len(p.GetFeatureVector()), mem.dims)
		}
		if err := mem.put(seq, p.GetDatapointId(), p); err != nil {
			return err
		}
	}
	for _, id := range c.remove {
		if err := mem.put(seq, id, nil); err != nil {
			return err
		}
	}
	return nil
}

// ids are those that the change is about.
func (c change) ids() []string {
	if c.remove != nil {
		return c.remove
	}
	out := make([]string, len(c.points))
	for i, p := range c.points {
		out[i] = p.GetDatapointId()
	}
	return out
}

// bury marks the rows of segments whose ids are in a memory; only before the view is
// seen by others.
func (v *view) bury(m *memory) {
	for i, s := range v.segments {
		var dead *ann.Bitmap
		for id := range m.byID {
			row, ok := s.Row(id)
			if !ok {
				continue
			}
			if dead == nil {
				dead = cloneDead(v.dead[i], s.Len())
			}
			dead.Set(row)
		}
		if dead != nil {
			v.dead[i], v.hidden[i] = dead, hide(s, dead)
		}
	}
}

func cloneDead(b *ann.Bitmap, rows int) *ann.Bitmap {
	if b == nil {
		return ann.NewBitmap(rows)
	}
	return b.Clone()
}

// swap publishes a view; the caller holds publish.
func (t *table) swap(v *view) {
	if old := t.current.Swap(v); old != nil {
		old.leave()
	}
}

// unload takes the index out of memory; its next use brings it back. Whoever uses it
// now goes on.
func (t *table) unload() {
	t.loading.Lock()
	defer t.loading.Unlock()
	t.gate.Lock()
	defer t.gate.Unlock()
	t.publish.Lock()
	defer t.publish.Unlock()
	t.swap(nil)
}
