package ann

import (
	"math"
	"runtime"
	"slices"
	"sync"

	"tategu/internal/vector/ann/kernel"
)

// layout is an order of rows with leaves: what the methods differ in.
type layout struct {
	method    Method
	rows      []uint32 // as which row each came; nil once the rows are in this order
	leaves    []uint32
	centroids []byte
	norms     []float32 // of the centroids
}

// quantizer finds the mean of the rows and the scale of codes, from a sample: the scale is
// of the 99.99th percentile, since the largest values are too rare to give up precision for.
func (b *builder) quantizer() {
	d := b.o.Dimensions
	b.mean = make([]float32, d)
	sample := min(b.n, 20_000)
	sums := make([]float64, d)
	tmp := make([]float32, d)
	for t := range sample {
		for j, x := range b.row(t*b.n/sample, tmp) {
			sums[j] += float64(x)
		}
	}
	for j, s := range sums {
		b.mean[j] = float32(s / float64(sample))
	}
	few := min(sample, max(1, 1_000_000/d))
	all := make([]float32, 0, few*d)
	for t := range few {
		for j, x := range b.row(t*b.n/few, tmp) {
			all = append(all, max(x-b.mean[j], b.mean[j]-x))
		}
	}
	slices.Sort(all)
	b.scale = all[int(float64(len(all)-1)*0.9999)] / 127
	if b.scale == 0 || b.scale-b.scale != 0 {
		b.scale = 1
	}
}

// encode puts the codes of n rows into blocks, and gives their squared lengths.
func (b *builder) encode(n int, row func(i int, tmp []float32) []float32, norms bool) ([]byte, []float32) {
	blocks := (n + kernel.Lanes - 1) / kernel.Lanes
	codes := aligned[byte](blocks * 64 * b.groups)
	var lengths []float32
	if norms {
		lengths = aligned[float32](blocks * kernel.Lanes)
	}
	parallel(b.o.Threads, blocks, func(block int) {
		tmp := make([]float32, b.o.Dimensions)
		base := codes[block*64*b.groups : (block+1)*64*b.groups]
		for i := range base {
			base[i] = 128
		}
		for l := range kernel.Lanes {
			i := block*kernel.Lanes + l
			if i >= n {
				return
			}
			var sum float64
			for j, x := range row(i, tmp) {
				x -= b.mean[j]
				base[64*(j/4)+4*l+j%4] = b.code(x)
				sum += float64(x) * float64(x)
			}
			if norms {
				lengths[i] = float32(sum)
			}
		}
	})
	return codes, lengths
}

// code of a value that is less the mean.
func (b *builder) code(x float32) byte {
	return byte(128 + int(math.Round(float64(max(-127, min(127, x/b.scale))))))
}

// parallel calls f for 0 to n-1 on some threads, in runs of numbers that follow each other.
// After each, requests that wait for a processor have their turn: those of a build that
// goes on beside them would take all of it for ten milliseconds at a time.
func parallel(threads, n int, f func(i int)) {
	const run = 64
	if threads <= 1 || n <= run {
		for i := range n {
			f(i)
			runtime.Gosched()
		}
		return
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range threads {
		wg.Go(func() {
			for i := range next {
				for j := i; j < min(i+run, n); j++ {
					f(j)
					runtime.Gosched()
				}
			}
		})
	}
	for i := 0; i < n; i += run {
		next <- i
	}
	close(next)
	wg.Wait()
}

// reorder brings the rows into the order of a layout, in their place: a copy would be the
// most memory that a build takes.
func (b *builder) reorder(l *layout) {
	moved := NewBitmap(b.n)
	first := make([]float32, b.stride)
	vector := func(i int) []float32 { return b.floats[i*b.stride : (i+1)*b.stride] }
	for start := range b.n {
		if moved.Has(uint32(start)) {
			continue
		}
		// Rows change their places in rings.
		copy(first, vector(start))
		var scale float32
		if b.scales != nil {
			scale = b.scales[start]
		}
		at := start
		for {
			moved.Set(uint32(at))
			from := int(l.rows[at])
			if from == start {
				break
			}
			copy(vector(at), vector(from))
			if b.scales != nil {
				b.scales[at] = b.scales[from]
			}
			at = from
		}
		copy(vector(at), first)
		if b.scales != nil {
			b.scales[at] = scale
		}
	}
	b.came, l.rows = l.rows, nil
}

// source is as which row row i came.
func (b *builder) source(i int) int {
	if b.came == nil {
		return i
	}
	return int(b.came[i])
}

// segment makes one that can be searched, in this layout. It shares the rows' floats.
func (b *builder) segment(l *layout) *Segment {
	s := &Segment{measure: b.o.Measure, kernels: b.kernels, stride: b.stride, groups: b.groups}
	s.meta = meta{
		Rows: b.n, Dimensions: b.o.Dimensions, Distance: b.o.Measure.Distance, UnitNorm: b.o.Measure.UnitNorm,
		Method: l.method, Scale: b.scale, Leaves: max(0, len(l.leaves)-1),
	}
	s.floats, s.scales = b.floats[:b.n*b.stride:b.n*b.stride], b.scales
	if l.method == Exact {
		return s
	}
	s.mean, s.leaves, s.centroids, s.centroidNorms = b.mean, l.leaves, l.centroids, l.norms
	if s.Bits = 8; l.method == IVF && b.bits == 4 {
		s.Bits, s.steps = 4, b.steps
		s.codes, s.norms = b.encodeHalf()
		return s
	}
	s.codes, s.norms = b.encode(b.n, b.row, b.distant())
	return s
}

// distant says whether scores need the lengths of rows.
func (b *builder) distant() bool { return b.o.Measure.distant() }

// flat is the layout of rows as they came, in one leaf.
func (b *builder) flat() *layout {
	return &layout{method: Flat, leaves: []uint32{0, uint32(b.n)}}
}
