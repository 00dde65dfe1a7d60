package ann

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"time"
)

// Tuning sets some rows aside, which no search finds meanwhile, asks for the neighbours of
// each, and looks for the setting that finds enough of them in the least time.
const (
	tuneRows = 500
	tuneK    = 10
)

// effort is what one search may look at.
type effort struct{ leaves, candidates, beam int }

// tuner measures one segment.
type tuner struct {
	s     *Segment
	sc    *scratch
	held  *Bitmap
	asked []Query
	truth [][]uint32
	curve []Point

	exactMicros float64 // that comparing all rows takes; 0 = the truth is not from that
}

// tune sets the segment's tuning and keeps what was measured.
func (b *builder) tune(ctx context.Context, s *Segment) error {
	t := b.tuner(s)
	wanted := b.wanted()
	best := Point{Recall: -1}
	if err := t.learn(ctx); err != nil {
		return err
	}
	b.exactMicros = t.exactMicros
	try := func(e effort) Point {
		p := t.measure(e)
		switch enough := p.Recall >= wanted; {
		case best.Recall < wanted && p.Recall > best.Recall, enough && p.Micros < best.Micros:
			best = p
		}
		return p
	}
	var err error
	switch s.Method {
	case HNSW:
		err = t.beams(ctx, wanted, b.o.Candidates, try)
	default:
		err = t.leaves(ctx, wanted, b.o, try)
	}
	s.Tuning = Tuning{Leaves: best.Leaves, Candidates: best.Candidates, Beam: best.Beam, Recall: best.Recall, micros: best.Micros}
	s.meta.Stats.Curve = t.curve
	return err
}

func (b *builder) tuner(s *Segment) *tuner {
	t := &tuner{s: s, sc: newScratch(s), held: NewBitmap(b.n)}
	n := min(tuneRows, b.n/2)
	if cost := float64(b.n) * float64(b.o.Dimensions); cost > 1e8 {
		n = max(100, int(float64(n)*1e8/cost))
	}
	rng := rand.New(rand.NewPCG(2, uint64(b.n))) //nolint:gosec // the same file for the same rows
	for len(t.asked) < n {
		row := rng.Uint32N(uint32(b.n))
		if t.held.Has(row) {
			continue
		}
		t.held.Set(row)
		t.asked = append(t.asked, Query{Vector: s.Vector(row), K: tuneK})
	}
	return t
}

// compares says that the true neighbours come from all rows and not from the best codes of all:
// codes are those of a graph, or say nothing certain of sums of absolute differences.
func (t *tuner) compares() bool { return t.s.Method == HNSW || t.s.measure.Distance == L1 }

// learn finds the true neighbours.
func (t *tuner) learn(ctx context.Context) error {
	sc := t.sc
	for i := range t.asked {
		if err := ctx.Err(); err != nil {
			return err
		}
		runtime.Gosched()
		sc.prepare(&t.asked[i], t.held)
		if t.compares() {
			start := time.Now()
			sc.scanExact(tuneK)
			t.exactMicros += time.Since(start).Seconds() * 1e6 / float64(len(t.asked))
		} else {
			sc.search(tuneK, effort{leaves: t.s.Leaves, candidates: t.truthRows()})
		}
		rows := make([]uint32, 0, tuneK)
		for _, n := range sc.best {
			rows = append(rows, n.Row)
		}
		t.truth = append(t.truth, rows)
	}
	return nil
}

// measure asks all questions and keeps the point.
func (t *tuner) measure(e effort) Point {
	found, wanted := 0, 0
	least := math.Inf(1)
	for range 2 {
		var spent time.Duration
		found, wanted = 0, 0
		for i := range t.asked {
			runtime.Gosched() // outside of what is timed
			start := time.Now()
			t.sc.prepare(&t.asked[i], t.held)
			t.sc.search(tuneK, e)
			spent += time.Since(start)
			for _, r := range t.truth[i] {
				wanted++
				for _, n := range t.sc.best {
					if n.Row == r {
						found++
						break
					}
				}
			}
		}
		least = min(least, spent.Seconds())
	}
	p := Point{
		Method: t.s.Method.String(), Candidates: e.candidates, Leaves: e.leaves, Beam: e.beam,
		Recall: float64(found) / float64(max(1, wanted)), Micros: least * 1e6 / float64(max(1, len(t.asked))),
	}
	t.curve = append(t.curve, p)
	return p
}

// enough rows to compare exactly; more find nothing more.
func (t *tuner) candidates() []int {
	if t.s.measure.Distance == L1 { // codes are compared by squared distances
		return []int{30, 50, 80, 120, 180, 270, 400, 600, 900}
	}
	if t.s.Bits == 4 {
		return []int{16, 24, 36, 50, 70, 100, 150, 250, 400}
	}
	return []int{12, 16, 20, 28, 40, 60, 100, 200}
}

// truthRows are compared exactly for the truth, the best of all codes.
func (t *tuner) truthRows() int {
	if t.s.Bits == 4 {
		return 2000
	}
	return 400
}

// leaves tries shares of the leaves: each half as much again as the one before, and from the
// first that can find enough, how few rows have to be compared.
func (t *tuner) leaves(ctx context.Context, wanted float64, o Options, try func(effort) Point) error {
	steps := t.candidates()
	if o.Candidates > 0 {
		steps = []int{max(o.Candidates, tuneK)}
	}
	n, good := max(1, t.s.Leaves/200), 0
	if o.Fraction > 0 {
		n = max(1, min(t.s.Leaves, int(math.Ceil(o.Fraction*float64(t.s.Leaves)))))
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p := try(effort{leaves: n, candidates: steps[len(steps)-1]}); p.Recall >= wanted || n == t.s.Leaves || o.Fraction > 0 {
			good++
			for _, c := range steps[:len(steps)-1] {
				if try(effort{leaves: n, candidates: c}).Recall >= wanted {
					break
				}
			}
		}
		if good == 3 || n == t.s.Leaves || o.Fraction > 0 {
			return nil
		}
		n = min(t.s.Leaves, n+max(1, n/4))
	}
}

func (t *tuner) beams(ctx context.Context, wanted float64, candidates int, try func(effort) Point) error {
	for _, beam := range []int{16, 24, 36, 50, 70, 100, 140, 200, 280, 400, 560, 800} {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := max(tuneK, min(beam, 60))
		if candidates > 0 {
			c = candidates
		}
		if try(effort{beam: beam, candidates: c}).Recall >= wanted {
			break
		}
	}
	return nil
}
