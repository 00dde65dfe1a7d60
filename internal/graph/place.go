package graph

import (
	"math"
	"slices"
)

// place gives every item its x, and every row its y. Rows that neighbours pull far
// apart are put below each other again, each in the middle.
func (g *rows) place() {
	y := 0.0
	for _, row := range g.rows {
		tall := 0.0
		for _, it := range row {
			tall = max(tall, it.height)
		}
		g.top, g.tall = append(g.top, y), append(g.tall, tall)
		y += tall + g.style.GapY
		x := 0.0
		for i, it := range row {
			if i > 0 {
				x += g.apart(row[i-1], it)
			}
			it.x = x
		}
		for _, it := range row { // around the middle
			it.x -= x / 2
			it.packed = it.x
		}
	}
	packed := g.wide()
	for range 4 {
		for k := range g.rows {
			g.align(g.rows[k], func(it *item) []*item { return it.above })
		}
		for k := range g.rows {
			g.align(g.rows[len(g.rows)-1-k], func(it *item) []*item { return it.below })
		}
	}
	if wide := g.wide(); wide > g.style.MaxWidth && wide > packed+g.style.GapX {
		for _, row := range g.rows {
			for _, it := range row {
				it.x = it.packed
			}
		}
	}
	left := math.Inf(1)
	for _, row := range g.rows {
		left = min(left, row[0].x-row[0].width/2)
	}
	for _, row := range g.rows {
		for _, it := range row {
			it.x = math.Ceil(it.x - left) // whole numbers add up to the same wherever
		}
	}
}

// wide is how much room all rows take beside each other.
func (g *rows) wide() float64 {
	left, right := math.Inf(1), math.Inf(-1)
	for _, row := range g.rows {
		last := row[len(row)-1]
		left, right = min(left, row[0].x-row[0].width/2), max(right, last.x+last.width/2)
	}
	return right - left
}

// apart is the least distance of the middles of two neighbours in a row.
func (g *rows) apart(a, b *item) float64 {
	gap := g.style.GapX
	if a.node == nil || b.node == nil {
		gap = g.style.Lane
	}
	return a.width/2 + gap + b.width/2
}

// align brings each item of a row as near to the mean of its neighbours as the
// order and the least distances allow, all in all: with the distances taken off it
// is the least-squares fit of a rising sequence, by pooling neighbours that are in
// the wrong order.
func (g *rows) align(row []*item, side func(*item) []*item) {
	type pool struct {
		sum, weight float64
		count       int
	}
	var pools []pool
	offset := make([]float64, len(row))
	for i, it := range row {
		if i > 0 {
			offset[i] = offset[i-1] + g.apart(row[i-1], it)
		}
		near := side(it)
		weight := 1.0
		switch {
		case len(near) == 0:
			weight = 0.1
		case it.node == nil:
			if i := slices.IndexFunc(near, func(n *item) bool { return n.node == nil }); i >= 0 {
				near = near[i : i+1]
				weight = 1e6 // lanes are straight: else nodes would push them aside row by row
			}
		}
		p := pool{sum: weight * (mean(near, it.x) - offset[i]), weight: weight, count: 1}
		for len(pools) > 0 && pools[len(pools)-1].sum/pools[len(pools)-1].weight > p.sum/p.weight {
			last := pools[len(pools)-1]
			pools = pools[:len(pools)-1]
			p = pool{sum: p.sum + last.sum, weight: p.weight + last.weight, count: p.count + last.count}
		}
		pools = append(pools, p)
	}
	i := 0
	for _, p := range pools {
		for range p.count {
			row[i].x = p.sum/p.weight + offset[i]
			i++
		}
	}
}

func (g *rows) size() (width, height float64) {
	for k, row := range g.rows {
		last := row[len(row)-1]
		width = max(width, last.x+last.width/2)
		height = g.top[k] + g.tall[k]
	}
	return width, height
}

// lines draws each relation of neighbouring rows once: straight down to the end of
// its row, over to the next, and through that where it only passes.
func (g *rows) lines() []Line {
	var out []Line
	for k, row := range g.rows {
		for _, a := range row {
			for _, b := range a.below {
				low := g.top[k] + g.tall[k]
				l := Line{Points: []Point{{a.x, low}, {a.x, low}, {b.x, g.top[k+1]}, {b.x, g.top[k+1]}}, Arrow: b.node != nil}
				if a.node != nil {
					l.Points[0].Y = g.top[k] + a.height
				}
				if b.node == nil {
					l.Points[3].Y += g.tall[k+1]
				}
				out = append(out, l)
			}
		}
	}
	return out
}
