package vector

import (
	"cmp"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
)

// What every backend does with what it found.

// Bounds of an answer, in bytes.
const (
	maxAnswer   = 256 << 20 // of its datapoints
	perNeighbor = 64        // of a neighbour beside its datapoint
)

// Budget is what is left of an answer's bytes.
type Budget struct {
	field string
	left  int
}

// NewBudget is that of one request; field is what asks for too much where it is spent.
func NewBudget(field string) *Budget { return &Budget{field, maxAnswer} }

// Take spends a datapoint's bytes.
func (b *Budget) Take(p *pb.IndexDatapoint) error {
	if b.left -= perNeighbor + proto.Size(p); b.left < 0 {
		return resource.Invalid(b.field, "the answer has more than %d MiB", maxAnswer>>20).
			WithHint("ask for fewer at a time, for fewer neighbours, or without whole datapoints")
	}
	return nil
}

// rrf is the constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009).
const rrf = 60

// Fuse ranks the first depth candidates of two rankings by the sum of their reciprocal
// ranks, of which the dense one has the weight alpha; equals by their ids.
func Fuse[C any](dense, sparse []C, alpha float64, depth int, id func(C) string) []C {
	type scored struct {
		candidate C
		id        string
		score     float64
	}
	at := map[string]int{}
	var all []scored
	add := func(ranked []C, weight float64) {
		if weight == 0 {
			return
		}
		for rank, c := range ranked[:min(depth, len(ranked))] {
			name := id(c)
			i, ok := at[name]
			if !ok {
				i = len(all)
				at[name] = i
				all = append(all, scored{candidate: c, id: name})
			}
			all[i].score += weight / float64(rrf+rank+1)
		}
	}
	add(dense, alpha)
	add(sparse, 1-alpha)
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	out := make([]C, len(all))
	for i, s := range all {
		out[i] = s.candidate
	}
	return out
}

// NoEarlier refuses the roll-back of an index that has no earlier generation.
func NoEarlier(index Index) error {
	return resource.Errorf(codes.FailedPrecondition, "%s has no earlier generation", index.Name).WithResource(index.Name).
		WithHint("a batch update (contentsDeltaUri) makes a new one and keeps the one before")
}
