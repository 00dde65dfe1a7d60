package datapoint

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"testing"
)

// hostile is a file of one block, of a schema and codec, that says of itself what it likes.
func hostile(schema, codec string, records, size int64, data []byte) string {
	b := []byte("Obj\x01")
	b = binary.AppendVarint(b, 2)
	for _, s := range []string{"avro.schema", schema, "avro.codec", codec} {
		b = append(binary.AppendVarint(b, int64(len(s))), s...)
	}
	b = append(binary.AppendVarint(b, 0), make([]byte, 16)...)
	b = binary.AppendVarint(binary.AppendVarint(b, records), size)
	return string(append(append(b, data...), make([]byte, 16)...))
}

// TestHostileAvro: files of a few bytes that ask for more memory than there is.
func TestHostileAvro(t *testing.T) {
	t.Parallel()
	record := func(of string) string {
		return `{"type": "record", "name": "dp", "fields": [{"name": "embedding", "type": ` + of + `}]}`
	}
	many := binary.AppendVarint(nil, 1<<50)
	blocks := bytes.Repeat(binary.AppendVarint(nil, 5000), 5000) // each claims no more than there are bytes
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	node := `{"type": "record", "name": "node", "fields": [{"name": "next", "type": ["null", "node"]}]}`
	for name, file := range map[string]string{
		"a block of a terabyte":    hostile(record(`"string"`), "null", 1, 1<<40, nil),
		"a block of less than 0":   hostile(record(`"string"`), "null", 1, -1, nil),
		"a header of a terabyte":   "Obj\x01" + string(binary.AppendVarint([]byte{2}, 1<<40)),
		"any number of nulls":      hostile(record(`{"type": "array", "items": "null"}`), "null", 1, int64(len(many)), many),
		"any number of floats":     hostile(record(`{"type": "array", "items": "float"}`), "null", 1, int64(len(many)), many),
		"any number of entries":    hostile(record(`{"type": "map", "values": "null"}`), "null", 1, int64(len(many)), many),
		"blocks of nulls":          hostile(record(`{"type": "array", "items": "null"}`), "null", 1, int64(len(blocks)), blocks),
		"records of no bytes":      hostile(record(`"null"`), "null", 1<<50, 0, nil),
		"a bomb":                   hostile(record(`"string"`), "deflate", 1, int64(bomb.Len()), bomb.Bytes()),
		"a snappy block":           hostile(record(`"string"`), "snappy", 1, 9, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0}),
		"a record in itself":       hostile(record(node), "null", 1, 1000, bytes.Repeat([]byte{2}, 1000)),
		"an unknown codec":         hostile(record(`"string"`), "lzo", 1, 0, nil),
		"a text beyond the record": hostile(record(`"string"`), "null", 1, int64(len(many)), many),
	} {
		got := readAll(t, Avro, file)
		if len(got) != 1 || got[0].Err == nil || got[0].Err.Type != InvalidAvro {
			t.Errorf("%s: %d entries, %v", name, len(got), got)
		}
	}
}
