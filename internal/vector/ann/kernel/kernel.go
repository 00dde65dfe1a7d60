// Package kernel has the inner loops of vector search: in assembly where the processor has
// what they need, in plain Go for all others, which is also what the tests compare with.
//
// Every loop takes one struct by pointer and does a whole list of rows in one call, since
// calls into assembly are not inlined and Go has no prefetch.
package kernel

import "unsafe"

// Lanes is how many rows are in a block of codes: dimension group g (4 bytes a row) of the
// 16 rows of a block are 64 bytes that follow each other.
const Lanes = 16

// Scan looks through blocks of codes for rows that score more than Threshold. A score is the
// dot product of Query (signed bytes) and code (unsigned bytes), less Beta times the row's
// norm where there are norms.
type Scan struct {
	Query     *int8    // 4 × Groups
	Codes     *byte    // 64 × Groups × Blocks, at a multiple of 64
	Norms     *float32 // 16 × Blocks, or nil
	Rows      *uint32  // out: room for 16 × (Blocks+1)
	Scores    *float32 // out: likewise
	Groups    int
	Blocks    int
	Beta      float32
	Threshold float32
	First     uint32 // the number of the first row
}

// Pick gives the dot products of Query and the codes of some rows, which stand row by row.
type Pick struct {
	Query  *int8   // 64 × Lines
	Codes  *byte   // at a multiple of 64
	Rows   *uint32 // Count
	Out    *int32  // Count
	Count  int
	Lines  int   // 64 bytes each
	Stride int   // bytes from a row to the next, a multiple of 64
	Next   *byte // memory that will be wanted next, or nil
}

// Rank compares Query with some rows of float32.
type Rank struct {
	Query  *float32 // Stride, zeros after the dimensions
	Base   *float32 // at a multiple of 64 bytes
	Rows   *uint32  // Count
	Out    *float32 // Count
	Count  int
	Stride int // values from a row to the next, a multiple of 16
}

// Set is the loops for one kind of processor.
type Set struct {
	Name string
	Scan func(*Scan) int // how many rows were written
	// Half is Scan for codes of 4 bits: a line has groups 2g (the lower halves of its bytes)
	// and 2g+1 (the upper ones) of 16 rows. Groups counts lines; Query has 8 × Groups.
	Half func(*Scan) int
	Pick func(*Pick)
	Dot  func(*Rank) // dot products
	L2   func(*Rank) // squared distances
	L1   func(*Rank) // sums of absolute differences
}

// Plain is the set in Go alone.
func Plain() Set {
	return Set{Name: "go", Scan: scanGo, Half: halfGo, Pick: pickGo, Dot: dotGo, L2: l2Go, L1: l1Go}
}

func scanGo(a *Scan) int {
	q := unsafe.Slice(a.Query, 4*a.Groups)
	codes := unsafe.Slice(a.Codes, 64*a.Groups*a.Blocks)
	n := 0
	for b := range a.Blocks {
		block := codes[64*a.Groups*b : 64*a.Groups*(b+1)]
		var sum [Lanes]int32
		for g := range a.Groups {
			q0, q1, q2, q3 := int32(q[4*g]), int32(q[4*g+1]), int32(q[4*g+2]), int32(q[4*g+3])
			c := block[64*g : 64*g+64]
			for l := range sum {
				sum[l] += q0*int32(c[4*l]) + q1*int32(c[4*l+1]) + q2*int32(c[4*l+2]) + q3*int32(c[4*l+3])
			}
		}
		n = a.emit(&sum, b, n)
	}
	return n
}

func halfGo(a *Scan) int {
	q := unsafe.Slice(a.Query, 8*a.Groups)
	codes := unsafe.Slice(a.Codes, 64*a.Groups*a.Blocks)
	n := 0
	for b := range a.Blocks {
		block := codes[64*a.Groups*b : 64*a.Groups*(b+1)]
		var sum [Lanes]int32
		for g := range a.Groups {
			for j, v := range q[8*g : 8*g+4] {
				lower, upper := int32(v), int32(q[8*g+4+j])
				for l := range sum {
					c := block[64*g+4*l+j]
					sum[l] += lower*int32(c&15) + upper*int32(c>>4)
				}
			}
		}
		n = a.emit(&sum, b, n)
	}
	return n
}

// emit writes the rows of block b that score enough after n others.
func (a *Scan) emit(sum *[Lanes]int32, b, n int) int {
	rows := unsafe.Slice(a.Rows, Lanes*(a.Blocks+1))
	scores := unsafe.Slice(a.Scores, len(rows))
	for l, s := range sum {
		score := float32(s)
		if a.Norms != nil {
			score = fnma(a.Beta, unsafe.Slice(a.Norms, Lanes*a.Blocks)[Lanes*b+l], score)
		}
		if score > a.Threshold {
			rows[n], scores[n] = a.First+uint32(Lanes*b+l), score
			n++
		}
	}
	return n
}

// fnma is c - a×b, rounded once as the processor's fused instruction does (twice at most
// once in 2^28, by way of float64).
func fnma(a, b, c float32) float32 { return float32(float64(c) - float64(a)*float64(b)) }

func pickGo(a *Pick) {
	q := unsafe.Slice(a.Query, 64*a.Lines)
	out := unsafe.Slice(a.Out, a.Count)
	for i, r := range unsafe.Slice(a.Rows, a.Count) {
		c := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(a.Codes), int(r)*a.Stride)), 64*a.Lines)
		var s int32
		for j, v := range c {
			s += int32(v) * int32(q[j])
		}
		out[i] = s
	}
}

// each calls f with the row's values.
func (a *Rank) each(f func(q, x []float32) float32) {
	q, out := unsafe.Slice(a.Query, a.Stride), unsafe.Slice(a.Out, a.Count)
	for i, r := range unsafe.Slice(a.Rows, a.Count) {
		out[i] = f(q, unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(a.Base), 4*int(r)*a.Stride)), a.Stride))
	}
}

func dotGo(a *Rank) {
	a.each(func(q, x []float32) float32 {
		var s0, s1, s2, s3 float32
		for i := 0; i+3 < len(x); i += 4 {
			s0 += q[i] * x[i]
			s1 += q[i+1] * x[i+1]
			s2 += q[i+2] * x[i+2]
			s3 += q[i+3] * x[i+3]
		}
		return s0 + s1 + s2 + s3
	})
}

func l2Go(a *Rank) {
	a.each(func(q, x []float32) float32 {
		var s0, s1, s2, s3 float32
		for i := 0; i+3 < len(x); i += 4 {
			d0, d1, d2, d3 := q[i]-x[i], q[i+1]-x[i+1], q[i+2]-x[i+2], q[i+3]-x[i+3]
			s0 += d0 * d0
			s1 += d1 * d1
			s2 += d2 * d2
			s3 += d3 * d3
		}
		return s0 + s1 + s2 + s3
	})
}

func l1Go(a *Rank) {
	a.each(func(q, x []float32) float32 {
		var s0, s1 float32
		for i := 0; i+1 < len(x); i += 2 {
			s0 += max(q[i]-x[i], x[i]-q[i])
			s1 += max(q[i+1]-x[i+1], x[i+1]-q[i+1])
		}
		return s0 + s1
	})
}
