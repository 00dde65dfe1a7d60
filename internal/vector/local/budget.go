package local

import (
	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
	"tategu/internal/vector"
)

// Bounds of what one request takes, whatever it asks for.
const (
	maxAnswer   = 256 << 20 // bytes of datapoints in its answer
	atOnce      = 256       // queries that are answered together
	mostAtOnce  = 1 << 20   // candidates of these, about
	perNeighbor = 64        // bytes of one beside its datapoint
)

// budget is what is left of an answer's bytes.
type budget struct {
	field string
	left  int
}

func newBudget(field string) *budget { return &budget{field, maxAnswer} }

func (b *budget) take(p *pb.IndexDatapoint) error {
	if b.left -= perNeighbor + proto.Size(p); b.left < 0 {
		return resource.Invalid(b.field, "the answer has more than %d MiB", maxAnswer>>20).
			WithHint("ask for fewer at a time, for fewer neighbours, or without whole datapoints")
	}
	return nil
}

// share is how many of the queries are answered together: many share scans, and what
// they keep until they are answered is bounded.
func (v *view) share(queries []vector.Query) int {
	streamed, rows := v.sizes()
	candidates := 0
	for i, q := range queries[:min(len(queries), atOnce)] {
		switch {
		case q.PerCrowding == 0:
			candidates += depth(q)
		case isSparse(q):
			candidates += streamed + rows
		default:
			candidates += streamed + depth(q)
		}
		if i > 0 && candidates > mostAtOnce {
			return i
		}
	}
	return min(len(queries), atOnce)
}

// sizes are how many datapoints are in memory and in segments.
func (v *view) sizes() (streamed, rows int) {
	defer v.rlock()()
	for _, m := range v.memories() {
		streamed += len(m.entries)
	}
	for _, s := range v.segments {
		rows += s.Len()
	}
	return streamed, rows
}
