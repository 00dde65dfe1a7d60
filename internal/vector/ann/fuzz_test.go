package ann_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"tategu/internal/vector/ann"
)

// FuzzRead changes a good segment, and makes its checksums right again, so that what the
// numbers mean is reached too: an error, or a segment that answers within itself.
func FuzzRead(f *testing.F) {
	for _, method := range []ann.Method{ann.Exact, ann.Flat, ann.IVF, ann.HNSW} {
		var b bytes.Buffer
		if _, err := ann.Build(f.Context(), &b, seq(points(60, 5, 1)), ann.Options{Dimensions: 5, Method: method}); err != nil {
			f.Fatal(err)
		}
		for _, at := range []uint32{0, 9, 16, 70, 90, 400, uint32(b.Len()) - 200} {
			f.Add(b.Bytes(), at, byte(0xff), true)
			f.Add(b.Bytes(), at, byte(1), false)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint32, x byte, right bool) {
		data = bytes.Clone(data)
		if len(data) > 0 {
			data[int(at)%len(data)] ^= x
		}
		if right {
			correct(data)
		}
		s, err := ann.Read(data)
		if err != nil {
			return
		}
		var out ann.Results
		var allowed ann.Bitmap
		s.Allowed(ann.Filter{Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{"1"}}}}, &allowed)
		v := make([]float32, s.Dimensions())
		if err := s.Search([]ann.Query{{Vector: v, K: 3}, {Vector: v, K: 3, Allowed: &allowed, PerCrowd: 1}}, nil, &out); err != nil {
			t.Fatal(err)
		}
		for row := range s.Scan("id-1") {
			_, _ = s.Get(row) // an error is fine
		}
	})
}

// correct gives the file the checksums of what it has.
func correct(b []byte) {
	if len(b) < 64 {
		return
	}
	c := crc32.MakeTable(crc32.Castagnoli)
	le := binary.LittleEndian
	n := int(le.Uint32(b[12:]))
	if n > 64 || 64+32*n > len(b) {
		return
	}
	for i := range n {
		e := b[64+32*i:]
		at, size := le.Uint64(e[8:]), le.Uint64(e[16:])
		if at <= uint64(len(b)) && size <= uint64(len(b))-at {
			le.PutUint32(e[4:], crc32.Checksum(b[at:at+size], c))
		}
	}
	le.PutUint32(b[24:], crc32.Checksum(b[64:64+32*n], c))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], c))
}
