package ann

import (
	"iter"
	"math/bits"
)

// Bitmap is a set of rows of one segment. The zero value is empty and of no rows: Reset
// gives it its size. It is not safe for use while it is changed.
type Bitmap struct {
	words []uint64
	rows  int
}

// NewBitmap is an empty set of up to n rows.
func NewBitmap(n int) *Bitmap {
	b := &Bitmap{}
	b.Reset(n)
	return b
}

// Reset empties the set for n rows and keeps its memory.
func (b *Bitmap) Reset(n int) {
	w := (n + 63) / 64
	if cap(b.words) < w {
		b.words = make([]uint64, w)
	}
	b.words, b.rows = b.words[:w], n
	clear(b.words)
}

// Set puts a row in. Rows beyond the size are an error of the program.
func (b *Bitmap) Set(row uint32) { b.words[row>>6] |= 1 << (row & 63) }

// Clear takes a row out.
func (b *Bitmap) Clear(row uint32) { b.words[row>>6] &^= 1 << (row & 63) }

func (b *Bitmap) setAll(rows []uint32) {
	for _, row := range rows {
		b.words[row>>6] |= 1 << (row & 63)
	}
}

func (b *Bitmap) clearAll(rows []uint32) {
	for _, row := range rows {
		b.words[row>>6] &^= 1 << (row & 63)
	}
}

// Has says whether a row is in the set.
func (b *Bitmap) Has(row uint32) bool {
	return int(row) < b.rows && b.words[row>>6]>>(row&63)&1 != 0
}

// Count of rows in the set.
func (b *Bitmap) Count() int {
	n := 0
	for _, w := range b.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// countIn is how many rows of [lo, hi) are in the set.
func (b *Bitmap) countIn(lo, hi uint32) int {
	if lo >= hi {
		return 0
	}
	first, last := lo>>6, (hi-1)>>6
	head, tail := ^uint64(0)<<(lo&63), ^uint64(0)>>(63-(hi-1)&63)
	if first == last {
		return bits.OnesCount64(b.words[first] & head & tail)
	}
	n := bits.OnesCount64(b.words[first]&head) + bits.OnesCount64(b.words[last]&tail)
	for _, w := range b.words[first+1 : last] {
		n += bits.OnesCount64(w)
	}
	return n
}

// Len is for how many rows the set is.
func (b *Bitmap) Len() int { return b.rows }

// All rows of the set, in order.
func (b *Bitmap) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, w := range b.words {
			for ; w != 0; w &= w - 1 {
				if !yield(uint32(i<<6 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// Clone is a copy.
func (b *Bitmap) Clone() *Bitmap {
	return &Bitmap{words: append([]uint64(nil), b.words...), rows: b.rows}
}

// Fill puts all rows in.
func (b *Bitmap) Fill() {
	for i := range b.words {
		b.words[i] = ^uint64(0)
	}
	if r := b.rows & 63; r != 0 {
		b.words[len(b.words)-1] = 1<<r - 1
	}
}

// And keeps the rows that are in both.
func (b *Bitmap) And(o *Bitmap) {
	for i := range b.words {
		b.words[i] &= o.words[i]
	}
}

// AndNot takes out the rows of the other set.
func (b *Bitmap) AndNot(o *Bitmap) {
	for i := range b.words {
		b.words[i] &^= o.words[i]
	}
}
