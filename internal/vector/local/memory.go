package local

import (
	"math"
	"slices"
	"sync"
	"unsafe"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"google.golang.org/protobuf/proto"

	"tategu/internal/vector/ann"
	"tategu/internal/vector/ann/kernel"
)

// memory holds what was streamed and is in no segment yet, and is scanned by queries.
// Its vectors stand row by row as the kernels want them; under ann.Measure's scaling
// they are kept at length 1.
type memory struct {
	measure ann.Measure
	dims    int
	stride  int
	kernels kernel.Set

	mu      sync.RWMutex
	byID    map[string]int
	entries []entry
	slab    []float32 // len(entries) × stride
	rows    []uint32  // the numbers of all entries, for the kernels
	bytes   int64

	free sync.Pool // *scratch
}

// entry is the last change of one id.
type entry struct {
	seq   int64
	id    string
	row   ann.Row            // attributes
	point *pb.IndexDatapoint // nil = it was removed
	bytes int64              // about
}

func (e *entry) dense() bool { return e.point != nil && len(e.point.GetFeatureVector()) > 0 }

func newMemory(measure ann.Measure, dims int) *memory {
	return &memory{measure: measure, dims: dims, stride: (dims + 15) / 16 * 16, kernels: kernel.Best(), byID: map[string]int{}}
}

// put takes a change, unless a later one of the same id came before it. point is nil
// where the id was removed. The caller holds mu.
func (m *memory) put(seq int64, id string, point *pb.IndexDatapoint) error {
	e := entry{seq: seq, id: id, point: point}
	if point != nil {
		row, err := toRow(point, m.dims)
		if err != nil {
			return err
		}
		row.Extra = nil // the datapoint is at hand
		e.row = row
	}
	e.bytes = e.size()
	at, ok := m.byID[id]
	if ok {
		if m.entries[at].seq > seq {
			return nil
		}
		m.bytes -= m.entries[at].bytes
		m.entries[at] = e
	} else {
		at = len(m.entries)
		m.byID[id] = at
		m.entries = append(m.entries, e)
		m.rows = append(m.rows, uint32(at))
		m.grow()
	}
	m.bytes += e.bytes
	m.fill(at, e.row.Vector)
	return nil
}

func (e *entry) size() int64 {
	const overhead = 400 // of the datapoint's and the row's own structures
	return int64(len(e.id)) + 4*int64(len(e.row.Vector)) + int64(proto.Size(e.point)) + overhead
}

// grow adds a row of zeros to the slab.
func (m *memory) grow() {
	n := len(m.entries) * m.stride
	if n > cap(m.slab) {
		more := aligned(max(2*cap(m.slab), 64*m.stride))
		copy(more, m.slab)
		m.slab = more
	}
	m.slab = m.slab[:n]
}

// aligned gives n floats that begin at a multiple of 64 bytes.
func aligned(n int) []float32 {
	const line = 64
	b := make([]float32, n+line/4)
	skip := int(-uintptr(unsafe.Pointer(&b[0]))&(line-1)) / 4 //nolint:gosec // the address alone
	return b[skip : skip+n]
}

func (m *memory) fill(at int, v []float32) {
	into := m.slab[at*m.stride : (at+1)*m.stride]
	clear(into)
	copy(into, v)
	if scaled(m.measure) {
		scale(into)
	}
}

func scaled(m ann.Measure) bool { return m.UnitNorm || m.Distance == ann.Cosine }

// hit is an entry that was found.
type hit struct {
	at       int
	distance float32
}

// scratch is what one scan needs.
type scratch struct {
	query, distances []float32
	best             []hit
}

// scan visits the nearest entries with a vector that pass, so many at most, the nearest
// first. All distances are computed; pass is asked of those alone that would be among the
// nearest. The caller holds mu.
func (m *memory) scan(query []float32, most int, pass func(*entry) bool, visit func(hit)) {
	if len(m.entries) == 0 || most <= 0 {
		return
	}
	sc, ok := m.free.Get().(*scratch)
	if !ok {
		sc = &scratch{query: aligned(m.stride)}
	}
	defer m.free.Put(sc)
	m.distances(query, sc)
	best := sc.best[:0]
	for i, d := range sc.distances {
		d = m.distance(d)
		if len(best) == most && d >= best[most-1].distance {
			continue
		}
		if e := &m.entries[i]; !e.dense() || !pass(e) {
			continue
		}
		at := len(best)
		for at > 0 && d < best[at-1].distance {
			at--
		}
		if len(best) == most {
			best = best[:most-1]
		}
		best = slices.Insert(best, at, hit{i, d})
	}
	for _, h := range best {
		visit(h)
	}
	sc.best = best
}

// each visits all entries with a vector that pass, with their distances.
func (m *memory) each(query []float32, pass func(*entry) bool, visit func(hit)) {
	if len(m.entries) == 0 {
		return
	}
	sc := &scratch{query: aligned(m.stride)}
	m.distances(query, sc)
	for i, d := range sc.distances {
		if e := &m.entries[i]; e.dense() && pass(e) {
			visit(hit{i, m.distance(d)})
		}
	}
}

// distances of all entries, as the kernels give them.
func (m *memory) distances(query []float32, sc *scratch) {
	copy(sc.query, query)
	if scaled(m.measure) {
		scale(sc.query)
	}
	n := len(m.entries)
	if cap(sc.distances) < n {
		sc.distances = make([]float32, n, 2*n)
	}
	sc.distances = sc.distances[:n]
	rank := kernel.Rank{Query: &sc.query[0], Base: &m.slab[0], Rows: &m.rows[0], Out: &sc.distances[0], Count: n, Stride: m.stride}
	switch m.measure.Distance {
	case ann.SquaredL2:
		m.kernels.L2(&rank)
	case ann.L1:
		m.kernels.L1(&rank)
	default:
		m.kernels.Dot(&rank)
	}
}

// distance of what a kernel gave.
func (m *memory) distance(d float32) float32 {
	switch m.measure.Distance {
	case ann.DotProduct:
		if d != d { // products beyond what a float holds, of both signs
			return float32(math.Inf(1))
		}
		return -d
	case ann.Cosine:
		return max(0, 1-d)
	default:
		return d
	}
}

// overlay gives a memory with the entries of both, of which those of over win.
func overlay(under, over *memory) (*memory, error) {
	out := newMemory(under.measure, under.dims)
	for _, m := range []*memory{under, over} {
		for i := range m.entries {
			e := &m.entries[i]
			if err := out.put(e.seq, e.id, e.point); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
