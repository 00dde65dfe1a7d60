package ann

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"runtime"
	"sync/atomic"
	"unsafe"

	"tategu/internal/vector/ann/kernel"
)

// meta is the section that says what the others are.
type meta struct {
	Rows       int      `json:"rows"`
	Dimensions int      `json:"dimensions"`
	Distance   Distance `json:"distance"`
	UnitNorm   bool     `json:"unitNorm,omitempty"`
	Method     Method   `json:"method"`
	Scale      float32  `json:"scale"` // of codes: value = mean + scale × (code - 128)
	Leaves     int      `json:"leaves"`
	Tokens     int      `json:"tokens"`
	Columns    int      `json:"columns"`
	Crowded    bool     `json:"crowded"`
	Bits       int      `json:"bits,omitempty"`   // of codes, a dimension
	Degree     int      `json:"degree,omitempty"` // of the graph
	Tuning     Tuning   `json:"tuning"`
	Stats      Stats    `json:"stats"`
}

// Tuning is how much is looked at where a query does not say.
type Tuning struct {
	Leaves     int     `json:"leaves,omitempty"`     // IVF: leaves that are scanned
	Candidates int     `json:"candidates,omitempty"` // rows that are compared exactly, at least (10 neighbours)
	Beam       int     `json:"beam,omitempty"`       // HNSW: rows kept while walking
	Recall     float64 `json:"recall,omitempty"`     // share of true neighbours that this found when it was built

	micros float64 // a query took then
}

// Point of the curve that was measured at build.
type Point struct {
	Method     string  `json:"method"`
	Leaves     int     `json:"leaves,omitempty"`
	Candidates int     `json:"candidates"`
	Beam       int     `json:"beam,omitempty"`
	Recall     float64 `json:"recall"` // of 10 neighbours
	Micros     float64 `json:"micros"` // a query, one at a time on one core
}

// Stats tell how a segment was built.
type Stats struct {
	Rows         int     `json:"rows"`
	Method       string  `json:"method"`
	Leaves       int     `json:"leaves,omitempty"`
	Kernel       string  `json:"kernel"` // that it was built and measured with
	Recall       float64 `json:"recall"` // wanted
	Curve        []Point `json:"curve,omitempty"`
	BuildSeconds float64 `json:"buildSeconds"`
	Bytes        int64   `json:"bytes,omitempty"` // of the file
}

// Segment is a file of vectors, open for search. Methods are safe for many goroutines at a
// time; Close is not, and nothing that a segment gave (but copies) may be used after it.
type Segment struct {
	meta
	measure Measure
	file    []byte // mapped, or memory
	mapped  bool
	closed  atomic.Bool
	kernels kernel.Set
	free    chan *scratch
	batches chan *batch

	stride, groups int // of floats; of codes
	floats         []float32
	scales         []float32
	ids            lists[byte]
	byID           []uint32
	records        lists[byte]
	tokens         lists[byte]
	postings       lists[uint32]
	columns        lists[byte]
	keys           lists[uint64]
	keyRows        []uint32
	crowding       []uint32
	codes          []byte
	norms          []float32
	leaves         []uint32
	centroids      []byte
	centroidNorms  []float32
	mean           []float32
	steps          []float32 // of codes of 4 bits
	links          []uint32
	entries        []uint32
	lines          int // of a row's codes
}

// Open maps a file and checks it: its form, and the checksum of every section. What is wrong
// with it is an error that wraps ErrDamaged.
func Open(path string) (*Segment, error) {
	b, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", path, err)
	}
	s, err := Read(b)
	if err != nil {
		_ = unmap(b) // the file is told of as damaged
		return nil, fmt.Errorf("segment %s: %w", path, err)
	}
	s.mapped = true
	return s, nil
}

// Read is Open for a file that is in memory, which has to begin at a multiple of 64 bytes
// and must not be changed.
func Read(b []byte) (*Segment, error) {
	if len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%align != 0 {
		b = append(aligned[byte](len(b))[:0], b...)
	}
	sections, err := readFile(b)
	if err != nil {
		return nil, err
	}
	s := &Segment{file: b, kernels: kernel.Best(), free: make(chan *scratch, 2*runtime.GOMAXPROCS(0)), batches: make(chan *batch, runtime.GOMAXPROCS(0))}
	dec := json.NewDecoder(bytes.NewReader(sections[secMeta]))
	if err := dec.Decode(&s.meta); err != nil {
		return nil, fmt.Errorf("%w: its description: %w", ErrDamaged, err)
	}
	if err := s.bind(sections); err != nil {
		return nil, err
	}
	return s, nil
}

// Close unmaps the file.
func (s *Segment) Close() error {
	if s.closed.Swap(true) || !s.mapped {
		return nil
	}
	return unmap(s.file)
}

// Len is how many rows there are.
func (s *Segment) Len() int { return s.Rows }

// Measure of the distances.
func (s *Segment) Measure() Measure { return s.measure }

// Dimensions of the vectors.
func (s *Segment) Dimensions() int { return s.meta.Dimensions }

// Stats of the build.
func (s *Segment) Stats() Stats {
	st := s.meta.Stats
	st.Bytes = int64(len(s.file))
	return st
}

// Tuned is what queries that ask for nothing else get.
func (s *Segment) Tuned() Tuning { return s.Tuning }

// Row of an id.
func (s *Segment) Row(id string) (uint32, bool) {
	lo, hi := 0, len(s.byID)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if string(s.ids.at(int(s.byID[m]))) < id {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(s.byID) && string(s.ids.at(int(s.byID[lo]))) == id {
		return s.byID[lo], true
	}
	return 0, false
}

// ID of a row.
func (s *Segment) ID(row uint32) string { return string(s.ids.at(int(row))) }

// Vector of a row as it was given. It points into the file: do not change it, nor keep it
// beyond Close.
func (s *Segment) Vector(row uint32) []float32 {
	at := int(row) * s.stride
	return s.floats[at : at+s.meta.Dimensions : at+s.meta.Dimensions]
}

// Get is a row with all that is kept of it. Its vector points into the file.
func (s *Segment) Get(row uint32) (Row, error) {
	r := Row{ID: s.ID(row), Vector: s.Vector(row)}
	return r, readRecord(s.records.at(int(row)), &r)
}

// Scan gives all rows in the order of their ids, beginning after an id ("" is the first).
func (s *Segment) Scan(after string) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		lo, hi := 0, len(s.byID)
		for lo < hi && after != "" {
			m := int(uint(lo+hi) >> 1)
			if string(s.ids.at(int(s.byID[m]))) <= after {
				lo = m + 1
			} else {
				hi = m
			}
		}
		for _, r := range s.byID[lo:] {
			if !yield(r) {
				return
			}
		}
	}
}
