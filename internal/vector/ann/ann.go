// Package ann finds the nearest of many vectors. A Segment is one immutable file:
// it is built once from rows (id, vector, attributes), mapped into memory, and searched by
// any number of goroutines at a time. It knows no store, no bucket and no API; what changes
// (rows that are new, rows that are gone) is its caller's, who gives the rows that are gone
// with each search.
//
// Distances are given so that less is nearer, whatever the measure. What that means for each
// is at its constant; the formulas are those of the aiplatform reference (DistanceMeasureType).
package ann

import (
	"errors"
	"fmt"
	"iter"
	"math"
)

// Distance is how far two vectors are from each other.
type Distance int

// Distances. Less is nearer for all of them.
const (
	DotProduct Distance = iota // the negative of the dot product
	Cosine                     // 1 - cosine of the angle: 0 to 2; a vector of zeros is 1 from all
	SquaredL2                  // sum of squared differences
	L1                         // sum of absolute differences
)

// String is the name in the API's DistanceMeasureType.
func (d Distance) String() string {
	switch d {
	case DotProduct:
		return "DOT_PRODUCT_DISTANCE"
	case Cosine:
		return "COSINE_DISTANCE"
	case SquaredL2:
		return "SQUARED_L2_DISTANCE"
	case L1:
		return "L1_DISTANCE"
	}
	return fmt.Sprintf("Distance(%d)", int(d))
}

// Measure is a distance, and whether vectors (queries too) are brought to length 1 before
// (the API's featureNormType UNIT_L2_NORM). Vectors of zeros stay as they are.
type Measure struct {
	Distance Distance
	UnitNorm bool
}

// scaled says that vectors are compared at length 1.
func (m Measure) scaled() bool { return m.UnitNorm || m.Distance == Cosine }

// distant says that rows are near by their distance, not by their direction alone.
func (m Measure) distant() bool { return m.Distance == SquaredL2 || m.Distance == L1 }

// Between is the distance of two vectors of one length, in plain Go: for few rows, and as
// what the kernels are compared with.
func (m Measure) Between(a, b []float32) float32 {
	sa, sb := float32(1), float32(1)
	if m.scaled() {
		sa, sb = unit(a), unit(b)
	}
	var sum float64
	switch m.Distance {
	case DotProduct, Cosine:
		for i, x := range a {
			sum += float64(x*sa) * float64(b[i]*sb)
		}
		if m.Distance == Cosine {
			return float32(max(0, 1-sum))
		}
		return float32(-sum)
	case L1:
		for i, x := range a {
			sum += math.Abs(float64(x*sa) - float64(b[i]*sb))
		}
	default:
		for i, x := range a {
			v := float64(x*sa) - float64(b[i]*sb)
			sum += v * v
		}
	}
	return float32(sum)
}

// unit is what a vector is multiplied with to have length 1.
func unit(v []float32) float32 {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	f := float32(1 / math.Sqrt(s))
	if f == 0 || f-f != 0 { // it is of zeros, or so near to them that its direction is lost; or not finite
		return 1
	}
	return f
}

// Row is one point with all that is kept of it.
type Row struct {
	ID        string
	Vector    []float32
	Restricts []Restrict
	Numerics  []Numeric
	Crowding  string // neighbours of one crowding tag may be limited; "" is no tag
	Extra     []byte // what the caller keeps with the row; the segment does not look into it
}

// Rows come once, in any order; an error ends the build. A row and what it points to may be
// used again by the caller for the next one.
type Rows = iter.Seq2[Row, error]

// Neighbor is a row that was found.
type Neighbor struct {
	Row      uint32
	Distance float32
}

// Method is how a segment looks for neighbours.
type Method int

// Methods. Auto measures the others and keeps the fastest that finds enough.
const (
	Auto  Method = iota
	Exact        // compares every vector: all neighbours, always
	Flat         // scans all codes (one byte a dimension), then compares the best exactly
	IVF          // scans codes of the leaves (k-means) nearest to the query
	HNSW         // walks a graph of neighbours
)

// String is the method's name in statistics.
func (m Method) String() string {
	switch m {
	case Auto:
		return "auto"
	case Exact:
		return "exact"
	case Flat:
		return "flat"
	case IVF:
		return "ivf"
	case HNSW:
		return "hnsw"
	}
	return fmt.Sprintf("method %d", int(m))
}

// Errors that callers tell apart.
var (
	ErrDamaged   = errors.New("the segment is damaged")
	ErrDuplicate = errors.New("the id is there twice")
	ErrVector    = errors.New("the vector cannot be used")
)

// CheckVector says why a vector cannot be a row or query of a segment.
func CheckVector(v []float32, dimensions int) error {
	if len(v) != dimensions {
		return fmt.Errorf("%w: it has %d dimensions instead of %d", ErrVector, len(v), dimensions)
	}
	for i, x := range v {
		if x-x != 0 {
			return fmt.Errorf("%w: dimension %d is not a finite number", ErrVector, i)
		}
	}
	return nil
}
