package datapoint

import (
	"encoding/json"
	"fmt"
	"math"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/ocf"
)

// Bounds of one value of an Avro file, so that a damaged length asks for no memory.
const (
	maxAvroText  = 1 << 20
	maxAvroSlice = 1 << 20
	maxPacked    = 256 // records a byte of the file, which may be compressed
)

// avroRecords gives each record of an object container file to visit, whatever its
// schema is: fields have the names of the JSON form.
func avroRecords(r *remembering, visit func(*pb.IndexDatapoint, *RecordError) error) (err error) {
	defer func() { // the library's codecs panic on some schemas
		if p := recover(); p != nil {
			err = visit(nil, wrong(InvalidAvro, "", "the file cannot be read: %v", p))
		}
	}()
	api := avro.Config{MaxByteSliceSize: maxAvroText, MaxSliceAllocSize: maxAvroSlice}.Freeze()
	dec, err := ocf.NewDecoder(r, ocf.WithDecoderConfig(api), ocf.WithDecoderSchemaCache(&avro.SchemaCache{}))
	if err != nil {
		return visit(nil, wrong(InvalidAvro, "", "the file has no readable header: %v", err))
	}
	for n := int64(0); dec.HasNext(); n++ {
		if n > 4096+maxPacked*r.bytes { // a block may claim any number of records of no bytes
			return visit(nil, wrong(InvalidAvro, "", "a block has more records than it can have"))
		}
		var fields map[string]any
		if err := dec.Decode(&fields); err != nil {
			return visit(nil, wrong(InvalidAvro, "", "a record cannot be read: %v", err))
		}
		if err := visit(fromAvro(fields)); err != nil {
			return err
		}
	}
	if err := dec.Error(); err != nil {
		return visit(nil, wrong(InvalidAvro, "", "a block cannot be read: %v", err))
	}
	return nil
}

func fromAvro(fields map[string]any) (*pb.IndexDatapoint, *RecordError) {
	id, _ := plain(fields["id"]).(string)
	r := record{ID: id}
	var ok bool
	if r.Embedding, ok = floats(fields["embedding"]); !ok {
		return nil, wrong(InvalidEmbedding, id, "embedding is not an array of numbers")
	}
	if sparse := member(fields["sparse_embedding"]); sparse != nil {
		r.Sparse = &sparseRecord{}
		if r.Sparse.Values, ok = floats(sparse["values"]); !ok {
			return nil, wrong(InvalidSparse, id, "sparse_embedding.values is not an array of numbers")
		}
		if r.Sparse.Dimensions, ok = integers(sparse["dimensions"]); !ok {
			return nil, wrong(InvalidSparseDims, id, "sparse_embedding.dimensions is not an array of integers")
		}
	}
	var err error
	if r.Crowding, err = json.Marshal(plain(fields["crowding_tag"])); err != nil {
		return nil, wrong(ParsingError, id, "crowding_tag is neither a text nor an integer")
	}
	if r.Metadata, err = avroMetadata(fields["embedding_metadata"]); err != nil {
		return nil, wrong(InvalidMetadata, id, "embedding_metadata is not an object: %v", err)
	}
	// The rest is small: by way of its JSON form, whose rules it shares.
	rest, err := json.Marshal(map[string]any{"restricts": plain(fields["restricts"]), "numeric_restricts": plain(fields["numeric_restricts"])})
	if err != nil {
		return nil, wrong(ParsingError, id, "restricts: %v", err)
	}
	if err := json.Unmarshal(rest, &r); err != nil {
		return nil, jsonError(id, err)
	}
	return r.datapoint()
}

// member gives the record of a union, which stands below its own name there.
func member(v any) map[string]any {
	m, _ := plain(v).(map[string]any)
	if len(m) == 1 {
		for _, inner := range m {
			if named, ok := inner.(map[string]any); ok {
				return named
			}
		}
	}
	return m
}

// avroMetadata takes a record, a map, or the text of a JSON object.
func avroMetadata(v any) (json.RawMessage, error) {
	switch v := plain(v).(type) {
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

// plain takes a value out of its unions: the library gives {"type": value} for them
// where a union has several members besides null, and pointers.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 1 {
			for name, inner := range v {
				switch name {
				case "string", "int", "long", "float", "double", "boolean", "array", "map":
					return plain(inner)
				}
			}
		}
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = plain(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = plain(inner)
		}
		return out
	default:
		return v
	}
}

func list(v any) ([]any, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case []any:
		return v, true
	case map[string]any:
		if inner, ok := v["array"]; ok && len(v) == 1 {
			return list(inner)
		}
	}
	return nil, false
}

func floats(v any) ([]float32, bool) {
	values, ok := list(v)
	if !ok {
		return nil, false
	}
	var out []float32
	if len(values) > 0 {
		out = make([]float32, len(values))
	}
	for i, x := range values {
		switch x := plain(x).(type) {
		case float32:
			out[i] = x
		case float64:
			out[i] = float32(x)
		case int:
			out[i] = float32(x)
		case int64:
			out[i] = float32(x)
		default:
			return nil, false
		}
	}
	return out, true
}

func integers(v any) ([]int64, bool) {
	values, ok := list(v)
	if !ok {
		return nil, false
	}
	var out []int64
	for _, x := range values {
		switch x := plain(x).(type) {
		case int:
			out = append(out, int64(x))
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
