package datapoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector/datapoint/ocf"
)

// avroRecords gives each record of an object container file to visit, whatever its
// schema is: fields have the names of the JSON form.
func avroRecords(r io.Reader, visit func(*pb.IndexDatapoint, *RecordError) error) error {
	file, err := ocf.NewReader(r)
	if err != nil {
		return visit(nil, wrong(InvalidAvro, "", "the file has no readable header: %v", err))
	}
	defer file.Close()
	for {
		v, err := file.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return visit(nil, wrong(InvalidAvro, "", "%v", err))
		}
		fields, ok := v.(map[string]any)
		if !ok {
			return visit(nil, wrong(InvalidAvro, "", "the schema is not that of a record"))
		}
		if err := visit(fromAvro(fields)); err != nil {
			return err
		}
	}
}

func fromAvro(fields map[string]any) (*pb.IndexDatapoint, *RecordError) {
	id, _ := fields["id"].(string)
	r := record{ID: id}
	var ok bool
	if r.Embedding, ok = floats(fields["embedding"]); !ok {
		return nil, wrong(InvalidEmbedding, id, "embedding is not an array of numbers")
	}
	if sparse, _ := fields["sparse_embedding"].(map[string]any); sparse != nil {
		r.Sparse = &sparseRecord{}
		if r.Sparse.Values, ok = floats(sparse["values"]); !ok {
			return nil, wrong(InvalidSparse, id, "sparse_embedding.values is not an array of numbers")
		}
		if r.Sparse.Dimensions, ok = integers(sparse["dimensions"]); !ok {
			return nil, wrong(InvalidSparseDims, id, "sparse_embedding.dimensions is not an array of integers")
		}
	}
	var err error
	if r.Crowding, err = json.Marshal(fields["crowding_tag"]); err != nil {
		return nil, wrong(ParsingError, id, "crowding_tag is neither a text nor an integer")
	}
	if r.Metadata, err = avroMetadata(fields["embedding_metadata"]); err != nil {
		return nil, wrong(InvalidMetadata, id, "embedding_metadata is not an object: %v", err)
	}
	// The rest is small: by way of its JSON form, whose rules it shares.
	rest, err := json.Marshal(map[string]any{"restricts": fields["restricts"], "numeric_restricts": fields["numeric_restricts"]})
	if err != nil {
		return nil, wrong(ParsingError, id, "restricts: %v", err)
	}
	if err := json.Unmarshal(rest, &r); err != nil {
		return nil, jsonError(id, err)
	}
	return r.datapoint()
}

// avroMetadata takes a record, a map, or the text of a JSON object.
func avroMetadata(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		if v == "" {
			return nil, nil
		}
		if !json.Valid([]byte(v)) {
			return nil, fmt.Errorf("%.40q is not JSON", v)
		}
		return json.RawMessage(v), nil
	default:
		return json.Marshal(v)
	}
}

func floats(v any) ([]float32, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case []float32:
		return v, true
	case []float64:
		out := make([]float32, len(v))
		for i, x := range v {
			out[i] = float32(x)
		}
		return out, true
	case []any: // of integers, or of a union
		out := make([]float32, len(v))
		for i, x := range v {
			switch x := x.(type) {
			case float32:
				out[i] = x
			case float64:
				out[i] = float32(x)
			case int64:
				out[i] = float32(x)
			default:
				return nil, false
			}
		}
		return out, true
	default:
		return nil, false
	}
}

func integers(v any) ([]int64, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case []any:
		return integersOf(v)
	case []float64:
		return integersOf(v)
	default:
		return nil, false
	}
}

// integersOf takes numbers that have no fraction.
func integersOf[T any](values []T) ([]int64, bool) {
	var out []int64
	for _, x := range values {
		switch x := any(x).(type) {
		case int64:
			out = append(out, x)
		case float64:
			if x != math.Trunc(x) || math.Abs(x) > maxDim {
				return nil, false
			}
			out = append(out, int64(x))
		default:
			return nil, false
		}
	}
	return out, true
}
