package local

import (
	"cmp"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector/ann"
)

// inverted are the lists of a segment's sparse embeddings: for each dimension the
// rows that have it. It is made when the segment is opened.
type inverted struct {
	lists map[int64][]posting
	has   *ann.Bitmap // rows with a sparse embedding
	only  *ann.Bitmap // of these, those without a vector
}

type posting struct {
	row   uint32
	value float32
}

func invert(s *ann.Segment) (*inverted, error) {
	x := &inverted{lists: map[int64][]posting{}, has: ann.NewBitmap(s.Len()), only: ann.NewBitmap(s.Len())}
	for row := range uint32(s.Len()) {
		r, err := s.Get(row)
		if err != nil {
			return nil, err
		}
		sparse, dense, err := sparseOf(r)
		if err != nil {
			return nil, err
		}
		if !dense {
			x.only.Set(row)
		}
		if sparse == nil {
			continue
		}
		x.has.Set(row)
		for i, d := range sparse.GetDimensions() {
			x.lists[d] = append(x.lists[d], posting{row, sparse.GetValues()[i]})
		}
	}
	return x, nil
}

// search gives the rows with the greatest dot products, so many at most, of those that are
// not dead and are allowed (nil: all). A row that shares no dimension with the query is
// not found.
func (x *inverted) search(q *pb.IndexDatapoint_SparseEmbedding, dead, allowed *ann.Bitmap, most int) []ann.Neighbor {
	scores := map[uint32]float32{}
	for i, d := range q.GetDimensions() {
		for _, p := range x.lists[d] {
			if (dead == nil || !dead.Has(p.row)) && (allowed == nil || allowed.Has(p.row)) {
				scores[p.row] += q.GetValues()[i] * p.value
			}
		}
	}
	out := make([]ann.Neighbor, 0, len(scores))
	for row, score := range scores {
		out = append(out, ann.Neighbor{Row: row, Distance: score})
	}
	if len(out) > most {
		slices.SortFunc(out, func(a, b ann.Neighbor) int {
			return cmp.Or(cmp.Compare(b.Distance, a.Distance), cmp.Compare(a.Row, b.Row))
		})
		out = out[:most]
	}
	return out
}

// weights are a sparse embedding by its dimensions, which may be many.
type weights map[int64]float32

func weigh(s *pb.IndexDatapoint_SparseEmbedding) weights {
	w := make(weights, len(s.GetDimensions()))
	for i, d := range s.GetDimensions() {
		w[d] = s.GetValues()[i]
	}
	return w
}

// dot is the dot product, and whether there is a common dimension.
func (w weights) dot(s *pb.IndexDatapoint_SparseEmbedding) (sum float32, common bool) {
	for i, d := range s.GetDimensions() {
		if v, ok := w[d]; ok {
			sum += v * s.GetValues()[i]
			common = true
		}
	}
	return sum, common
}
