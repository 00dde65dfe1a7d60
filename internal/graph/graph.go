// Package graph arranges directed acyclic graphs in rows: every node stands below
// all that it comes after, rows are no wider than asked, and lines that pass rows
// share a lane. Nodes may have graphs inside of them. It knows sizes and relations
// only, so that a picture does not move when what it shows changes.
package graph

import (
	"fmt"
	"slices"
)

// Node is what is to be placed.
type Node struct {
	ID            string
	Width, Height float64  // of a node with others inside the least size
	After         []string // ids of nodes beside it that come before it
	Inside        []Node
}

// Style says how much room there is around nodes.
type Style struct {
	MaxWidth   float64 // of a row; a wider node has a row of its own
	GapX, GapY float64
	Lane       float64 // distance of a line that passes a row from what is beside it
	Head, Pad  float64 // in a node with others inside: above them, around them
}

// Placed is a node with its place, in the coordinates of the whole picture.
type Placed struct {
	ID                  string
	X, Y, Width, Height float64 // X and Y are its upper left corner
	Row                 int     // in the graph that it is in, from 0
	Open                bool    // it has others inside
	Parent              string  // the node that it is inside of
}

// Point of a line.
type Point struct{ X, Y float64 }

// Line leads downwards from a node, or from where another line branches, to a node
// or to where others go on. Between its second and third point it bends.
type Line struct {
	Points []Point
	Arrow  bool // it ends at a node
}

// Picture is an arranged graph.
type Picture struct {
	Width, Height float64
	Nodes         []Placed // one with others inside before those
	Lines         []Line
}

// Arrange places nodes. It fails on a graph with a cycle, and on relations to
// nodes that are not there.
func Arrange(nodes []Node, s Style) (Picture, error) {
	var p Picture
	if len(nodes) == 0 {
		return p, nil
	}
	inner := make([]Picture, len(nodes))
	sized := slices.Clone(nodes)
	for i, n := range nodes {
		if len(n.Inside) == 0 {
			continue
		}
		in := s
		in.MaxWidth -= 2 * s.Pad
		var err error
		if inner[i], err = Arrange(n.Inside, in); err != nil {
			return p, fmt.Errorf("inside %q: %w", n.ID, err)
		}
		sized[i].Width = max(n.Width, inner[i].Width+2*s.Pad)
		sized[i].Height = max(n.Height, inner[i].Height+s.Head+s.Pad)
	}
	g, err := newRows(sized, s)
	if err != nil {
		return p, err
	}
	g.sort()
	g.place()
	p.Width, p.Height = g.size()
	p.Lines = g.lines()
	for i, n := range sized {
		it := g.nodes[i]
		at := Placed{ID: n.ID, X: it.x - n.Width/2, Y: g.top[it.row], Width: n.Width, Height: n.Height, Row: it.row, Open: len(n.Inside) > 0}
		p.Nodes = append(p.Nodes, at)
		if at.Open {
			p.include(inner[i], at, s)
		}
	}
	return p, nil
}

// include puts a picture into the node that it is inside of.
func (p *Picture) include(in Picture, at Placed, s Style) {
	dx, dy := at.X+(at.Width-in.Width)/2, at.Y+s.Head
	for _, n := range in.Nodes {
		n.X, n.Y = n.X+dx, n.Y+dy
		if n.Parent == "" {
			n.Parent = at.ID
		}
		p.Nodes = append(p.Nodes, n)
	}
	for _, l := range in.Lines {
		for i := range l.Points {
			l.Points[i].X += dx
			l.Points[i].Y += dy
		}
		p.Lines = append(p.Lines, l)
	}
}
