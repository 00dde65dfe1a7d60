package graph

import (
	"cmp"
	"fmt"
	"slices"
)

// item stands in a row: a node, or the place where lines pass the row.
type item struct {
	node          *Node // nil for a lane
	row           int
	width, height float64
	x             float64 // of its middle
	above, below  []*item
	order         float64 // while a row is sorted
	packed        float64 // x with its row in the middle
}

// rows is a graph in which every line leads from one row to the next.
type rows struct {
	style Style
	nodes []*item   // in the order given
	rows  [][]*item // from left to right
	top   []float64 // of each row
	tall  []float64 // height of each row
}

// edge is a relation between nodes, by their places in the list.
type edge struct{ from, to int }

func newRows(nodes []Node, s Style) (*rows, error) {
	at := make(map[string]int, len(nodes))
	for i, n := range nodes {
		if _, twice := at[n.ID]; twice {
			return nil, fmt.Errorf("two nodes are called %q", n.ID)
		}
		at[n.ID] = i
	}
	var edges []edge
	for i, n := range nodes {
		for _, before := range slices.Compact(slices.Sorted(slices.Values(n.After))) {
			j, ok := at[before]
			if !ok {
				return nil, fmt.Errorf("%q comes after %q, which is not there", n.ID, before)
			}
			edges = append(edges, edge{j, i})
		}
	}
	order, err := inOrder(len(nodes), edges)
	if err != nil {
		return nil, err
	}
	g := &rows{style: s}
	for i := range nodes {
		g.nodes = append(g.nodes, &item{node: &nodes[i], width: nodes[i].Width, height: nodes[i].Height})
	}
	g.fill(order, edges)
	g.connect(edges)
	return g, nil
}

// inOrder gives every node after those before it: first what is the fewest steps
// down, and of those what is given first.
func inOrder(n int, edges []edge) ([]int, error) {
	waits, after := make([]int, n), make([][]int, n)
	for _, e := range edges {
		waits[e.to]++
		after[e.from] = append(after[e.from], e.to)
	}
	var order, level []int
	for i := range n {
		if waits[i] == 0 {
			level = append(level, i)
		}
	}
	for len(level) > 0 {
		order = append(order, level...)
		var next []int
		for _, i := range level {
			for _, j := range after[i] {
				if waits[j]--; waits[j] == 0 {
					next = append(next, j)
				}
			}
		}
		slices.Sort(next)
		level = next
	}
	if len(order) < n {
		return nil, fmt.Errorf("%d nodes are on a cycle, or after one", n-len(order))
	}
	return order, nil
}

// fill gives every node the first row that is below those before it and has room.
func (g *rows) fill(order []int, edges []edge) {
	before := make([][]int, len(g.nodes))
	for _, e := range edges {
		before[e.to] = append(before[e.to], e.from)
	}
	var used []float64
	var next []int // of a row that has no room: where to look instead
	free := func(row int) int {
		for row < len(next) && next[row] > row {
			if further := next[row]; further < len(next) {
				next[row] = next[further] // the way is shorter next time
			}
			row = next[row]
		}
		return row
	}
	fits := func(it *item) bool {
		return it.row == len(used) || used[it.row]+g.style.GapX+it.width <= g.style.MaxWidth
	}
	for _, i := range order {
		it := g.nodes[i]
		for _, j := range before[i] {
			it.row = max(it.row, g.nodes[j].row+1)
		}
		// Nodes are of few sizes: where one does not fit, later ones seldom would.
		for it.row = free(it.row); !fits(it); it.row = free(it.row) {
			next[it.row] = it.row + 1
		}
		if len(used) == it.row {
			next = append(next, len(next))
			used = append(used, -g.style.GapX)
			g.rows = append(g.rows, nil)
		}
		used[it.row] += g.style.GapX + it.width
		g.rows[it.row] = append(g.rows[it.row], it)
	}
}

// connect lays lanes through the rows that an edge passes. Edges of the node with
// more of them share one, so that a row has at most one lane for each node.
func (g *rows) connect(edges []edge) {
	out, in := make([]int, len(g.nodes)), make([]int, len(g.nodes))
	for _, e := range edges {
		out[e.from]++
		in[e.to]++
	}
	type lane struct {
		node, row int
		down      bool
	}
	lanes := map[lane]*item{}
	linked := map[[2]*item]bool{}
	link := func(a, b *item) {
		if !linked[[2]*item{a, b}] {
			linked[[2]*item{a, b}] = true
			a.below, b.above = append(a.below, b), append(b.above, a)
		}
	}
	at := func(l lane) (it *item, old bool) {
		if it = lanes[l]; it != nil {
			return it, true
		}
		it = &item{row: l.row}
		lanes[l], g.rows[l.row] = it, append(g.rows[l.row], it)
		return it, false
	}
	for _, e := range edges {
		from, to := g.nodes[e.from], g.nodes[e.to]
		old := false
		if out[e.from] >= in[e.to] { // from the end up to where its lane is
			for row := to.row - 1; row > from.row && !old; row-- {
				var it *item
				it, old = at(lane{node: e.from, row: row, down: true})
				link(it, to)
				to = it
			}
		} else {
			for row := from.row + 1; row < to.row && !old; row++ {
				var it *item
				it, old = at(lane{node: e.to, row: row})
				link(from, it)
				from = it
			}
		}
		if !old {
			link(from, to)
		}
	}
}

// sort reduces crossings: each row in turn is ordered by where its neighbours are.
func (g *rows) sort() {
	for pass := range 6 {
		for k := range g.rows {
			row, near := k, func(it *item) []*item { return it.above }
			if pass%2 == 1 {
				row, near = len(g.rows)-1-k, func(it *item) []*item { return it.below }
			}
			for i, it := range g.rows[row] {
				it.x = float64(i) // for those that have it as a neighbour
			}
			for _, it := range g.rows[row] {
				it.order = mean(near(it), it.x)
			}
			slices.SortStableFunc(g.rows[row], func(a, b *item) int { return cmp.Compare(a.order, b.order) })
			for i, it := range g.rows[row] {
				it.x = float64(i)
			}
		}
	}
}

func mean(items []*item, otherwise float64) float64 {
	if len(items) == 0 {
		return otherwise
	}
	sum := 0.0
	for _, it := range items {
		sum += it.x
	}
	return sum / float64(len(items))
}
