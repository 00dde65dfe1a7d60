// Package datapoint knows what a datapoint of an index may be: it reads the files
// of batch updates (JSON lines, CSV, Avro), checks datapoints with the API's own
// kinds of record errors, and matches them against the restricts of queries. A
// datapoint is the API's v1beta1 message; there is no second model of it.
package datapoint

import (
	"fmt"
	"math"
	"unicode/utf8"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"
)

// Type is the API's kind of a record error.
type Type = pb.NearestNeighborSearchOperationMetadata_RecordError_RecordErrorType

// The kinds, under shorter names.
const (
	EmptyLine         = pb.NearestNeighborSearchOperationMetadata_RecordError_EMPTY_LINE
	InvalidJSON       = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_JSON_SYNTAX
	InvalidCSV        = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_CSV_SYNTAX
	InvalidAvro       = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_AVRO_SYNTAX
	InvalidID         = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_EMBEDDING_ID
	SizeMismatch      = pb.NearestNeighborSearchOperationMetadata_RecordError_EMBEDDING_SIZE_MISMATCH
	NamespaceMissing  = pb.NearestNeighborSearchOperationMetadata_RecordError_NAMESPACE_MISSING
	ParsingError      = pb.NearestNeighborSearchOperationMetadata_RecordError_PARSING_ERROR
	DuplicateSpace    = pb.NearestNeighborSearchOperationMetadata_RecordError_DUPLICATE_NAMESPACE
	OpInDatapoint     = pb.NearestNeighborSearchOperationMetadata_RecordError_OP_IN_DATAPOINT
	MultipleValues    = pb.NearestNeighborSearchOperationMetadata_RecordError_MULTIPLE_VALUES
	InvalidNumeric    = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_NUMERIC_VALUE
	InvalidEncoding   = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_ENCODING
	InvalidSparseDims = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_SPARSE_DIMENSIONS
	InvalidToken      = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_TOKEN_VALUE
	InvalidSparse     = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_SPARSE_EMBEDDING
	InvalidEmbedding  = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_EMBEDDING
	InvalidMetadata   = pb.NearestNeighborSearchOperationMetadata_RecordError_INVALID_EMBEDDING_METADATA
	MetadataTooLarge  = pb.NearestNeighborSearchOperationMetadata_RecordError_EMBEDDING_METADATA_EXCEEDS_SIZE_LIMIT
)

// RecordError says what is wrong with one datapoint.
type RecordError struct {
	Type    Type
	ID      string // of the datapoint, where it is known
	Message string
}

// Error implements error.
func (e *RecordError) Error() string {
	if e.ID == "" {
		return e.Message
	}
	return fmt.Sprintf("datapoint %q: %s", e.ID, e.Message)
}

func wrong(t Type, id, format string, args ...any) *RecordError {
	return &RecordError{Type: t, ID: id, Message: fmt.Sprintf(format, args...)}
}

// Bounds of one datapoint.
const (
	maxID       = 1024      // bytes
	maxMetadata = 64 << 10  // bytes of embedding_metadata
	maxSparse   = 100_000   // values
	maxDim      = 1<<31 - 1 // of a sparse dimension
	// maxSquares is the most that the squares of a vector's values may sum up to, so that
	// neither a distance nor a dot product of two overflows 32 bits.
	maxSquares = 1e37
)

// Check reports what is wrong with a datapoint of an index of so many dimensions;
// nil when nothing is. A datapoint without a dense vector needs a sparse one.
func Check(dp *pb.IndexDatapoint, dimensions int) *RecordError {
	id := dp.GetDatapointId()
	if err := checkID(id); err != nil {
		return err
	}
	if len(dp.FeatureVector) == 0 && len(dp.GetSparseEmbedding().GetValues()) == 0 {
		return wrong(SizeMismatch, id, "it has neither a feature vector nor a sparse embedding; the index has %d dimensions", dimensions)
	}
	if err := CheckVector(id, dp.FeatureVector, dimensions); err != nil {
		return err
	}
	if err := CheckSparse(id, dp.SparseEmbedding); err != nil {
		return err
	}
	if err := checkRestricts(id, dp.Restricts); err != nil {
		return err
	}
	if err := checkNumeric(id, dp.NumericRestricts); err != nil {
		return err
	}
	if tag := dp.GetCrowdingTag().GetCrowdingAttribute(); !utf8.ValidString(tag) {
		return wrong(InvalidEncoding, id, "the crowding tag is not UTF-8")
	}
	if n := proto.Size(dp.EmbeddingMetadata); n > maxMetadata {
		return wrong(MetadataTooLarge, id, "embedding_metadata has %d bytes; %d is the most", n, maxMetadata)
	}
	return nil
}

func checkID(id string) *RecordError {
	switch {
	case id == "":
		return wrong(InvalidID, "", "the datapoint has no id")
	case len(id) > maxID:
		return wrong(InvalidID, id[:32], "the id has %d bytes; %d is the most", len(id), maxID)
	case !utf8.ValidString(id):
		return wrong(InvalidEncoding, "", "the id %q is not UTF-8", id)
	}
	return nil
}

// CheckVector wants a vector, where there is one, of finite numbers and the right size.
func CheckVector(id string, v []float32, dimensions int) *RecordError {
	if len(v) != 0 && len(v) != dimensions {
		return wrong(SizeMismatch, id, "the embedding has %d dimensions, the index %d", len(v), dimensions)
	}
	var squares float64
	for i, x := range v {
		f := float64(x)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return wrong(InvalidEmbedding, id, "value %d of the embedding is %v", i, x)
		}
		squares += f * f
	}
	if squares > maxSquares {
		return wrong(InvalidEmbedding, id, "the embedding has a length of %.3g; %.3g is the most", math.Sqrt(squares), math.Sqrt(maxSquares))
	}
	return nil
}

// CheckSparse wants as many dimensions as values, each once; nil is fine.
func CheckSparse(id string, s *pb.IndexDatapoint_SparseEmbedding) *RecordError {
	if s == nil {
		return nil
	}
	if len(s.Values) != len(s.Dimensions) {
		return wrong(InvalidSparse, id, "the sparse embedding has %d values for %d dimensions", len(s.Values), len(s.Dimensions))
	}
	if len(s.Values) > maxSparse {
		return wrong(InvalidSparse, id, "the sparse embedding has %d values; %d is the most", len(s.Values), maxSparse)
	}
	var squares float64
	seen := make(map[int64]bool, len(s.Dimensions))
	for i, d := range s.Dimensions {
		if d < 0 || d > maxDim {
			return wrong(InvalidSparseDims, id, "sparse dimension %d is not between 0 and %d", d, maxDim)
		}
		if seen[d] {
			return wrong(InvalidSparseDims, id, "sparse dimension %d comes twice", d)
		}
		seen[d] = true
		if f := float64(s.Values[i]); math.IsNaN(f) || math.IsInf(f, 0) {
			return wrong(InvalidSparse, id, "the value of sparse dimension %d is %v", d, s.Values[i])
		}
		squares += float64(s.Values[i]) * float64(s.Values[i])
	}
	if squares > maxSquares {
		return wrong(InvalidSparse, id, "the sparse embedding has a length of %.3g; %.3g is the most", math.Sqrt(squares), math.Sqrt(maxSquares))
	}
	return nil
}

func checkRestricts(id string, restricts []*pb.IndexDatapoint_Restriction) *RecordError {
	seen := make(map[string]bool, len(restricts)) // which may be many
	for _, r := range restricts {
		if err := checkSpace(id, r.GetNamespace()); err != nil {
			return err
		}
		if seen[r.GetNamespace()] {
			return wrong(DuplicateSpace, id, "the namespace %q comes twice in restricts", r.GetNamespace())
		}
		seen[r.GetNamespace()] = true
		for _, list := range [][]string{r.GetAllowList(), r.GetDenyList()} {
			for _, token := range list {
				switch {
				case token == "":
					return wrong(InvalidToken, id, "the namespace %q has an empty token", r.GetNamespace())
				case !utf8.ValidString(token):
					return wrong(InvalidEncoding, id, "the namespace %q has a token that is not UTF-8", r.GetNamespace())
				}
			}
		}
	}
	return nil
}

func checkSpace(id, namespace string) *RecordError {
	switch {
	case namespace == "":
		return wrong(NamespaceMissing, id, "a restrict has no namespace")
	case !utf8.ValidString(namespace):
		return wrong(InvalidEncoding, id, "a namespace is not UTF-8")
	}
	return nil
}

func checkNumeric(id string, restricts []*pb.IndexDatapoint_NumericRestriction) *RecordError {
	seen := make(map[string]bool, len(restricts))
	for _, r := range restricts {
		if err := checkSpace(id, r.GetNamespace()); err != nil {
			return err
		}
		if seen[r.GetNamespace()] {
			return wrong(DuplicateSpace, id, "the namespace %q comes twice in numeric_restricts", r.GetNamespace())
		}
		seen[r.GetNamespace()] = true
		if r.GetOp() != pb.IndexDatapoint_NumericRestriction_OPERATOR_UNSPECIFIED {
			return wrong(OpInDatapoint, id, "numeric restrict %q of a datapoint has op %s, which is for queries", r.GetNamespace(), r.GetOp())
		}
		if !validNumber(r) {
			return wrong(InvalidNumeric, id, "numeric restrict %q has no finite value", r.GetNamespace())
		}
	}
	return nil
}

func validNumber(r *pb.IndexDatapoint_NumericRestriction) bool {
	switch v := r.GetValue().(type) {
	case *pb.IndexDatapoint_NumericRestriction_ValueInt:
		return true
	case *pb.IndexDatapoint_NumericRestriction_ValueFloat:
		return !math.IsNaN(float64(v.ValueFloat)) && !math.IsInf(float64(v.ValueFloat), 0)
	case *pb.IndexDatapoint_NumericRestriction_ValueDouble:
		return !math.IsNaN(v.ValueDouble) && !math.IsInf(v.ValueDouble, 0)
	default:
		return false
	}
}

// CheckQuery reports what is wrong with the restricts and vectors of a query.
func CheckQuery(dp *pb.IndexDatapoint, dimensions int) *RecordError {
	if err := CheckVector("", dp.GetFeatureVector(), dimensions); err != nil {
		return err
	}
	if err := CheckSparse("", dp.GetSparseEmbedding()); err != nil {
		return err
	}
	for _, r := range dp.GetRestricts() {
		if err := checkSpace("", r.GetNamespace()); err != nil {
			return err
		}
	}
	for _, r := range dp.GetNumericRestricts() {
		if err := checkSpace("", r.GetNamespace()); err != nil {
			return err
		}
		if !validNumber(r) {
			return wrong(InvalidNumeric, "", "numeric restrict %q has no finite value", r.GetNamespace())
		}
		if r.GetOp() == pb.IndexDatapoint_NumericRestriction_OPERATOR_UNSPECIFIED {
			return wrong(ParsingError, "", "numeric restrict %q of a query has no op: want LESS, LESS_EQUAL, EQUAL, GREATER_EQUAL, GREATER or NOT_EQUAL", r.GetNamespace())
		}
		if _, ok := pb.IndexDatapoint_NumericRestriction_Operator_name[int32(r.GetOp())]; !ok {
			return wrong(ParsingError, "", "numeric restrict %q has an unknown op %d", r.GetNamespace(), r.GetOp())
		}
	}
	return nil
}
