package datapoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// record is a datapoint as files have it.
type record struct {
	ID        string           `json:"id"`
	Embedding []float32        `json:"embedding"`
	Sparse    *sparseRecord    `json:"sparse_embedding"`
	Restricts []restrictRecord `json:"restricts"`
	Numeric   []numericRecord  `json:"numeric_restricts"`
	Crowding  json.RawMessage  `json:"crowding_tag"`
	Metadata  json.RawMessage  `json:"embedding_metadata"`
}

type sparseRecord struct {
	Values     []float32 `json:"values"`
	Dimensions []int64   `json:"dimensions"`
}

type restrictRecord struct {
	Namespace string   `json:"namespace"`
	Allow     []string `json:"allow"`
	Deny      []string `json:"deny"`
	AllowList []string `json:"allow_list"`
	DenyList  []string `json:"deny_list"`
}

type numericRecord struct {
	Namespace string   `json:"namespace"`
	Int       *int64   `json:"value_int"`
	Float     *float32 `json:"value_float"`
	Double    *float64 `json:"value_double"`
	Op        string   `json:"op"`
}

// parseJSON reads one line.
func parseJSON(line []byte) (*pb.IndexDatapoint, *RecordError) {
	if !utf8.Valid(line) {
		return nil, wrong(InvalidEncoding, "", "the line is not UTF-8")
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, jsonError(r.ID, err)
	}
	return r.datapoint()
}

func jsonError(id string, err error) *RecordError {
	typed, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return wrong(InvalidJSON, id, "%v", err)
	}
	t := ParsingError
	switch field, _, _ := strings.Cut(typed.Field, "."); field {
	case "id":
		t = InvalidID
	case "embedding":
		t = InvalidEmbedding
	case "sparse_embedding":
		t = InvalidSparse
		if strings.HasSuffix(typed.Field, "dimensions") {
			t = InvalidSparseDims
		}
	case "restricts":
		t = InvalidToken
	case "numeric_restricts":
		t = InvalidNumeric
	}
	return wrong(t, id, "%s is a JSON %s", typed.Field, typed.Value)
}

func (r *record) datapoint() (*pb.IndexDatapoint, *RecordError) {
	dp := &pb.IndexDatapoint{DatapointId: r.ID, FeatureVector: r.Embedding}
	if r.Sparse != nil {
		dp.SparseEmbedding = &pb.IndexDatapoint_SparseEmbedding{Values: r.Sparse.Values, Dimensions: r.Sparse.Dimensions}
	}
	for _, x := range r.Restricts {
		dp.Restricts = append(dp.Restricts, &pb.IndexDatapoint_Restriction{
			Namespace: x.Namespace, AllowList: append(x.Allow, x.AllowList...), DenyList: append(x.Deny, x.DenyList...),
		})
	}
	for _, x := range r.Numeric {
		n, err := x.restriction(r.ID)
		if err != nil {
			return nil, err
		}
		dp.NumericRestricts = append(dp.NumericRestricts, n)
	}
	var err *RecordError
	if dp.CrowdingTag, err = crowding(r.ID, r.Crowding); err != nil {
		return nil, err
	}
	if raw := r.Metadata; len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
		dp.EmbeddingMetadata = &structpb.Struct{}
		if err := dp.EmbeddingMetadata.UnmarshalJSON(raw); err != nil {
			return nil, wrong(InvalidMetadata, r.ID, "embedding_metadata is not a JSON object")
		}
	}
	return dp, nil
}

// crowding takes a text or an integer, which files of the private API's time have.
func crowding(id string, raw json.RawMessage) (*pb.IndexDatapoint_CrowdingTag, *RecordError) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil //nolint:nilnil // there is no tag
	}
	var tag string
	if err := json.Unmarshal(raw, &tag); err != nil {
		var n int64
		if err := json.Unmarshal(raw, &n); err != nil {
			return nil, wrong(ParsingError, id, "crowding_tag is neither a text nor an integer")
		}
		tag = string(raw)
	}
	if tag == "" {
		return nil, nil //nolint:nilnil // there is no tag
	}
	return &pb.IndexDatapoint_CrowdingTag{CrowdingAttribute: tag}, nil
}

func (x numericRecord) restriction(id string) (*pb.IndexDatapoint_NumericRestriction, *RecordError) {
	n := &pb.IndexDatapoint_NumericRestriction{Namespace: x.Namespace}
	values := 0
	if x.Int != nil {
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: *x.Int}
		values++
	}
	if x.Float != nil {
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: *x.Float}
		values++
	}
	if x.Double != nil {
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: *x.Double}
		values++
	}
	switch {
	case values > 1:
		return nil, wrong(MultipleValues, id, "numeric restrict %q has %d values", x.Namespace, values)
	case values == 0:
		return nil, wrong(InvalidNumeric, id, "numeric restrict %q has none of value_int, value_float and value_double", x.Namespace)
	case x.Op != "":
		return nil, wrong(OpInDatapoint, id, "numeric restrict %q of a datapoint has an op, which is for queries", x.Namespace)
	}
	return n, nil
}
