package blob

import (
	"crypto/md5" //nolint:gosec // the API's checksum, not a secret
	"encoding"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

const (
	// hashInline is how many bytes are hashed by the reader itself: a small object
	// is not worth a goroutine.
	hashInline = 128 << 10
	// hashBuffer and hashBehind bound what MD5 may lag behind the reader.
	hashBuffer = 256 << 10
	hashBehind = 3
)

// Hasher hashes what is read through it. MD5 is the slowest step of a write and
// cannot be split, so that beyond the first bytes it runs beside the reading and
// writing, in a goroutine that Close ends. A Hasher has one user at a time.
type Hasher struct {
	r     io.Reader
	md5   hash.Hash
	crc   uint32
	n     int64
	table *crc32.Table

	work, free chan []byte // set while the goroutine runs
	ended      chan struct{}
}

// NewHasher hashes what is read of r.
func NewHasher(r io.Reader) *Hasher {
	return &Hasher{r: r, md5: md5.New(), table: crc32.MakeTable(crc32.Castagnoli)} //nolint:gosec // as above
}

// newHasher goes on from an earlier state.
func newHasher(r io.Reader, from hashState) (*Hasher, error) {
	h := NewHasher(r)
	h.crc = from.CRC32C
	if len(from.MD5) == 0 {
		return h, nil
	}
	resume, ok := h.md5.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, errors.New("the MD5 implementation cannot be resumed")
	}
	if err := resume.UnmarshalBinary(from.MD5); err != nil {
		return nil, fmt.Errorf("resume MD5: %w", err)
	}
	return h, nil
}

// Read implements io.Reader.
func (h *Hasher) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if n > 0 {
		h.crc = crc32.Update(h.crc, h.table, p[:n])
		h.n += int64(n)
		h.sum(p[:n])
	}
	return n, err
}

func (h *Hasher) sum(p []byte) {
	if h.work == nil && h.n <= hashInline {
		_, _ = h.md5.Write(p) // never fails
		return
	}
	if h.work == nil {
		h.start()
	}
	for len(p) > 0 {
		b := <-h.free
		n := copy(b[:cap(b)], p)
		h.work <- b[:n]
		p = p[n:]
	}
}

func (h *Hasher) start() {
	work, free, ended := make(chan []byte, hashBehind), make(chan []byte, hashBehind), make(chan struct{})
	for range hashBehind {
		free <- make([]byte, hashBuffer)
	}
	h.work, h.free, h.ended = work, free, ended
	sum := h.md5
	go func() {
		defer close(ended)
		for b := range work {
			_, _ = sum.Write(b) // never fails
			free <- b
		}
	}()
}

// Close waits until all that was read is hashed and ends the goroutine.
func (h *Hasher) Close() {
	if h.work != nil {
		close(h.work)
		<-h.ended
		h.work, h.free = nil, nil
	}
}

// Digest tells what was read so far.
func (h *Hasher) Digest() Digest {
	h.Close()
	return Digest{Size: h.n, MD5: h.md5.Sum(nil), CRC32C: h.crc}
}

func (h *Hasher) state() (hashState, error) {
	h.Close()
	save, ok := h.md5.(encoding.BinaryMarshaler)
	if !ok {
		return hashState{}, errors.New("the MD5 implementation cannot be saved")
	}
	state, err := save.MarshalBinary()
	if err != nil {
		return hashState{}, fmt.Errorf("save MD5: %w", err)
	}
	return hashState{MD5: state, CRC32C: h.crc}, nil
}
