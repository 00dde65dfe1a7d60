package ann

import (
	"context"
	"math/rand/v2"

	"tategu/internal/vector/ann/kernel"
)

// Training of leaves by k-means. Rows are compared with centres by their codes, all centres
// in one scan, which costs a fortieth of comparing floats; centres themselves are means of
// floats.
const (
	trainRounds  = 10
	trainPerLeaf = 64 // rows that a centre learns from
)

// centers of leaves.
type centers struct {
	n     int
	mean  []float32 // n × dimensions
	codes []byte
	norms []float32
}

// ivf is the layout of rows in n leaves.
func (b *builder) ivf(ctx context.Context, n int) (*layout, error) {
	rng := rand.New(rand.NewPCG(1, uint64(n))) //nolint:gosec // the same file for the same rows
	c, err := b.train(ctx, n, rng)
	if err != nil {
		return nil, err
	}
	all := make([]uint32, b.n)
	for i := range all {
		all[i] = uint32(i)
	}
	leaf := b.assign(c, all)
	l := &layout{method: IVF, rows: make([]uint32, b.n), leaves: make([]uint32, n+1), centroids: c.codes}
	if b.distant() {
		l.norms = c.norms
	}
	for _, a := range leaf {
		l.leaves[a+1]++
	}
	for i := range n {
		l.leaves[i+1] += l.leaves[i]
	}
	next := append([]uint32(nil), l.leaves[:n]...)
	for i, a := range leaf {
		l.rows[next[a]] = uint32(i)
		next[a]++
	}
	return l, nil
}

func (b *builder) train(ctx context.Context, n int, rng *rand.Rand) (*centers, error) {
	rows := make([]uint32, b.n)
	for i := range rows {
		rows[i] = uint32(i)
	}
	rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	rows = rows[:min(len(rows), n*trainPerLeaf)]
	d := b.o.Dimensions
	c := &centers{n: n, mean: make([]float32, n*d)}
	tmp := make([]float32, d)
	for i := range n {
		copy(c.mean[i*d:(i+1)*d], b.row(int(rows[i]), tmp))
	}
	b.encodeCenters(c)
	for range trainRounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		leaf := b.assign(c, rows)
		count := make([]float32, n)
		clear(c.mean)
		for i, a := range leaf {
			count[a]++
			m := c.mean[int(a)*d : int(a+1)*d]
			for j, x := range b.row(int(rows[i]), tmp) {
				m[j] += x
			}
		}
		for i := range n {
			m := c.mean[i*d : (i+1)*d]
			if count[i] == 0 { // it begins again elsewhere
				copy(m, b.row(int(rows[rng.IntN(len(rows))]), tmp))
				continue
			}
			for j := range m {
				m[j] /= count[i]
			}
		}
		b.encodeCenters(c)
	}
	return c, nil
}

// encodeCenters brings centres to codes.
func (b *builder) encodeCenters(c *centers) {
	d := b.o.Dimensions
	c.codes, c.norms = b.encode(c.n, func(i int, _ []float32) []float32 { return c.mean[i*d : (i+1)*d] }, true)
	for i := c.n; i < len(c.norms); i++ {
		c.norms[i] = far // places in the last block that are no centre
	}
}

const far = 1e30

// assign gives each row its nearest centre.
func (b *builder) assign(c *centers, rows []uint32) []uint32 {
	leaf := make([]uint32, len(rows))
	const run = 256
	parallel(b.o.Threads, (len(rows)+run-1)/run, func(i int) {
		w := newAssigner(b, c)
		for j := i * run; j < min((i+1)*run, len(rows)); j++ {
			leaf[j] = w.nearest(int(rows[j]))
		}
	})
	return leaf
}

// assigner finds nearest centres for one goroutine.
type assigner struct {
	b      *builder
	c      *centers
	scan   kernel.Scan
	code   []int8
	tmp    []float32
	rows   []uint32
	scores []float32
}

const assignBlocks = 16 // of centres, one call

func newAssigner(b *builder, c *centers) *assigner {
	n := kernel.Lanes * (assignBlocks + 1)
	w := &assigner{b: b, c: c, code: make([]int8, 4*b.groups), tmp: make([]float32, b.o.Dimensions), rows: make([]uint32, n), scores: make([]float32, n)}
	w.scan = kernel.Scan{Query: &w.code[0], Rows: &w.rows[0], Scores: &w.scores[0], Groups: b.groups}
	return w
}

func (w *assigner) nearest(row int) uint32 {
	b, a := w.b, &w.scan
	a.Beta = encodeQuery(w.code, b.row(row, w.tmp), b.mean, b.scale, true)
	a.Threshold = lowest
	best := uint32(0)
	blocks := (w.c.n + kernel.Lanes - 1) / kernel.Lanes
	for at := 0; at < blocks; at += assignBlocks {
		a.Blocks, a.First = min(assignBlocks, blocks-at), uint32(at*kernel.Lanes)
		a.Codes, a.Norms = &w.c.codes[at*64*b.groups], &w.c.norms[at*kernel.Lanes]
		for i := range b.kernels.Scan(a) {
			if w.scores[i] > a.Threshold {
				a.Threshold, best = w.scores[i], w.rows[i]
			}
		}
	}
	return best
}
