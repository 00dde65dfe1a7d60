package ocf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	hamba "github.com/hamba/avro/v2/ocf"

	"tategu/internal/vector/datapoint/ocf"
)

// everySchema has every kind of type, names with and without a namespace, and one that
// holds itself.
const everySchema = `{"type": "record", "name": "every", "namespace": "a.b", "fields": [
	{"name": "nothing", "type": "null"}, {"name": "yes", "type": "boolean"}, {"name": "int", "type": "int"},
	{"name": "long", "type": {"type": "long", "logicalType": "timestamp-millis"}}, {"name": "float", "type": "float"}, {"name": "double", "type": "double"},
	{"name": "bytes", "type": "bytes"}, {"name": "string", "type": "string"},
	{"name": "enum", "type": {"type": "enum", "name": "suit", "symbols": ["HEARTS", "SPADES"]}},
	{"name": "again", "type": "a.b.suit"},
	{"name": "fixed", "type": {"type": "fixed", "name": "pair", "size": 2}},
	{"name": "floats", "type": {"type": "array", "items": "float"}}, {"name": "doubles", "type": {"type": "array", "items": "double"}},
	{"name": "words", "type": {"type": "array", "items": "string"}}, {"name": "counts", "type": {"type": "map", "values": "long"}},
	{"name": "perhaps", "type": ["null", "string", {"type": "array", "items": "int"}]},
	{"name": "tree", "type": {"type": "record", "name": "node", "fields": [{"name": "value", "type": "int"}, {"name": "next", "type": ["null", "node"]}]}}]}`

func every(i int) (given, want map[string]any) {
	words, whole := []any{}, []any{}
	counts := map[string]any{}
	for n := range i % 5 {
		words = append(words, strings.Repeat("w", n*100))
		counts[strconv.Itoa(n)] = int64(-n)
	}
	floats, doubles := make([]float32, i), make([]float64, i)
	for n := range i {
		floats[n], doubles[n] = float32(n)/3, -float64(n)/7
	}
	whole = append(whole, int64(i))
	tree := map[string]any{"value": i, "next": map[string]any{"a.b.node": map[string]any{"value": math.MinInt32, "next": nil}}}
	plainTree := map[string]any{"value": int64(i), "next": map[string]any{"value": int64(math.MinInt32), "next": nil}}
	given = map[string]any{
		"nothing": nil, "yes": i%2 == 0, "int": -i, "long": int64(math.MaxInt64) - int64(i), "float": float32(i) / 3, "double": math.Inf(-1),
		"bytes": []byte{0, 255}, "string": "ünï" + strconv.Itoa(i), "enum": "SPADES", "again": "HEARTS", "fixed": [2]byte{7, 9},
		"floats": floats, "doubles": doubles, "words": words, "counts": counts, "perhaps": map[string]any{"array": []any{i}}, "tree": tree,
	}
	want = map[string]any{
		"nothing": nil, "yes": i%2 == 0, "int": int64(-i), "long": int64(math.MaxInt64) - int64(i), "float": float32(i) / 3, "double": math.Inf(-1),
		"bytes": []byte{0, 255}, "string": "ünï" + strconv.Itoa(i), "enum": "SPADES", "again": "HEARTS", "fixed": []byte{7, 9},
		"floats": floats, "doubles": doubles, "words": words, "counts": counts, "perhaps": whole, "tree": plainTree,
	}
	if i == 0 {
		want["floats"], want["doubles"] = []float32(nil), []float64(nil)
	}
	switch i % 3 {
	case 0:
		given["perhaps"], want["perhaps"] = nil, nil
	case 1:
		given["perhaps"], want["perhaps"] = map[string]any{"string": "s"}, "s"
	}
	return given, want
}

func write(tb testing.TB, codec hamba.CodecName, records int) []byte {
	tb.Helper()
	var b bytes.Buffer
	enc, err := hamba.NewEncoder(everySchema, &b, hamba.WithCodec(codec), hamba.WithBlockLength(7))
	if err != nil {
		tb.Fatal(err)
	}
	for i := range records {
		given, _ := every(i)
		delete(given, "nothing")
		given["nothing"] = nil
		if err := enc.Encode(given); err != nil {
			tb.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func readAll(text []byte) (out []any, err error) {
	r, err := ocf.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		v, err := r.Next()
		if err == io.EOF { //nolint:errorlint // the end is bare
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
}

// TestEvery: what another library wrote comes back, by each codec.
func TestEvery(t *testing.T) {
	t.Parallel()
	for _, codec := range []hamba.CodecName{hamba.Null, hamba.Deflate, hamba.Snappy, hamba.ZStandard} {
		got, err := readAll(write(t, codec, 40))
		if err != nil || len(got) != 40 {
			t.Fatalf("%s: %d records, %v", codec, len(got), err)
		}
		for i, v := range got {
			if _, want := every(i); !reflect.DeepEqual(v, any(want)) {
				t.Fatalf("%s: record %d\n%#v\n%#v", codec, i, v, want)
			}
		}
	}
}

// file makes one of a schema and the content of a block.
func file(schema, codec string, count int64, block []byte) []byte {
	text := func(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	b := binary.AppendVarint([]byte("Obj\x01"), 2)
	b = text(text(text(text(b, "avro.schema"), schema), "avro.codec"), codec)
	b = append(append(b, 0), "0123456789abcdef"...)
	b = binary.AppendVarint(binary.AppendVarint(b, count), int64(len(block)))
	return append(append(b, block...), "0123456789abcdef"...)
}

// TestDamaged: each is an error that says what is wrong, and none asks for much memory.
func TestDamaged(t *testing.T) {
	t.Parallel()
	whole := write(t, hamba.Deflate, 20)
	var nested strings.Builder
	for range 100 {
		nested.WriteString(`{"type": "array", "items": `)
	}
	nested.WriteString(`"int"` + strings.Repeat("}", 100))
	loop := `{"type": "record", "name": "n", "fields": [{"name": "n", "type": "n"}]}`
	endless := `{"type": "record", "name": "n", "fields": [{"name": "n", "type": ["n"]}]}`
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"empty":          {nil, "does not begin"},
		"of JSON":        {[]byte(`{"id": 1}`), "does not begin"},
		"header cut":     {whole[:30], "the header"},
		"block cut":      {whole[:len(whole)-20], "a block"},
		"sync":           {append(whole[:len(whole)-1:len(whole)-1], whole[len(whole)-1]^1), "its end is not where it says"},
		"no schema":      {file("", "null", 0, nil), "the schema"},
		"unknown type":   {file(`"text"`, "null", 0, nil), `"text" is no type`},
		"unknown codec":  {file(`"int"`, "lzma", 0, nil), `"lzma" is not supported`},
		"nested types":   {file(nested.String(), "null", 0, nil), "too deep"},
		"holds itself":   {file(loop, "null", 1, []byte{0}), "too deep"},
		"nested values":  {file(endless, "null", 1, make([]byte, 1000)), "too deep"},
		"many records":   {file(`"int"`, "null", 1<<60, []byte{2}), "records in 1 bytes"},
		"of no bytes":    {file(`"null"`, "null", 1<<40, nil), "records in 0 bytes"},
		"long text":      {file(`"string"`, "null", 1, binary.AppendVarint(nil, 1<<50)), "unexpected EOF"},
		"negative text":  {file(`"string"`, "null", 1, binary.AppendVarint(nil, -1)), "unexpected EOF"},
		"many items":     {file(`{"type": "array", "items": "null"}`, "null", 1, binary.AppendVarint(nil, 1<<50)), "items are claimed"},
		"many floats":    {file(`{"type": "array", "items": "float"}`, "null", 1, append(binary.AppendVarint(nil, 3), 0, 0, 0, 0, 0, 0, 0, 0)), "3 items are claimed in 8 bytes"},
		"negative items": {file(`{"type": "array", "items": "int"}`, "null", 1, append(binary.AppendVarint(nil, math.MinInt64), 2)), "items are claimed"},
		"union":          {file(`["null", "int"]`, "null", 1, []byte{4}), "there is no member 2 of 2"},
		"enum":           {file(`{"type": "enum", "name": "e", "symbols": ["A"]}`, "null", 1, []byte{1}), "there is no member -1 of 1"},
		"left over":      {file(`"int"`, "null", 1, []byte{2, 2}), "bytes after its last record"},
		"snappy":         {file(`"int"`, "snappy", 1, []byte{1, 0, 2, 0, 0, 0, 0}), "checksum"},
		"snappy size":    {file(`"int"`, "snappy", 1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0}), "unpacks to more"},
		"deflate":        {file(`"int"`, "deflate", 1, []byte("no")), "a block"},
	} {
		if _, err := readAll(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}

// TestBomb: a block that unpacks to more than is allowed is refused while it does.
func TestBomb(t *testing.T) {
	t.Parallel()
	for _, codec := range []hamba.CodecName{hamba.Deflate, hamba.ZStandard} {
		var b bytes.Buffer
		enc, err := hamba.NewEncoder(`"bytes"`, &b, hamba.WithCodec(codec))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Encode(make([]byte, 65<<20)), enc.Close()); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 1<<20 {
			t.Fatalf("%s: it has %d bytes", codec, b.Len())
		}
		if got, err := readAll(b.Bytes()); err == nil {
			t.Errorf("%s: %d records", codec, len(got))
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, hamba.Null, 3))
	f.Add(write(f, hamba.Snappy, 3))
	f.Add(file(`{"type": "map", "values": ["null", "double"]}`, "null", 1, []byte{2, 2, 'k', 0, 0}))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := readAll(text)
		if err == nil && len(records) > maxPerByte*len(text)+1 {
			t.Errorf("%d records of %d bytes", len(records), len(text))
		}
	})
}

// maxPerByte: deflate makes a thousand bytes of one, zstandard more.
const maxPerByte = 1 << 16
