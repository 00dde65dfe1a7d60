package datapoint

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/iotest"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/hamba/avro/v2/ocf"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const dims = 2

func readAll(tb testing.TB, format Format, text string) []Entry {
	tb.Helper()
	var out []Entry
	if err := Read(strings.NewReader(text), format, dims, func(e Entry) error {
		out = append(out, e)
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return out
}

// full is what the whole form of each format gives.
func full() *pb.IndexDatapoint {
	return &pb.IndexDatapoint{
		DatapointId: "42", FeatureVector: []float32{0.5, -1},
		SparseEmbedding: &pb.IndexDatapoint_SparseEmbedding{Values: []float32{2, 3}, Dimensions: []int64{7, 1}},
		Restricts:       []*pb.IndexDatapoint_Restriction{{Namespace: "class", AllowList: []string{"cat", "pet"}, DenyList: []string{"dog"}}},
		NumericRestricts: []*pb.IndexDatapoint_NumericRestriction{
			{Namespace: "size", Value: &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: 3}},
			{Namespace: "ratio", Value: &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: 0.1}},
			{Namespace: "weight", Value: &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: 0.3}},
		},
		CrowdingTag: &pb.IndexDatapoint_CrowdingTag{CrowdingAttribute: "x"},
	}
}

const (
	fullJSON = `{"id": "42", "embedding": [0.5, -1], "restricts": [{"namespace": "class", "allow": ["cat", "pet"], "deny": ["dog"]}],` +
		` "numeric_restricts": [{"namespace": "size", "value_int": 3}, {"namespace": "ratio", "value_float": 0.1}, {"namespace": "weight", "value_double": 0.3}],` +
		` "crowding_tag": "x", "sparse_embedding": {"values": [2, 3], "dimensions": [7, 1]}, "embedding_metadata": {"title": "a"}}`
	fullCSV = `42,0.5,-1,7:2,1:3,class=cat,class=pet,class=!dog,#size=3i,#ratio=0.1f,#weight=0.3d,crowding_tag=x`
)

func TestWholeForms(t *testing.T) {
	t.Parallel()
	want := full()
	if got := readAll(t, CSV, fullCSV+"\n"); len(got) != 1 || got[0].Err != nil || !proto.Equal(got[0].Datapoint, want) {
		t.Errorf("CSV gave %v", got)
	}
	want.EmbeddingMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"title": structpb.NewStringValue("a")}}
	if got := readAll(t, JSON, fullJSON); len(got) != 1 || got[0].Err != nil || !proto.Equal(got[0].Datapoint, want) {
		t.Errorf("JSON gave %v", got)
	}
	if got := readAll(t, Avro, string(avroFile(t))); len(got) != 2 || got[0].Err != nil || !proto.Equal(got[0].Datapoint, want) || got[1].Err == nil || got[1].Err.Type != SizeMismatch {
		t.Errorf("Avro gave %v", got)
	}
}

const avroSchema = `{"type": "record", "name": "dp", "fields": [
	{"name": "id", "type": "string"},
	{"name": "embedding", "type": {"type": "array", "items": "float"}},
	{"name": "sparse_embedding", "type": ["null", {"type": "record", "name": "sparse", "fields": [
		{"name": "values", "type": {"type": "array", "items": "float"}}, {"name": "dimensions", "type": {"type": "array", "items": "long"}}]}]},
	{"name": "restricts", "type": ["null", {"type": "array", "items": {"type": "record", "name": "restrict", "fields": [
		{"name": "namespace", "type": "string"}, {"name": "allow", "type": ["null", {"type": "array", "items": "string"}]},
		{"name": "deny", "type": ["null", {"type": "array", "items": "string"}]}]}}]},
	{"name": "numeric_restricts", "type": ["null", {"type": "array", "items": {"type": "record", "name": "numeric", "fields": [
		{"name": "namespace", "type": "string"}, {"name": "value_int", "type": ["null", "int"]}, {"name": "value_float", "type": ["null", "float"]},
		{"name": "value_double", "type": ["null", "double"]}]}}]},
	{"name": "crowding_tag", "type": ["null", "string"]},
	{"name": "embedding_metadata", "type": ["null", "string"]}]}`

func avroFile(tb testing.TB) []byte {
	tb.Helper()
	var buf bytes.Buffer
	enc, err := ocf.NewEncoder(avroSchema, &buf, ocf.WithCodec(ocf.Snappy))
	if err != nil {
		tb.Fatal(err)
	}
	list := func(tokens ...any) map[string]any { return map[string]any{"array": tokens} }
	none := map[string]any{"value_int": nil, "value_float": nil, "value_double": nil}
	with := func(namespace, field string, v any) map[string]any {
		out := map[string]any{"namespace": namespace}
		maps.Copy(out, none)
		out[field] = v
		return out
	}
	records := []map[string]any{
		{
			"id": "42", "embedding": []any{float32(0.5), float32(-1)},
			"sparse_embedding": map[string]any{"sparse": map[string]any{"values": []any{float32(2), float32(3)}, "dimensions": []any{int64(7), int64(1)}}},
			"restricts":        list(map[string]any{"namespace": "class", "allow": list("cat", "pet"), "deny": list("dog")}),
			"numeric_restricts": list(with("size", "value_int", map[string]any{"int": 3}), with("ratio", "value_float", map[string]any{"float": float32(0.1)}),
				with("weight", "value_double", map[string]any{"double": 0.3})),
			"crowding_tag": map[string]any{"string": "x"}, "embedding_metadata": map[string]any{"string": `{"title": "a"}`},
		},
		{"id": "short", "embedding": []any{float32(1)}, "sparse_embedding": nil, "restricts": nil, "numeric_restricts": nil, "crowding_tag": nil, "embedding_metadata": nil},
	}
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			tb.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func TestRecordErrors(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]Type{
		"   ":                                 EmptyLine,
		`{"id": "a"`:                          InvalidJSON,
		`{"embedding": [1,2]}`:                InvalidID,
		`{"id": 3, "embedding": [1,2]}`:       InvalidID,
		`{"id": "a", "embedding": [1]}`:       SizeMismatch,
		`{"id": "a", "embedding": []}`:        SizeMismatch,
		`{"id": "a", "embedding": ["x"]}`:     InvalidEmbedding,
		`{"id": "a", "embedding": [1e39, 2]}`: InvalidEmbedding,
		`{"id": "a", "embedding": [1,2], "restricts": [{"allow": ["x"]}]}`:                                                               NamespaceMissing,
		`{"id": "a", "embedding": [1,2], "restricts": [{"namespace": "n", "allow": [""]}]}`:                                              InvalidToken,
		`{"id": "a", "embedding": [1,2], "restricts": [{"namespace": "n"}, {"namespace": "n"}]}`:                                         DuplicateSpace,
		`{"id": "a", "embedding": [1,2], "numeric_restricts": [{"namespace": "n", "value_int": 1, "value_float": 1}]}`:                   MultipleValues,
		`{"id": "a", "embedding": [1,2], "numeric_restricts": [{"namespace": "n"}]}`:                                                     InvalidNumeric,
		`{"id": "a", "embedding": [1,2], "numeric_restricts": [{"namespace": "n", "value_int": 1.5}]}`:                                   InvalidNumeric,
		`{"id": "a", "embedding": [1,2], "numeric_restricts": [{"namespace": "n", "value_int": 1, "op": "LESS"}]}`:                       OpInDatapoint,
		`{"id": "a", "embedding": [1,2], "numeric_restricts": [{"namespace": "n", "value_int": 1}, {"namespace": "n", "value_int": 1}]}`: DuplicateSpace,
		`{"id": "a", "embedding": [1,2], "sparse_embedding": {"values": [1], "dimensions": []}}`:                                         InvalidSparse,
		`{"id": "a", "embedding": [1,2], "sparse_embedding": {"values": [1], "dimensions": [-1]}}`:                                       InvalidSparseDims,
		`{"id": "a", "embedding": [1,2], "sparse_embedding": {"values": [1,1], "dimensions": [3,3]}}`:                                    InvalidSparseDims,
		`{"id": "a", "embedding": [1,2], "embedding_metadata": [1]}`:                                                                     InvalidMetadata,
		`{"id": "a", "embedding": [1,2], "embedding_metadata": {"x": "` + strings.Repeat("y", maxMetadata) + `"}}`:                       MetadataTooLarge,
		`{"id": "a", "embedding": [1,2], "crowding_tag": [1]}`:                                                                           ParsingError,
		"{\"id\": \"\xff\", \"embedding\": [1,2]}":                                                                                       InvalidEncoding,
	} {
		got := readAll(t, JSON, line+"\n")
		if len(got) != 1 || got[0].Err == nil || got[0].Err.Type != want {
			t.Errorf("%.80s: %v, want %s", line, got[0].Err, want)
		}
	}
	for line, want := range map[string]Type{
		`a,"1`: InvalidCSV, `a,1,x`: InvalidEmbedding, `a,1`: SizeMismatch, `,1,2`: InvalidID, `a,1,2,=x`: NamespaceMissing, `a,1,2,n=`: InvalidToken,
		`a,1,2,#n=3`: InvalidNumeric, `a,1,2,#n=xi`: InvalidNumeric, `a,1,2,x:1`: InvalidSparseDims, `a,1,2,1:x`: InvalidSparse, `a,1,n=t,2`: InvalidCSV,
		`a,1,2,crowding_tag=x,crowding_tag=y`: MultipleValues, `a,1,2,#n=1i,#n=2i`: DuplicateSpace, ``: EmptyLine,
	} {
		got := readAll(t, CSV, line+"\nb,1,2\n")
		if len(got) != 2 || got[0].Err == nil || got[0].Err.Type != want || got[1].Err != nil {
			t.Errorf("%s: %v, want %s", line, got[0].Err, want)
		}
	}
	for name, file := range map[string][]byte{"empty": {}, "no header": []byte("Obj"), "cut": avroFile(t)[:600]} {
		got := readAll(t, Avro, string(file))
		if len(got) == 0 || got[len(got)-1].Err == nil || got[len(got)-1].Err.Type != InvalidAvro {
			t.Errorf("Avro, %s: %v", name, got)
		}
	}
}

func TestLinesEndAnyhow(t *testing.T) {
	t.Parallel()
	line := `{"id": "%d", "embedding": [1,2]}`
	text := fmt.Sprintf(line+"\r\n"+line+"\n"+line, 1, 2, 3)
	got := readAll(t, JSON, text)
	if len(got) != 3 || got[2].Number != 3 || got[1].Datapoint.GetDatapointId() != "2" {
		t.Errorf("read %v", got)
	}
	long := `{"id": "` + strings.Repeat("x", maxLine) + `"}`
	if got := readAll(t, JSON, long+"\n"+text); len(got) != 1 || got[0].Err == nil || got[0].Err.Type != ParsingError {
		t.Errorf("a line without end gave %d entries", len(got))
	}
}

// TestReaderFails: bytes that do not come are no fault of the file.
func TestReaderFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("gone")
	for _, format := range []Format{JSON, CSV, Avro} {
		if err := Read(iotest.ErrReader(broken), format, dims, func(Entry) error { return nil }); !errors.Is(err, broken) {
			t.Errorf("format %d: %v", format, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(fullJSON), 1)
	f.Add([]byte(fullCSV), 2)
	f.Add(avroFile(f), 3)
	f.Add([]byte("a,1,2\n\n\"b,"), 2)
	f.Fuzz(func(t *testing.T, data []byte, format int) {
		last := 0
		err := Read(bytes.NewReader(data), Format(format), dims, func(e Entry) error {
			if (e.Datapoint == nil) == (e.Err == nil) {
				t.Fatalf("entry %+v", e)
			}
			if e.Err == nil && Check(e.Datapoint, dims) != nil {
				t.Fatalf("%v passed and is wrong", e.Datapoint)
			}
			if e.Number < last || e.Number == 0 {
				t.Fatalf("record %d after %d", e.Number, last)
			}
			last = e.Number
			return nil
		})
		if err != nil && Format(format) >= JSON && Format(format) <= Avro {
			t.Fatal(err)
		}
	})
}

func FuzzReadIDs(f *testing.F) {
	f.Add([]byte("a\n\nb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := ReadIDs(bytes.NewReader(data), func(id string, n int, wrong *RecordError) error {
			if wrong == nil && checkID(id) != nil || n == 0 {
				t.Fatalf("%q passed", id)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}
