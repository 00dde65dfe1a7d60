package ann

import (
	"math"

	"tategu/internal/vector/ann/kernel"
)

// Codes of 4 bits for the first look at rows: half of what has to be read, and the exact
// comparison of a few more rows makes good for it. Each dimension has a step of its own, the
// best one of 16 for values that are normally distributed.
const (
	halfStep   = 0.335 // of the standard deviation
	halfMiddle = 8
	// along is how much of a near query lies along a row, of measures at length 1: by this
	// much the error of a code in the row's own direction is taken out of its score.
	along = 0.7
)

// halfLines are lines of 64 bytes that a block of codes takes.
func halfLines(dimensions int) int { return (dimensions + 7) / 8 }

// halfSteps finds the step of each dimension from a sample.
func (b *builder) halfSteps() {
	d, sample := b.o.Dimensions, min(b.n, 20_000)
	sums, tmp := make([]float64, d), make([]float32, d)
	for t := range sample {
		for j, x := range b.row(t*b.n/sample, tmp) {
			v := float64(x - b.mean[j])
			sums[j] += v * v
		}
	}
	b.steps = make([]float32, d)
	for j, s := range sums {
		b.steps[j] = float32(halfStep * math.Sqrt(s/float64(sample)))
		if !(b.steps[j] > 1e-30) { // it is the same in all rows
			b.steps[j] = 1
		}
	}
}

// encodeHalf gives the rows' codes, and what scores are corrected by: see docs/adr/0030.
func (b *builder) encodeHalf() ([]byte, []float32) {
	blocks, lines := (b.n+kernel.Lanes-1)/kernel.Lanes, halfLines(b.o.Dimensions)
	codes, norms := aligned[byte](blocks*64*lines), aligned[float32](blocks*kernel.Lanes)
	parallel(b.o.Threads, blocks, func(block int) {
		tmp := make([]float32, b.o.Dimensions)
		base := codes[block*64*lines : (block+1)*64*lines]
		for lane := range kernel.Lanes {
			i := block*kernel.Lanes + lane
			if i >= b.n {
				return
			}
			var length, cross, own float64 // of the row less the mean: squared, with its code; error along the row
			for j, x := range b.row(i, tmp) {
				y := x - b.mean[j]
				c := max(0, min(15, math.Round(float64(y/b.steps[j]))+halfMiddle))
				base[64*(j/8)+4*lane+j%4] |= byte(c) << (j / 4 % 2 * 4)
				z := (c - halfMiddle) * float64(b.steps[j])
				length += float64(y) * float64(y)
				cross += float64(y) * z
				own += float64(x) * (z - float64(y))
			}
			switch {
			case b.distant():
				norms[i] = float32(2*cross - length)
			case b.o.Measure.scaled():
				norms[i] = float32(2 * along * own)
			}
		}
	})
	return codes, norms
}
