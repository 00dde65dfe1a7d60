// Package vector is vector search: indexes of datapoints that change while they are
// searched, batch updates that appear whole, and the queries of the API. It acts on
// the rows that the API writes (batch updates) and finishes their operations; its
// data plane (find, read, upsert, remove) is called directly by the API.
//
// How datapoints are kept and searched is behind Backend; vectortest says what
// every backend does. The one that needs nothing else is vector/local.
package vector

import (
	"context"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Index is what a backend has to know of an index.
type Index struct {
	Name   string // full resource name
	Config Config
}

// Query asks for the neighbours of one point.
type Query struct {
	// Point has the vector, the sparse embedding and the restricts; with neither of
	// the first two, its id names a datapoint of the index whose own are taken.
	Point     *pb.IndexDatapoint
	Neighbors int // 0 = DefaultNeighbors
	// PerCrowding is the most neighbours with one crowding tag; 0 = any number.
	PerCrowding int
	// Approximate is how many candidates are compared exactly; 0 = the index's.
	Approximate int
	// LeafFraction of the leaves is searched; 0 = the index's.
	LeafFraction float64
	// Alpha is the weight of the dense ranking among both, 0 to 1, where the point
	// has a vector and a sparse embedding.
	Alpha float64
	// Joint asks for both rankings of a point that is named by its id alone.
	Joint bool
}

// DefaultNeighbors is how many are found when a query does not say (the API's default).
const DefaultNeighbors = 10

// Neighbor is a datapoint that was found.
type Neighbor struct {
	// Datapoint has id and crowding tag, and everything where that was asked for.
	Datapoint *pb.IndexDatapoint
	// Distance is as the API reports it: the dot product itself (more is nearer),
	// else less is nearer. SparseDistance is the dot product of the sparse embeddings.
	Distance, SparseDistance float64
}

// Stats are of what a query would see now.
type Stats struct {
	Vectors, Sparse int64 // datapoints with a dense vector, with a sparse embedding
	Count           int64 // datapoints
	Generation      int   // number of the batch update that made it; 0 = there was none
	Previous        int   // the generation that a roll-back brings back
	CanRollback     bool  // there is one
	Created         time.Time
	Recall          float64 // of the generation's check, at 10; 0 = there was none
	Method          string  // how its vectors are searched
	Segments        int
	Unmerged        int   // datapoints streamed and not yet in a segment
	Bytes           int64 // of memory and mapped files; 0 = not in memory
}

// Source gives the datapoints of a batch update, each id once, and the ids that it
// removes.
type Source interface {
	// Datapoints calls put with each; what it is given may be kept.
	Datapoints(ctx context.Context, put func(*pb.IndexDatapoint) error) error
	// Removed are known once Datapoints has returned.
	Removed() []string
}

// Commit is run in the transaction in which a change of an index becomes real; an
// error undoes the change.
type Commit func(ctx context.Context, tx store.Tx, now Stats) error

// Backend keeps datapoints and finds neighbours. Its methods may be called at any
// time by any number of goroutines. What Upsert and Remove were told is durable and
// seen by queries when they return.
type Backend interface {
	// Upsert adds datapoints or replaces those of the same ids. With a mask, of a
	// datapoint that is there only the masked fields are replaced; one that is not
	// there is then a NotFound error, and nothing is changed.
	Upsert(ctx context.Context, index Index, points []*pb.IndexDatapoint, mask Mask) error
	// Remove forgets ids; one that is not there is no error.
	Remove(ctx context.Context, index Index, ids []string) error
	// Find answers each query from one state of the index.
	Find(ctx context.Context, index Index, queries []Query, full bool) ([][]Neighbor, error)
	// Get gives the datapoints of ids in their order; nil for one that is not there.
	Get(ctx context.Context, index Index, ids []string) ([]*pb.IndexDatapoint, error)
	// Scan gives up to limit datapoints in the order of their ids, after one.
	Scan(ctx context.Context, index Index, after string, limit int) ([]*pb.IndexDatapoint, error)
	// Replace makes a new generation of the source's datapoints, alone or over the
	// current ones, checks it, and puts it in the place of the current one at once.
	// What is upserted or removed meanwhile stays.
	Replace(ctx context.Context, index Index, overwrite bool, source Source, commit Commit) error
	// Rollback brings the generation before the current one back, with all that it
	// had when it was replaced; the current one, with all that was streamed into it,
	// becomes the one that the next roll-back brings back.
	Rollback(ctx context.Context, index Index, commit Commit) error
	Stats(ctx context.Context, index Index) (Stats, error)
	// Drop forgets an index in the transaction that deletes it; what it had in memory
	// and on disk goes later.
	Drop(ctx context.Context, tx store.Tx, name string) error
	// Warm makes the first query as fast as the next.
	Warm(ctx context.Context, index Index) error
	// Run does what has to be done over time; it returns when ctx ends.
	Run(ctx context.Context) error
}

// Mask says which fields an upsert replaces; the zero value replaces whole datapoints.
type Mask struct{ Restricts, Numeric, Metadata bool }

// ParseMask reads the update mask of an upsert: all_restricts, its halves, and
// embedding_metadata.
func ParseMask(paths []string) (Mask, error) {
	var m Mask
	for _, p := range paths {
		switch p {
		case "all_restricts":
			m.Restricts, m.Numeric = true, true
		case "restricts":
			m.Restricts = true
		case "numeric_restricts":
			m.Numeric = true
		case "embedding_metadata":
			m.Metadata = true
		default:
			return Mask{}, resource.Invalid("update_mask", "%q cannot be updated alone", p).
				WithHint("name all_restricts, restricts, numeric_restricts or embedding_metadata, or send whole datapoints without a mask")
		}
	}
	return m, nil
}

// Partial reports that some fields of a datapoint stay.
func (m Mask) Partial() bool { return m != Mask{} }

// Apply gives old with the masked fields of given.
func (m Mask) Apply(old, given *pb.IndexDatapoint) *pb.IndexDatapoint {
	out := &pb.IndexDatapoint{
		DatapointId: old.DatapointId, FeatureVector: old.FeatureVector, SparseEmbedding: old.SparseEmbedding, Restricts: old.Restricts,
		NumericRestricts: old.NumericRestricts, CrowdingTag: old.CrowdingTag, EmbeddingMetadata: old.EmbeddingMetadata,
	}
	if m.Restricts {
		out.Restricts = given.Restricts
	}
	if m.Numeric {
		out.NumericRestricts = given.NumericRestricts
	}
	if m.Metadata {
		out.EmbeddingMetadata = given.EmbeddingMetadata
	}
	return out
}
