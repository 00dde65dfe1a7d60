// Package ocf reads Avro object container files (Apache Avro 1.12 specification,
// "Object Container Files" and "Binary encoding") of any schema. It takes a block at a
// time, and no length in a file asks for more memory than the file's bytes bear out.
//
// Values are: nil, bool, int64 (int, long), float32, float64, string (string, enum),
// []byte (bytes, fixed), []float32 and []float64 (arrays of these), []any, and
// map[string]any (record, map). A union gives the value of its member.
package ocf

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// maxBlock bounds a block, packed and unpacked; writers make them of 16 KiB to a few
// MiB. maxHeader bounds the metadata, maxValues a record with all values in it.
const (
	maxBlock  = 64 << 20
	maxHeader = 4 << 20
	maxValues = 1 << 20
)

// Reader gives the records of a file.
type Reader struct {
	in     *bufio.Reader
	schema *schema
	codec  string
	sync   [16]byte
	zstd   *zstd.Decoder
	block  cursor
	left   int64 // records of the block
	err    error
}

// NewReader reads the header of a file.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{in: bufio.NewReaderSize(r, 64<<10)}
	var magic [4]byte
	if _, err := io.ReadFull(f.in, magic[:]); err != nil || string(magic[:]) != "Obj\x01" {
		return nil, errors.Join(errors.New("it does not begin as an Avro object container file"), err)
	}
	meta, err := f.metadata()
	if err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	if f.schema, err = parseSchema(meta["avro.schema"]); err != nil {
		return nil, err
	}
	switch f.codec = string(meta["avro.codec"]); f.codec {
	case "", "null", "deflate", "snappy":
	case "zstandard":
		if f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock)); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("the codec %.40q is not supported (null, deflate, snappy and zstandard are)", f.codec)
	}
	if _, err := io.ReadFull(f.in, f.sync[:]); err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	return f, nil
}

// metadata reads the map of the header.
func (f *Reader) metadata() (map[string][]byte, error) {
	out, left := map[string][]byte{}, int64(maxHeader)
	text := func() ([]byte, error) {
		n, err := binary.ReadVarint(f.in)
		if left -= n; err == nil && (n < 0 || left < 0) {
			err = errors.New("a text has an impossible length")
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(f.in, n))
		if err == nil && int64(len(b)) < n {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	for {
		n, err := binary.ReadVarint(f.in)
		if n < 0 && err == nil { // its size in bytes follows
			n = -n
			_, err = binary.ReadVarint(f.in)
		}
		if err != nil || n == 0 {
			return out, err
		}
		for ; n != 0; n-- {
			key, err := text()
			if err != nil {
				return nil, err
			}
			if out[string(key)], err = text(); err != nil {
				return nil, err
			}
			if left -= 2; left < 0 {
				return nil, errors.New("it is too large")
			}
		}
	}
}

// Next gives the next record; io.EOF is the end. After any other error nothing follows.
func (f *Reader) Next() (any, error) {
	for f.err == nil && f.left == 0 {
		f.err = f.next()
	}
	if f.err != nil {
		return nil, f.err
	}
	f.block.left = maxValues
	v, err := f.block.value(f.schema, 0)
	if f.left--; err == nil && f.left == 0 && len(f.block.b) > 0 {
		err = errors.New("a block has bytes after its last record")
	}
	if err != nil {
		f.err = fmt.Errorf("a record: %w", err)
		return nil, f.err
	}
	return v, nil
}

// Close gives memory back.
func (f *Reader) Close() {
	if f.zstd != nil {
		f.zstd.Close()
	}
}

// next reads a block.
func (f *Reader) next() error {
	count, err := binary.ReadVarint(f.in)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF // ReadVarint says io.ErrUnexpectedEOF amid a number
		}
		return fmt.Errorf("a block: %w", err)
	}
	size, err := binary.ReadVarint(f.in)
	if err == nil && (count < 0 || size < 0 || size > maxBlock) {
		err = fmt.Errorf("it claims %d records in %d bytes (at most %d)", count, size, maxBlock)
	}
	var packed bytes.Buffer
	if err == nil {
		packed.Grow(min(int(size), 1<<20)) // more comes as the bytes do
		_, err = io.CopyN(&packed, f.in, size)
	}
	var sync [16]byte
	if err == nil {
		_, err = io.ReadFull(f.in, sync[:])
	}
	if err == nil && sync != f.sync {
		err = errors.New("its end is not where it says")
	}
	if err == nil {
		f.block.b, err = f.unpack(packed.Bytes())
	}
	if err == nil && count > int64(len(f.block.b)/max(f.schema.least(), 1)) {
		err = fmt.Errorf("it claims %d records in %d bytes", count, len(f.block.b))
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("a block: %w", err)
	}
	f.left = count
	return nil
}

func (f *Reader) unpack(b []byte) ([]byte, error) {
	switch f.codec {
	case "deflate":
		out, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxBlock+1))
		if err == nil && len(out) > maxBlock {
			err = errTooLarge
		}
		return out, err
	case "zstandard":
		return f.zstd.DecodeAll(b, nil)
	case "snappy": // the checksum of what was packed follows
		if len(b) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
		n, err := snappy.DecodedLen(body)
		if err == nil && n > maxBlock {
			err = errTooLarge
		}
		if err != nil {
			return nil, err
		}
		out, err := snappy.Decode(nil, body)
		if err == nil && crc32.ChecksumIEEE(out) != sum {
			err = errors.New("its checksum is wrong")
		}
		return out, err
	}
	return b, nil
}

var errTooLarge = fmt.Errorf("it unpacks to more than %d bytes", maxBlock)
