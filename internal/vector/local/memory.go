package local

import (
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
	bytes   int64
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

// scan gives the distances of all entries with a vector that pass. The caller holds mu.
func (m *memory) scan(query []float32, pass func(*entry) bool, found []hit) []hit {
	rows := make([]uint32, 0, len(m.entries))
	for i := range m.entries {
		if e := &m.entries[i]; e.dense() && (pass == nil || pass(e)) {
			rows = append(rows, uint32(i))
		}
	}
	if len(rows) == 0 {
		return found
	}
	q := aligned(m.stride)
	copy(q, query)
	if scaled(m.measure) {
		scale(q)
	}
	out := make([]float32, len(rows))
	rank := kernel.Rank{Query: &q[0], Base: &m.slab[0], Rows: &rows[0], Out: &out[0], Count: len(rows), Stride: m.stride}
	switch m.measure.Distance {
	case ann.SquaredL2:
		m.kernels.L2(&rank)
	case ann.L1:
		m.kernels.L1(&rank)
	default:
		m.kernels.Dot(&rank)
	}
	for i, row := range rows {
		d := out[i]
		found = append(found, hit{int(row), m.distance(d)})
	}
	return found
}

// distance of what a kernel gave.
func (m *memory) distance(d float32) float32 {
	switch m.measure.Distance {
	case ann.DotProduct:
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
