package ann

import "fmt"

// Bounds of what a file may say of itself.
const (
	maxRows       = 1 << 30
	maxDimensions = 1 << 16
)

// bind gives the segment its sections. Every number that is used as an index later is
// checked here, so that searches need not.
func (s *Segment) bind(sections map[uint32][]byte) error {
	m := &s.meta
	if m.Rows < 0 || m.Rows > maxRows || m.Dimensions < 1 || m.Dimensions > maxDimensions || m.Leaves < 0 || m.Leaves > m.Rows+1 || m.Bits == 4 && m.Method != IVF ||
		m.Distance < DotProduct || m.Distance > L1 || m.Method <= Auto || m.Method > HNSW {
		return fmt.Errorf("%w: its description", ErrDamaged)
	}
	s.measure = Measure{m.Distance, m.UnitNorm}
	s.stride, s.groups = roundUp(m.Dimensions, 16), roundUp(m.Dimensions, 4)/4
	b := binder{sections: sections}
	s.floats = want[float32](&b, secFloats, m.Rows*s.stride)
	if s.measure.scaled() {
		s.scales = want[float32](&b, secScales, m.Rows)
	}
	s.byID = want[uint32](&b, secByID, m.Rows)
	b.below(s.byID, m.Rows, secByID)
	s.ids = wantLists[byte](&b, secIDs, m.Rows)
	s.records = wantLists[byte](&b, secRecords, m.Rows)
	s.tokens = wantLists[byte](&b, secTokens, m.Tokens)
	s.postings = wantLists[uint32](&b, secPostings, m.Tokens)
	b.below(s.postings.values, m.Rows, secPostings)
	s.columns = wantLists[byte](&b, secColumns, m.Columns)
	s.keys = wantLists[uint64](&b, secKeys, m.Columns)
	s.keyRows = want[uint32](&b, secKeyRows, len(s.keys.values))
	b.below(s.keyRows, m.Rows, secKeyRows)
	if m.Crowded {
		s.crowding = want[uint32](&b, secCrowding, m.Rows)
	}
	if m.Method != Exact {
		s.bindCodes(&b)
	}
	return b.err
}

func (s *Segment) bindCodes(b *binder) {
	m := &s.meta
	if m.Scale <= 0 || m.Scale-m.Scale != 0 {
		b.fail(secMeta)
		return
	}
	s.mean = want[float32](b, secMean, m.Dimensions)
	blocks := (m.Rows + 15) / 16
	if m.Bits == 4 {
		s.steps = want[float32](b, secSteps, m.Dimensions)
	}
	if s.measure.distant() || m.Bits == 4 {
		s.norms = want[float32](b, secNorms, blocks*16)
	}
	if m.Method == HNSW {
		s.bindGraph(b)
		s.bindCentroids(b)
		return
	}
	s.codes = want[byte](b, secCodes, blocks*64*s.codeLines())
	s.leaves = want[uint32](b, secLeaves, m.Leaves+1)
	if b.err != nil {
		return
	}
	for i, v := range s.leaves {
		if (i == 0 && v != 0) || (i > 0 && v < s.leaves[i-1]) || (i == m.Leaves && int(v) != m.Rows) {
			b.fail(secLeaves)
			return
		}
	}
	if m.Method == IVF {
		s.bindCentroids(b)
	}
}

func (s *Segment) bindCentroids(b *binder) {
	blocks := (s.Leaves + 15) / 16
	s.centroids = want[byte](b, secCentroids, blocks*64*s.groups)
	if s.measure.distant() {
		s.centroidNorms = want[float32](b, secCentroidNorm, blocks*16)
	}
}

// codeLines are the lines of 64 bytes of a block of codes.
func (s *Segment) codeLines() int {
	if s.Bits == 4 {
		return halfLines(s.meta.Dimensions)
	}
	return s.groups
}

// binder keeps the first thing that was wrong.
type binder struct {
	sections map[uint32][]byte
	err      error
}

func (b *binder) fail(kind uint32) {
	if b.err == nil {
		b.err = fmt.Errorf("%w: section %d does not fit the others", ErrDamaged, kind)
	}
}

// below checks that all values are row numbers.
func (b *binder) below(values []uint32, n int, kind uint32) {
	for _, v := range values {
		if int(v) >= n {
			b.fail(kind)
			return
		}
	}
}

func want[T plain](b *binder, kind uint32, n int) []T {
	v, err := view[T](b.sections, kind, n)
	if err != nil && b.err == nil {
		b.err = err
	}
	return v
}

func wantLists[T plain](b *binder, kind uint32, n int) lists[T] {
	v, err := listsOf[T](b.sections, kind, n)
	if err != nil && b.err == nil {
		b.err = err
	}
	return v
}
