package ann

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unsafe"
)

// The file: a header of 64 bytes (magic, version, number of sections, CRC32C of the table),
// a table of 32 bytes a section, then the sections, each at a multiple of 64 bytes. All
// numbers are little endian. docs/adr/0030 tells why.
const (
	magic       = "tgtevec\x01"
	version     = 1
	headerSize  = 64
	entrySize   = 32
	align       = 64
	maxSections = 64
)

// Sections. Numbers are part of the format and never used for something else.
const (
	secMeta         = 1 + iota // JSON: meta
	secFloats                  // float32, rows × stride, as they came
	secScales                  // float32 a row: brings it to length 1; absent if vectors are compared as they are
	secIDs                     // strings
	secByID                    // uint32: rows in the order of their ids
	secRecords                 // strings: attributes of each row
	secTokens                  // strings in order: namespaces and tokens
	secPostings                // lists: rows of each token
	secColumns                 // strings in order: namespaces of numbers
	secKeys                    // lists of uint64: keys of each column in order
	secKeyRows                 // uint32: the row of each key
	secCrowding                // uint32 a row: number of its crowding tag; 0 is none
	secCodes                   // bytes: codes of all rows in blocks of 16, or row by row
	secNorms                   // float32 a row: squared length of the coded vector
	secLeaves                  // uint32: first row of each leaf, and the number of rows
	secCentroids               // bytes: codes of the leaves' centres in blocks of 16
	secCentroidNorm            // float32 a leaf
	secMean                    // float32 a dimension, taken off before coding
	secGraph                   // uint32: neighbours of each row, row by row
	secEntries                 // uint32 a leaf: the row where walks begin
	secSteps                   // float32 a dimension: steps of codes of 4 bits
)

type section struct {
	kind uint32
	data []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant table

// checksum of a section, in steps: one call is a loop that the runtime cannot interrupt, and
// whoever has to stop all goroutines for a moment (the garbage collector) would wait for it.
func checksum(b []byte) (sum uint32) {
	const step = 256 << 10
	for len(b) > 0 {
		n := min(step, len(b))
		sum = crc32.Update(sum, castagnoli, b[:n])
		b = b[n:]
	}
	return sum
}

// writeFile writes sections with their table.
func writeFile(w io.Writer, sections []section) (int64, error) {
	table := make([]byte, headerSize+entrySize*len(sections))
	at := int64(roundUp(len(table), align))
	for i, s := range sections {
		e := table[headerSize+i*entrySize:]
		binary.LittleEndian.PutUint32(e, s.kind)
		binary.LittleEndian.PutUint32(e[4:], checksum(s.data))
		binary.LittleEndian.PutUint64(e[8:], uint64(at))
		binary.LittleEndian.PutUint64(e[16:], uint64(len(s.data)))
		at += int64(roundUp(len(s.data), align))
	}
	copy(table, magic)
	binary.LittleEndian.PutUint32(table[8:], version)
	binary.LittleEndian.PutUint32(table[12:], uint32(len(sections)))
	binary.LittleEndian.PutUint64(table[16:], uint64(at))
	binary.LittleEndian.PutUint32(table[24:], crc32.Checksum(table[headerSize:], castagnoli))
	binary.LittleEndian.PutUint32(table[60:], crc32.Checksum(table[:60], castagnoli))
	pad := make([]byte, align)
	put := func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return err
		}
		_, err := w.Write(pad[:roundUp(len(b), align)-len(b)])
		return err
	}
	if err := put(table); err != nil {
		return 0, err
	}
	for _, s := range sections {
		if err := put(s.data); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// readFile finds the sections of a file and checks them.
func readFile(b []byte) (map[uint32][]byte, error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return nil, fmt.Errorf("%w: it does not begin as a segment", ErrDamaged)
	}
	if crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return nil, fmt.Errorf("%w: checksum of the header", ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return nil, fmt.Errorf("the segment is of format %d; this program reads %d: build the index again", v, version)
	}
	count, size := binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint64(b[16:])
	if size != uint64(len(b)) {
		return nil, fmt.Errorf("%w: it has %d bytes instead of %d", ErrDamaged, len(b), size)
	}
	if count > maxSections || headerSize+entrySize*int(count) > len(b) {
		return nil, fmt.Errorf("%w: %d sections", ErrDamaged, count)
	}
	table := b[headerSize : headerSize+entrySize*int(count)]
	if crc32.Checksum(table, castagnoli) != binary.LittleEndian.Uint32(b[24:]) {
		return nil, fmt.Errorf("%w: checksum of the table", ErrDamaged)
	}
	out := make(map[uint32][]byte, count)
	for e := table; len(e) > 0; e = e[entrySize:] {
		kind, at, n := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint64(e[8:]), binary.LittleEndian.Uint64(e[16:])
		if at%align != 0 || at > uint64(len(b)) || n > uint64(len(b))-at {
			return nil, fmt.Errorf("%w: section %d is outside the file", ErrDamaged, kind)
		}
		data := b[at : at+n : at+n]
		if checksum(data) != binary.LittleEndian.Uint32(e[4:]) {
			return nil, fmt.Errorf("%w: checksum of section %d", ErrDamaged, kind)
		}
		if _, twice := out[kind]; twice {
			return nil, fmt.Errorf("%w: section %d is there twice", ErrDamaged, kind)
		}
		out[kind] = data
	}
	return out, nil
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// plain types that stand in sections as they are in memory.
type plain interface {
	byte | int8 | uint32 | uint64 | float32
}

// raw is the memory of a slice. Segments are little endian, as are all machines that Go's
// amd64 and arm64 run on.
func raw[T plain](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var t T
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(t)))
}

// view is a section as a slice of n values.
func view[T plain](sections map[uint32][]byte, kind uint32, n int) ([]T, error) {
	var t T
	b := sections[kind]
	if n < 0 || len(b)/int(unsafe.Sizeof(t)) != n || len(b)%int(unsafe.Sizeof(t)) != 0 {
		return nil, fmt.Errorf("%w: section %d has %d bytes", ErrDamaged, kind, len(b))
	}
	if n == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), nil
}

// aligned memory for n values, as sections and kernels have it.
func aligned[T plain](n int) []T {
	var t T
	b := make([]byte, n*int(unsafe.Sizeof(t))+align)
	o := int(-uintptr(unsafe.Pointer(&b[0])) & (align - 1))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[o])), n)
}

// lists are n lists of values: n+1 offsets (uint64), then the values.
type lists[T plain] struct {
	ends   []uint64
	values []T
}

func (l lists[T]) len() int { return max(0, len(l.ends)-1) }

func (l lists[T]) at(i int) []T { return l.values[l.ends[i]:l.ends[i+1]] }

func (l *lists[T]) add(v ...T) {
	if len(l.ends) == 0 {
		l.ends = append(l.ends, 0)
	}
	l.values = append(l.values, v...)
	l.ends = append(l.ends, uint64(len(l.values)))
}

// bytes of the lists as a section.
func (l lists[T]) bytes() []byte {
	if len(l.ends) == 0 {
		l.ends = []uint64{0}
	}
	return append(append([]byte(nil), raw(l.ends)...), raw(l.values)...)
}

// listsOf reads n lists; it checks that they are within the section.
func listsOf[T plain](sections map[uint32][]byte, kind uint32, n int) (lists[T], error) {
	var t T
	b := sections[kind]
	bad := fmt.Errorf("%w: lists of section %d", ErrDamaged, kind)
	if n < 0 || n > len(b)/8-1 {
		return lists[T]{}, bad
	}
	ends := unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), n+1)
	rest := b[8*(n+1):]
	count := len(rest) / int(unsafe.Sizeof(t))
	if ends[0] != 0 || ends[n] != uint64(count) || len(rest)%int(unsafe.Sizeof(t)) != 0 {
		return lists[T]{}, bad
	}
	for i := range n {
		if ends[i] > ends[i+1] {
			return lists[T]{}, bad
		}
	}
	l := lists[T]{ends: ends}
	if count > 0 {
		l.values = unsafe.Slice((*T)(unsafe.Pointer(&rest[0])), count)
	}
	return l, nil
}
