package blob

import (
	"bytes"
	"crypto/md5"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestHasherEqualsTheHashes(t *testing.T) {
	t.Parallel()
	data := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	table := crc32.MakeTable(crc32.Castagnoli)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"as it comes": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "with EOF": iotest.DataErrReader,
	} {
		for _, size := range []int{0, 1, hashInline, hashInline + 1, hashBuffer * hashBehind, len(data)} {
			h := NewHasher(wrap(bytes.NewReader(data[:size])))
			got, err := io.ReadAll(h)
			if err != nil || !bytes.Equal(got, data[:size]) {
				t.Fatalf("%s, %d bytes: read %d, %v", name, size, len(got), err)
			}
			want := md5.Sum(data[:size])
			if d := h.Digest(); d.Size != int64(size) || !bytes.Equal(d.MD5, want[:]) || d.CRC32C != crc32.Checksum(data[:size], table) {
				t.Errorf("%s, %d bytes: %+v", name, size, d)
			}
		}
	}
}

// TestHasherGoesOn: the state of one piece is where the next begins, on either
// side of the bytes that are hashed inline.
func TestHasherGoesOn(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	var state hashState
	for _, piece := range [][]byte{data[:100], data[100:600_000], data[600_000:600_001], data[600_001:]} {
		h, err := newHasher(bytes.NewReader(piece), state)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, h); err != nil {
			t.Fatal(err)
		}
		if state, err = h.state(); err != nil {
			t.Fatal(err)
		}
	}
	h, err := newHasher(nil, state)
	if err != nil {
		t.Fatal(err)
	}
	want := md5.Sum(data)
	if got := h.Digest(); !bytes.Equal(got.MD5, want[:]) || got.CRC32C != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("%+v", got)
	}
}

// TestHasherKeepsTheError: what came before it counts.
func TestHasherKeepsTheError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	h := NewHasher(io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(broken)))
	defer h.Close()
	if n, err := io.Copy(io.Discard, h); n != 1<<20 || !errors.Is(err, broken) {
		t.Errorf("%d, %v", n, err)
	}
	if d := h.Digest(); d.Size != 1<<20 {
		t.Errorf("%d bytes counted", d.Size)
	}
}
